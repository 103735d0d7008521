"""Reads YAML so that an error can name the line of every key; a key written twice is refused.

Knows YAML only; what the keys mean is `plan`'s business.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from tuning.data.folders import DataError

Keys = tuple[str, ...]


@dataclass(frozen=True)
class YamlFile:
    """The values of a YAML file, and the line (from 1) on which each key or item stands."""

    path: Path
    values: Mapping[str, Any]
    lines: Mapping[Keys, int]

    def error(self, keys: Iterable[str], text: str) -> DataError:
        """An error about the value under `keys`: `file:line: a.b: text`."""
        found = tuple(keys)
        line = next(
            (
                self.lines[found[:end]]
                for end in range(len(found), 0, -1)
                if found[:end] in self.lines
            ),
            1,
        )
        name = f"{'.'.join(found)}: " if found else ""
        return DataError(f"{self.path}:{line}: {name}{text}")


def read_yaml(path: Path) -> YamlFile:
    """The file as plain values. DataError for a file that is unreadable, no YAML or no mapping."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: cannot be read ({error}); give a readable YAML file") from error
    try:
        loader = yaml.SafeLoader(text)
        node = loader.get_single_node()
        reader = _Reader(path, loader)
        values = reader.value(node, ()) if node is not None else {}
    except (yaml.YAMLError, ValueError, TypeError, RecursionError) as error:
        reason = " ".join(str(error).split())
        raise DataError(f"{path}: no valid YAML ({reason}); mend the file") from error
    if not isinstance(values, dict):
        raise DataError(f"{path}: holds no keys and values; write `sources:` and what it needs")
    return YamlFile(path, values, reader.lines)


class _Reader:
    """Turns nodes into values; each node once, so that aliases cannot blow a file up."""

    def __init__(self, path: Path, loader: yaml.SafeLoader) -> None:
        self.lines: dict[Keys, int] = {}
        self._path = path
        self._loader = loader
        self._made: dict[int, Any] = {}
        self._open: set[int] = set()

    def value(self, node: yaml.Node, keys: Keys) -> Any:
        if id(node) in self._open:
            raise yaml.YAMLError(f"line {node.start_mark.line + 1} holds itself by an alias")
        if id(node) not in self._made:
            self._open.add(id(node))
            self._made[id(node)] = self._build(node, keys)
            self._open.remove(id(node))
        return self._made[id(node)]

    def _build(self, node: yaml.Node, keys: Keys) -> Any:
        if isinstance(node, yaml.MappingNode):
            self._refuse_repeats(node, keys)
            self._loader.flatten_mapping(node)
            made: dict[str, Any] = {}
            for key_node, value_node in node.value:
                key = str(self._loader.construct_object(key_node, deep=True))
                self.lines[(*keys, key)] = key_node.start_mark.line + 1
                made[key] = self.value(value_node, (*keys, key))
            return made
        if isinstance(node, yaml.SequenceNode):
            for number, item in enumerate(node.value):
                self.lines[(*keys, str(number))] = item.start_mark.line + 1
            return [self.value(item, (*keys, str(at))) for at, item in enumerate(node.value)]
        return self._loader.construct_object(node, deep=True)

    def _refuse_repeats(self, node: yaml.MappingNode, keys: Keys) -> None:
        seen: dict[str, int] = {}
        for key_node, _ in node.value:
            key, line = str(key_node.value), key_node.start_mark.line + 1
            if key in seen:
                raise YamlFile(self._path, {}, {(*keys, key): line}).error(
                    (*keys, key), f"stands twice, first in line {seen[key]}; give each a name"
                )
            seen[key] = line
