"""Draws leaderboards: ratings with intervals, the win matrix, ratings over time."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from arena.errors import ArenaError
from arena.ratings.leaderboard import Leaderboard

if TYPE_CHECKING:
    from matplotlib.figure import Figure

KINDS = (".png", ".svg", ".pdf")
THIN = 10
"""Fewer votes on a pair than that are written in grey, without colour: their share says little."""


class RatingPlotError(ArenaError):
    """The plot cannot be written there or has nothing to show."""


def save(figure: Figure, path: Path) -> None:
    """Write a figure by the file's ending; PlotError names what is wrong with it."""
    if path.suffix not in KINDS:
        raise RatingPlotError(f"plot {path} ends in no known format; use {', '.join(KINDS)}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, bbox_inches="tight", dpi=150)
    except OSError as error:
        raise RatingPlotError(f"plot {path} cannot be written: {error.strerror}") from error


def intervals_figure(board: Leaderboard) -> Figure:
    """A dot and a bar per model; hollow where the votes do not fix the rating."""
    lines = list(reversed(board.ratings))
    if not lines:
        raise RatingPlotError("there is no vote to plot; vote on the page first")
    figure = _figure(7, 1.2 + 0.35 * len(lines))
    axes = figure.add_subplot()
    for place, line in enumerate(lines):
        axes.plot([line.lower, line.upper], [place, place], color="tab:blue", linewidth=2)
        fill = "tab:blue" if line.determined else "white"
        axes.plot([line.rating], [place], "o", color="tab:blue", markerfacecolor=fill)
    axes.set_yticks(range(len(lines)), [line.model for line in lines])
    axes.set_xlabel(f"rating (95 % interval, {board.num_votes} votes)")
    axes.grid(axis="x", alpha=0.3)
    return figure


def win_matrix_figure(board: Leaderboard) -> Figure:
    """Wins of row and column with the row's share; empty where none, grey where few."""
    if not board.models:
        raise RatingPlotError("there is no vote to plot; vote on the page first")
    order = [board.models.index(line.model) for line in board.ratings]
    names = [line.model for line in board.ratings]
    shares = [[_share(board, i, j) for j in order] for i in order]
    side = 2 + 0.6 * len(names)
    figure = _figure(side + 1, side)
    axes = figure.add_subplot()
    thin = [[board.count_matrix[i][j] < THIN for j in order] for i in order]
    shown = np.where(thin, np.nan, shares)
    image = axes.imshow(shown, cmap="RdBu", vmin=0, vmax=1)
    for i, row in enumerate(shares):
        for j, share in enumerate(row):
            count = board.count_matrix[order[i]][order[j]]
            if count and len(names) <= 20:
                wins, losses = (board.win_matrix[order[k]][order[m]] for k, m in ((i, j), (j, i)))
                tone = "black" if count >= THIN else "gray"
                text = f"{wins:g} : {losses:g}\n{share:.0%}"
                axes.text(j, i, text, ha="center", va="center", fontsize=7, color=tone)
    axes.set_xticks(range(len(names)), names, rotation=45, ha="right")
    axes.set_yticks(range(len(names)), names)
    figure.colorbar(image, ax=axes, label="share of wins of the row (ties half)")
    return figure


def history_figure(
    times_ms: Sequence[int], boards: Sequence[Leaderboard], label: str = "rating"
) -> Figure:
    """Rating of each model after the votes up to each time, with the interval as a band.

    A model is drawn from its first vote on.
    """
    import datetime

    from matplotlib.dates import AutoDateLocator, ConciseDateFormatter, date2num

    if not boards:
        raise RatingPlotError("there is no vote to plot; vote on the page first")
    figure = _figure(9, 4)
    axes = figure.add_subplot()
    days = [
        float(date2num(datetime.datetime.fromtimestamp(ms / 1000, datetime.UTC))) for ms in times_ms
    ]
    locator = AutoDateLocator()
    axes.xaxis.set_major_locator(locator)
    axes.xaxis.set_major_formatter(ConciseDateFormatter(locator))
    for last in boards[-1].ratings:
        seen = [
            (day, line)
            for day, board in zip(days, boards, strict=True)
            for line in board.ratings
            if line.model == last.model and line.num_battles
        ]
        x = [day for day, _ in seen]
        (drawn,) = axes.plot(x, [line.rating for _, line in seen], marker=".", label=last.model)
        lower, upper = [line.lower for _, line in seen], [line.upper for _, line in seen]
        axes.fill_between(x, lower, upper, color=drawn.get_color(), alpha=0.1)
    axes.set_ylabel(label)
    axes.grid(axis="y", alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(loc="upper left", bbox_to_anchor=(1, 1), fontsize=8, frameon=False)
    return figure


def _share(board: Leaderboard, i: int, j: int) -> float:
    count = board.count_matrix[i][j]
    return board.win_matrix[i][j] / count if count and i != j else float("nan")


def _figure(width: float, height: float) -> Figure:
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height))
