"""HTML of a battle: the answer panes, the reveal, the status line. Every text is escaped here.

Knows scenes and words; knows no Gradio. Before the reveal no function here reads a
participant's name, so that no markup can carry one.
"""

from __future__ import annotations

import html
from collections.abc import Sequence

from arena.battle import SIDES, Answer, AskAs, Battle, Participant
from arena.judgement import Vote, Winner
from arena.markup import answer_html, plain_html
from arena.roster import Backend
from arena.scene import Scene
from arena.streams import Side
from arena.wording import Words

WINNER_KEYS = {
    Winner.MODEL_A: "a",
    Winner.MODEL_B: "b",
    Winner.TIE: "tie",
    Winner.BOTH_BAD: "both_bad",
}


def pane_html(scene: Scene, index: int, say: Words) -> str:
    """One answer with what was said before it."""
    side = scene.sides[index]
    letter = SIDES[index].upper()
    label = say("side.answer", side=letter)
    name = ""
    if scene.is_revealed:
        participant = scene.battle.participants[index]
        name = f'<span class="pane-name">{html.escape(participant.name)}</span>'
        name += _kind_chip(participant, say)
    chosen = " is-chosen" if _is_chosen(scene.vote, index) else ""
    return (
        f'<article class="pane side-{SIDES[index]} is-{side.state}{chosen}">'
        f'<header class="pane-head"><span class="letter" aria-hidden="true">{letter}</span>'
        f'<h2 class="pane-title">{html.escape(label)}</h2>{name}'
        f'<span class="pane-state">{html.escape(say(f"side.{side.state}"))}</span></header>'
        f'<div class="pane-body" tabindex="0" role="region" aria-label="{html.escape(label)}">'
        f"{_earlier(scene.battle, index)}{_body(side, say)}</div></article>"
    )


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
    return f'<span class="chip">{html.escape(kind_text(participant.kind, say))}</span>'


def kind_text(kind: str, say: Words) -> str:
    """A variant's kind in words; a kind we have no word for as it is."""
    return say.texts.get(f"kind.{kind}", kind)


def _earlier(battle: Battle, index: int) -> str:
    """The turns before the last one, each prompt with this side's answer."""
    parts = []
    for turn in battle.turns[:-1]:
        answer = turn.answer(index)
        text = answer_html(answer.text) if answer else ""
        parts.append(
            f'<div class="said" dir="auto">{plain_html(turn.prompt)}</div>'
            f'<div class="answer earlier" dir="auto">{text}</div>'
        )
    if parts:
        last = plain_html(battle.turns[-1].prompt)
        parts.append(f'<div class="said" dir="auto">{last}</div>')
    return "".join(parts)


def _body(side: Side, say: Words) -> str:
    body = answer_html(side.text.strip("\n"), final=side.is_finished) if side.text.strip() else ""
    if side.state == "waiting":
        body = '<div class="shimmer" aria-hidden="true"><i></i><i></i><i></i></div>'
    elif side.state == "done" and not body:
        body = f'<p class="nothing">{html.escape(say("side.nothing"))}</p>'
    problem = ""
    if side.state == "failed":
        reason = html.escape(say("side.failed_body", reason=side.error))
        problem = f'<p class="problem">{reason}</p>'
    return f'<div class="answer" dir="auto">{body}</div>{problem}'


def asked_html(scene: Scene | None, say: Words) -> str:
    """The prompt of the first turn above the panes; nothing while there is no battle."""
    if scene is None or not scene.battle.turns:
        return ""
    prompt = plain_html(scene.battle.turns[0].prompt)
    return (
        f'<div class="asked"><span class="asked-label">{html.escape(say("side.asked"))}</span>'
        f'<div class="asked-text" dir="auto">{prompt}</div></div>'
    )


def empty_html(say: Words) -> str:
    """What the page says before the first battle."""
    return (
        f'<div class="empty"><h2>{html.escape(say("empty.title"))}</h2>'
        f"<p>{html.escape(say('empty.body'))}</p></div>"
    )


def reveal_html(scene: Scene, say: Words) -> str:
    """Who wrote what, and how it was asked; empty until the names may be shown and all ended."""
    if not scene.is_revealed or scene.is_running or not scene.battle.turns:
        return ""
    turn = scene.battle.turns[-1]
    cards = [
        _reveal_card(SIDES[i], participant, turn.answer(i), say)
        for i, participant in enumerate(scene.battle.participants)
    ]
    return (
        f'<section class="reveal"><h2>{html.escape(say("reveal.title"))}</h2>'
        f'<div class="reveal-cards">{"".join(cards)}</div></section>'
    )


def _reveal_card(letter: str, participant: Participant, answer: Answer | None, say: Words) -> str:
    rows = [
        ("reveal.kind", html.escape(kind_text(participant.kind, say)) or _unknown(say)),
    ]
    if participant.base:
        rows.append(("reveal.base", html.escape(participant.base)))
    weights = (answer.weights_sha256 if answer else None) or participant.weights_sha256
    rows.append(("reveal.weights", _hash(weights, say)))
    asked_as = "completion" if participant.ask_as is AskAs.COMPLETION else "chat"
    rows.append(("reveal.asked_as", html.escape(say(f"reveal.{asked_as}"))))
    if answer is not None:
        rows += _measures(answer, say)
    lines = "".join(
        f"<div><dt>{html.escape(say(key))}</dt><dd>{value}</dd></div>" for key, value in rows
    )
    leak = ""
    if answer is not None and answer.identity_leak:
        leak = f'<p class="problem">{html.escape(say("reveal.leak"))}</p>'
    return (
        f'<article class="reveal-card side-{letter}"><header><span class="letter" '
        f'aria-hidden="true">{letter.upper()}</span><h3>{html.escape(participant.name)}</h3></header>'
        f"<dl>{lines}</dl>{leak}{_prompt_details(answer, say)}</article>"
    )


def _measures(answer: Answer, say: Words) -> list[tuple[str, str]]:
    sampling = answer.sampling
    drawn = (
        say("reveal.temperature", value=f"{sampling.temperature:g}")
        if sampling.temperature
        else say("reveal.greedy")
    )
    rows = [("reveal.sampling", html.escape(drawn))]
    if answer.num_tokens is not None:
        rows.append(("reveal.tokens", str(answer.num_tokens)))
    if answer.first_token_s is not None:
        text = say("reveal.seconds", value=f"{answer.first_token_s:.2f}")
        rows.append(("reveal.first", html.escape(text)))
    speed = stored_speed(answer)
    if speed is not None:
        rows.append(("reveal.speed", html.escape(say("reveal.per_second", value=f"{speed:.0f}"))))
    if answer.finish_reason:
        rows.append(("reveal.ended", html.escape(answer.finish_reason)))
    return rows


def stored_speed(answer: Answer) -> float | None:
    """Tokens per second after the first token; None where there is too little to measure."""
    if answer.first_token_s is None or answer.total_s is None or (answer.num_tokens or 0) < 2:
        return None
    seconds = answer.total_s - answer.first_token_s
    return ((answer.num_tokens or 0) - 1) / seconds if seconds > 0 else None


def _prompt_details(answer: Answer | None, say: Words) -> str:
    if answer is None or not answer.prompt_sent:
        return ""
    return (
        f"<details><summary>{html.escape(say('reveal.prompt'))}</summary>"
        f'<pre class="sent" tabindex="0">{html.escape(answer.prompt_sent)}</pre></details>'
    )


def _hash(value: str | None, say: Words) -> str:
    if not value:
        return _unknown(say)
    return f'<code class="hash" title="{html.escape(value)}">{html.escape(value[:12])}</code>'


def _unknown(say: Words) -> str:
    return f'<span class="muted">{html.escape(say("reveal.unknown"))}</span>'


def status_html(text: str, say: Words, *, tone: str = "") -> str:
    """The one line that a screen reader is told; `tone` is `""`, `good` or `bad`."""
    return f'<p class="status-line {tone}" lang="{say.language}">{html.escape(text)}</p>'


def servers_text(backends: Sequence[Backend], say: Words) -> tuple[str, str]:
    """What can be asked now, and the tone: no model is named."""
    problems = [
        say("status.down", url=backend.url, problem=backend.problem)
        for backend in backends
        if not backend.is_up
    ]
    num_up = sum(backend.is_up for backend in backends)
    num_models = sum(len(backend.entrants) for backend in backends)
    if num_models == 0:
        return " ".join([say("status.no_models"), *problems]), "bad"
    if num_models == 1:
        return " ".join([say("status.too_few"), *problems]), "bad"
    where = say("status.one_server") if num_up == 1 else say("status.servers", count=num_up)
    ready = say("status.ready", models=num_models, servers=where)
    return " ".join([ready, *problems]), "bad" if problems else ""


def scene_status(scene: Scene, say: Words) -> tuple[str, str]:
    """What the page says of a battle now, and its tone."""
    failed = [SIDES[i].upper() for i, side in enumerate(scene.sides) if side.state == "failed"]
    if scene.vote is not None:
        key = (
            "ranking"
            if scene.vote.judgement.winner is None
            else WINNER_KEYS[scene.vote.judgement.winner]
        )
        return f"{say(f'status.voted_{key}')} {say('status.names_shown')}", "good"
    if scene.is_running:
        ended = [SIDES[i].upper() for i, side in enumerate(scene.sides) if side.is_finished]
        texts = [say("status.side_finished", side=letter) for letter in ended]
        return " ".join(texts) or say("status.writing"), ""
    if failed:
        return say("status.judge_failed", side=", ".join(failed)), "bad"
    return say("status.vote_now"), ""
