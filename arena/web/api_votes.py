"""From the votes to the next challenger: how many are new, start a loop on them, its report.

For admins alone, as all under `/api/tune`. Knows HTTP, the queue and the store's counts.
"""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any, Literal

from fastapi import APIRouter, Request
from pydantic import BaseModel, ConfigDict, Field

from arena.backends.pool import PACKAGED
from arena.battles.reward_watch import last_made_ms
from arena.battles.service import BattleService
from arena.runs.loops import loop_told, report_of
from arena.runs.queue import RunQueue
from arena.runs.requests import HALF, Setting, requests
from arena.runs.wishes import loop_of
from arena.storage import admin_queries
from arena.web.visitors import visitor_of


class NewLoop(BaseModel):
    """A loop on the votes: the model to improve, a name (by default the next round's).

    Without `controls` it makes the same models and cannot tell whether the votes did it. `settings`
    are those of its runs, behind `reward.`, `policy.` or `data.`, and some of its own.
    """

    model_config = ConfigDict(extra="forbid")
    base: str
    name: str | None = None
    policy: Literal["dpo", "kto", "rl"] = "dpo"
    controls: bool = True
    settings: dict[str, Setting] = {}
    share: int = Field(HALF, ge=5, le=100)


def add_votes(router: APIRouter, queue: RunQueue, service: BattleService) -> None:
    """The routes, on a router that lets admins in alone."""

    @router.get("/votes")
    async def votes() -> dict[str, Any]:
        made_ms = await asyncio.to_thread(last_made_ms, queue.home)
        counted = await asyncio.to_thread(admin_queries.votes_since, service.store, made_ms or 0)
        targets = await service.pool.contenders()
        made = await asyncio.to_thread(_made, queue)
        known = [
            name
            for name, one in targets.items()
            if one.participant.kind != "base" and _is_ours(queue.home, name)
        ]
        bases = sorted(known, key=lambda name: made.index(name) if name in made else len(made))
        return {"new": counted, "has_reward_model": made_ms is not None, "bases": bases}

    @router.post("/loops", status_code=201)
    async def start(body: NewLoop, request: Request) -> dict[str, Any]:
        name = await asyncio.to_thread(_next_name, queue) if body.name is None else body.name
        asked = loop_of(
            name,
            body.base,
            {**body.settings, "policy": body.policy},
            controls=body.controls,
            share=body.share,
            own_machine=visitor_of(request.scope).is_open,
        )
        found = await asyncio.to_thread(queue.add, asked)
        return {"name": name, "state": found.state}

    @router.get("/runs/{name}/report")
    async def report(name: str) -> dict[str, str]:
        run = await asyncio.to_thread(queue.get, name)
        return {"html": await asyncio.to_thread(report_of, queue.home, run.name)}


def _is_ours(home: Path, name: str) -> bool:
    return name in PACKAGED or ("/" not in name and (home / "models" / name).is_dir())


def _made(queue: RunQueue) -> list[str]:
    """What loops have made, the newest first."""
    loops = [one for one in requests(queue.home) if one.kind == "loop"]
    return [name for one in reversed(loops) for name in loop_told(queue.home, one.name)["made"]]


def _next_name(queue: RunQueue) -> str:
    taken = set(queue.finder.names())
    for room in ("loops", "models"):
        taken |= {path.name for path in (queue.home / room).glob("*")}
    number = 1
    # A loop that was removed leaves the models that it made, by names of their own.
    while any(name == f"round-{number}" or name.startswith(f"round-{number}-") for name in taken):
        number += 1
    return f"round-{number}"
