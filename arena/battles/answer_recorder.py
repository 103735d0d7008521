"""Between a running answer and its row: writes how it began and ended, reads it back as a side.

Knows the store and the client; knows no page.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence

from arena.backends.client import Target, prompt_sent
from arena.backends.streams import Side, State
from arena.battles.leaks import names_itself
from arena.battles.unsaved import UnsavedAnswers
from arena.storage.database import StoreError
from arena.storage.store import Store
from arena.values.battle import Answer, AnswerOutcome, AnswerStatus

LATER_SECONDS = 1.0
STATUS: dict[State, AnswerStatus] = {
    "done": AnswerStatus.COMPLETE,
    "stopped": AnswerStatus.STOPPED,
    "failed": AnswerStatus.FAILED,
}


class AnswerRecorder:
    """Writes one answer of one side into the store, from its first request to its end."""

    def __init__(
        self,
        store: Store,
        answer_id: int,
        target: Target,
        messages: list[dict[str, str]],
        unsaved: UnsavedAnswers,
        *,
        is_blind: bool,
    ) -> None:
        self.target = target
        self.messages = messages
        self._store, self._answer_id, self._is_blind = store, answer_id, is_blind
        self._unsaved = unsaved
        self._has_ended = asyncio.Event()
        self._prompt = asyncio.create_task(self._prompt_sent())

    async def _prompt_sent(self) -> str:
        """Asked for after the answer, whose first word somebody waits for, or at its end."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(LATER_SECONDS):
                await self._has_ended.wait()
        return await prompt_sent(self.target, self.messages)

    async def close(self, side: Side, tokens: Sequence[tuple[str, float]] = ()) -> None:
        """Store how the answer ended, with the log-probability of each token if they are told.

        What the store does not take now is left to `unsaved`; then the store's error is raised.
        """
        self._has_ended.set()
        sent = await self._prompt
        participant = self.target.participant
        names = (participant.name, participant.model, participant.base or "")
        end = side.end
        outcome = AnswerOutcome(
            status=STATUS[side.state],
            text=side.text,
            prompt_sent=sent,
            model=(end.model if end else None) or participant.model,
            weights_sha256=(end.weights_sha256 if end else None) or participant.weights_sha256,
            num_prompt_tokens=end.num_prompt_tokens if end else None,
            num_tokens=side.num_tokens,
            first_token_s=side.first_piece_at,
            total_s=side.ended_at,
            finish_reason=end.finish_reason if end else None,
            error=_error_text(side),
            identity_leak=self._is_blind and names_itself(side.text, names),
        )
        try:
            await asyncio.to_thread(self._store.finish_answer, self._answer_id, outcome, tokens)
        except StoreError as error:
            self._unsaved.add(self._answer_id, outcome, error)
            raise


SAYS = "it said: "


def _error_text(side: Side) -> str | None:
    """Why an answer failed, as one text: kind, voter's words, what may be shown, and the detail."""
    if not side.error:
        return None
    said = f" | {SAYS}{side.said}" if side.said else ""
    return f"{side.error_kind}: {side.error}{said} | {side.detail}"


def stored_side(answer: Answer | None) -> Side:
    """An answer of the store as a side; the detail, which may name the server, stays there."""
    if answer is None:
        return Side("failed", error_kind="never-asked", error="This side was never asked.")
    states = {status: state for state, status in STATUS.items()}
    kind, _, message = (answer.error or "").partition(": ")
    words, _, rest = (message or kind).partition(" | ")
    said = rest.partition(" | ")[0].removeprefix(SAYS) if rest.startswith(SAYS) else ""
    return Side(
        state=states.get(answer.status, "streaming"),
        text=answer.text,
        error_kind=kind if message else "lost",
        error=words,
        said=said,
        num_pieces=answer.num_tokens or 0,
        first_piece_at=answer.first_token_s,
        ended_at=answer.total_s,
    )
