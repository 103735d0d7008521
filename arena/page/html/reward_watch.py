"""HTML of a reward model beside the votes, for the admin's tab; knows numbers and words only."""

from __future__ import annotations

import html

from arena.battles.reward_watch import RewardWatch
from arena.i18n import Words

MOST_PROMPT = 80


def reward_watch_html(found: RewardWatch | None, say: Words) -> str:
    """How often they agree, the votes it has not seen, and where they disagree most."""
    if found is None:
        return ""
    lines = [say("scores.agrees", agreed=found.num_agreed, judged=found.num_judged)]
    if found.num_unread:
        lines.append(say("scores.left_out", count=found.num_unread))
    if found.new_votes is not None:
        lines.append(say("scores.new_votes", count=found.new_votes))
    told = "".join(f'<p class="muted">{html.escape(line)}</p>' for line in lines)
    title = html.escape(say("scores.title", name=found.name))
    return f"<h2>{title}</h2>{told}{_table(found, say)}"


def _table(found: RewardWatch, say: Words) -> str:
    if not found.worst:
        return ""
    heads = (say("scores.prompt"), say("scores.voted"), say("scores.scored"), say("scores.by"))
    head = "".join(f'<th scope="col">{html.escape(text)}</th>' for text in heads)
    body = "".join(
        f'<tr><th scope="row">{html.escape(_short(one.prompt))}</th>'
        f"<td>{html.escape(one.voted)}</td><td>{html.escape(one.scored)}</td>"
        f"<td>{one.by:+.2f}</td></tr>"
        for one in found.worst
    )
    return (
        '<div class="table-scroll" tabindex="0"><table class="sheet">'
        f"<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"
    )


def _short(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= MOST_PROMPT else f"{line[: MOST_PROMPT - 1]}…"
