"""More acts of the page for programs: prompt sets, datasets, and what an admin may do.

Knows HTTP and the battle service; each right is checked here as the page checks it.
"""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, Response
from pydantic import BaseModel, ConfigDict

from arena.backends.queues import Queue, ask_queues
from arena.battles.service import BattleService
from arena.battles.set_judging import SetJudging
from arena.exports.archive import ArchiveError, make_dataset, packed
from arena.exports.dataset import ExportOptions
from arena.storage import admin_queries
from arena.storage.store import Store
from arena.web.visitors import caller_secret, visitor_of


class NewDataset(BaseModel):
    """Which format, and whether addresses, telephone numbers and keys are replaced."""

    model_config = ConfigDict(extra="forbid")
    format: str = "trl"
    redact: bool = False


class Switches(BaseModel):
    """The participants that take no part in new battles; all others do."""

    model_config = ConfigDict(extra="forbid")
    off: list[str]


class Clearing(BaseModel):
    """One mark of one vote in quarantine."""

    model_config = ConfigDict(extra="forbid")
    vote: int
    reason: str


def add_sets(router: APIRouter, service: BattleService, set_judging: SetJudging) -> None:
    """Judge a prompt set, one prompt after another."""

    @router.get("/sets")
    async def names() -> dict[str, list[str]]:
        return {"sets": await set_judging.names()}

    @router.post("/sets/{name}/next")
    async def next_prompt(name: str, request: Request) -> dict[str, Any]:
        voter = await service.voter(caller_secret(request.scope), visitor_of(request.scope).address)
        task = await set_judging.next(voter, name, source="api")
        return {
            "battle": task.access.battle_id if task.access else None,
            "token": task.access.token if task.access else None,
            "index": task.index,
            "done": task.progress.num_done,
            "total": task.progress.total,
        }


def add_datasets(router: APIRouter, store: Store, home: Path) -> None:
    """Write the votes as a dataset, and fetch it."""

    @router.post("/exports", status_code=201)
    async def make(body: NewDataset, request: Request) -> dict[str, Any]:
        visitor_of(request.scope).check_export()
        options = ExportOptions(format=body.format, redact=body.redact)
        made = await asyncio.to_thread(make_dataset, store, home, options)
        done = made.done
        return {"name": made.name, "rows": done.splits, "left_out": done.left_out}

    @router.get("/exports/{name}")
    async def fetch(name: str, request: Request) -> Response:
        visitor_of(request.scope).check_admin()
        try:
            content = await asyncio.to_thread(packed, home, name)
        except ArchiveError as error:
            return JSONResponse({"error": str(error)}, 404)
        headers = {"content-disposition": f'attachment; filename="{name}.zip"'}
        return Response(content, media_type="application/zip", headers=headers)


def add_admin(router: APIRouter, service: BattleService) -> None:
    """What the admin's tab shows and does."""

    @router.get("/admin/state")
    async def state(request: Request) -> dict[str, Any]:
        visitor_of(request.scope).check_admin()
        return await _state(service)

    @router.post("/admin/participants")
    async def switch(body: Switches, request: Request) -> dict[str, list[str]]:
        visitor_of(request.scope).check_admin()
        await service.switch_off(body.off)
        return {"off": sorted(service.pool.off)}

    @router.post("/admin/clear")
    async def clear(body: Clearing, request: Request) -> dict[str, int]:
        visitor_of(request.scope).check_admin()
        await asyncio.to_thread(service.store.clear_flag, body.vote, body.reason)
        return {"flagged": (await asyncio.to_thread(service.store.counts))["flagged"]}


async def _state(service: BattleService) -> dict[str, Any]:
    backends = await service.pool.backends()
    queues = await ask_queues(backend.url for backend in backends if backend.is_up)
    found, flagged = await asyncio.to_thread(
        lambda: (admin_queries.activity(service.store), service.store.flagged_votes())
    )
    return {
        "servers": [
            {
                "url": backend.url,
                "is_up": backend.is_up,
                "problem": backend.problem or None,
                "api": backend.wire,
                "participants": [target.name for target in backend.targets],
                **vars(queues.get(backend.url, Queue())),
            }
            for backend in backends
        ],
        "battles_running": service.num_running,
        "battles_at_most": service.limits.running_battles,
        "voters_today": found.num_voters,
        "votes": found.votes,
        "flagged": [
            {"vote": one.vote.id, "battle": one.vote.battle_id, "reasons": dict(one.details)}
            for one in flagged
        ],
        "off": sorted(service.pool.off),
    }
