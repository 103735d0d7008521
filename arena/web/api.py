"""The acts of the page for programs: start a battle, watch it, judge it, export. JSON and SSE.

The same battle service and the same checks as the page; a battle's secret is its `token`, sent in
the header `x-battle-token`. Knows HTTP, nothing of Gradio. Before the reveal no answer of this
module names a model.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal

from fastapi import APIRouter, Body, Header, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, StreamingResponse
from pydantic import BaseModel, ConfigDict, Field
from starlette.exceptions import HTTPException

from arena.backends.pool import RestartingError
from arena.battles.service import BattleService, BusyError, StillWritingError, TooManyError
from arena.battles.set_judging import SetJudging
from arena.battles.view import BattleAccess, BattleView
from arena.errors import ArenaError
from arena.i18n import error_text, negotiate, words
from arena.storage.database import StoreError
from arena.storage.history_queries import Past
from arena.values.battle import SIDES
from arena.values.refusals import RefusedError
from arena.values.vote import Judgement, Strength, Winner
from arena.web.api_admin import add_admin, add_datasets, add_sets
from arena.web.api_results import add_results
from arena.web.visitors import caller_secret, visitor_of

SideLetter = Literal["a", "b", "c", "d", "e", "f", "g", "h"]
ALL_SIDES = Body(default_factory=lambda: OneOrAll())


class _StrictBody(BaseModel):
    model_config = ConfigDict(extra="forbid")


class NewBattle(_StrictBody):
    """A prompt, and either nothing (a blind battle) or two to eight participants by name.

    `source` is synthetic where a program judges, so that people's ratings leave its votes out.
    """

    prompt: str
    models: list[str] | None = Field(None, min_length=2, max_length=8)
    source: Literal["api", "synthetic"] = "api"


class NextTurn(_StrictBody):
    """Another prompt; `continue_from`: the side whose answers all go on from."""

    prompt: str
    continue_from: SideLetter | None = None


class OneOrAll(_StrictBody):
    """Which side is meant; all of them when it is left out."""

    side: SideLetter | None = None

    @property
    def index(self) -> int | None:
        """The side's number."""
        return None if self.side is None else SIDES.index(self.side)


class NewVote(_StrictBody):
    """A judgement of the last turn; `change` replaces an earlier one."""

    winner: Winner | None = None
    ranking: list[int] | None = None
    strength: Strength | None = None
    reasons: list[str] = []
    comment: str = Field("", max_length=4_000)
    edited_answer: str = Field("", max_length=20_000)
    partial: bool = False
    change: bool = False


def api_router(service: BattleService, set_judging: SetJudging, home: Path) -> APIRouter:
    """The routes under `/api`."""
    router = APIRouter(prefix="/api")
    _add_talk(router, service)
    _add_further(router, service)
    _add_votes(router, service)
    add_sets(router, service, set_judging)
    add_datasets(router, service.store, home)
    add_admin(router, service)
    add_results(router, service)
    return router


async def answer_unknown(rest: str) -> None:
    """What no route takes; else Gradio, which is mounted below, answers in a form of its own."""
    raise HTTPException(404, f"there is nothing at /api/{rest} for this method")


async def _access(
    service: BattleService, request: Request, battle_id: str, token: str | None
) -> BattleAccess:
    return BattleAccess(await _voter(service, request), battle_id, token)


def _add_talk(router: APIRouter, service: BattleService) -> None:
    """Start a battle, find it again, see it, follow its answers."""

    @router.post("/battles", status_code=201)
    async def start(body: NewBattle, request: Request) -> dict[str, str]:
        voter = await _voter(service, request)
        if body.models is None:
            opened = await service.open_blind(voter, body.prompt, source=body.source)
        else:
            opened = await service.open_named(voter, body.models, body.prompt, source=body.source)
        return {"battle": opened.battle_id, "token": opened.token or ""}

    @router.get("/battles")
    async def history(request: Request, search: str = "") -> dict[str, Any]:
        voter = await _voter(service, request)
        return {"battles": [_past_json(past) for past in await service.history(voter, search)]}

    @router.get("/battles/{battle_id}")
    async def show(
        battle_id: str, request: Request, x_battle_token: str | None = Header(None)
    ) -> dict[str, Any]:
        return view_json(
            await service.view(await _access(service, request, battle_id, x_battle_token))
        )

    @router.get("/battles/{battle_id}/events")
    async def watch(
        battle_id: str, request: Request, x_battle_token: str | None = Header(None)
    ) -> StreamingResponse:
        allowed = await _access(service, request, battle_id, x_battle_token)
        await service.view(allowed)  # refuses strangers before the stream begins
        headers = {"cache-control": "no-cache", "x-accel-buffering": "no"}
        return StreamingResponse(
            _events(service, allowed), media_type="text/event-stream", headers=headers
        )


def _add_further(router: APIRouter, service: BattleService) -> None:
    """Ask on, ask again, stop."""

    @router.post("/battles/{battle_id}/turns", status_code=201)
    async def go_on(
        battle_id: str, body: NextTurn, request: Request, x_battle_token: str | None = Header(None)
    ) -> dict[str, Any]:
        allowed = await _access(service, request, battle_id, x_battle_token)
        shared = None if body.continue_from is None else SIDES.index(body.continue_from)
        await service.next_turn(allowed, body.prompt, shared)
        return view_json(await service.view(allowed))

    @router.post("/battles/{battle_id}/again", status_code=201)
    async def ask_again(
        battle_id: str,
        request: Request,
        body: OneOrAll = ALL_SIDES,
        x_battle_token: str | None = Header(None),
    ) -> dict[str, Any]:
        allowed = await _access(service, request, battle_id, x_battle_token)
        await service.regenerate(allowed, body.index)
        return view_json(await service.view(allowed))

    @router.post("/battles/{battle_id}/stop")
    async def stop(
        battle_id: str,
        request: Request,
        body: OneOrAll = ALL_SIDES,
        x_battle_token: str | None = Header(None),
    ) -> dict[str, Any]:
        allowed = await _access(service, request, battle_id, x_battle_token)
        await service.stop(allowed, body.index)
        return view_json(await service.view(allowed))


def _add_votes(router: APIRouter, service: BattleService) -> None:
    """Judge the last turn, take that back, or pass; and what may be seen after it."""

    @router.post("/battles/{battle_id}/votes", status_code=201)
    async def vote(
        battle_id: str, body: NewVote, request: Request, x_battle_token: str | None = Header(None)
    ) -> dict[str, Any]:
        allowed = await _access(service, request, battle_id, x_battle_token)
        judgement = Judgement(
            winner=body.winner,
            ranking=tuple(body.ranking) if body.ranking is not None else None,
            strength=body.strength,
            reasons=tuple(body.reasons),
            comment=body.comment,
            edited_answer=body.edited_answer,
        )
        return view_json(
            await service.vote(allowed, judgement, partial=body.partial, change=body.change)
        )

    @router.delete("/battles/{battle_id}/votes")
    async def undo(
        battle_id: str, request: Request, x_battle_token: str | None = Header(None)
    ) -> dict[str, Any]:
        allowed = await _access(service, request, battle_id, x_battle_token)
        return view_json(await service.undo(allowed))

    @router.post("/battles/{battle_id}/skip", status_code=201)
    async def skip(
        battle_id: str, request: Request, x_battle_token: str | None = Header(None)
    ) -> dict[str, Any]:
        allowed = await _access(service, request, battle_id, x_battle_token)
        return view_json(await service.skip(allowed))

    @router.get("/battles/{battle_id}/tokens/{side}")
    async def tokens(
        battle_id: str,
        side: SideLetter,
        request: Request,
        x_battle_token: str | None = Header(None),
    ) -> dict[str, Any]:
        allowed = await _access(service, request, battle_id, x_battle_token)
        found = await service.tokens(allowed, SIDES.index(side))
        return {"tokens": [{"text": text, "logprob": logprob} for text, logprob in found]}


def visitor_text(error: Exception) -> str:
    """The error's own words; of the store's faults, which name files, those of the catalogue."""
    return error_text(error, words()) if isinstance(error, StoreError) else str(error)


async def answer_error(request: Request, error: Exception) -> JSONResponse:
    """A refusal as JSON, with the status that fits it; the page's script gets the voter's words."""
    status = error.status if isinstance(error, RefusedError) else 422
    status = 503 if isinstance(error, BusyError) else status
    status = 409 if isinstance(error, StillWritingError) else status
    status = 429 if isinstance(error, TooManyError) else status
    status = 503 if isinstance(error, StoreError | RestartingError) else status
    text = visitor_text(error)
    if request.url.path.startswith("/live/") and isinstance(error, ArenaError):
        text = error_text(error, words(negotiate(request.headers.get("accept-language"))))
    return JSONResponse({"error": text}, status)


async def answer_invalid(_: Request, error: Exception) -> JSONResponse:
    """What was sent and is not understood, by its place, as `{"error"}` like all else."""
    assert isinstance(error, RequestValidationError)
    mistake = error.errors()[0]
    place = ".".join(str(part) for part in mistake["loc"] if part != "body") or "the body"
    return JSONResponse({"error": f"{place}: {mistake['msg']}"}, 422)


async def answer_http_error(_: Request, error: Exception) -> JSONResponse:
    """What the framework itself refuses, such as a method that a path has not."""
    assert isinstance(error, HTTPException)
    return JSONResponse({"error": str(error.detail)}, error.status_code, error.headers)


async def _voter(service: BattleService, request: Request) -> str:
    """Who signed in, the cookie, or the battle's secret; a voter that only looks is not noted."""
    secret = caller_secret(request.scope)
    if request.method == "GET":
        return await service.known_voter(secret)
    return await service.voter(secret, visitor_of(request.scope).address)


async def _events(service: BattleService, access: BattleAccess) -> AsyncIterator[str]:
    """One `view` event per change and one `end` event; leaving stops the answers."""
    shown = ""
    async for view in service.follow(access):
        event = json.dumps(view_json(view), ensure_ascii=False)
        yield f"event: scene\ndata: {event}\n\n" if event != shown else ": waiting\n\n"
        shown = event
    yield "event: end\ndata: {}\n\n"


def _past_json(past: Past) -> dict[str, Any]:
    state = "judged" if past.is_judged else "skipped" if past.is_skipped else "open"
    return {
        "battle": past.battle_id,
        "prompt": past.prompt,
        "state": state,
        "models": list(past.names),
        "created_ms": past.created_ms,
    }


def view_json(view: BattleView) -> dict[str, Any]:
    """A battle as JSON: texts and states; names, measures and prompts only after the reveal."""
    sides: list[dict[str, Any]] = [
        {
            "side": SIDES[i],
            "state": side.state,
            "text": side.text,
            "error": side.error or None,
            "server_said": side.said or None,
        }
        for i, side in enumerate(view.sides)
    ]
    if view.is_revealed:
        for i, side in enumerate(sides):
            participant = view.battle.participants[i]
            answer = view.battle.turns[-1].answer(i) if view.battle.turns else None
            side["model"] = participant.name
            side["kind"] = participant.kind
            side["weights_sha256"] = participant.weights_sha256
            if answer is not None and not view.is_running:
                side["prompt_sent"] = answer.prompt_sent
                side["sampling"] = asdict(answer.sampling)
                side["num_tokens"] = answer.num_tokens
                side["first_token_s"] = answer.first_token_s
                side["total_s"] = answer.total_s
    vote = view.vote
    return {
        "battle": view.battle.id,
        "mode": view.battle.mode,
        "turns": [turn.prompt for turn in view.battle.turns],
        "running": view.is_running,
        "votable": view.is_votable and not view.is_running,
        "revealed": view.is_revealed,
        "sides": sides,
        "vote": asdict(vote.judgement) if vote else None,
    }
