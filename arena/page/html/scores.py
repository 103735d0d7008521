"""HTML of what a reward model thinks of a battle's answers; knows numbers and words only."""

from __future__ import annotations

import html
from collections.abc import Sequence

from arena.i18n import Words
from arena.values.battle import SIDES


def scores_html(name: str, scores: Sequence[float | None], say: Words) -> str:
    """The score of each side, None where there was no answer, and whom it would have chosen."""
    told = [(SIDES[side].upper(), value) for side, value in enumerate(scores) if value is not None]
    if len(told) < 2:
        return ""
    best = max(value for _, value in told)
    first = [letter for letter, value in told if value == best]
    verdict = say("scores.chosen", side=first[0]) if len(first) == 1 else say("scores.even")
    values = " · ".join(f"{letter} {value:+.2f}" for letter, value in told)
    title = html.escape(say("scores.title", name=name))
    return (
        f'<section class="scores" aria-label="{title}"><h3>{title}</h3>'
        f'<p class="score-values">{html.escape(values)}</p>'
        f'<p class="score-verdict">{html.escape(verdict)}</p></section>'
    )
