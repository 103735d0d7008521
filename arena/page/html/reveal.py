"""HTML of the reveal: who wrote what, how it was asked, and what it measured.

Only called for battles whose names may be shown; every text is escaped.
"""

from __future__ import annotations

import html
from collections.abc import Mapping
from types import MappingProxyType

from arena.battles.view import BattleView
from arena.i18n import Words
from arena.values.battle import SIDES, Answer, AskAs, Participant, SamplingSettings


def reveal_html(
    view: BattleView, say: Words, variants: Mapping[str, int] = MappingProxyType({})
) -> str:
    """Who wrote what, and how it was asked; empty until the names may be shown and all ended.

    `variants`: of how many that are served a model is the base, by its name.
    """
    if not view.is_revealed or view.is_running or not view.battle.turns:
        return ""
    turn = view.battle.turns[-1]
    cards = [
        _reveal_card(*(i, participant, turn.answer(i), say), variants.get(participant.name, 0))
        for i, participant in enumerate(view.battle.participants)
    ]
    return (
        f'<section class="reveal"><h2>{html.escape(say("reveal.title"))}</h2>'
        f'<div class="reveal-cards">{"".join(cards)}</div></section>'
    )


def _reveal_card(
    index: int, participant: Participant, answer: Answer | None, say: Words, num_variants: int
) -> str:
    letter = SIDES[index]
    model = (answer.model if answer else "") or participant.model
    rows = [
        ("reveal.model", html.escape(model)),
        ("reveal.kind", html.escape(kind_text(participant, say, num_variants)) or _unknown(say)),
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
        f"<dl>{lines}</dl>{leak}{_prompt_details(answer, say)}"
        f"{_tokens_button(index, say)}</article>"
    )


def _measures(answer: Answer, say: Words) -> list[tuple[str, str]]:
    rows = [("reveal.sampling", html.escape(_sampling(answer.sampling, say)))]
    if answer.num_tokens is not None:
        rows.append(("reveal.tokens", str(answer.num_tokens)))
    if answer.first_token_s is not None:
        text = say("reveal.seconds", value=f"{answer.first_token_s:.2f}")
        rows.append(("reveal.first", html.escape(text)))
    speed = stored_speed(answer)
    if speed is not None:
        rows.append(("reveal.speed", html.escape(say("reveal.per_second", value=f"{speed:.0f}"))))
    if answer.finish_reason:
        text = say.texts.get(f"reveal.end_{answer.finish_reason}", answer.finish_reason)
        rows.append(("reveal.ended", html.escape(text)))
    return rows


def _sampling(sampling: SamplingSettings, say: Words) -> str:
    """How the answer was drawn; the parameters by the names they have on the wire."""
    drawn = (
        say("reveal.temperature", value=f"{sampling.temperature:g}")
        if sampling.temperature
        else say("reveal.greedy")
    )
    names = ("top_p", "top_k", "repetition_penalty", "max_new_tokens", "seed", "best_of")
    given = {name: getattr(sampling, name) for name in names}
    told = [f"{name} {value:g}" for name, value in given.items() if value is not None]
    told += [f"reward {sampling.reward}"] if sampling.reward else []
    return " · ".join([drawn, *told, *(f"stop {stop!r}" for stop in sampling.stop)])


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


def _tokens_button(index: int, say: Words) -> str:
    """Asks for the probability of each token; what was told is stored, so it is only shown."""
    return (
        f'<button type="button" class="act" data-act="tokens" data-side="{index}">'
        f"{html.escape(say('tokens.button'))}</button>"
    )


def _hash(value: str | None, say: Words) -> str:
    if not value:
        return _unknown(say)
    return f'<code class="hash" title="{html.escape(value)}">{html.escape(value[:12])}</code>'


def _unknown(say: Words) -> str:
    return f'<span class="muted">{html.escape(say("reveal.unknown"))}</span>'


def kind_text(participant: Participant, say: Words, num_variants: int = 0) -> str:
    """A variant's kind in words; a kind we have no word for as it is.

    A checkpoint that brought a chat template is no base in the reader's sense: it was tuned
    elsewhere, and is called so, and the base of what was made of it here.
    """
    is_instruct = participant.kind == "base" and participant.ask_as is AskAs.CHAT
    if is_instruct and num_variants:
        key = "kind.instruct_of_one" if num_variants == 1 else "kind.instruct_of_many"
        return say(key, count=num_variants)
    kind = "instruct" if is_instruct else participant.kind
    return say.texts.get(f"kind.{kind}", kind)
