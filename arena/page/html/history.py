"""HTML of a voter's own battles; knows words and plain values only."""

from __future__ import annotations

import html
import time
from collections.abc import Sequence

from arena.battles.voting import MOST_PAST
from arena.i18n import Words
from arena.storage.history_queries import Past

PROMPT_SHOWN = 160


def history_html(battles: Sequence[Past], say: Words) -> str:
    """Links to one's own battles; the names of a blind one stay hidden until it is judged."""
    if not battles:
        return f'<p class="nothing">{html.escape(say("history.empty"))}</p>'
    items = []
    for past in battles:
        prompt = past.prompt[:PROMPT_SHOWN] or "…"
        when = time.strftime("%Y-%m-%d %H:%M", time.gmtime(past.created_ms / 1000))
        state = "voted" if past.is_judged else "skipped" if past.is_skipped else "open"
        facts = [f"{when} UTC", say(f"history.{state}")]
        facts += [past.set_name] if past.set_name else []
        facts += past.names
        items.append(
            f'<li class="is-{state}"><a href="?battle={html.escape(past.battle_id)}">'
            f"{html.escape(prompt)}</a>"
            f'<span class="muted">{html.escape(" · ".join(facts))}</span></li>'
        )
    more = ""
    if len(battles) >= MOST_PAST:
        more = f'<p class="muted">{html.escape(say("history.more", count=MOST_PAST))}</p>'
    return f'<ul class="history">{"".join(items)}</ul>{more}'
