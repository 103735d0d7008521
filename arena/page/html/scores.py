"""HTML of what a reward model thinks of a battle's answers; knows numbers and words only."""

from __future__ import annotations

import html
from collections.abc import Sequence

from arena.backends.scoring import ToldScore
from arena.i18n import Words
from arena.values.battle import SIDES


def scores_html(name: str, scores: Sequence[ToldScore | None], say: Words) -> str:
    """The score of each side, None where there was no answer, and whom it would have chosen.

    Of an answer that it could not read the page says so, and nobody is chosen.
    """
    told = [(SIDES[side].upper(), value) for side, value in enumerate(scores) if value is not None]
    if len(told) < 2:
        return ""
    verdict = _verdict(told, say)
    values = " · ".join(
        f"{letter} –" if isinstance(value, str) else f"{letter} {value:+.2f}"
        for letter, value in told
    )
    title = html.escape(say("scores.title", name=name))
    return (
        f'<section class="scores" aria-label="{title}"><h3>{title}</h3>'
        f'<p class="score-values">{html.escape(values)}</p>'
        f'<p class="score-verdict">{html.escape(verdict)}</p></section>'
    )


def _verdict(told: Sequence[tuple[str, ToldScore]], say: Words) -> str:
    if unread := [letter for letter, value in told if isinstance(value, str)]:
        return say("scores.unread", sides=", ".join(unread))
    best = max(value for _, value in told if not isinstance(value, str))
    first = [letter for letter, value in told if value == best]
    return say("scores.chosen", side=first[0]) if len(first) == 1 else say("scores.even")
