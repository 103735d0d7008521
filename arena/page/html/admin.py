"""HTML of the admin's tab: servers and their queues, votes by day, votes in quarantine.

Knows words and plain values; knows no Gradio and no right.
"""

from __future__ import annotations

import html
import time
from collections.abc import Mapping, Sequence

from arena.backends.probing import Backend
from arena.backends.queues import Queue
from arena.i18n import Words
from arena.page.html.panes import WINNER_KEYS, problem_text
from arena.storage.admin_queries import Activity
from arena.storage.quarantine import read_evidence
from arena.values.vote import FlaggedVote


def live_html(
    backends: Sequence[Backend],
    queues: Mapping[str, Queue],
    running: tuple[int, int],
    num_voters: int,
    say: Words,
) -> str:
    """Servers with their queues, and the battles that run now out of how many may."""
    heads = ("server", "state", "api", "participants", "running", "waiting")
    rows = [
        [
            f'<th scope="row">{html.escape(backend.url)}</th>',
            _cell(say("admin.up"), "good")
            if backend.is_up
            else _cell(say("admin.down", problem=problem_text(backend, say)), "bad"),
            _cell(backend.wire.upper() if backend.is_up else "–"),
            _cell(", ".join(_asked(backend, say)) or "–"),
            _cell(_number(queues.get(backend.url, Queue()).running)),
            _cell(_number(queues.get(backend.url, Queue()).waiting)),
        ]
        for backend in backends
    ]
    now = say("admin.now", running=running[0], places=running[1], voters=num_voters)
    table = _table("live", heads, rows, say)
    return f'{table}<p class="muted">{html.escape(now)}</p>{_refused(backends, say)}'


def _refused(backends: Sequence[Backend], say: Words) -> str:
    """What servers did not take, and why; nothing where they took all."""
    rows = [
        [_cell(backend.url), f'<th scope="row">{html.escape(name)}</th>', _cell(why)]
        for backend in backends
        for name, why in (*backend.refused_folders, *(("–", why) for why in backend.refused))
    ]
    return _table("refused", ("server", "folder", "why"), rows, say) if rows else ""


def _asked(backend: Backend, say: Words) -> list[str]:
    return [
        f"{target.name} ({say(f'admin.{target.participant.ask_as}')})" for target in backend.targets
    ]


def _number(value: int | None) -> str:
    return "–" if value is None else str(value)


def votes_html(found: Activity, say: Words) -> str:
    """Votes by model and day."""
    if not found.votes:
        return _titled("votes", f'<p class="nothing">{html.escape(say("admin.no_votes"))}</p>', say)
    rows = [
        [
            f'<th scope="row">{html.escape(name)}</th>',
            *(_cell(str(days.get(day, 0))) for day in found.days),
            _cell(str(sum(days.values()))),
        ]
        for name, days in found.votes.items()
    ]
    heads = [say("leaderboard.model"), *found.days, say("admin.sum")]
    return _titled("votes", _grid(heads, rows), say)


def flagged_html(votes: Sequence[FlaggedVote], say: Words) -> str:
    """Votes in quarantine, each reason with a button that clears it."""
    if not votes:
        return _titled("flagged", f'<p class="nothing">{html.escape(say("admin.none"))}</p>', say)
    rows = [
        _flagged_row(found, reason, detail, say)
        for found in votes
        for reason, detail in found.details
    ]
    heads = [say(f"admin.{key}") for key in ("when", "voter", "said", "reason", "act")]
    return _titled("flagged", _grid(heads, rows), say)


def _flagged_row(found: FlaggedVote, reason: str, detail: str, say: Words) -> list[str]:
    vote = found.vote
    when = time.strftime("%Y-%m-%d %H:%M", time.gmtime(vote.created_ms / 1000))
    winner = vote.judgement.winner
    said = say("admin.ranking") if winner is None else say(f"vote.{WINNER_KEYS[winner]}")
    clear = html.escape(say("admin.clear"))
    button = (
        f'<td><button type="button" class="act" data-vote="{vote.id}" '
        f'data-reason="{html.escape(reason)}" aria-label="{clear}: {vote.id}, '
        f'{html.escape(reason)}">{clear}</button></td>'
    )
    name, told = say.texts.get(f"flag.{reason}", reason), _evidence(detail, say)
    why = name if told == name else f"{name}: {told}"
    return [_cell(when), _cell(vote.voter), _cell(said), _cell(why), button]


def _evidence(detail: str, say: Words) -> str:
    """What is stored beside a mark, in the reader's language where it is a sentence of ours."""
    found = read_evidence(detail)
    if found is None:
        return detail
    key, values = found
    side = f"evidence.{values.get('side')}"
    if side in say.texts:
        values["side"] = say(side)
    return say(f"evidence.{key}", **values)


def _cell(text: str, kind: str = "") -> str:
    return f'<td class="{kind}">{html.escape(text)}</td>'


def _table(key: str, heads: Sequence[str], rows: Sequence[Sequence[str]], say: Words) -> str:
    return _titled(key, _grid([say(f"admin.{head}") for head in heads], rows), say)


def _titled(key: str, body: str, say: Words) -> str:
    return f"<h2>{html.escape(say(f'admin.{key}'))}</h2>{body}"


def _grid(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    head = "".join(f'<th scope="col">{html.escape(text)}</th>' for text in heads)
    body = "".join(f"<tr>{''.join(row)}</tr>" for row in rows)
    return (
        '<div class="table-scroll" tabindex="0"><table class="sheet">'
        f"<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"
    )
