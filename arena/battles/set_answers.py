"""Answers a prompt set in advance: asks every prompt of several participants, a few at a time.

What is answered already is left as it is, so a run that was interrupted goes on where it was. Knows
the battle service; prints progress on stderr; knows no page.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from arena.backends.http import install_http_client
from arena.backends.pool import BackendPool
from arena.battles.prompt_sets import PromptSet, SetError, list_sets, load_set
from arena.battles.service import BattleService, SetPosition
from arena.config.arena_toml import FILE, read_arena_config
from arena.config.page_config import PageConfig
from arena.storage import set_progress
from arena.storage.store import Store
from arena.values.battle import SIDES


@dataclass(frozen=True)
class AnsweredSet:
    """What one run did: prompts of the set, answered before, answered now, failed."""

    name: str
    participants: tuple[str, ...]
    total: int
    before: int
    answered: int
    failed: int


def answer_set(
    home: Path,
    chosen: PromptSet,
    backends: Sequence[str],
    participants: Sequence[str],
    parallel: int,
) -> AnsweredSet:
    """Ask every prompt that is not answered yet; see `AnsweredSet`. Raises ArenaError."""
    return asyncio.run(_run(home, chosen, backends, participants, parallel))


async def _run(
    home: Path,
    chosen: PromptSet,
    backends: Sequence[str],
    participants: Sequence[str],
    parallel: int,
) -> AnsweredSet:
    install_http_client()
    config = PageConfig(tuple(backends), home)
    pool = BackendPool(config.backends, config.sampling, read_arena_config(home / FILE))
    service = BattleService(Store(config.database), pool, config.limits, config.deadlines)
    names = tuple(dict.fromkeys(participants)) or tuple(await pool.contenders())
    if not 2 <= len(names) <= len(SIDES):
        raise SetError(
            f"a set is answered by 2 to {len(SIDES)} participants, not {len(names)}; "
            "name them with --participant"
        )
    await pool.pick(names)  # a name that is not served is told before anything is asked
    known = set_progress.answered(service.store, chosen.name, chosen.prompts, names)
    left = [index for index in range(len(chosen.prompts)) if index not in known]
    try:
        failed = await _ask_all(service, chosen, names, left, parallel)
    finally:
        await service.close()
    return AnsweredSet(
        chosen.name, names, len(chosen.prompts), len(known), len(left) - failed, failed
    )


async def _ask_all(
    service: BattleService,
    chosen: PromptSet,
    names: Sequence[str],
    left: Sequence[int],
    parallel: int,
) -> int:
    """How many prompts some side failed to answer."""
    waiting = iter(left)
    failed = num_done = 0

    async def work(indices: Iterable[int]) -> None:
        nonlocal failed, num_done
        for index in indices:  # all workers draw from the one iterator
            num_done += 1
            if not service.can_ask(chosen.prompts[index]):
                failed += 1
                print(f"prompt {index + 1} cannot be asked; shorten it", file=sys.stderr)
                continue
            position = SetPosition(chosen.name, index)
            access = await service.open_in_advance(names, chosen.prompts[index], position)
            async for view in service.follow(access):
                is_votable = view.is_votable
            failed += not is_votable
            print(
                f"\r{num_done} of {len(left)} prompts asked, {failed} failed",
                end="",
                file=sys.stderr,
                flush=True,
            )

    await asyncio.gather(*(work(waiting) for _ in range(parallel)))
    if left:
        print(file=sys.stderr)
    return failed


def overview(home: Path) -> list[dict[str, Any]]:
    """Name, number of prompts and of answers in advance of every set of a home folder."""
    sets = [load_set(home, name) for name in list_sets(home)]
    store = Store.at_home(home) if (home / "arena.db").exists() else None
    return [
        {
            "name": one.name,
            "num_prompts": len(one.prompts),
            "num_answered": len(set_progress.answered(store, one.name, one.prompts, ()))
            if store
            else 0,
        }
        for one in sets
    ]
