"""The leaderboard, the export and a voter's own battles, made when they are asked for.

Knows the store and its ratings; knows nothing of running battles. The HTML names models, so it is
sent only to who opens these tabs.
"""

from __future__ import annotations

import asyncio
import html
import time
from collections.abc import Sequence

import gradio as gr

from arena.battle import Battle
from arena.errors import ArenaError
from arena.export import ExportOptions, export
from arena.handlers import say_for, secret_of
from arena.panes import status_html
from arena.progress import rate_over_time
from arena.ratings import RatingConfig, rate
from arena.stage import Stage
from arena.standings_html import board_html, over_time_html
from arena.tally import Ballot, tally
from arena.wording import Words

MOST_SHOWN = 200
PROMPT_SHOWN = 160


class Board:
    """The acts of the tabs beside the battle."""

    def __init__(self, stage: Stage) -> None:
        self.stage = stage

    async def on_open(self, reason: str | None, tag: str, request: gr.Request) -> str:
        """Rate the votes as they are now: all, or those with a reason or on battles with a tag."""
        ballot = Ballot(reason=reason or None, tag=tag.strip() or None)
        found = await asyncio.to_thread(tally, self.stage.ledger, ballot)
        board = await asyncio.to_thread(rate, found.table)
        return board_html(board, say_for(request), found.left_out)

    async def on_over_time(self, reason: str | None, tag: str, request: gr.Request) -> str:
        """Draw how the same ratings came about."""
        ballot = Ballot(reason=reason or None, tag=tag.strip() or None)
        return await asyncio.to_thread(self._over_time, ballot, say_for(request))

    def _over_time(self, ballot: Ballot, say: Words) -> str:
        times, boards = rate_over_time(tally(self.stage.ledger, ballot), RatingConfig())
        return over_time_html(times, boards, say)

    async def on_export(self, request: gr.Request) -> str:
        """Write the preference dataset; an earlier export of the same day's minute is kept."""
        say = say_for(request)
        name = time.strftime("trl-%Y%m%d-%H%M%S", time.gmtime())
        folder = self.stage.config.home / "exports" / name
        try:
            done = await asyncio.to_thread(export, self.stage.store, folder, ExportOptions())
        except ArenaError as error:
            return status_html(str(error), say, tone="bad")
        rows = sum(done.splits.values())
        shown = f"exports/{name}"
        return status_html(say("export.done", rows=rows, folder=shown), say, tone="good")

    async def on_history(self, wanted: str, request: gr.Request) -> str:
        """The voter's own battles, newest first, those that hold the words searched for."""
        voter = await self.stage.voter(secret_of(request))
        battles = await asyncio.to_thread(self.stage.store.list_battles, voter, limit=MOST_SHOWN)
        judged = {
            battle.id
            for battle in battles
            if await asyncio.to_thread(self.stage.store.votes_of, battle.id)
        }
        found = [battle for battle in battles if _holds(battle, wanted)]
        return history_html(found, judged, say_for(request))


def _holds(battle: Battle, wanted: str) -> bool:
    """Whether every word searched for is in a prompt or an answer; never in a hidden name."""
    texts = [turn.prompt for turn in battle.turns]
    texts += [answer.text for turn in battle.turns for answer in turn.attempts]
    if not battle.is_blind:
        texts += [participant.name for participant in battle.participants]
    whole = "\n".join(texts).casefold()
    return all(word in whole for word in (wanted or "").casefold().split())


def history_html(battles: Sequence[Battle], judged: set[str], say: Words) -> str:
    """Links to one's own battles; the names of a blind one stay hidden until it is judged."""
    if not battles:
        return f'<p class="nothing">{html.escape(say("history.empty"))}</p>'
    items = []
    for battle in battles:
        prompt = battle.turns[0].prompt[:PROMPT_SHOWN] if battle.turns else "…"
        when = time.strftime("%Y-%m-%d %H:%M", time.gmtime(battle.created_ms / 1000))
        key = "voted" if battle.id in judged else "open"
        names = "" if battle.is_blind else " · ".join(p.name for p in battle.participants)
        items.append(
            f'<li><a href="?battle={html.escape(battle.id)}">{html.escape(prompt)}</a>'
            f'<span class="muted">{when} UTC · {html.escape(say(f"history.{key}"))}'
            f"{' · ' + html.escape(names) if names else ''}</span></li>"
        )
    more = ""
    if len(battles) >= MOST_SHOWN:
        more = f'<p class="muted">{html.escape(say("history.more", count=MOST_SHOWN))}</p>'
    return f'<ul class="history">{"".join(items)}</ul>{more}'
