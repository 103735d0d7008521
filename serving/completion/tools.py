"""Tool calls as TGI makes them: a grammar that picks a function and fills its arguments.

Knows tool definitions and the JSON that the grammar enforces; does not know HTTP or engines.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from serving.protocol.problems import Problem
from serving.protocol.schema import ChatRequest

NO_TOOL = "no_tool"
DEFAULT_PROMPT = (
    "These functions can be called. Answer with a JSON object that names the one to call and "
    "gives its arguments as values, never as variables:"
)
HEADER = re.compile(r'^\{"function":\{"_name":("(?:[^"\\]|\\.)*"),?')


@dataclass(frozen=True)
class ToolPlan:
    """The tools that an answer may call. `optional`: it may also decide for plain text."""

    tools: tuple[dict[str, Any], ...]
    optional: bool
    prompt: str

    def schema(self) -> dict[str, Any]:
        """JSON schema of a call: {"function": {"_name": <one of the tools>, arguments...}}."""
        choices = [_function_schema(tool["function"]) for tool in self.tools]
        if self.optional:
            choices.append(_function_schema({"name": NO_TOOL, "parameters": {}}))
        return {
            "type": "object",
            "properties": {"function": {"anyOf": choices}},
            "required": ["function"],
            "additionalProperties": False,
        }

    def instruction(self) -> str:
        """What a template without tool support is told, after the last message."""
        return f"\n{self.prompt}\n{json.dumps(list(self.tools), ensure_ascii=False)}\n"


def plan_tools(request: ChatRequest) -> ToolPlan | None:
    """What the request's tools and tool_choice ask for; None for plain text.

    Problem 422 of type tool_error for a choice that names no tool, and for tools beside a grammar.
    """
    if request.tools is not None and request.response_format is not None:
        raise _tool_error("Grammar and tools are mutually exclusive")
    tools = [_checked(tool) for tool in request.tools or ()]
    choice = request.tool_choice
    if not tools or choice == "none":
        return None
    optional = choice in (None, "auto")
    if isinstance(choice, dict):
        choice = (choice.get("function") or {}).get("name")
        named = True
    else:
        named = choice not in (None, "auto", "required")
    if named:
        tools = [tool for tool in tools if tool["function"]["name"] == choice]
        if not tools:
            raise _tool_error(f"Tool with name {choice} not found")
    return ToolPlan(tuple(tools), optional, request.tool_prompt or DEFAULT_PROMPT)


def _checked(tool: dict[str, Any]) -> dict[str, Any]:
    function = tool.get("function")
    if not isinstance(function, dict) or not isinstance(function.get("name"), str):
        raise _tool_error("a tool needs a `function` with a `name`")
    parameters = function.get("parameters") or {}
    if not isinstance(parameters, dict):
        raise _tool_error(f"`parameters` of {function['name']} is no JSON schema of an object")
    for key, kind in (("properties", dict), ("required", list)):
        if not isinstance(parameters.get(key) or kind(), kind):
            raise _tool_error(f"`parameters.{key}` of {function['name']} has another type")
    return tool


def _function_schema(function: dict[str, Any]) -> dict[str, Any]:
    parameters = function.get("parameters") or {}
    schema = {
        "type": "object",
        "properties": {
            "_name": {"type": "string", "const": function["name"]},
            **(parameters.get("properties") or {}),
        },
        "required": ["_name", *(parameters.get("required") or ())],
        "additionalProperties": False,
    }
    for key in ("$defs", "definitions"):
        if key in parameters:
            schema[key] = parameters[key]
    return schema


def _tool_error(message: str) -> Problem:
    return Problem(422, "tool_error", f"Tool error: {message}")


@dataclass
class CallReader:
    """Reads a tool call as its text grows: first the name, then pieces of the arguments.

    The pieces add up to the arguments as a JSON object: the wrapper's own brace is left out.
    """

    name: str | None = None
    text: str = ""
    _shown: int = field(default=0)

    def push(self, piece: str, *, final: bool = False) -> str:
        """Add text; the next piece of the arguments, "" while there is none."""
        self.text += piece
        if self.name is None:
            match = HEADER.match(self.text)
            # A comma may still follow the name: wait for the character after it.
            if match is None or (match.end() == len(self.text) and not final):
                return ""
            self.name = str(json.loads(match[1]))
            self._shown = match.end()
            return "{" + self._more(final=final)
        return self._more(final=final)

    @property
    def arguments(self) -> str:
        """The arguments of a finished call."""
        match = HEADER.match(self.text)
        assert match is not None
        return "{" + self.text[match.end() :].removesuffix("}")

    def _more(self, *, final: bool) -> str:
        # The last brace belongs to the wrapper: keep braces back until something follows them.
        end = len(self.text.removesuffix("}")) if final else len(self.text.rstrip("}"))
        piece = self.text[self._shown : end]
        self._shown = max(self._shown, end)
        return piece


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
