"""A completion as the event loop sees it: a job goes to the engine, tokens of text come back.

The only bridge between the engine's thread and asyncio. Knows text and time; no HTTP shapes.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field

from serving.completion.detokenize import Detokenizer, StopFinder
from serving.completion.ending import NoEndBefore, TokenMask, all_of
from serving.completion.grammar import GrammarMask
from serving.completion.jobs import CompletionJob
from serving.engine.request import (
    EngineRequest,
    Event,
    FailureEvent,
    FinishReason,
    PrefillEvent,
    TokenEvent,
)
from serving.engine.worker import Worker
from serving.errors import EngineFailure

HEARTBEAT_SECONDS = 15.0


@dataclass(frozen=True)
class TokenText:
    """A token with its text and log probability."""

    id: int
    text: str
    logprob: float | None
    special: bool = False


@dataclass(frozen=True)
class GeneratedToken:
    """One generated token. `shown` is the text that may be shown now, stop strings considered.

    It is number `index` of its answer, and `offset` characters were shown before.
    """

    token: TokenText
    top: list[TokenText]
    shown: str
    finish_reason: FinishReason | None
    index: int
    offset: int


@dataclass
class Times:
    """Moments of a completion (time.monotonic), for headers and metrics."""

    received: float = field(default_factory=time.monotonic)
    created: float = field(default_factory=time.monotonic)
    started: float | None = None
    first_token: float | None = None
    ended: float | None = None

    @property
    def validation(self) -> float:
        """Seconds from the request until it was checked and tokenized."""
        return self.created - self.received

    @property
    def queue(self) -> float:
        """Seconds until the row joined the batch."""
        return (self.started or self.ended or time.monotonic()) - self.created

    @property
    def inference(self) -> float:
        """Seconds from joining the batch to the end."""
        return (self.ended or time.monotonic()) - (self.started or self.created)

    @property
    def total(self) -> float:
        """Seconds from the request to the end."""
        return (self.ended or time.monotonic()) - self.received


class Completion:
    """Runs one job. Iterate `stream()` once; afterwards text, counts and reason stand here."""

    def __init__(
        self,
        job: CompletionJob,
        worker: Worker,
        *,
        deadline: float = 0.0,
        grammar: GrammarMask | None = None,
        received: float | None = None,
        on_end: Callable[[Completion], None] | None = None,
    ) -> None:
        self.job = job
        self.text = ""
        self.tokens: list[TokenText] = []
        self.tops: list[list[TokenText]] = []
        self.pieces: list[str] = []
        self.prefill: list[TokenText] = []
        self.prefill_tops: Sequence[Sequence[tuple[int, float]]] = ()
        self.finish_reason: FinishReason | None = None
        self.failure: Exception | None = None
        self.gaps: list[float] = []
        self.times = Times() if received is None else Times(received)
        self._worker = worker
        self._deadline = deadline
        self._tokenizer = job.model.tokenizer
        self._detokenizer = Detokenizer(self._tokenizer, job.prompt)
        self._stops = StopFinder(job.stops)
        self._events: deque[Event] = deque()
        self._signal = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        self._wake_is_due = False
        self._is_submitted = self._is_silent = False
        self._heard = time.monotonic()
        self._on_end = on_end
        self._last_token = 0.0
        masks: list[TokenMask] = [grammar] if grammar is not None else []
        if job.min_tokens:
            masks.append(NoEndBefore(job.min_tokens, job.eos_ids))
        mask, accept = all_of(masks)
        self._request = EngineRequest(
            job.prompt,
            job.max_new_tokens,
            self._on_event,
            sampling=job.sampling,
            adapter=job.model.adapter,
            model=job.model.name,
            eos_ids=job.eos_ids,
            num_top=job.num_top,
            prompt_logprobs=job.prompt_logprobs,
            mask=mask,
            accept=accept,
        )

    @property
    def num_generated(self) -> int:
        """Generated tokens, the end token included."""
        return len(self.tokens)

    @property
    def num_reused(self) -> int:
        """Prompt tokens that were not run, since the prefix cache knew them."""
        return self._request.num_reused

    @property
    def mean_logprob(self) -> float:
        """What best_of compares."""
        return sum(t.logprob or 0.0 for t in self.tokens) / max(len(self.tokens), 1)

    def cancel(self) -> None:
        """Give the row up; the engine drops it before its next step. In the loop's thread."""
        self._request.cancel()
        self._signal.set()

    async def run(self) -> Completion:
        """Run to the end without looking at the tokens."""
        async for _ in self.stream():
            pass
        return self

    def submit(self) -> None:
        """Hand the job to the engine, if that was not done: the caller sees to `stream`."""
        if not self._is_submitted:
            self._is_submitted = True
            self._worker.submit(self.job.model.engine, self._request)

    async def stream(self) -> AsyncIterator[GeneratedToken | None]:
        """Submit the job and yield its tokens, and None whenever nothing came for a while.

        EngineFailure when the engine gives up. Leaving the iteration early cancels the row.
        """
        self.submit()
        self._set_alarm(time.monotonic())
        try:
            while self.finish_reason is None:
                if not await self._has_events():
                    yield None
                while self._events and self.finish_reason is None:
                    generated = self._take(self._events.popleft())
                    if generated is not None:
                        yield generated
        finally:
            self._alarm.cancel()
            self.times.ended = time.monotonic()
            self.times.started = self._request.started_at
            self.cancel()
            if self._on_end is not None:
                self._on_end(self)

    async def _has_events(self) -> bool:
        """Wait for events; False when the wait grew so long that the line needs a sign of life."""
        while not self._events:
            if self._deadline and time.monotonic() >= self.times.created + self._deadline:
                self.failure = EngineFailure(
                    f"the deadline of {self._deadline:g} s passed after {self.num_generated} tokens"
                )
                raise self.failure
            if self._request.cancelled.is_set():
                raise EngineFailure("the caller left")
            if self._is_silent:
                self._is_silent = False
                return False
            self._signal.clear()
            await self._signal.wait()
        self._heard = time.monotonic()
        return True

    def _set_alarm(self, now: float) -> None:
        """One timer serves all waits: for the next sign of life, or the deadline."""
        due, end = self._heard + HEARTBEAT_SECONDS, self.times.created + self._deadline
        if self._deadline and now < end < due:
            due = end
        self._alarm = self._loop.call_later(due - now, self._look_at_clock)

    def _look_at_clock(self) -> None:
        now = time.monotonic()
        if now - self._heard >= HEARTBEAT_SECONDS:
            self._heard, self._is_silent = now, True
        self._signal.set()
        self._set_alarm(now)

    def _on_event(self, event: Event) -> None:
        """Called in the engine's thread; one wake-up serves all events until it is seen."""
        self._events.append(event)
        if not self._wake_is_due:
            self._wake_is_due = True
            self._worker.notify(self._loop, self._wake, self._request.cancel)

    def _wake(self) -> None:
        self._wake_is_due = False
        self._signal.set()

    def _take(self, event: Event) -> GeneratedToken | None:
        if isinstance(event, FailureEvent):
            self.failure = event.error
            raise event.error
        if isinstance(event, PrefillEvent):
            self.prefill = [
                TokenText(token, self._token_text(token), logprob)
                for token, logprob in zip(self.job.prompt, event.logprobs, strict=True)
            ]
            self.prefill_tops = event.tops
            return None
        assert isinstance(event, TokenEvent), "rows that write are not scored"
        now = time.monotonic()
        if self.times.first_token is None:
            self.times.first_token = now
        else:
            self.gaps.append(now - self._last_token)
        self._last_token = now
        choice, reason = event.choice, event.finish_reason
        special = self._detokenizer.is_special(choice.token)
        text = self._detokenizer.push(choice.token)
        if reason is not None:
            text += self._detokenizer.flush()
        if len(self.tokens) + 1 < self.job.min_tokens:
            self._stops.skip(text)
        elif self._stops.push(text):
            reason = FinishReason.STOP_SEQUENCE
        shown = self._stops.show(final=reason is not None, keep_stop=self.job.keep_stop)
        index, offset = len(self.tokens), len(self.text)
        self.text += shown
        label = self._token_text(choice.token) if special else text
        token = TokenText(choice.token, label, choice.logprob, special)
        top = [
            TokenText(i, self._token_text(i), logprob, self._detokenizer.is_special(i))
            for i, logprob in choice.top
        ]
        self.tokens.append(token)
        self.tops.append(top)
        self.pieces.append(shown)
        self.finish_reason = reason
        return GeneratedToken(token, top, shown, reason, index, offset)

    def _token_text(self, token: int) -> str:
        return str(self._tokenizer.decode([token], clean_up_tokenization_spaces=False))
