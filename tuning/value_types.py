"""What one value may be: its type, its bounds, and the sentence that says what is wrong with it.

Pydantic reads the values, of settings and of checks in a suite; knows none of them by name.
"""

from __future__ import annotations

import difflib
import math
import numbers
import os
import re
import reprlib
from functools import cache
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, LiteralString, Union, get_args, get_origin

from pydantic import AfterValidator, BeforeValidator, Field, TypeAdapter, ValidationError
from pydantic_core import ErrorDetails, PydanticCustomError

from tuning.errors import ConfigError

# What a person calls the type that was wanted, by how pydantic's names of errors begin.
KINDS = {
    "int": "a whole number",
    "no_whole": "a whole number",
    "float": "a number",
    "no_number": "a number",
    "bool": "true or false",
    "string": "text",
    "path": "a path",
    "tuple": "a list",
    "list": "a list",
    "mapping": "a map",
    "dict": "a map",
    "model": "a map",
}
LEADING_ZERO = re.compile(r"[+-]?0[0-9_]*[1-9_][0-9_]*")  # 010 is eight to some, ten to others


def _number(value: Any, wanted: LiteralString = "no_number") -> Any:
    """A number as Python's own; true and false are none, though Python counts them as such."""
    if isinstance(value, bool):
        raise PydanticCustomError(wanted, "true and false are no numbers")
    if isinstance(value, str) and LEADING_ZERO.fullmatch(value.strip()):
        raise PydanticCustomError("leading_zero", "write it without a leading zero")
    return int(value) if isinstance(value, numbers.Integral) else value


def _whole(value: Any) -> Any:
    """As `_number`, and text such as `1e3` is a whole number."""
    if isinstance(value, str) and "e" in value.lower() and _is_whole(value):
        return int(float(value))
    return _number(value, "no_whole")


def _is_whole(text: str) -> bool:
    try:
        number = float(text)
    except ValueError:
        return False
    return math.isfinite(number) and number == int(number)


def _text(value: Any) -> Any:
    """Text that can be a path, an argument and a line of UTF-8."""
    if isinstance(value, os.PathLike):
        value = os.fspath(value)
    if isinstance(value, str) and ("\0" in value or (not value.isascii() and _is_broken(value))):
        raise PydanticCustomError("no_utf8", "holds bytes that no file name of UTF-8 can have")
    return value


def _is_broken(text: str) -> bool:
    return any("\ud800" <= character <= "\udfff" for character in text)


def _share(value: float) -> float:
    if not 0 <= value <= 1:
        raise PydanticCustomError("no_share", "give a number from 0 to 1")
    return value


def _several(value: Any) -> Any:
    """One value where several may stand."""
    return (value,) if isinstance(value, str | os.PathLike | numbers.Number) else value


Switch = bool
Whole = Annotated[int, BeforeValidator(_whole)]
Number = Annotated[float, BeforeValidator(lambda value: _number(value)), Field(allow_inf_nan=False)]
Text = Annotated[str, BeforeValidator(_text)]
Name = Annotated[Text, Field(min_length=1)]
Folder = Annotated[Path, BeforeValidator(_text)]
Several = BeforeValidator(_several)

Count = Annotated[Whole, Field(ge=1, le=2**31 - 1)]
AnyCount = Annotated[Whole, Field(ge=0, le=2**31 - 1)]
NotNegative = Annotated[Number, Field(ge=0)]
Share = Annotated[Number, AfterValidator(_share)]


def check_value(key: str, value: Any, hint: Any) -> Any:
    """`value` as what `hint` asks for; ConfigError names `key`, the value and the remedy."""
    try:
        return _adapter(hint).validate_python(value)
    except ValidationError as error:
        raise ConfigError(f"{key}: {problem_of(error.errors(include_url=False)[0])}") from error


@cache
def _adapter(hint: Any) -> TypeAdapter[Any]:
    return TypeAdapter(hint)


def problem_of(details: ErrorDetails) -> str:
    """What pydantic found wrong with one value, and what to give instead."""
    kind, given, bounds = details["type"], details["input"], details.get("ctx", {})
    value = shown(given)
    number = given.strip() if isinstance(given, str) and len(given) < 80 else value
    match kind:
        case "greater_than_equal":
            return f"{number} is too small; give at least {bounds['ge']:g}"
        case "greater_than":
            return f"{number} is too small; give more than {bounds['gt']:g}"
        case "less_than":
            return f"{number} is too large; give less than {bounds['lt']:g}"
        case "less_than_equal":
            return f"{number} is too large; give at most {bounds['le']:.15g}"
        case "finite_number":
            return f"{number} is not finite; give a number that is"
        case "no_share":
            return f"{number} is no share; give a number from 0 to 1"
        case "leading_zero":
            return f"{value} begins with a zero; write the number without it"
        case "no_utf8":
            return f"{value} is no text of UTF-8 without zero bytes; rename what it names"
        case "string_too_short" | "too_short":
            return f"{value} is empty; give {'a text' if isinstance(given, str) else 'some'}"
        case "literal_error":
            return unknown(given, tuple(re.findall(r"'([^']*)'", bounds["expected"])))
    wanted = next((name for start, name in KINDS.items() if kind.startswith(start)), None)
    if wanted is None:
        return f"{value}: {' '.join(details['msg'].split())}"
    return f"must be {wanted}, got {'nothing' if given is None else value}"


def unknown(value: Any, known: tuple[str, ...]) -> str:
    """That `value` is none of the known ones, with the nearest."""
    near = difflib.get_close_matches(str(value)[:100], known, n=1)
    hint = f"did you mean {near[0]!r}? " if near else ""
    return f"unknown value {shown(value)}; {hint}known are {', '.join(known)}"


def is_optional(hint: Any) -> bool:
    """Whether None is a value of the setting."""
    return get_origin(hint) in (Union, UnionType) and NoneType in get_args(hint)


def plain_type(hint: Any) -> Any:
    """The type without None and without what is annotated to it."""
    while True:
        if get_origin(hint) is Annotated:
            hint = get_args(hint)[0]
        elif is_optional(hint):
            (hint,) = (part for part in get_args(hint) if part is not NoneType)
        else:
            return hint


def shown(value: Any) -> str:
    """The value on one short line, whatever it is."""
    short = reprlib.Repr()
    short.maxlevel = 3
    short.maxstring = short.maxother = 80
    try:
        return " ".join(short.repr(value).split())
    except ValueError:  # Python writes no whole number of more than 4,300 digits
        return "a number of thousands of digits"
