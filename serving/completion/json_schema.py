"""JSON schemas as callers mean them: objects closed, references moved with the schema they are in.

Knows JSON Schema's words; does not know grammars, tools or requests.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

# Words whose value is a table of schemas by name, and words whose value is no schema at all.
TABLES = ("properties", "patternProperties", "$defs", "definitions", "dependentSchemas")
DATA = ("const", "enum", "default", "example", "examples", "required", "type", "title")
COMPOSING = ("allOf", "anyOf", "oneOf", "$ref", "if", "then", "else")
OPEN = ("additionalProperties", "patternProperties", "unevaluatedProperties")

Schema = dict[str, Any]


def closed(schema: Schema) -> Schema:
    """The schema with what its writer meant: `properties` are those of an object, and all of them.

    TGI's grammars say so. An object whose schema says what else may be in it stays as it is, and
    so do all where schemas are put together from parts, since a closed part would forbid the
    others' keys.
    """
    is_composed = any(map(_is_composed, _schemas(schema)))

    def close(node: Schema) -> Schema:
        if "uniqueItems" in node and node["uniqueItems"] is False:
            del node["uniqueItems"]
        if not node.keys() & {"type", "const", "enum", "$ref"}:
            if node.keys() & {"properties", "required"}:
                node = {"type": "object", **node}
            elif node.keys() & {"items", "prefixItems"}:
                node = {"type": "array", **node}
        if "properties" in node and not is_composed and not node.keys() & set(OPEN):
            node["additionalProperties"] = False
        return node

    built: Schema = _rebuilt(schema, close)
    return built


def moved(schema: Schema, place: str) -> Schema:
    """The schema as it has to be when it stands at `place` of another, as `#/$defs/a`."""

    def move(node: Schema) -> Schema:
        target = node.get("$ref")
        if isinstance(target, str) and target.startswith("#"):
            node["$ref"] = place + target[1:]
        return node

    built: Schema = _rebuilt(schema, move)
    return built


def _is_composed(node: Schema) -> bool:
    parts = node.get("allOf")
    if isinstance(parts, list) and len(parts) > 1:
        return True
    return "properties" in node and bool(node.keys() & set(COMPOSING))


def _rebuilt(value: Any, change: Callable[[Schema], Schema]) -> Any:
    """A copy in which every schema, innermost first, is what `change` makes of it."""
    if isinstance(value, list):
        return [_rebuilt(item, change) for item in value]
    if not isinstance(value, dict):
        return value
    built: Schema = {}
    for word, item in value.items():
        if word in DATA:
            built[word] = item
        elif word in TABLES and isinstance(item, dict):
            built[word] = {name: _rebuilt(part, change) for name, part in item.items()}
        else:
            built[word] = _rebuilt(item, change)
    return change(built)


def _schemas(value: Any) -> Iterator[Schema]:
    found: list[Schema] = []

    def note(node: Schema) -> Schema:
        found.append(node)
        return node

    _rebuilt(value, note)
    return iter(found)
