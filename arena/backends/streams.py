"""Many answers at once: every side runs at its own pace, fails alone and can be stopped alone.

Knows asynchronous streams of pieces and the clock; knows no server, no store and no page.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from arena.config.page_config import Deadlines
from arena.errors import ArenaError

log = logging.getLogger(__name__)

State = Literal["waiting", "streaming", "done", "stopped", "failed"]
WAITED_SECONDS = 0.002
"""An item that took longer had not been there yet: all that the server had sent is read."""
FINISHED: frozenset[State] = frozenset({"done", "stopped", "failed"})


class AnswerError(ArenaError):
    """An answer could not be had; `kind` is a stable word, the message is for the voter.

    Neither may name the model or the server: the voter is blind. `said` is what the server itself
    said, where it may be shown; `detail` is for the log and the reveal, and may name the server.
    """

    def __init__(self, kind: str, message: str, detail: str = "", said: str = "") -> None:
        super().__init__(message)
        self.kind = kind
        self.detail = detail
        self.said = said


@dataclass(frozen=True)
class AnswerPiece:
    """Some more text of an answer."""

    text: str
    logprob: float | None = None


@dataclass(frozen=True)
class AnswerEnd:
    """The last thing a whole answer says: why it ended, and who wrote it."""

    finish_reason: str
    num_tokens: int | None = None
    model: str | None = None
    weights_sha256: str | None = None
    num_prompt_tokens: int | None = None


AnswerStream = AsyncIterator[AnswerPiece | AnswerEnd]


@dataclass(frozen=True)
class Side:
    """One answer at one moment. Times are seconds since the battle's start."""

    state: State = "waiting"
    text: str = ""
    error_kind: str = ""
    error: str = ""
    said: str = ""
    detail: str = ""
    num_pieces: int = 0
    first_piece_at: float | None = None
    ended_at: float | None = None
    end: AnswerEnd | None = None

    @property
    def is_finished(self) -> bool:
        """No more text will come."""
        return self.state in FINISHED

    @property
    def is_votable(self) -> bool:
        """A failed or unfinished answer cannot be judged."""
        return self.state in ("done", "stopped")

    @property
    def num_tokens(self) -> int:
        """Tokens as the server counted them, else the pieces it sent."""
        if self.end is not None and self.end.num_tokens is not None:
            return self.end.num_tokens
        return self.num_pieces


class AnswerStreams:
    """The running answers of one battle, by side.

    `watch` yields all sides as they are now. `pause()` seconds pass between two looks at what a
    server has sent, also after the first word: many battles together are cheaper in larger bites,
    and a beginning one does not wait for the many words of the others. `tokens` holds each side's
    pieces with their log-probabilities, where the server tells them.
    """

    def __init__(
        self,
        streams: Sequence[AnswerStream],
        deadlines: Deadlines,
        max_chars: int,
        on_end: Callable[[int, Side], Awaitable[None]] | None = None,
        on_finish: Callable[[], object] | None = None,
        pause: Callable[[], float] = lambda: 0.0,
    ) -> None:
        self.sides: list[Side] = [Side() for _ in streams]
        self.tokens: list[list[tuple[str, float]]] = [[] for _ in streams]
        self._streams = list(streams)
        self._deadlines = deadlines
        self._max_chars = max_chars
        self._on_end = on_end
        self._on_finish = on_finish
        self._pause = pause
        self._tasks: list[asyncio.Task[None]] = []
        self._all_ended = asyncio.Event()
        self._num_changes = 0
        self._why: AnswerError | None = None
        self._waiters: list[asyncio.Future[None]] = []
        self._started = 0.0

    @property
    def is_finished(self) -> bool:
        """All sides have ended, one way or another."""
        return all(side.is_finished for side in self.sides)

    async def start(self) -> None:
        """Let every side run; returns once each has taken its first step."""
        assert not self._tasks, "the streams start once"
        self._started = time.monotonic()
        self._tasks = [
            asyncio.create_task(self._pump(i, stream)) for i, stream in enumerate(self._streams)
        ]
        await asyncio.sleep(0)  # a task cancelled before its first step would record nothing

    def stop(self, index: int | None = None) -> None:
        """End one side, or all, where they are; their text is kept."""
        for i, task in enumerate(self._tasks):
            if index is None or i == index:
                task.cancel()

    async def watch(
        self, hz: Callable[[], float], idle: float | None = None
    ) -> AsyncGenerator[tuple[Side, ...], None]:
        """All sides when they have changed, at most `hz()` times a second; the end at once.

        Also yields after `idle` seconds without a change (None: as often as with one), for a
        reader whose leaving is seen at a yield only. The last yield has all sides finished.
        """
        seen = -1
        while True:
            if idle is not None and self._num_changes == seen:
                await self._change(idle)
            seen, sides = self._num_changes, tuple(self.sides)
            yield sides
            if all(side.is_finished for side in sides):
                break
            if idle is not None and all(side.state == "waiting" for side in sides):
                continue  # the first word is told at once
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(1 / hz()):
                    await self._all_ended.wait()
        await self.close()

    async def _change(self, seconds: float) -> None:
        """Until some side has changed, or the time is over."""
        waiter = asyncio.get_running_loop().create_future()
        self._waiters.append(waiter)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await waiter

    def _set(self, index: int, side: Side) -> None:
        self.sides[index] = side
        self._num_changes += 1
        for waiter in self._waiters:
            if not waiter.done():
                waiter.set_result(None)
        self._waiters.clear()

    async def close(self, why: AnswerError | None = None) -> None:
        """Stop what still runs and wait until every stream is closed and recorded.

        With `why` the sides that still write fail by it; their texts are kept all the same.
        """
        self._why = why
        self.stop()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _pump(self, index: int, stream: AnswerStream) -> None:
        """Run one side to its end, turn every way of ending into a state, then record it."""
        try:
            changes: dict[str, Any] = {"state": "done", "end": await self._read(index, stream)}
        except asyncio.CancelledError:
            changes = {"state": "stopped"}
            if self._why is not None:
                changes = _failure(self._why)
            elif not self.sides[index].text:
                changes = _failure(AnswerError("stopped", "Stopped before it began."))
        except AnswerError as error:
            changes = _failure(error)
        except Exception as error:  # a fault of ours ends this side only, and is seen in the log
            log.exception("side %d broke", index)
            changes = _failure(AnswerError("internal", "The arena made an error.", repr(error)))
        ended_at = time.monotonic() - self._started
        await self._end(index, replace(self.sides[index], ended_at=ended_at, **changes))

    async def _end(self, index: int, side: Side) -> None:
        """Record first, so that what the page calls finished can be voted on."""
        if self._on_end is not None:
            record = asyncio.ensure_future(self._on_end(index, side))
            while not record.done():  # whatever it ends in, and however often we are told to stop
                with contextlib.suppress(asyncio.CancelledError):
                    await asyncio.wait([record])
            if (fault := record.exception()) is not None:
                told = None if isinstance(fault, ArenaError) else fault
                log.error("side %d was not recorded: %s", index, fault, exc_info=told)
                lost = AnswerError("not-saved", "The answer could not be saved.", repr(fault))
                side = replace(side, **_failure(lost))
        self._set(index, side)
        if self.is_finished:
            self._all_ended.set()
            if self._on_finish is not None:
                self._on_finish()

    async def _read(self, index: int, stream: AnswerStream) -> AnswerEnd:
        limits = self._deadlines
        async with contextlib.AsyncExitStack() as stack:
            if isinstance(stream, AsyncGenerator):
                await stack.enter_async_context(contextlib.aclosing(stream))
            total = asyncio.timeout(limits.total)
            try:
                async with total:
                    return await self._collect(index, stream)
            except TimeoutError as error:
                if not total.expired():
                    raise
                raise AnswerError("too-long", f"Took more than {limits.total:.0f} s.") from error

    async def _collect(self, index: int, stream: AnswerStream) -> AnswerEnd:
        while True:
            started = self.sides[index].num_pieces > 0
            wait = self._deadlines.idle if started else self._deadlines.first_token
            step = asyncio.timeout(wait)
            asked = time.monotonic()
            try:
                async with step:
                    item = await anext(stream, None)
            except TimeoutError as error:
                if not step.expired():
                    raise
                kind, what = ("idle", "no further text") if started else ("no-token", "no text")
                raise AnswerError(kind, f"There was {what} for {wait:.0f} s.") from error
            if item is None:
                raise AnswerError("cut-off", "The server broke off in the middle of the answer.")
            if isinstance(item, AnswerEnd):
                return item
            self._add(index, item)
            has_waited = time.monotonic() - asked > WAITED_SECONDS
            if (has_waited or not started) and (pause := self._pause()):
                await asyncio.sleep(pause)

    def _add(self, index: int, piece: AnswerPiece) -> None:
        side = self.sides[index]
        first = side.first_piece_at
        if len(side.text) + len(piece.text) > self._max_chars:
            raise AnswerError("too-long", f"Wrote more than {self._max_chars} characters.")
        if piece.logprob is not None:
            self.tokens[index].append((piece.text, piece.logprob))
        written = replace(
            side,
            state="streaming",
            text=side.text + piece.text,
            num_pieces=side.num_pieces + 1,
            first_piece_at=time.monotonic() - self._started if first is None else first,
        )
        self._set(index, written)


def _failure(error: AnswerError) -> dict[str, Any]:
    return {
        "state": "failed",
        "error_kind": error.kind,
        "error": str(error),
        "said": error.said,
        "detail": error.detail,
    }
