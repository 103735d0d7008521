"""HTML of a battle: the answer panes and the status line. Every text is escaped here.

Knows battles as views and words; knows no Gradio. Before the reveal no function here reads a
participant's name, so that no markup can carry one.
"""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from arena.backends.probing import Backend
from arena.backends.streams import AnswerError, Side
from arena.battles.view import BattleView
from arena.i18n import Words, error_text
from arena.page.html.differences import unmarked_html
from arena.page.html.markdown import plain_html
from arena.page.html.reveal import kind_text
from arena.values.battle import SIDES, Battle, Participant
from arena.values.vote import Vote, Winner

WINNER_KEYS = {
    Winner.MODEL_A: "a",
    Winner.MODEL_B: "b",
    Winner.TIE: "tie",
    Winner.BOTH_BAD: "both_bad",
}


@dataclass(frozen=True)
class DrawnTexts:
    """Foreign texts as HTML, drawn elsewhere; one that is missing is shown as it was written.

    `answers`: by the text without the line ends around it. `marked`: by the side.
    """

    answers: Mapping[str, str] = field(default_factory=dict)
    marked: Mapping[int, str] = field(default_factory=dict)

    def answer(self, text: str) -> str:
        """The HTML of an answer."""
        found = self.answers.get(text.strip("\n"))
        if found is not None or not text.strip():
            return found or ""
        return f'<div class="plain" dir="auto">{plain_html(text.strip(chr(10)))}</div>'


NOTHING_DRAWN = DrawnTexts()


def has_marks(view: BattleView, index: int) -> bool:
    """Whether the words of a side can be compared with those of the other."""
    side = view.sides[index]
    return len(view.sides) == 2 and side.is_finished and side.state != "failed"


def pane_html(
    view: BattleView,
    index: int,
    say: Words,
    drawn: DrawnTexts = NOTHING_DRAWN,
    *,
    mark: bool = False,
    without_text: bool = False,
    fresh: bool = False,
) -> str:
    """One answer with what was said before it.

    `drawn`: the texts that it shows. `mark` shows which words the other lacks; `without_text`
    leaves the text out, for a page that is told it piece by piece; `fresh`: the answers have ended
    this moment (see `_controls`).
    """
    side = view.sides[index]
    letter = SIDES[index].upper()
    label = say("side.answer", side=letter)
    name = ""
    if view.is_revealed:
        participant = view.battle.participants[index]
        name = f'<span class="pane-name">{html.escape(participant.name)}</span>'
        name += _kind_chip(participant, say)
    chosen = " is-chosen" if _is_chosen(view.vote, index) else ""
    busy = "false" if side.is_finished else "true"
    body = '<div class="answer" dir="auto"></div>' if without_text else _body(side, say, drawn)
    if mark and has_marks(view, index):
        body = drawn.marked.get(index) or unmarked_html(side.text)
    return (
        f'<article class="pane side-{SIDES[index]} is-{side.state}{chosen}" '
        f'data-run="{view.run}">'
        f'<header class="pane-head"><span class="letter" aria-hidden="true">{letter}</span>'
        f'<h2 class="pane-title">{html.escape(label)}</h2>{name}'
        f'<span class="pane-state">{html.escape(say(f"side.{side.state}"))}</span>'
        f"{_controls(view, index, label, say, fresh=fresh)}</header>"
        f'<div class="pane-body" tabindex="0" role="region" aria-label="{html.escape(label)}" '
        f'aria-busy="{busy}">{_earlier(view.battle, index, drawn)}{body}</div></article>'
    )


def _controls(view: BattleView, index: int, label: str, say: Words, *, fresh: bool) -> str:
    """Stop while it writes; ask again until it is judged; enlarge.

    Asking again stands where stopping stood: for a moment it takes no press, so that one meant
    to stop an answer that has just ended does not throw it away (`live.js` lifts that).
    """
    acts = []
    side = view.sides[index]
    if not side.is_finished:
        acts.append(("stop", say("side.stop"), ""))
    elif not view.is_running and view.vote is None:
        acts.append(("again", say("side.again"), " disabled data-fresh" if fresh else ""))
    buttons = [
        f'<button type="button" class="act" data-act="{act}" data-side="{index}"{more} '
        f'aria-label="{html.escape(f"{text}: {label}")}">{html.escape(text)}</button>'
        for act, text, more in acts
    ]
    if side.is_finished and side.text.strip():
        copy, text = html.escape(say("side.copy")), html.escape(side.text).replace("\r", "&#13;")
        buttons.append(
            f'<button type="button" class="act" data-copy data-text="{text}" '
            f'aria-label="{copy}: {html.escape(label)}">{copy}</button>'
        )
    focus = html.escape(say("view.focus"))
    buttons.append(
        f'<button type="button" class="act" data-focus aria-pressed="false" '
        f'aria-label="{focus}: {html.escape(label)}">{focus}</button>'
    )
    return f'<span class="acts">{"".join(buttons)}</span>'


def _is_chosen(vote: Vote | None, index: int) -> bool:
    if vote is None:
        return False
    if vote.judgement.ranking is not None:
        return vote.judgement.ranking[index] == 1
    wins = {0: (Winner.MODEL_A, Winner.TIE), 1: (Winner.MODEL_B, Winner.TIE)}
    return vote.judgement.winner in wins.get(index, (Winner.TIE,))


def _kind_chip(participant: Participant, say: Words) -> str:
    if not participant.kind:
        return ""
    return f'<span class="chip">{html.escape(kind_text(participant, say))}</span>'


def _earlier(battle: Battle, index: int, drawn: DrawnTexts) -> str:
    """The turns before the last one, each prompt with this side's answer."""
    parts = []
    for turn in battle.turns[:-1]:
        answer = turn.answer(index)
        text = drawn.answer(answer.text) if answer else ""
        parts.append(
            f'<div class="said" dir="auto">{plain_html(turn.prompt)}</div>'
            f'<div class="answer earlier" dir="auto">{text}</div>'
        )
    if parts:
        last = plain_html(battle.turns[-1].prompt)
        parts.append(f'<div class="said" dir="auto">{last}</div>')
    return "".join(parts)


def _body(side: Side, say: Words, drawn: DrawnTexts) -> str:
    body = drawn.answer(side.text)
    if side.state == "waiting":
        body = '<div class="shimmer" aria-hidden="true"><i></i><i></i><i></i></div>'
    elif side.state == "done" and not body:
        body = f'<p class="nothing">{html.escape(say("side.nothing"))}</p>'
    problem = ""
    if side.state == "failed":
        reason = html.escape(say("side.failed_body", reason=_failure(side, say)))
        said = html.escape(say("side.server_said", said=side.said)) if side.said else ""
        problem = f'<p class="problem" dir="auto">{reason} {said}</p>'
    return f'<div class="answer" dir="auto">{body}</div>{problem}'


def _failure(side: Side, say: Words) -> str:
    """Why a side failed, in the reader's language where the catalogue has it."""
    return error_text(AnswerError(side.error_kind, side.error).coded(side.error_kind), say)


def asked_html(view: BattleView | None, say: Words) -> str:
    """The prompt of the first turn above the panes; nothing while there is no battle."""
    if view is None or not view.battle.turns:
        return ""
    prompt = plain_html(view.battle.turns[0].prompt)
    return (
        f'<div class="asked"><span class="asked-label">{html.escape(say("side.asked"))}</span>'
        f'<div class="asked-text" dir="auto">{prompt}</div></div>'
    )


def status_html(text: str, say: Words, *, tone: str = "") -> str:
    """The one line that a screen reader is told; `tone` is `""`, `good` or `bad`."""
    return (
        f'<p class="status-line {tone}" role="status" aria-live="polite" lang="{say.language}">'
        f"{html.escape(text)}</p>"
    )


def problem_text(backend: Backend, say: Words) -> str:
    """Why a server takes no part, in the reader's language."""
    return say(f"problem.{backend.fault}", about=backend.about)


def servers_text(backends: Sequence[Backend], say: Words) -> tuple[str, str]:
    """What can be asked now, and the tone: no model is named."""
    problems = [
        say("status.down", url=backend.url, problem=problem_text(backend, say))
        for backend in backends
        if not backend.is_up
    ]
    num_up = sum(backend.is_up for backend in backends)
    num_models = sum(len(backend.targets) for backend in backends)
    if num_models == 0:
        return " ".join([say("status.no_models"), *problems]), "bad"
    if num_models == 1:
        return " ".join([say("status.too_few"), *problems]), "bad"
    where = say("status.one_server") if num_up == 1 else say("status.servers", count=num_up)
    ready = say("status.ready", models=num_models, servers=where)
    return " ".join([ready, *problems]), "bad" if problems else ""


def view_status(view: BattleView, say: Words) -> tuple[str, str]:
    """What the page says of a battle now, and its tone."""
    failed = [SIDES[i].upper() for i, side in enumerate(view.sides) if side.state == "failed"]
    if view.vote is not None:
        key = (
            "ranking"
            if view.vote.judgement.winner is None
            else WINNER_KEYS[view.vote.judgement.winner]
        )
        early = f"{say('status.voted_early')} " if view.vote.partial else ""
        return f"{say(f'status.voted_{key}')} {early}{say('status.names_shown')}", "good"
    if view.is_skipped:
        return f"{say('status.skipped')} {say('status.names_shown')}", ""
    if view.is_running:
        ended = [SIDES[i].upper() for i, side in enumerate(view.sides) if side.is_finished]
        texts = [say("status.side_finished", side=letter) for letter in ended]
        return " ".join(texts) or say("status.writing"), ""
    if failed:
        return say("status.judge_failed", side=", ".join(failed)), "bad"
    return say("status.vote_now"), ""
