"""Renders one chat template in a process of its own: JSON on stdin, the text on stdout.

A template is a program of whoever made the folder: it has seconds of processor time, a part of the
memory and no way out of the sandbox. Run as a file; knows Jinja and nothing of the arena.
"""

from __future__ import annotations

import json
import resource
import sys
from datetime import datetime
from typing import Any

from jinja2 import Environment, TemplateError, nodes
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment

CPU_SECONDS = 2
MEMORY_BYTES = 512 << 20
MOST_CHARS = 1_000_000


class GenerationTag(Extension):
    """`{% generation %}` marks what a model writes, for training; here it changes nothing."""

    def __init__(self, environment: Environment) -> None:
        super().__init__(environment)
        self.tags = {"generation"}

    def parse(self, parser: Parser) -> list[nodes.Node]:
        """The body as it stands."""
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


def render(source: str, tokens: dict[str, str], messages: list[dict[str, str]]) -> str:
    """The prompt text, as transformers renders it. Raises what Jinja raises."""

    def raise_exception(message: str) -> None:
        raise TemplateError(message)

    def tojson(value: Any, indent: int | None = None) -> str:
        return json.dumps(value, ensure_ascii=False, indent=indent)

    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[GenerationTag, loopcontrols]
    )
    environment.filters["tojson"] = tojson
    environment.globals["raise_exception"] = raise_exception
    environment.globals["strftime_now"] = lambda form: datetime.now().strftime(form)
    template = environment.from_string(source)
    return template.render(messages=messages, add_generation_prompt=True, **tokens)


def main() -> None:
    """Read the order, render, write; status 1 and a line on stderr for what cannot be rendered."""
    resource.setrlimit(resource.RLIMIT_CPU, (CPU_SECONDS, CPU_SECONDS))
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    order = json.load(sys.stdin)
    try:
        text = render(order["source"], order["tokens"], order["messages"])
    except Exception as error:  # a template may raise whatever its expressions raise
        print(f"{type(error).__name__}: {error}"[:300], file=sys.stderr)
        raise SystemExit(1) from None
    if len(text) > MOST_CHARS:
        print(f"the prompt has more than {MOST_CHARS} characters", file=sys.stderr)
        raise SystemExit(1)
    sys.stdout.buffer.write(text.encode("utf-8", "replace"))


if __name__ == "__main__":
    main()
