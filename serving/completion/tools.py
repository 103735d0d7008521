"""Tool calls as TGI makes them: a grammar that picks a function and fills its arguments.

Knows tool definitions and the JSON that the grammar enforces; does not know HTTP or engines.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from serving.completion.json_schema import closed, moved
from serving.protocol.problems import Problem
from serving.protocol.schema import ChatRequest

NO_TOOL = "no_tool"
DEFAULT_PROMPT = (
    "These functions can be called. Answer with a JSON object that names the one to call and "
    "gives its arguments as values, never as variables:"
)
HEADER = re.compile(r'^\{"name":("(?:[^"\\]|\\.)*")(?:,"arguments":(?=\{)|\})')


@dataclass(frozen=True)
class ToolPlan:
    """The tools that an answer may call. With `decline`, a name no tool has, it may also decide
    for plain text."""

    tools: tuple[dict[str, Any], ...]
    decline: str | None
    prompt: str

    def schema(self) -> dict[str, Any]:
        """JSON schema of a call, {"name": <one of the tools>, "arguments": {…}}, or a refusal.

        The parameters of each tool are a definition of their own, where what they refer to is
        found, themselves included.
        """
        definitions, choices = {}, []
        for number, tool in enumerate(self.tools):
            function = tool["function"]
            place = f"#/$defs/{number}"
            try:
                definitions[str(number)] = moved(closed(_parameters(function)), place)
            except RecursionError as error:
                raise _tool_error(
                    f"the `parameters` of {function['name']} are nested too deeply"
                ) from error
            choices.append(_call({"name": function["name"]}, {"arguments": {"$ref": place}}))
        if self.decline is not None:
            choices.append(_call({"name": self.decline}, {}))
        return {"anyOf": choices, "$defs": definitions}

    def instruction(self) -> str:
        """What a template without tool support is told, after the last message."""
        return f"\n{self.prompt}\n{json.dumps(list(self.tools), ensure_ascii=False)}\n"


def plan_tools(request: ChatRequest) -> ToolPlan | None:
    """What the request's tools and tool_choice ask for; None for plain text.

    Problem 422 of type tool_error for a choice that names no tool, and for tools beside a grammar.
    """
    has_grammar = request.response_format is not None and request.response_format.type != "text"
    if request.tools is not None and has_grammar:
        raise _tool_error("Grammar and tools are mutually exclusive")
    tools = [_checked(tool) for tool in request.tools or ()]
    counts = Counter(tool["function"]["name"] for tool in tools)
    twice = [name for name, count in counts.items() if count > 1]
    if twice:
        raise _tool_error(f"two tools have the name {twice[0]}; rename one")
    choice = request.tool_choice
    if choice == "none" or (not tools and choice in (None, "auto")):
        return None
    optional = choice in (None, "auto")
    if isinstance(choice, dict):
        choice = (choice.get("function") or {}).get("name")
        named = True
    else:
        named = choice not in (None, "auto", "required")
    if named or not tools:
        tools = [tool for tool in tools if tool["function"]["name"] == choice]
        if not tools:
            raise _tool_error(f"Tool with name {choice} not found")
    decline = NO_TOOL
    while decline in counts:
        decline += "_"
    return ToolPlan(
        tuple(tools), decline if optional else None, request.tool_prompt or DEFAULT_PROMPT
    )


def _checked(tool: dict[str, Any]) -> dict[str, Any]:
    function = tool.get("function")
    name = function.get("name") if isinstance(function, dict) else None
    if not isinstance(function, dict) or not isinstance(name, str) or not name:
        raise _tool_error("a tool needs a `function` with a `name`")
    parameters = function.get("parameters") or {}
    if not isinstance(parameters, dict) or parameters.get("type", "object") != "object":
        raise _tool_error(f"`parameters` of {name} is no JSON schema of an object")
    for key, kind in (("properties", dict), ("required", list)):
        if not isinstance(parameters.get(key) or kind(), kind):
            raise _tool_error(f"`parameters.{key}` of {name} has another type")
    return tool


def _parameters(function: dict[str, Any]) -> dict[str, Any]:
    """The schema of a tool's arguments; as for OpenAI, none means that it takes none."""
    given = function.get("parameters")
    return {"type": "object", **given} if given else {"type": "object", "properties": {}}


def _call(fixed: dict[str, str], free: dict[str, Any]) -> dict[str, Any]:
    texts = {key: {"type": "string", "const": value} for key, value in fixed.items()}
    properties = {**texts, **free}
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }


def _tool_error(message: str) -> Problem:
    return Problem(422, "tool_error", f"Tool error: {message}")


@dataclass
class CallReader:
    """Reads a tool call as its text grows: first the name, then pieces of the arguments.

    The pieces add up to the arguments as a JSON object, or as much of it as was written.
    """

    name: str | None = None
    text: str = ""
    _shown: int = field(default=0)

    def push(self, piece: str, *, final: bool = False) -> str:
        """Add text; the next piece of the arguments, "" while there is none."""
        self.text += piece
        if self.name is None:
            match = HEADER.match(self.text)
            if match is None:
                return ""
            self.name = str(json.loads(match[1]))
            self._shown = match.end()
        # The last brace belongs to the wrapper: keep braces back until something follows them.
        end = len(self.text.rstrip("}"))
        if final:
            end = len(self.text) - _is_complete(self.text)
        piece = self.text[self._shown : end]
        self._shown = max(self._shown, end)
        return piece


def _is_complete(text: str) -> bool:
    """False for a call that was cut, whose last brace is not the wrapper's."""
    try:
        json.loads(text)
    except ValueError:
        return False
    return True


def call_json(name: str, arguments: str, call_id: str) -> dict[str, Any]:
    """A tool call in a message."""
    return {
        "id": call_id,
        "type": "function",
        "function": {"description": None, "name": name, "arguments": arguments},
    }


def last_message_with(messages: Sequence[dict[str, Any]], addition: str) -> list[dict[str, Any]]:
    """The messages, with text added to the last one."""
    changed = [dict(message) for message in messages]
    changed[-1]["content"] = f"{changed[-1]['content']}{addition}"
    return changed
