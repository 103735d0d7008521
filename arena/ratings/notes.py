"""What the votes do not support, one sentence each; knows no store and no page."""

from __future__ import annotations

from arena.ratings.anchoring import Anchors
from arena.ratings.bradley_terry import Fit, FitConfig, Ties
from arena.ratings.connectivity import Connectivity
from arena.ratings.leaderboard import Note
from arena.ratings.vote_table import Cells, VoteTable

MIN_VOTERS = 10
"""From this many voters on, votes of one voter count as dependent."""


MIN_DECIDED = 5
"""With fewer decisive votes a model's interval is not left to the sandwich: ties alone would
give an interval of no width."""


def lost_note(lost: float) -> list[Note]:
    if not lost:
        return []
    return [
        Note(f"In {lost:.1%} of the resamples the votes no longer fix every gap between models.")
    ]


def notes(
    table: VoteTable,
    fit: FitConfig,
    result: Fit,
    links: Connectivity,
    reference: Anchors,
    few: list[str],
    *,
    clustered: bool,
) -> list[Note]:
    """What these votes do not support, one sentence each."""
    if not len(table):
        return [Note("There are no blind votes to rate yet. Vote on the page first.", "none")]
    notes = []
    if links.num_components > 1:
        notes.append(
            Note(
                f"The models form {links.num_components} groups that were never compared with each"
                " other. Gaps between groups mean nothing.",
                "groups",
                count=links.num_components,
            )
        )
    loose = [model for i, model in enumerate(table.models) if not reference.connected[i]]
    if loose:
        notes.append(
            Note(
                f"The votes alone do not determine the rating of {_listed(loose)} (never lost,"
                " or never won, against the rest)."
                f" The penalty of {fit.ridge:g} decides there.",
                "loose",
                models=_listed(loose),
            )
        )
    thin = [m for m in few if m not in loose]
    if thin:
        notes.append(
            Note(
                f"Fewer than {MIN_DECIDED} decisive votes: {_listed(thin)}.",
                "few",
                count=MIN_DECIDED,
                models=_listed(thin),
            )
        )
    if not clustered and table.cluster is not None:
        notes.append(
            Note(
                f"Fewer than {MIN_VOTERS} voters: the intervals treat votes as independent.",
                "few_voters",
                count=MIN_VOTERS,
            )
        )
    if fit.ties is Ties.DAVIDSON and result.nu is None:
        notes.append(
            Note("Davidson's tie parameter needs ties and decisive votes. It was left out.")
        )
    if not result.converged:
        notes.append(Note("The fit did not converge. Do not use these numbers.", "not_converged"))
    return notes


def side_notes(table: VoteTable, cells: Cells, fit: FitConfig, result: Fit) -> list[Note]:
    """Where the effect of the side is left out, and why."""
    if not fit.position or not len(table):
        return []
    notes = []
    if result.position is None:
        notes.append(
            Note(
                "The effect of the left side cannot be told from the strength of the models (sides"
                " did not change, or too few votes). It is left out of the ratings; the intervals"
                " allow for it.",
                "side_left_out",
            )
        )
    elif cells.fixed:
        pairs = [f"{table.models[i]} – {table.models[j]}" for i, j in cells.fixed]
        notes.append(
            Note(
                f"The sides never changed between {_listed(pairs)}: there the effect of the left"
                " side is left out, and the intervals allow for it.",
                "side_fixed",
                pairs=_listed(pairs),
            )
        )
    if table.sides_chosen is not None and (chosen := int(table.sides_chosen.sum())):
        notes.append(
            Note(
                f"The sides of {chosen} judged pairs were chosen by a person: they do not count for"
                " the effect of the left side.",
                "side_chosen",
                count=chosen,
            )
        )
    return notes


def self_note(count: int) -> list[Note]:
    """That votes on a model against itself do not count."""
    if not count:
        return []
    return [
        Note(
            f"{count} votes on a model against itself say nothing about it and do not count.",
            "self",
            count=count,
        )
    ]


def _listed(models: list[str], most: int = 5) -> str:
    return ", ".join(models[:most]) + (" …" if len(models) > most else "")
