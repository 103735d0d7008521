"""HTML of an answer's tokens, each shaded by how unlikely it was; knows numbers and words only."""

from __future__ import annotations

import html
import math
from collections.abc import Sequence

from arena.i18n import Words
from arena.values.battle import SIDES

SHADES = (0.9, 0.6, 0.3, 0.1)
"""Probabilities below which the shade grows darker; 0 is no shade, 4 the darkest."""
NUM_LEAST = 5
NEW_LINE = "↵\n"
"""A token that is a new line alone could not be seen or pointed at."""


def tokens_html(tokens: Sequence[tuple[str, float]], side: int, say: Words) -> str:
    """Every token with its probability, and in words the least likely ones.

    Args:
        tokens: text and natural logarithm of the probability, in order; empty if not told.
        side: index of the side.
    """
    title = html.escape(say("tokens.title", side=SIDES[side].upper()))
    if not tokens:
        return f'<p class="muted tokens-none">{html.escape(say("tokens.none"))}</p>'
    spans = "".join(
        f'<span class="token shade-{_shade(logprob)}" title="{_percent(logprob)}">'
        f"{html.escape(text.replace(chr(10), NEW_LINE))}</span>"
        for text, logprob in tokens
    )
    least = sorted(tokens, key=lambda token: token[1])[:NUM_LEAST]
    told = ", ".join(f"“{text.strip()}” {_percent(logprob)}" for text, logprob in least)
    mean = _percent(sum(logprob for _, logprob in tokens) / len(tokens))
    return (
        f'<section class="tokens" aria-label="{title}"><h3>{title}</h3>'
        f'<div class="token-text" dir="auto">{spans}</div>'
        f'<p class="muted">{html.escape(say("tokens.least", tokens=told))} '
        f"{html.escape(say('tokens.mean', value=mean))}</p></section>"
    )


def _shade(logprob: float) -> int:
    return sum(math.exp(logprob) < mark for mark in SHADES)


def _percent(logprob: float) -> str:
    share = 100 * math.exp(min(0.0, logprob))
    return f"{share:.0f} %" if share >= 1 else "< 1 %"
