"""The tuning runs for the page and for programs: choices, data, preview, queue. For admins alone.

Knows HTTP and the queue of runs; whoever else comes is refused before anything is read.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from fastapi import APIRouter, Depends, Request
from fastapi.responses import Response
from pydantic import BaseModel, ConfigDict, Field
from starlette.requests import ClientDisconnect

from arena.battles.service import BattleService
from arena.runs import uploads
from arena.runs.challengers import challengers, to_watch
from arena.runs.commands import ask_command
from arena.runs.found import RESUMABLE, FoundRun
from arena.runs.jobs import card_of
from arena.runs.loops import loop_told
from arena.runs.queue import RunQueue
from arena.runs.requests import HALF, RunRefusedError, RunRequest, Setting
from arena.runs.wishes import request_of
from arena.web.api_data import add_data
from arena.web.api_votes import add_votes
from arena.web.visitors import caller_secret, visitor_of

PREVIEW_SECONDS = 300.0


class NewRun(BaseModel):
    """A run to start: the name of its variant, and settings by their full keys."""

    model_config = ConfigDict(extra="forbid")
    name: str
    settings: dict[str, Setting] = {}
    share: int = Field(HALF, ge=5, le=100)
    restart: bool = False


class GoOn(BaseModel):
    """Whether the run begins anew instead of going on."""

    model_config = ConfigDict(extra="forbid")
    restart: bool = False


class NewExport(BaseModel):
    """What a variant is written for."""

    model_config = ConfigDict(extra="forbid")
    to: str


class Watch(BaseModel):
    """A prompt for the base, the checkpoints and the variant of a run."""

    model_config = ConfigDict(extra="forbid")
    prompt: str


class Look(BaseModel):
    """Which rows to show as they would be trained."""

    model_config = ConfigDict(extra="forbid")
    settings: dict[str, Setting] = {}
    rows: int = Field(6, ge=1, le=50)


def tune_router(queue: RunQueue, service: BattleService) -> APIRouter:
    """The routes under `/api/tune`."""

    async def admins_only(request: Request) -> None:
        visitor_of(request.scope).check_admin()

    router = APIRouter(prefix="/api/tune", dependencies=[Depends(admins_only)])
    _add_choices(router, queue.home)
    _add_runs(router, queue)
    _add_acts(router, queue)
    _add_jobs(router, queue)
    _add_watch(router, queue, service)
    add_votes(router, queue, service)
    add_data(router, queue.home)
    return router


def _add_choices(router: APIRouter, home: Path) -> None:
    """What can be chosen: settings, bases, data; and what rows become."""
    settings: dict[str, Any] = {}

    @router.get("/choices")
    async def choices() -> dict[str, Any]:
        words = ["models", "list", "--home", str(home)]
        if not settings:
            told = await asyncio.to_thread(ask_command, ["tune", "--settings"])
            settings.update(told)
        models = (await asyncio.to_thread(ask_command, words))["models"]
        bases = [{"name": one["name"], "kind": one["kind"]} for one in models if not one["problem"]]
        return {**settings, "models": bases, "files": uploads.uploads(home)}

    @router.put("/data/{name}", status_code=201, max_body_size=uploads.FILE_BYTES)
    async def upload(name: str, request: Request) -> dict[str, Any]:
        kept = await uploads.keep(home, name, _pieces(request))
        return {"name": kept.name, "bytes": kept.stat().st_size}

    @router.post("/preview")
    async def preview(body: Look, request: Request) -> Any:
        asked = request_of(
            home, "preview", body.settings, own_machine=visitor_of(request.scope).is_open
        )
        words = ["tune", *asked.words, "--home", str(home), "--preview", str(body.rows)]
        return await asyncio.to_thread(ask_command, words, PREVIEW_SECONDS)


async def _pieces(request: Request) -> AsyncIterator[bytes]:
    try:
        async for piece in request.stream():
            yield piece
    except ClientDisconnect as error:
        raise uploads.UploadRefusedError("the upload broke off; repeat it") from error


def _add_runs(router: APIRouter, queue: RunQueue) -> None:
    """Runs and their figures."""

    @router.get("/runs")
    async def runs() -> dict[str, Any]:
        return {"runs": await asyncio.to_thread(_all_json, queue)}

    @router.post("/runs", status_code=201)
    async def start(body: NewRun, request: Request) -> dict[str, Any]:
        asked = request_of(
            queue.home,
            body.name,
            body.settings,
            share=body.share,
            restart=body.restart,
            own_machine=visitor_of(request.scope).is_open,
        )
        await asyncio.to_thread(queue.add, asked)
        return await asyncio.to_thread(_one_json, queue, body.name)

    @router.post("/command")
    async def command(body: NewRun, request: Request) -> dict[str, str]:
        is_open = visitor_of(request.scope).is_open
        asked = request_of(queue.home, body.name, body.settings, own_machine=is_open)
        return {"command": asked.command(queue.home)}

    @router.get("/runs/{name}")
    async def show(name: str) -> dict[str, Any]:
        return await asyncio.to_thread(_one_json, queue, name)


def _add_acts(router: APIRouter, queue: RunQueue) -> None:
    """Stop, go on, remove."""

    @router.post("/runs/{name}/stop")
    async def stop(name: str) -> dict[str, Any]:
        await asyncio.to_thread(queue.stop, name)
        return await asyncio.to_thread(_one_json, queue, name)

    @router.post("/runs/{name}/resume")
    async def resume(name: str, body: GoOn) -> dict[str, Any]:
        await asyncio.to_thread(lambda: queue.resume(name, restart=body.restart))
        return await asyncio.to_thread(_one_json, queue, name)

    @router.delete("/runs/{name}", status_code=204)
    async def remove(name: str) -> Response:
        await asyncio.to_thread(queue.remove, name)
        return Response(status_code=204)


def _add_jobs(router: APIRouter, queue: RunQueue) -> None:
    """What comes after a run: its scores beside its base's, its card, its export."""

    @router.get("/runs/{name}/after")
    async def after(name: str) -> dict[str, Any]:
        return await asyncio.to_thread(_after_json, queue, name)

    @router.post("/runs/{name}/score", status_code=202)
    async def score(name: str) -> dict[str, Any]:
        await asyncio.to_thread(queue.score, name)
        return await asyncio.to_thread(_after_json, queue, name)

    @router.post("/runs/{name}/export", status_code=202)
    async def export(name: str, body: NewExport) -> dict[str, Any]:
        await asyncio.to_thread(queue.export, name, body.to)
        return await asyncio.to_thread(_after_json, queue, name)


def _add_watch(router: APIRouter, queue: RunQueue, service: BattleService) -> None:
    """One prompt to the base, the checkpoints that are served, and the variant that was made."""

    @router.post("/runs/{name}/watch", status_code=201)
    async def watch(name: str, body: Watch, request: Request) -> dict[str, Any]:
        run = await asyncio.to_thread(queue.get, name)
        left = await asyncio.to_thread(challengers, queue.home, run.name)
        served = await service.pool.targets()
        steps = [one.name for one in left if one.name in served]
        final = run.name if run.name in served and run.state == "done" else None
        bases = [served[one].participant.base for one in (*steps, final) if one is not None]
        base = next((one for one in bases if one in served), None)
        names = to_watch(steps, base, final)
        if len(names) < 2:
            raise RunRefusedError(
                f"run {name!r}: no checkpoint of it is served; wait for its next evaluation, or "
                "start a run whose checkpoints are served"
            )
        voter = await service.voter(caller_secret(request.scope), visitor_of(request.scope).address)
        opened = await service.open_named(voter, names, body.prompt, source="api")
        return {"battle": opened.battle_id, "token": opened.token or "", "models": names}


def _after_json(queue: RunQueue, name: str) -> dict[str, Any]:
    run = queue.get(name)
    return {"card": card_of(queue.home, run.name), "jobs": queue.jobs.told(run.name)}


def _all_json(queue: RunQueue) -> list[dict[str, Any]]:
    return [run_json(queue, run) for run in queue.finder.all()]


def _one_json(queue: RunQueue, name: str) -> dict[str, Any]:
    run = queue.get(name)
    return {**run_json(queue, run), **queue.finder.figures(run).curves()}


def run_json(queue: RunQueue, run: FoundRun) -> dict[str, Any]:
    """One run: what it is, how it stands, its newest figures, the command for a terminal."""
    asked: RunRequest | None = run.request
    figures = queue.finder.figures(run).summary()
    loop = None
    if asked is not None and asked.kind == "loop":
        loop = loop_told(queue.home, run.name)
        figures["progress"] = loop["progress"]
    return {
        "name": run.name,
        "state": run.state,
        "error": run.told if run.state == "failed" else None,
        "said": run.told or None,
        "base": run.base,
        "method": run.method,
        "objective": run.objective,
        "by": "page" if asked else "terminal",
        "checkpoints": [one.name for one in challengers(queue.home, run.name)],
        "can_resume": run.state in RESUMABLE,
        "changed_ms": run.changed_ms,
        "command": asked.command(queue.home) if asked else None,
        "loop": loop,
        **figures,
    }
