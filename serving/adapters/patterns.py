"""Regular expressions of adapter folders, matched in linear time.

Python's own engine tries again and again: one line in a folder would keep the server busy for
ever. Pydantic's core has Rust's engine, which has no such expressions. Knows names of layers.
"""

from __future__ import annotations

import functools
from typing import Any

from pydantic_core import SchemaError, SchemaValidator, ValidationError, core_schema

from serving.errors import ModelLoadError

MOST_CHARACTERS = 2_000


def matches(expression: str, name: str) -> bool:
    """Whether the whole of a layer's name matches; ModelLoadError for what is no expression."""
    try:
        _compiled(expression).validate_python(name)
    except ValidationError:
        return False
    return True


@functools.lru_cache(maxsize=256)
def _compiled(expression: str) -> SchemaValidator:
    shown = repr(expression[:80])
    if len(expression) > MOST_CHARACTERS:
        raise ModelLoadError(
            f"the expression {shown}… has {len(expression)} characters, {MOST_CHARACTERS} are "
            "allowed; name the layers"
        )
    schema: Any = core_schema.str_schema(pattern=rf"\A(?:{expression})\z")
    try:
        return SchemaValidator(schema)
    except SchemaError as error:
        raise ModelLoadError(
            f"the expression {shown} is none that can be matched in linear time; name the layers"
        ) from error
