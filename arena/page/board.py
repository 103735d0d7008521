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

from arena.battles.stage import Stage
from arena.errors import ArenaError
from arena.exchange.export import ExportOptions
from arena.exchange.handout import make_dataset
from arena.page.handlers import say_for, secret_of, visitor_by
from arena.page.panes import status_html
from arena.page.standings_html import board_html, over_time_html
from arena.ratings import RatingConfig, rate
from arena.statistics.progress import rate_over_time
from arena.storage.searching import Past
from arena.storage.tally import Ballot, tally
from arena.wording import Words, told

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
        """Write the preference dataset under a name of its own."""
        say = say_for(request)
        try:
            visitor_by(request).check_export()
            made = await asyncio.to_thread(
                make_dataset, self.stage.store, self.stage.config.home, ExportOptions()
            )
        except ArenaError as error:
            return status_html(told(error, say), say, tone="bad")
        text = say("export.done", rows=made.num_rows, folder=f"exports/{made.name}")
        return status_html(text, say, tone="good")

    async def on_history(self, wanted: str, request: gr.Request) -> str:
        """The voter's own battles, newest first, those that hold the words searched for."""
        voter = await self.stage.voter(secret_of(request))
        found = await asyncio.to_thread(
            self.stage.store.history, voter, wanted or "", limit=MOST_SHOWN
        )
        return history_html(found, say_for(request))


def history_html(battles: Sequence[Past], say: Words) -> str:
    """Links to one's own battles; the names of a blind one stay hidden until it is judged."""
    if not battles:
        return f'<p class="nothing">{html.escape(say("history.empty"))}</p>'
    items = []
    for past in battles:
        prompt = past.prompt[:PROMPT_SHOWN] or "…"
        when = time.strftime("%Y-%m-%d %H:%M", time.gmtime(past.created_ms / 1000))
        state = "voted" if past.is_judged else "skipped" if past.is_skipped else "open"
        facts = [f"{when} UTC", say(f"history.{state}")]
        facts += [past.set_name] if past.set_name else []
        facts += past.names
        items.append(
            f'<li class="is-{state}"><a href="?battle={html.escape(past.battle_id)}">'
            f"{html.escape(prompt)}</a>"
            f'<span class="muted">{html.escape(" · ".join(facts))}</span></li>'
        )
    more = ""
    if len(battles) >= MOST_SHOWN:
        more = f'<p class="muted">{html.escape(say("history.more", count=MOST_SHOWN))}</p>'
    return f'<ul class="history">{"".join(items)}</ul>{more}'
