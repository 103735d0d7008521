"""Jinja templates over the columns of a row, which can neither reach into Python nor run for long.

A template is what a person downloads with a data set, so it is trusted with nothing: no attribute
of a value, no call, no assignment, only the filters and tests named here; loops turn `MAX_TURNS`
times a rendering at most. What is left grows no faster than its text times the row.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import jinja2
from jinja2 import meta, nodes
from jinja2.runtime import Context, LoopContext
from jinja2.sandbox import ImmutableSandboxedEnvironment

MAX_TURNS = 10_000
MAX_CHARACTERS = 1_000_000
TURNS_LEFT = "turns left"
WHOLE_ROW = "row"
"""For columns whose names Jinja cannot say: `row["film title"]`."""
LOOP_WORDS = frozenset({"index", "index0", "revindex", "first", "last", "length"})
FILTERS = (
    *("capitalize", "default", "first", "float", "int", "last", "length", "list", "lower", "max"),
    *("min", "reverse", "sort", "string", "sum", "title", "trim", "unique", "upper", "wordcount"),
)
TESTS = (
    *("boolean", "defined", "even", "false", "float", "in", "integer", "mapping", "none"),
    *("number", "odd", "sequence", "string", "true", "undefined"),
)
ALLOWED: tuple[type[nodes.Node], ...] = (
    *(nodes.Template, nodes.Output, nodes.TemplateData, nodes.If, nodes.For, nodes.Name),
    *(nodes.Const, nodes.Getattr, nodes.Getitem, nodes.Slice, nodes.Filter, nodes.Test),
    *(nodes.Compare, nodes.Operand, nodes.And, nodes.Or, nodes.Not, nodes.CondExpr),
    *(nodes.Concat, nodes.Add, nodes.Sub, nodes.Neg, nodes.List, nodes.Tuple, nodes.Keyword),
)
# What an operation or a filter says of a value that it cannot take.
VALUE_ERRORS = (ArithmeticError, AttributeError, LookupError, TypeError, ValueError)


class TemplateRefusedError(Exception):
    """Why a template cannot be used, or cannot render a row; the caller adds file and template."""


class Sandbox(ImmutableSandboxedEnvironment):
    """Templates as this module promises them."""

    def __init__(self) -> None:
        super().__init__(
            undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True, autoescape=False
        )
        self.globals.clear()
        own: dict[str, Callable[..., Any]] = {"join": _join, "replace": _replace, "tojson": _json}
        self.filters = {**{name: self.filters[name] for name in FILTERS}, **own}
        self.filters[TURNS_LEFT] = _count_turns
        self.tests = {name: self.tests[name] for name in TESTS}

    def is_safe_attribute(self, obj: Any, attr: str, value: Any) -> bool:
        """No attribute but those of a loop; `row.key` still reads a key of a mapping."""
        return isinstance(obj, LoopContext) and attr in LOOP_WORDS

    def wrap_str_format(self, value: Any) -> None:
        """No way round `is_safe_attribute` for `format`, as Jinja's sandbox has one."""

    def is_safe_callable(self, obj: Any) -> bool:
        """Nothing may be called."""
        return False


class TextTemplate:
    """One compiled template."""

    def __init__(self, text: str, sandbox: Sandbox) -> None:
        """TemplateRefusedError for bad Jinja and for what the sandbox does not have."""
        try:
            tree = sandbox.parse(text)
            for node in (tree, *tree.find_all(nodes.Node)):
                if not isinstance(node, ALLOWED):
                    raise TemplateRefusedError(
                        f"line {node.lineno} uses {type(node).__name__}, which a mixture's "
                        "template may not; output, if, for, filters and tests are there"
                    )
            # From here on Jinja works out constants, so what may be in them was looked at before.
            self.columns = frozenset(meta.find_undeclared_variables(tree))
            for loop in tree.find_all(nodes.For):
                if loop.recursive:
                    raise TemplateRefusedError(f"line {loop.lineno} is a recursive loop; unroll it")
                counted = nodes.Filter(
                    loop.iter, TURNS_LEFT, [], [], None, None, lineno=loop.lineno
                )
                loop.iter = counted.set_environment(sandbox)
            # Jinja's `compile` takes a tree as well as a text.
            code = sandbox.compile(tree)
            self._template = jinja2.Template.from_code(sandbox, code, {})
        except jinja2.TemplateError as error:
            number = getattr(error, "lineno", None)
            line = f"line {number}: " if number else ""
            raise TemplateRefusedError(f"is no valid Jinja ({line}{error.message})") from error
        except (SyntaxError, RecursionError, MemoryError) as error:
            raise TemplateRefusedError("is nested too deeply") from error

    def render(self, columns: Mapping[str, Any]) -> str:
        """The text of one row, outer white space cut off; `row` names all its columns.

        TemplateRefusedError says why there is none.
        """
        values = {WHOLE_ROW: columns, **columns, TURNS_LEFT: [MAX_TURNS]}
        parts: list[str] = []
        length = 0
        try:
            for part in self._template.generate(values):
                parts.append(part)
                length += len(part)
                if length > MAX_CHARACTERS:
                    raise TemplateRefusedError(f"writes more than {MAX_CHARACTERS:,} characters")
        except jinja2.UndefinedError as error:
            missing = sorted(self.columns - set(values))
            if missing:
                raise MissingColumnError(missing, columns) from error
            raise TemplateRefusedError(str(error.message)) from error
        except (jinja2.TemplateError, *VALUE_ERRORS) as error:
            raise TemplateRefusedError(
                " ".join(str(error).split()) or type(error).__name__
            ) from error
        except RecursionError as error:
            raise TemplateRefusedError("is nested too deeply") from error
        return "".join(parts).strip()


class MissingColumnError(TemplateRefusedError):
    """The template asks for columns that the row does not have."""

    def __init__(self, names: Iterable[str], columns: Iterable[str]) -> None:
        self.names = tuple(names)
        asked = ", ".join(map(repr, self.names))
        super().__init__(f"column {asked} is not in the row (it has {', '.join(sorted(columns))})")


@jinja2.pass_context
def _count_turns(context: Context, items: Iterable[Any]) -> list[Any]:
    """The items of a loop, paid for with the turns that the rendering has left."""
    found = list(items)
    left = context[TURNS_LEFT]
    left[0] -= len(found)
    if left[0] < 0:
        raise TemplateRefusedError(f"loops turn more than {MAX_TURNS:,} times")
    return found


def _bounded(length: int) -> None:
    if length > MAX_CHARACTERS:
        raise TemplateRefusedError(f"writes more than {MAX_CHARACTERS:,} characters")


def _join(items: Iterable[Any], separator: str = "") -> str:
    """Jinja's `join`, measured before it is made."""
    texts = [str(item) for item in items]
    _bounded(sum(map(len, texts)) + len(texts) * len(separator))
    return separator.join(texts)


def _replace(text: Any, old: str, new: str) -> str:
    """Jinja's `replace`, measured before it is made."""
    whole = str(text)
    _bounded(len(whole) + (whole.count(old) if old else len(whole) + 1) * len(new))
    return whole.replace(old, new)


def _json(value: Any) -> str:
    """Plain JSON; Jinja's own is made for HTML."""
    return json.dumps(value, ensure_ascii=False)
