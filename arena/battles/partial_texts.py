"""Stores what running answers have written so far, so that a program that is killed keeps that.

All that has grown since the last time goes into one transaction, every few seconds: the cost is
bounded, whatever runs. Knows the store and running battles; knows no server and no page.
"""

from __future__ import annotations

import asyncio
import logging

from arena.battles.running import RunningBattles
from arena.storage.database import StoreError
from arena.storage.store import Store

log = logging.getLogger(__name__)

KEEP_SECONDS = 3.0
"""At most so much of an answer is lost to `kill -9`."""


async def keep_partial_texts(store: Store, battles: RunningBattles) -> None:
    """Go on for ever; a store that fails meanwhile is told of by its health."""
    kept: dict[int, int] = {}  # characters by answer
    while True:
        await asyncio.sleep(KEEP_SECONDS)
        texts = {
            answer_id: side.text
            for battle in battles
            for answer_id, side in zip(battle.answer_ids, battle.streams.sides, strict=True)
            if not side.is_finished
        }
        grown = {one: text for one, text in texts.items() if len(text) > kept.get(one, 0)}
        try:
            if grown:
                await asyncio.to_thread(store.keep_texts, grown)
        except StoreError as error:
            log.debug("texts so far are not kept: %s", error)
            continue
        kept = {one: len(text) for one, text in texts.items()}
