"""Writes a Modelfile for Ollama: template, stops and parameters beside the GGUF file.

Ollama's templates are Go's, a chat template is Jinja. What can be said of both is a text before
and after each role's content; it is found by rendering marked conversations, and refused where
the template does more than that. Knows no weights.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tuning.models.export.errors import ModelExportError
from tuning.variant.checkpoint import one_line

SYSTEM, USER, ANSWER, LAST = "qSYSq", "qUSRq", "qASTq", "qENDq"
SaidText = tuple[str, str]
PROBES: tuple[tuple[SaidText, ...], ...] = (
    (("user", "one"),),
    (("system", "be"), ("user", "one")),
    (("user", "one"), ("assistant", "two"), ("user", "three")),
    (("system", "be"), ("user", "one"), ("assistant", "two"), ("user", "three")),
    (("user", "a  b\nc"), ("assistant", "<think>why</think> so"), ("user", "{{ d }} e")),
)
GO_MARKS = ("{{", "}}", '"""')


class RefusedByTemplateError(ModelExportError):
    """A conversation that the chat template does not render."""


@dataclass(frozen=True)
class Shape:
    """A chat template as texts: before and after each role's content, and around the whole.

    `unasked` opens a conversation without a system turn, `opening` the answer.
    """

    unasked: str
    around: Mapping[str, tuple[str, str]]
    opening: str

    def write(self, turns: Sequence[SaidText]) -> str:
        """The conversation as a template made of these texts writes it."""
        text = "" if turns[0][0] == "system" else self.unasked
        for role, content in turns:
            before, after = self.around[role]
            text += before + content + after
        return text + self.opening

    def as_go(self) -> str:
        """The same in the words of Ollama's templates."""
        unasked = (
            f'{{{{ if ne (index .Messages 0).Role "system" }}}}{self.unasked}{{{{ end }}}}'
            if self.unasked
            else ""
        )
        branches = ""
        for index, (role, (before, after)) in enumerate(self.around.items()):
            test = f'{{{{ {"else if" if index else "if"} eq .Role "{role}" }}}}'
            branches += f"{test}{before}{{{{ .Content }}}}{after}"
        messages = f"{{{{ range .Messages }}}}{branches}{{{{ end }}}}{{{{ end }}}}"
        return f"{unasked}{messages}{self.opening}"


def modelfile(gguf_name: str, tokenizer: Any, stops: Sequence[str], settings: Any) -> str:
    """The text of a Modelfile; `settings` is a transformers generation config.

    ModelExportError when the chat template is more than text before and after each turn.
    """
    lines = [f"FROM ./{gguf_name}"]
    template = shape_of(tokenizer).as_go() if tokenizer.chat_template else "{{ .Prompt }}"
    lines.append(f'TEMPLATE """{template}"""')
    lines += [f"PARAMETER stop {json.dumps(stop, ensure_ascii=False)}" for stop in stops]
    for name in ("temperature", "top_p", "top_k"):
        value = getattr(settings, name, None)
        if value is not None and getattr(settings, "do_sample", False):
            lines.append(f"PARAMETER {name} {value:g}")
    return "\n".join(lines) + "\n"


def shape_of(tokenizer: Any) -> Shape:
    """The texts that the chat template puts around content, found by marked conversations.

    The first token that llama.cpp adds itself is left out. An error when other conversations come
    out otherwise than the texts say, but for those the template itself refuses.
    """
    if "strftime" in str(tokenizer.chat_template):
        raise _refusal("it writes today's date")
    shape = _found(tokenizer)
    texts = [
        shape.unasked,
        shape.opening,
        *(part for both in shape.around.values() for part in both),
    ]
    for mark in GO_MARKS:
        if any(mark in text for text in texts):
            raise _refusal(f"it writes {mark}, which means something else there")
    for turns in PROBES:
        try:
            wanted = _rendered(tokenizer, turns, with_opening=True)
        except RefusedByTemplateError:
            continue  # the template knows no such conversation
        if wanted != _bos(tokenizer) + shape.write(turns):
            raise _refusal(f"asked with {', '.join(role for role, _ in turns)}")
    return shape


def _found(tokenizer: Any) -> Shape:
    asked = _rendered(tokenizer, [("user", USER)]).removeprefix(_bos(tokenizer))
    opened = _rendered(tokenizer, [("user", USER)], with_opening=True)
    told = _rendered(tokenizer, [("user", USER), ("assistant", ANSWER)])
    again = _rendered(tokenizer, [("user", USER), ("assistant", ANSWER), ("user", LAST)])
    after_user = asked.partition(USER)[2]
    after_answer = told.partition(ANSWER)[2]
    before_user = _cut(again.partition(ANSWER)[2].partition(LAST)[0], after_answer)
    before_answer = _cut(told.partition(USER)[2].partition(ANSWER)[0], after_user)
    plain = _cut_end(asked.partition(USER)[0], before_user)
    around = {"user": (before_user, after_user), "assistant": (before_answer, after_answer)}
    opening = _cut(opened.partition(USER)[2], after_user)
    try:
        headed = _rendered(tokenizer, [("system", SYSTEM), ("user", USER)])
    except RefusedByTemplateError:
        return Shape(plain, around, opening)
    headed = headed.removeprefix(_bos(tokenizer))
    after_system = _cut_end(headed.partition(SYSTEM)[2].partition(USER)[0], before_user)
    around = {"system": (headed.partition(SYSTEM)[0], after_system), **around}
    return Shape(plain, around, opening)


def _cut(text: str, start: str) -> str:
    if not text.startswith(start):
        raise _refusal(f"{start[:40]!r} ends a turn only at the end")
    return text.removeprefix(start)


def _cut_end(text: str, end: str) -> str:
    if not text.endswith(end):
        raise _refusal(f"{end[:40]!r} does not begin every question")
    return text.removesuffix(end)


def _refusal(why: str) -> ModelExportError:
    return ModelExportError(
        f"chat template: writes more than a text before and after each turn ({why}), which a "
        "Modelfile cannot say; export with --to gguf, whose file carries the template"
    )


def _rendered(tokenizer: Any, turns: Sequence[SaidText], *, with_opening: bool = False) -> str:
    messages = [{"role": role, "content": text} for role, text in turns]
    try:
        text: str = tokenizer.apply_chat_template(
            messages, tokenize=False, add_generation_prompt=with_opening
        )
    except Exception as error:  # a template raises whatever its expressions raise
        raise RefusedByTemplateError(
            f"chat template: fails on {', '.join(role for role, _ in turns)} ({one_line(error)}); "
            "export with --to gguf, whose file carries the template"
        ) from error
    return text


def _bos(tokenizer: Any) -> str:
    """The first token, where the template writes it and llama.cpp adds it itself."""
    ids = tokenizer("a").input_ids
    if tokenizer.bos_token_id is None or ids[0] != tokenizer.bos_token_id:
        return ""
    bos: str = tokenizer.bos_token
    return bos if _rendered(tokenizer, [("user", "one")]).startswith(bos) else ""
