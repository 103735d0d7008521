"""HTML of the leaderboard: ratings, who beats whom, how sure that is, and how it came about.

Knows leaderboards and words; knows no page, no store and no fit.
"""

from __future__ import annotations

import html
import io
from collections.abc import Mapping, Sequence

from arena.i18n import Words
from arena.ratings.leaderboard import POINTS, Effect, Leaderboard, PairStanding, Rating

MOST_PAIRS = 12
MOST_IN_MATRIX = 20
THIN = 10
"""Fewer votes on a pair than that are shown in grey: their share says little."""


def board_html(
    board: Leaderboard,
    say: Words,
    left_out: Mapping[str, int] | None = None,
    plain: Leaderboard | None = None,
    *,
    num_flagged: int = 0,
) -> str:
    """The ratings with their intervals drawn to one scale, and all that goes with them.

    `left_out`: judged pairs that are not in the ratings, by reason. `plain`: the ratings of the
    same votes with the effect of style left in, to stand beside those without it. `num_flagged`:
    judged pairs in quarantine that are counted.
    """
    if not board.ratings:
        gone = "".join(f"<li>{html.escape(note)}</li>" for note in _left_out(left_out, say))
        nothing = f'<p class="nothing">{html.escape(say("leaderboard.empty"))}</p>'
        return nothing + (f'<ul class="notes">{gone}</ul>' if gone else "")
    before = None if plain is None else {line.model: line.rating for line in plain.ratings}
    low = min(rating.lower for rating in board.ratings)
    high = max(rating.upper for rating in board.ratings)
    heads: tuple[str, ...] = ("rank", "model", "rating", "interval", "battles", "record")
    heads += ("plain",) if before is not None else ()
    rows = "".join(_board_row(rating, low, high, before, say) for rating in board.ratings)
    notes = [say("leaderboard.votes", votes=board.num_votes)]
    if board.position is not None:
        share = f"{100 * board.position.win_share:.0f}"
        notes.append(say("leaderboard.position", share=share))
    notes += [_style_note(effect, say) for effect in board.style]
    notes += _left_out(left_out, say)
    notes += [say("leaderboard.with_flagged", count=num_flagged)] if num_flagged else []
    notes += [
        say(f"leaderboard.note_{note.code}", **note.values) if note.code else str(note)
        for note in board.notes
    ]
    told = "".join(f"<li>{html.escape(note)}</li>" for note in notes)
    return (
        f"<h2>{html.escape(say('leaderboard.title'))}</h2>"
        f"{_table(_heads(heads, say), rows)}"
        f'<ul class="notes">{told}</ul>{_pairs(board, say)}{_matrix(board, say)}'
    )


def _left_out(left_out: Mapping[str, int] | None, say: Words) -> list[str]:
    return [
        say(f"leaderboard.left_out_{reason}", count=count)
        for reason, count in (left_out or {}).items()
    ]


def _style_note(effect: Effect, say: Words) -> str:
    """What one standard deviation more of a mark of style adds, in rating points."""
    low, high = POINTS * effect.lower, POINTS * effect.upper
    return say(
        "leaderboard.style_effect",
        feature=say(f"leaderboard.style_{effect.name}"),
        points=f"{effect.points:+.0f}",
        lower=f"{low:+.0f}",
        upper=f"{high:+.0f}",
    )


def over_time_html(times_ms: Sequence[int], boards: Sequence[Leaderboard], say: Words) -> str:
    """The ratings after the votes up to each time, as a drawing; nothing without votes."""
    if not boards:
        return f'<p class="nothing">{html.escape(say("leaderboard.empty"))}</p>'
    from arena.ratings.plots import history_figure

    drawn = io.StringIO()
    figure = history_figure(times_ms, boards, label="")  # its font has not every script's signs
    figure.savefig(
        drawn, format="svg", bbox_inches="tight", transparent=True, metadata={"Date": None}
    )
    svg = drawn.getvalue()
    label = html.escape(say("leaderboard.over_time"))
    return f'<figure role="img" aria-label="{label}">{svg[svg.index("<svg") :]}</figure>'


def _heads(keys: Sequence[str], say: Words) -> str:
    return "".join(f'<th scope="col">{html.escape(say(f"leaderboard.{key}"))}</th>' for key in keys)


def _table(head: str, rows: str) -> str:
    return (
        f'<div class="table-scroll" tabindex="0"><table><thead><tr>{head}</tr></thead>'
        f"<tbody>{rows}</tbody></table></div>"
    )


def _board_row(
    rating: Rating, low: float, high: float, before: Mapping[str, float] | None, say: Words
) -> str:
    span = max(high - low, 1e-9)
    left, width = 100 * (rating.lower - low) / span, 100 * (rating.upper - rating.lower) / span
    middle = 100 * (rating.rating - low) / span
    ranks = (
        f"{rating.rank}"
        if rating.rank == rating.worst_rank
        else f"{rating.rank}–{rating.worst_rank}"
    )
    kind = "interval" if rating.determined else "interval loose"
    bar = (
        f'<span class="{kind}" aria-hidden="true"><i style="left:{left:.1f}%;width:{width:.1f}%">'
        f'</i><b style="left:{middle:.1f}%"></b></span>'
    )
    plain = "" if before is None else f"<td>{before[rating.model]:.0f}</td>"
    won = f"{rating.num_wins} / {rating.num_losses} / {rating.num_ties} / {rating.num_both_bad}"
    mark = (
        "" if rating.determined else f"<small>{html.escape(say('leaderboard.not_fixed'))}</small>"
    )
    return (
        f'<tr><td>{ranks}</td><th scope="row">{html.escape(rating.model)}</th>'
        f"<td>{rating.rating:.0f} {mark}</td>"
        f"<td>{rating.lower:.0f} … {rating.upper:.0f}{bar}</td>"
        f"<td>{rating.num_battles}</td><td>{won}</td>{plain}</tr>"
    )


def _pairs(board: Leaderboard, say: Words) -> str:
    """How sure the order of two models is, the least sure that can be told first."""
    if not board.pairs:
        return ""
    unsure = sorted(board.pairs, key=lambda p: (not p.supported, p.p_better))[:MOST_PAIRS]
    rows = "".join(_pair_row(pair, say) for pair in unsure)
    heads = _heads(("better", "sure", "wins", "more_votes"), say)
    return f"<h2>{html.escape(say('leaderboard.pairs'))}</h2>{_table(heads, rows)}"


def _pair_row(pair: PairStanding, say: Words) -> str:
    head = f'<tr><th scope="row">{html.escape(pair.model)} &gt; {html.escape(pair.other)}</th>'
    if not pair.supported:  # the numbers would be the penalty's
        return f'{head}<td colspan="3">{html.escape(say("leaderboard.unsupported"))}</td></tr>'
    more = say("leaderboard.settled") if pair.more_votes == 0 else f"{pair.more_votes}"
    if pair.more_votes is None:
        more = say("leaderboard.too_close")
    return (
        f"{head}<td>{100 * pair.p_better:.1f} %</td><td>{100 * pair.win_rate:.0f} %</td>"
        f"<td>{html.escape(more)}</td></tr>"
    )


def _matrix(board: Leaderboard, say: Words) -> str:
    """Wins of the row and of the column, then the share, as a heat map; few votes in grey."""
    names = [rating.model for rating in board.ratings][:MOST_IN_MATRIX]
    order = [board.models.index(name) for name in names]
    head = f'<th scope="col">{html.escape(say("leaderboard.model"))}</th>' + "".join(
        f'<th scope="col">{html.escape(name)}</th>' for name in names
    )
    rows = "".join(
        f'<tr><th scope="row">{html.escape(name)}</th>'
        + "".join(_matrix_cell(board, i, j) for j in order)
        + "</tr>"
        for name, i in zip(names, order, strict=True)
    )
    title = html.escape(say("leaderboard.matrix"))
    return f'<h2>{title}</h2><div class="matrix">{_table(head, rows)}</div>'


def _matrix_cell(board: Leaderboard, i: int, j: int) -> str:
    count = board.count_matrix[i][j]
    if i == j or not count:
        return "<td></td>"
    share = board.win_matrix[i][j] / count
    tone = "thin" if count < THIN else "won" if share >= 0.5 else "lost"
    return (
        f'<td class="{tone}" style="--share:{abs(share - 0.5) * 100:.0f}%">'
        f"{board.win_matrix[i][j]:g} : {board.win_matrix[j][i]:g}"
        f" <small>{100 * share:.0f} %</small></td>"
    )
