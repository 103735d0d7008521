"""The `arena leaderboard` command: votes of a home folder to a table, JSON and plots."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from arena.commands.export import existing_store
from arena.errors import ArenaError
from arena.ratings import BothBad, RatingConfig, rate
from arena.ratings.bradley_terry import FitConfig, Ties
from arena.ratings.leaderboard import POINTS, Effect, Leaderboard
from arena.ratings.over_time import rate_over_time
from arena.ratings.vote_table import RatingInput
from arena.storage.rating_input import VoteFilter, read_rating_input
from arena.values.times import parse_time

MIN_ROUNDS = 100
"""Fewer resamples say too little about the ends of an interval."""


class LeaderboardError(ArenaError):
    """An option of `arena leaderboard` has a value it cannot have."""


@dataclass(frozen=True)
class LeaderboardRequest:
    """The command line of `arena leaderboard`, unparsed."""

    home: Path
    ties: str
    both_bad: str
    ridge: float
    named: bool
    flagged: bool
    propensity: bool
    style: bool
    reason: str | None
    tag: str | None
    since: str | None
    until: str | None
    bootstrap: int = 0
    synthetic: bool = False


@dataclass(frozen=True)
class PlotFiles:
    """Where to draw what; None draws nothing."""

    intervals: Path | None = None
    matrix: Path | None = None
    history: Path | None = None


def run_leaderboard(request: LeaderboardRequest, *, json_out: bool, plots: PlotFiles) -> None:
    """Rate, draw what was asked for, and print.

    With weights or style control the plain rating of the same votes is given beside.
    """
    config, vote_filter = config_of(request), filter_of_options(request)
    store = existing_store(request.home)
    rating_input = read_rating_input(store, vote_filter)
    board = rate(rating_input.table, config)
    plain = None
    if vote_filter.propensity or vote_filter.style:
        plain = rate(
            read_rating_input(store, replace(vote_filter, propensity=False, style=False)).table,
            config,
        )
    write_plots(plots, board, rating_input, config)
    if json_out:
        told = leaderboard_json(board, config, rating_input.left_out)
        if plain is not None:
            told["plain_ratings"] = asdict(plain)["ratings"]
        print(json.dumps(told, ensure_ascii=False))
    else:
        print(leaderboard_text(board, config, rating_input.left_out, plain))


def write_plots(
    plots: PlotFiles, board: Leaderboard, rating_input: RatingInput, config: RatingConfig
) -> None:
    """Write the plots that have a file."""
    from arena.ratings.plots import history_figure, intervals_figure, save, win_matrix_figure

    if plots.intervals is not None:
        save(intervals_figure(board), plots.intervals)
    if plots.matrix is not None:
        save(win_matrix_figure(board), plots.matrix)
    if plots.history is not None:
        save(history_figure(*rate_over_time(rating_input, config)), plots.history)


def config_of(request: LeaderboardRequest) -> RatingConfig:
    """The rating rules behind the words."""
    for option, value, known in (
        ("--ties", request.ties, list(Ties)),
        ("--both-bad", request.both_bad, list(BothBad)),
    ):
        if value not in known:
            raise LeaderboardError(f"{option} {value!r} is unknown; use one of {', '.join(known)}")
    if not 0 < request.ridge < 1e6:
        raise LeaderboardError(f"--ridge {request.ridge} is out of range; give a positive number")
    if request.bootstrap != 0 and not MIN_ROUNDS <= request.bootstrap <= 100_000:
        raise LeaderboardError(
            f"--bootstrap {request.bootstrap} gives no interval; give {MIN_ROUNDS} to 100000, or 0"
        )
    return RatingConfig(
        fit=FitConfig(ridge=request.ridge, ties=Ties(request.ties)),
        both_bad=BothBad(request.both_bad),
        bootstrap=request.bootstrap,
    )


def filter_of_options(request: LeaderboardRequest) -> VoteFilter:
    """Which votes the words ask for."""
    return VoteFilter(
        named=request.named,
        flagged=request.flagged,
        synthetic=request.synthetic,
        propensity=request.propensity,
        style=request.style,
        reason=request.reason,
        tag=request.tag,
        since_ms=None if request.since is None else parse_time("--since", request.since),
        until_ms=None if request.until is None else parse_time("--until", request.until),
    )


def leaderboard_json(
    board: Leaderboard, config: RatingConfig, left_out: dict[str, int]
) -> dict[str, Any]:
    """The leaderboard for scripts; every number that the text shows and more."""
    told = asdict(board)
    return {
        "ratings": told.pop("ratings"),
        "position_effect": effect_json(board.position),
        "style_effects": [effect_json(effect) for effect in board.style],
        "config": {
            **asdict(config.fit),
            "both_bad": config.both_bad,
            "bootstrap": config.bootstrap,
        },
        "left_out": left_out,
        **{k: v for k, v in told.items() if k not in ("position", "style")},
    }


def effect_json(effect: Effect | None) -> dict[str, Any]:
    """An effect with its derived numbers; `estimated` false when the votes show none."""
    if effect is None:
        return {"estimated": False}
    return {
        "estimated": True,
        **asdict(effect),
        "points": effect.points,
        "win_share": effect.win_share,
    }


def leaderboard_text(
    board: Leaderboard,
    config: RatingConfig,
    left_out: dict[str, int],
    plain: Leaderboard | None = None,
) -> str:
    """The leaderboard for people; `plain` adds the ratings without weights and style."""
    before = {line.model: line.rating for line in plain.ratings} if plain else {}
    width = max([len(line.model) for line in board.ratings] + [5])
    lines = [f"rank  {'model':<{width}}  rating  95 % interval  battles  won  lost  tied  both bad"]
    for line in board.ratings:
        mark = "" if line.determined else "  (not determined by the votes)"
        mark += f"  (plain {before[line.model]:.0f})" if line.model in before else ""
        lines.append(
            f"{line.rank:>4}  {line.model:<{width}}  {line.rating:>6.0f}"
            f"  {line.lower:>5.0f} to {line.upper:<5.0f}  {line.num_battles:>6}  {line.num_wins:>3}"
            f"  {line.num_losses:>4}  {line.num_ties:>4}  {line.num_both_bad:>8}{mark}"
        )
    for pair in board.pairs[:10]:
        if not pair.supported:
            lines.append(f"{pair.model} > {pair.other}: too few votes to tell")
            continue
        more = "too close to tell" if pair.more_votes is None else f"{pair.more_votes} more votes"
        more = "settled" if pair.more_votes == 0 else more
        lines.append(
            f"P({pair.model} > {pair.other}) = {pair.p_better:.3f}, wins {pair.win_rate:.0%};"
            f" {more}"
        )
    if board.position is not None:
        lines.append(
            f"Left side wins {board.position.win_share:.1%} between equals"
            f" ({board.position.points:+.0f} points)."
        )
    lines += [
        f"Style: {e.name} {e.points:+.0f} points a standard deviation"
        f" ({POINTS * e.lower:+.0f} to {POINTS * e.upper:+.0f})"
        for e in board.style
    ]
    lines.append(
        f"{board.num_votes} votes; ties: {config.fit.ties}; both bad: {config.both_bad};"
        f" intervals {'by voter' if board.clustered else 'by vote'}"
        f"{f', {config.bootstrap} resamples' if config.bootstrap else ''}."
    )
    lines += [f"left out: {reason} {n}" for reason, n in sorted(left_out.items())]
    return "\n".join([*lines, *board.notes])
