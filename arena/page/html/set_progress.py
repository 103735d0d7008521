"""HTML of how far a voter is in a prompt set; knows words and progress only."""

from __future__ import annotations

import html

from arena.i18n import Words
from arena.storage.set_progress import SetProgress


def progress_html(progress: SetProgress, say: Words) -> str:
    """A bar and its words; skipped ones, and those that cannot be asked, count as done."""
    text = say("set.progress", done=progress.num_done, total=progress.total)
    if progress.skipped:
        text += " " + say("set.skipped", count=len(progress.skipped))
    if progress.passed:
        text += " " + say("set.passed", count=len(progress.passed))
    return (
        f'<div class="set-progress"><progress max="{progress.total}" value="{progress.num_done}" '
        f'aria-label="{html.escape(text)}"></progress><span>{html.escape(text)}</span></div>'
    )


def none_html(say: Words) -> str:
    """What to do where there is no set yet."""
    return f'<p class="muted">{html.escape(say("set.none"))}</p>'
