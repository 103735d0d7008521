"""Conversations to text through a tokenizer's chat template, on a given day.

Whatever a template does, what comes out is text or a RenderError. Knows Jinja and tokenizers;
knows neither ids nor what is trained.
"""

from __future__ import annotations

import string
from collections.abc import Mapping, Sequence
from datetime import date
from typing import Any

import jinja2

from tuning.data.formats import Message
from tuning.errors import TuningError

REMEDY = "mend the template, or set another one with template.file"
# transformers gives templates today's date by a function of this name, and passes no function in.
CLOCK = "strftime_now"
# A macro of that name takes its place; it writes each directive as it stands in a table.
CLOCK_MACRO = (
    f"{{%- macro {CLOCK}(format) -%}}"
    "{%- set at = namespace(directive='') -%}"
    "{%- for letter in format -%}"
    "{%- if at.directive or letter == '%' -%}"
    "{%- set at.directive = at.directive + letter -%}"
    "{%- if at.directive in clock_parts -%}"
    "{{- clock_parts[at.directive] -}}{%- set at.directive = '' -%}"
    "{%- endif -%}"
    "{%- else -%}{{- letter -}}{%- endif -%}"
    "{%- endfor -%}"
    "{{- at.directive -}}"
    "{%- endmacro %}\n"  # the line feed goes with the tag, and the template begins its own line
)


Tools = Sequence[Mapping[str, Any]]


class TemplateError(TuningError):
    """A template or tokenizer that cannot mark where an answer starts or stops, or loses text."""


class RenderError(TemplateError):
    """A conversation that the template does not render whole; `reason` says what it does instead.

    `refused` is True where the template itself says no, as some do to a system message.
    """

    def __init__(self, reason: str, *, refused: bool = False) -> None:
        super().__init__(f"chat template: {reason}; {REMEDY}")
        self.reason = reason
        self.refused = refused


def render(
    tokenizer: Any,
    conversations: Sequence[Sequence[Message]],
    *,
    prompt: bool,
    day: date | None = None,
    tools: Sequence[Tools] = (),
) -> list[str]:
    """Text of each conversation; with `prompt` it ends where the model is to answer.

    A template that writes the date writes that of `day`, by default the present time. `tools`
    are the functions that each conversation may call. RenderError when the template fails, or
    refuses a conversation.
    """
    if any(tools):
        pairs = zip(conversations, tools, strict=True)
        return [_render(tokenizer, [messages], prompt, day, own)[0] for messages, own in pairs]
    return _render(tokenizer, conversations, prompt, day, ()) if conversations else []


def _render(
    tokenizer: Any,
    conversations: Sequence[Sequence[Message]],
    prompt: bool,
    day: date | None,
    tools: Tools,
) -> list[str]:
    try:
        functions = [dict(tool) for tool in tools] or None
        template = tokenizer.get_chat_template(tools=functions)
        rendered = tokenizer.apply_chat_template(
            [list(messages) for messages in conversations],
            tokenize=False,
            add_generation_prompt=prompt,
            tools=functions,
            **({} if day is None else _dated(template, day)),
        )
    except jinja2.TemplateSyntaxError as error:
        raise RenderError(f"is no valid Jinja ({_line(error)})") from error
    except Exception as error:  # a template can raise whatever Python can
        if type(error) is jinja2.TemplateError:
            raise RenderError(f"refuses it ({_line(error)})", refused=True) from error
        raise RenderError(f"fails ({type(error).__name__}: {_line(error)})") from error
    return list(rendered)


def is_dated(template: Any) -> bool:
    """Whether a template may write the date or the time."""
    return CLOCK in str(template)


def _dated(template: str, day: date) -> dict[str, Any]:
    """Arguments that make `template` write the date of `day`."""
    if not is_dated(template):
        return {}
    parts = {"%%": "%"}
    for letter in string.ascii_letters:
        for flag in ("", "-", "_", "0", "^", "#"):
            parts[f"%{flag}{letter}"] = day.strftime(f"%{flag}{letter}")
    return {"chat_template": CLOCK_MACRO + template, "clock_parts": parts}


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:200]
