"""The leaderboard, the export and a voter's own battles, made when they are asked for.

Knows the store and its ratings; knows nothing of running battles. The HTML names models, so it is
sent only to who opens these tabs.
"""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path

import gradio as gr

from arena.battles.service import BattleService
from arena.errors import ArenaError
from arena.exports.archive import make_dataset
from arena.exports.dataset import ExportOptions
from arena.i18n import Words, error_text
from arena.page.actions.battles import say_for, secret_of, visitor_by
from arena.page.html.export import made_html
from arena.page.html.history import history_html
from arena.page.html.leaderboard import board_html, over_time_html
from arena.page.html.panes import status_html
from arena.page.html.tune import votes_html
from arena.ratings import RatingConfig, rate
from arena.ratings.over_time import rate_over_time
from arena.storage.rating_input import VoteFilter, read_rating_input
from arena.values.times import parse_time

MOST_STYLED = 100_000
"""Votes whose answers are read again to measure their style while somebody waits for the page."""


class TooManyVotesError(ArenaError):
    """What would take too long while a person waits."""


class ResultActions:
    """The acts of the tabs beside the battle."""

    def __init__(self, service: BattleService, home: Path) -> None:
        self.service = service
        self._home = home

    async def on_open(
        self,
        reason: str | None,
        tag: str,
        since: str,
        until: str,
        style: bool,
        without_flagged: bool,
        request: gr.Request,
    ) -> str:
        """Rate the votes as they are now: all, or those with a reason, on battles with a tag, or of
        a time; with `style` as if all answers were of the same length and layout.
        """
        say = say_for(request)
        try:
            vote_filter = vote_filter_of(reason, tag, since, until, flagged=not without_flagged)
            board = await asyncio.to_thread(self._rated, vote_filter, style, say)
        except ArenaError as error:
            return status_html(error_text(error, say), say, tone="bad")
        return board + (votes_html(say) if visitor_by(request).is_admin else "")

    def _rated(self, vote_filter: VoteFilter, style: bool, say: Words) -> str:
        found = read_rating_input(self.service.pair_cache, vote_filter)
        board, kept = rate(found.table), 0
        if vote_filter.flagged:
            without = replace(vote_filter, flagged=False)
            others = read_rating_input(self.service.pair_cache, without)
            kept = len(found.table) - len(others.table)
        if not style or not len(found.table):
            return board_html(board, say, found.left_out, num_flagged=kept)
        if len(found.table) > MOST_STYLED:
            raise TooManyVotesError(
                f"style is taken out of at most {MOST_STYLED} votes here: use arena leaderboard"
            ).coded("style_too_many", count=MOST_STYLED)
        styled = read_rating_input(self.service.pair_cache, replace(vote_filter, style=True))
        return board_html(rate(styled.table), say, styled.left_out, board, num_flagged=kept)

    async def on_over_time(
        self,
        reason: str | None,
        tag: str,
        since: str,
        until: str,
        style: bool,
        without_flagged: bool,
        request: gr.Request,
    ) -> str:
        """Draw how the same ratings came about, with whatever style there was."""
        say = say_for(request)
        try:
            vote_filter = vote_filter_of(reason, tag, since, until, flagged=not without_flagged)
            return await asyncio.to_thread(self._over_time, vote_filter, say)
        except ArenaError as error:
            return status_html(error_text(error, say), say, tone="bad")

    def _over_time(self, vote_filter: VoteFilter, say: Words) -> str:
        times, boards = rate_over_time(
            read_rating_input(self.service.pair_cache, vote_filter), RatingConfig()
        )
        return over_time_html(times, boards, say)

    async def on_export(self, request: gr.Request) -> str:
        """Write the preference dataset under a name of its own, and offer it as a file."""
        say = say_for(request)
        try:
            visitor_by(request).check_export()
            made = await asyncio.to_thread(
                make_dataset, self.service.store, self._home, ExportOptions()
            )
        except ArenaError as error:
            return status_html(error_text(error, say), say, tone="bad")
        return made_html(made, say)

    async def on_history(self, wanted: str, request: gr.Request) -> str:
        """The voter's own battles, newest first, those that hold the words searched for."""
        voter = await self.service.voter(secret_of(request))
        found = await self.service.history(voter, wanted or "")
        return history_html(found, say_for(request))


def vote_filter_of(
    reason: str | None, tag: str, since: str, until: str, *, flagged: bool = False
) -> VoteFilter:
    """The votes that the filters ask for; an empty filter lets all in. Raises TimeError."""
    return VoteFilter(
        flagged=flagged,
        reason=reason or None,
        tag=tag.strip() or None,
        since_ms=parse_time("since", since.strip()) if since.strip() else None,
        until_ms=parse_time("until", until.strip()) if until.strip() else None,
    )
