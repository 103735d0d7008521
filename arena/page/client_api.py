"""The acts of the page for `gradio_client`: named endpoints beside the page's own events.

The same battle service and the same checks as the page and the JSON API; what a program is told
is what `/api` tells. A refusal reaches the caller by its own words.
"""

from __future__ import annotations

import asyncio
import html
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import gradio as gr

from arena.battles.service import BattleService
from arena.battles.set_judging import SetJudging
from arena.battles.view import BattleAccess
from arena.errors import ArenaError
from arena.exports.archive import make_dataset
from arena.exports.dataset import ExportOptions
from arena.page.actions.battles import secret_of, visitor_by
from arena.values.battle import SIDES
from arena.values.vote import Judgement, Strength, Winner
from arena.web.api import view_json, visitor_text


@asynccontextmanager
async def as_gradio_errors() -> AsyncIterator[None]:
    """Turn a user's mistake into what a Gradio client raises with its words."""
    try:
        yield
    except ArenaError as error:
        text = html.escape(visitor_text(error), quote=False)
        raise gr.Error(text, print_exception=False) from error


class ClientApi:
    """The endpoints; each docstring is what a client's `view_api` shows."""

    def __init__(self, service: BattleService, set_judging: SetJudging, home: Path) -> None:
        self.service = service
        self.set_judging = set_judging
        self._home = home

    async def start_battle(
        self, request: gr.Request, prompt: str, models: list[str] | None = None
    ) -> dict[str, Any]:
        """Ask a prompt: blind, or of two to eight participants by name. Gives battle and token."""
        async with as_gradio_errors():
            voter = await self.service.voter(secret_of(request), visitor_by(request).address)
            if models:
                opened = await self.service.open_named(voter, models, prompt, source="client")
            else:
                opened = await self.service.open_blind(voter, prompt, source="client")
            return {"battle": opened.battle_id, "token": opened.token}

    async def watch_battle(
        self, request: gr.Request, battle: str, token: str = ""
    ) -> AsyncIterator[dict[str, Any]]:
        """The battle as its answers grow, and once more when all have ended."""
        async with as_gradio_errors():
            async for view in self.service.follow(await self._access(request, battle, token)):
                yield view_json(view)

    async def next_turn(
        self,
        request: gr.Request,
        battle: str,
        token: str = "",
        prompt: str = "",
        continue_from: str | None = None,
    ) -> dict[str, Any]:
        """Ask on: each side after its own answers, or all after those of the side named."""
        async with as_gradio_errors():
            access = await self._access(request, battle, token)
            await self.service.next_turn(access, prompt, _side(continue_from))
            return view_json(await self.service.view(access))

    async def ask_again(
        self, request: gr.Request, battle: str, token: str = "", side: str | None = None
    ) -> dict[str, Any]:
        """Ask one side again, or all; the earlier answers are kept as superseded."""
        async with as_gradio_errors():
            access = await self._access(request, battle, token)
            await self.service.regenerate(access, _side(side))
            return view_json(await self.service.view(access))

    async def stop(
        self, request: gr.Request, battle: str, token: str = "", side: str | None = None
    ) -> dict[str, Any]:
        """End one side where it is, or all."""
        async with as_gradio_errors():
            access = await self._access(request, battle, token)
            await self.service.stop(access, _side(side))
            return view_json(await self.service.view(access))

    async def skip(self, request: gr.Request, battle: str, token: str = "") -> dict[str, Any]:
        """Pass on the last turn; the names are shown and nothing is counted."""
        async with as_gradio_errors():
            access = await self._access(request, battle, token)
            return view_json(await self.service.skip(access))

    async def vote(
        self,
        request: gr.Request,
        battle: str,
        token: str = "",
        winner: str | None = None,
        ranking: list[int] | None = None,
        strength: str | None = None,
        reasons: list[str] | None = None,
        comment: str = "",
        edited_answer: str = "",
        partial: bool = False,
        change: bool = False,
    ) -> dict[str, Any]:
        """Judge the last turn: model_a, model_b, tie or both_bad, or a rank for each side.

        `partial` judges before the end, which stops the answers; `change` replaces a vote.
        """
        async with as_gradio_errors():
            access = await self._access(request, battle, token)
            judgement = Judgement(
                winner=_member(Winner, winner),
                ranking=tuple(ranking) if ranking else None,
                strength=_member(Strength, strength),
                reasons=tuple(reasons or ()),
                comment=comment[:4000],
                edited_answer=edited_answer[:20_000],
            )
            return view_json(
                await self.service.vote(access, judgement, partial=partial, change=change)
            )

    async def undo_vote(self, request: gr.Request, battle: str, token: str = "") -> dict[str, Any]:
        """Take the vote on the last turn back."""
        async with as_gradio_errors():
            access = await self._access(request, battle, token)
            return view_json(await self.service.undo(access))

    async def next_of_set(self, request: gr.Request, name: str) -> dict[str, Any]:
        """The battle to judge next in a prompt set; battle is null when all are judged."""
        async with as_gradio_errors():
            voter = await self.service.voter(secret_of(request), visitor_by(request).address)
            task = await self.set_judging.next(voter, name, source="client")
            return {
                "battle": task.access.battle_id if task.access else None,
                "token": task.access.token if task.access else None,
                "done": task.progress.num_done,
                "total": task.progress.total,
            }

    async def make_dataset(
        self, request: gr.Request, kind: str = "trl", redact: bool = False
    ) -> dict[str, Any]:
        """Write the votes as a dataset into the exports folder of the page's machine."""
        async with as_gradio_errors():
            visitor_by(request).check_export()
            options = ExportOptions(format=kind, redact=redact)
            made = await asyncio.to_thread(make_dataset, self.service.store, self._home, options)
            return {"name": made.name, "rows": made.done.splits}

    async def _access(self, request: gr.Request, battle: str, token: str) -> BattleAccess:
        return BattleAccess(await self.service.voter(secret_of(request)), battle, token or None)


def _member(kind: Callable[[str], Any], value: str | None) -> Any:
    """A word as a member of an enumeration; ArenaError names one that is none."""
    if not value:
        return None
    try:
        return kind(value)
    except ValueError as error:
        raise ArenaError(
            f"{value!r} is no {kind.__name__.lower()}; see the API's description"
        ) from error


def _side(letter: str | None) -> int | None:
    """A side's letter as its number; None for all."""
    if not letter:
        return None
    if letter not in tuple(SIDES):
        raise ArenaError(f"{letter!r} is no side; give a letter from a to {SIDES[-1]}")
    return SIDES.index(letter)


def add_client_api(service: BattleService, set_judging: SetJudging, home: Path) -> None:
    """Register the endpoints inside the current `gr.Blocks`."""
    api = ClientApi(service, set_judging, home)
    for act in (
        api.start_battle,
        api.watch_battle,
        api.next_turn,
        api.ask_again,
        api.stop,
        api.skip,
        api.vote,
        api.undo_vote,
        api.next_of_set,
        api.make_dataset,
    ):
        gr.api(act, api_name=act.__name__, concurrency_limit=None)
