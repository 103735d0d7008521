"""Chat requests as prompt texts, through a model's own template.

Knows templates and messages; does not know tokens, HTTP answers or threads.
"""

from __future__ import annotations

import functools
import inspect
import re
from typing import Any

import jinja2
from jinja2 import meta
from transformers import PreTrainedTokenizerBase

from serving.completion.messages import plain_messages
from serving.completion.tools import ToolPlan, last_message_with
from serving.models.registry import ServedModel
from serving.protocol.problems import Problem, invalid
from serving.protocol.schema import ChatRequest

# What transformers' renderer takes itself; only `documents` are the template's.
RENDERER = set(inspect.signature(PreTrainedTokenizerBase.apply_chat_template).parameters)
OWN = {"messages", "conversations", "return_assistant_tokens_mask", "guideline"}
TAKEN = RENDERER - {"documents"} | OWN


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
    template = str(model.tokenizer.chat_template)
    messages = plain_messages(request, template)
    shown = request.tools or None
    if tools is not None and not re.search(r"\btools\b", template):
        messages, shown = last_message_with(messages, tools.instruction()), None
    continued, prompted = ending(request)
    extra = template_variables(request, template)
    if request.guideline is None and "guideline" in undeclared(template):
        raise Problem(
            422, "missing_template_variable", "Missing template vatiable: guideline"
        )  # TGI's spelling, which clients may match.
    try:
        text = model.templates.render(
            model.tokenizer,
            messages,
            tools=shown,
            continued=continued,
            ended=not (continued or prompted),
            extra=extra,
        )
    except ValueError as error:  # ChatTemplateError, and tokenizers with several templates
        line = " ".join(str(error).split())
        raise Problem(422, "template_error", f"Template error: {line}") from error
    return text.rstrip() if continued else text


def ending(request: ChatRequest) -> tuple[bool, bool]:
    """(whether the last message is continued, whether the assistant's turn is opened).

    As TGI does, a last message of the assistant is continued unless the request says otherwise.
    """
    is_answer = request.messages[-1].role == "assistant"
    continued, prompted = request.continue_final_message, request.add_generation_prompt
    if continued is None:
        continued = is_answer and prompted is None
    if continued and prompted:
        raise invalid(
            "`continue_final_message` and `add_generation_prompt` exclude each other",
            "continue_final_message",
        )
    if continued and not is_answer:
        raise invalid(
            "`continue_final_message` needs a last message of the assistant",
            "continue_final_message",
        )
    return continued, not continued if prompted is None else prompted


def template_variables(request: ChatRequest, template: str) -> dict[str, Any]:
    """What the template is given beside messages and tools; only what it has a use for."""
    given = request.chat_template_kwargs
    for name in given:
        if (
            name in TAKEN
            or name.endswith("_token")
            or not re.search(rf"\b{re.escape(name)}\b", template)
        ):
            raise invalid(
                f"`chat_template_kwargs` has {name!r}, which the model's template does not take",
                "chat_template_kwargs",
            )
    return given if request.guideline is None else {**given, "guideline": request.guideline}


@functools.lru_cache(maxsize=64)
def undeclared(template: str) -> frozenset[str]:
    """Names a template expects to be given; none for one that cannot be parsed."""
    try:
        return frozenset(meta.find_undeclared_variables(jinja2.Environment().parse(template)))
    except jinja2.TemplateError:
        return frozenset()  # Rendering it says what is wrong.
