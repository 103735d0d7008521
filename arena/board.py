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
from arena.ratings import rate
from arena.stage import Stage
from arena.standings import Leaderboard, Rating
from arena.tally import tally
from arena.wording import Words

MOST_SHOWN = 200
PROMPT_SHOWN = 160


class Board:
    """The acts of the tabs beside the battle."""

    def __init__(self, stage: Stage) -> None:
        self.stage = stage

    async def on_open(self, request: gr.Request) -> str:
        """Rate the votes as they are now."""
        board = await asyncio.to_thread(lambda: rate(tally(self.stage.ledger).table))
        return board_html(board, say_for(request))

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


def board_html(board: Leaderboard, say: Words) -> str:
    """The ratings as a table with their intervals drawn to one scale."""
    if not board.ratings:
        return f'<p class="nothing">{html.escape(say("leaderboard.empty"))}</p>'
    low = min(rating.lower for rating in board.ratings)
    high = max(rating.upper for rating in board.ratings)
    heads = ("rank", "model", "rating", "interval", "battles", "record")
    head = "".join(
        f'<th scope="col">{html.escape(say(f"leaderboard.{key}"))}</th>' for key in heads
    )
    rows = "".join(_board_row(rating, low, high) for rating in board.ratings)
    notes = [say("leaderboard.votes", votes=board.num_votes)]
    if board.position is not None:
        share = f"{100 * board.position.win_share:.0f}"
        notes.append(say("leaderboard.position", share=share))
    told = "".join(f"<li>{html.escape(note)}</li>" for note in (*notes, *board.notes))
    return (
        f"<h2>{html.escape(say('leaderboard.title'))}</h2>"
        f'<div class="table-scroll" tabindex="0"><table><thead><tr>{head}</tr></thead>'
        f'<tbody>{rows}</tbody></table></div><ul class="notes">{told}</ul>'
    )


def _board_row(rating: Rating, low: float, high: float) -> str:
    span = max(high - low, 1e-9)
    left, width = 100 * (rating.lower - low) / span, 100 * (rating.upper - rating.lower) / span
    middle = 100 * (rating.rating - low) / span
    ranks = (
        f"{rating.rank}"
        if rating.rank == rating.worst_rank
        else f"{rating.rank}–{rating.worst_rank}"
    )
    bar = (
        f'<span class="interval" aria-hidden="true"><i style="left:{left:.1f}%;width:{width:.1f}%">'
        f'</i><b style="left:{middle:.1f}%"></b></span>'
    )
    won = f"{rating.num_wins} / {rating.num_losses} / {rating.num_ties} / {rating.num_both_bad}"
    return (
        f'<tr><td>{ranks}</td><th scope="row">{html.escape(rating.model)}</th>'
        f"<td>{rating.rating:.0f}</td>"
        f"<td>{rating.lower:.0f} … {rating.upper:.0f}{bar}</td>"
        f"<td>{rating.num_battles}</td><td>{won}</td></tr>"
    )


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
