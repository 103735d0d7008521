"""Chat requests as prompt texts, through a model's own template.

Knows templates and messages; does not know tokens, HTTP answers or threads.
"""

from __future__ import annotations

import functools
from typing import Any

import jinja2
from jinja2 import meta

from serving.completion.tools import ToolPlan, last_message_with
from serving.models.registry import ServedModel
from serving.protocol.problems import Problem, invalid
from serving.protocol.schema import ChatRequest, Message


def render_chat(model: ServedModel, request: ChatRequest, tools: ToolPlan | None) -> str:
    """The prompt text of a chat, through the model's own template."""
    if not request.messages:
        raise invalid("`messages` cannot be empty", "messages")
    if not model.has_chat_template:
        raise Problem(
            422,
            "template_error",
            f"Template error: template not found: {model.name} has no chat template; "
            "ask it by completion instead",
            param="model",
        )
    messages = [plain_message(message) for message in request.messages]
    shown = request.tools or None
    if tools is not None and "tools" not in str(model.tokenizer.chat_template):
        messages, shown = last_message_with(messages, tools.instruction()), None
    continued = messages[-1]["role"] == "assistant"
    extra = {} if request.guideline is None else {"guideline": request.guideline}
    if not extra and "guideline" in undeclared(str(model.tokenizer.chat_template)):
        raise Problem(
            422, "missing_template_variable", "Missing template vatiable: guideline"
        )  # TGI's spelling, which clients may match.
    try:
        text = model.templates.render(
            model.tokenizer, messages, tools=shown, continued=continued, extra=extra
        )
    except ValueError as error:  # ChatTemplateError, and tokenizers with several templates
        line = " ".join(str(error).split())
        raise Problem(422, "template_error", f"Template error: {line}") from error
    return text.rstrip() if continued else text


@functools.lru_cache(maxsize=64)
def undeclared(template: str) -> frozenset[str]:
    """Names a template expects to be given; none for one that cannot be parsed."""
    try:
        return frozenset(meta.find_undeclared_variables(jinja2.Environment().parse(template)))
    except jinja2.TemplateError:
        return frozenset()  # Rendering it says what is wrong.


def plain_message(message: Message) -> dict[str, Any]:
    """A message as templates expect it: content is one text."""
    content = message.content
    if isinstance(content, list):
        if any(part.type != "text" for part in content):
            raise invalid("only text content is supported, no images", "messages")
        content = "".join(part.text or "" for part in content)
    plain: dict[str, Any] = {"role": message.role, "content": content or ""}
    if message.tool_calls:
        plain["tool_calls"] = message.tool_calls
    if message.name:
        plain["name"] = message.name
    return plain
