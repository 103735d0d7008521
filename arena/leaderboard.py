"""The `arena leaderboard` command: votes of a home folder to a table, JSON or a plot."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from arena.bradley_terry import FitConfig, Ties
from arena.errors import ArenaError
from arena.exporting import existing_store, parse_time
from arena.ratings import BothBad, RatingConfig, rate
from arena.standings import Effect, Leaderboard
from arena.tally import Ballot, tally


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
    reason: str | None
    tag: str | None
    since: str | None
    until: str | None


def run_leaderboard(request: LeaderboardRequest, *, json_out: bool, plot: Path | None) -> None:
    """Rate, print, and plot when asked."""
    config, ballot = config_of(request), ballot_of(request)
    tallied = tally(existing_store(request.home), ballot)
    board = rate(tallied.table, config)
    if plot is not None:
        from arena.plots import plot_intervals

        plot_intervals(board, plot)
    if json_out:
        print(json.dumps(as_json(board, config, tallied.left_out), ensure_ascii=False))
    else:
        print(as_text(board, config, tallied.left_out))


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
    return RatingConfig(
        fit=FitConfig(ridge=request.ridge, ties=Ties(request.ties)),
        both_bad=BothBad(request.both_bad),
    )


def ballot_of(request: LeaderboardRequest) -> Ballot:
    """Which votes the words ask for."""
    return Ballot(
        named=request.named,
        flagged=request.flagged,
        propensity=request.propensity,
        reason=request.reason,
        tag=request.tag,
        since_ms=None if request.since is None else parse_time("--since", request.since),
        until_ms=None if request.until is None else parse_time("--until", request.until),
    )


def as_json(board: Leaderboard, config: RatingConfig, left_out: dict[str, int]) -> dict[str, Any]:
    """The leaderboard for scripts; every number that the text shows and more."""
    told = asdict(board)
    return {
        "ratings": told.pop("ratings"),
        "position_effect": effect_json(board.position),
        "style_effects": [effect_json(effect) for effect in board.style],
        "config": {**asdict(config.fit), "both_bad": config.both_bad},
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


def as_text(board: Leaderboard, config: RatingConfig, left_out: dict[str, int]) -> str:
    """The leaderboard for people."""
    width = max([len(line.model) for line in board.ratings] + [5])
    lines = [f"rank  {'model':<{width}}  rating  95 % interval  battles  won  lost  tied  both bad"]
    for line in board.ratings:
        mark = "" if line.determined else "  (not fixed by the votes)"
        lines.append(
            f"{line.rank:>4}  {line.model:<{width}}  {line.rating:>6.0f}"
            f"  {line.lower:>5.0f} to {line.upper:<5.0f}  {line.num_battles:>6}  {line.num_wins:>3}"
            f"  {line.num_losses:>4}  {line.num_ties:>4}  {line.num_both_bad:>8}{mark}"
        )
    for pair in board.pairs[:10]:
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
    lines.append(
        f"{board.num_votes} votes; ties: {config.fit.ties}; both bad: {config.both_bad};"
        f" intervals {'by voter' if board.clustered else 'by vote'}."
    )
    lines += [f"left out: {reason} {n}" for reason, n in sorted(left_out.items())]
    return "\n".join([*lines, *board.notes])
