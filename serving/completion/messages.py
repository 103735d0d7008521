"""Chat messages as templates expect them: one text each, calls with their arguments as objects.

Knows messages and what a template's text mentions; renders nothing.
"""

from __future__ import annotations

import functools
import json
import re
from typing import Any

from serving.protocol.problems import invalid
from serving.protocol.schema import ChatRequest, Message

# How templates use the arguments of a call: added to other text and printed, or as an object.
PRINTED = re.compile(r"""\barguments(?:['"]\])?\s*(?:-?\}\}|[~+])""")
LOOKED_INTO = re.compile(
    r"""\barguments(?:['"]\])?\s*(?:\.|\[|\|\s*(?:tojson|items|dictsort)|-?%\}|is\s)"""
)


def plain_messages(request: ChatRequest, template: str) -> list[dict[str, Any]]:
    """The messages of a chat; calls go into the content where the template does not show them."""
    return [plain_message(message, template) for message in request.messages]


def plain_message(message: Message, template: str) -> dict[str, Any]:
    """A message whose content is one text."""
    content = message.content
    if isinstance(content, list):
        if any(part.type != "text" for part in content):
            raise invalid("only text content is supported, no images", "messages")
        content = "".join(part.text or "" for part in content)
    role = "system" if message.role == "developer" else message.role
    plain: dict[str, Any] = {"role": role, "content": content or ""}
    if message.tool_calls:
        as_text = prints_arguments(template)
        calls = [_plain_call(call, as_text=as_text) for call in message.tool_calls]
        if "tool_calls" in template:
            plain["tool_calls"] = calls
        else:  # As TGI does: the calls are the content.
            told = json.dumps(message.tool_calls, ensure_ascii=False, separators=(",", ":"))
            plain["content"] = f"{content}\n{told}" if content else told
    if message.tool_call_id is not None:
        plain["tool_call_id"] = message.tool_call_id
    if message.name:
        plain["name"] = message.name
    return plain


@functools.lru_cache(maxsize=64)
def prints_arguments(template: str) -> bool:
    """Whether a template prints the arguments of a call as they are, and so needs their text.

    Others want an object, as transformers says they may.
    """
    return bool(PRINTED.search(template)) and not LOOKED_INTO.search(template)


def _plain_call(call: dict[str, Any], *, as_text: bool) -> dict[str, Any]:
    function = call.get("function")
    if not isinstance(function, dict) or not isinstance(function.get("name"), str):
        raise invalid("each of `tool_calls` needs a `function` with a `name`", "messages")
    given = function.get("arguments")
    text = given if isinstance(given, str) else json.dumps(given or {}, ensure_ascii=False)
    text = text or "{}"
    try:
        values = json.loads(text)
    except ValueError:
        values = None
    if not isinstance(values, dict):
        raise invalid(
            f"the arguments of the call of {function['name']} are no JSON object: {text[:80]!r}",
            "messages",
        )
    return {**call, "function": {**function, "arguments": text if as_text else values}}


def next_call_number(request: ChatRequest) -> int:
    """The first number that no earlier call of the conversation has as its id."""
    calls = [call for message in request.messages for call in message.tool_calls or ()]
    numbers = [int(i) for call in calls if (i := str(call.get("id"))).isdecimal() and len(i) < 10]
    return max([len(calls), *(number + 1 for number in numbers)])
