"""Answers whose end could not be stored: shown as failed, kept here, stored once the store works.

Without this a full disk would leave a battle being written for ever. Knows the store; knows no
server and no page.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from dataclasses import replace

from arena.storage.database import StoreError
from arena.storage.rows import StoredBattle
from arena.storage.store import Store
from arena.values.battle import AnswerOutcome, AnswerStatus, Battle

log = logging.getLogger(__name__)

AGAIN_SECONDS = 2.0
ERROR = "not-saved: The answer could not be saved. | the store failed when it ended"


class UnsavedAnswers:
    """The outcomes that wait for the store, by answer."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._outcomes: dict[int, AnswerOutcome] = {}
        self._saving: asyncio.Task[None] | None = None

    def __len__(self) -> int:
        return len(self._outcomes)

    def add(self, answer_id: int, outcome: AnswerOutcome, why: Exception) -> None:
        """Keep this end of an answer, as the failure that its voter is told of."""
        log.error("an answer is not saved, and is tried again: %s", why)
        failed = replace(outcome, status=AnswerStatus.FAILED, error=ERROR)
        self._outcomes[answer_id] = failed
        if self._saving is None or self._saving.done():
            self._saving = asyncio.create_task(self._save_later())

    async def save(self) -> None:
        """Store all now. Raises StoreError while the store still fails."""
        for answer_id, outcome in list(self._outcomes.items()):
            await asyncio.to_thread(self._store.finish_answer, answer_id, outcome)
            self._outcomes.pop(answer_id, None)
            log.warning("an answer that was not saved is saved now, as failed")

    async def close(self) -> None:
        """Try a last time; what is not saved then, the next start closes as cut off."""
        if self._saving is not None:
            self._saving.cancel()
            await asyncio.gather(self._saving, return_exceptions=True)
        try:
            await self.save()
        except StoreError as error:
            log.error("%d answers are not saved: %s", len(self), error)

    def applied(self, stored: StoredBattle) -> StoredBattle:
        """The battle as it is known here: what the store still calls being written has failed."""
        if not self._outcomes:
            return stored
        return replace(stored, battle=_with(stored.battle, self._outcomes))

    async def _save_later(self) -> None:
        while self._outcomes:
            await asyncio.sleep(AGAIN_SECONDS)
            try:
                await self.save()
            except StoreError:
                continue  # it has been told; the next try is soon


def _with(battle: Battle, outcomes: Mapping[int, AnswerOutcome]) -> Battle:
    turns = [
        replace(
            turn,
            attempts=tuple(
                replace(one, status=outcome.status, text=outcome.text, error=outcome.error)
                if (outcome := outcomes.get(one.id)) is not None and not one.is_finished
                else one
                for one in turn.attempts
            ),
        )
        for turn in battle.turns
    ]
    return replace(battle, turns=tuple(turns))
