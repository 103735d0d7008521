"""Reads YAML whose values stay the text that was written, but for null, lists and maps.

YAML 1.1 makes false of `no`, eight of `010` and a date of `2024-01-01`; here the setting that gets
the text decides what it is. A key that stands twice is refused. Knows no setting.
"""

from __future__ import annotations

from collections.abc import Hashable
from pathlib import Path
from typing import Any

import yaml

NULL, MERGE = "tag:yaml.org,2002:null", "tag:yaml.org,2002:merge"
BUILT = {f"tag:yaml.org,2002:{kind}" for kind in ("str", "null", "seq", "map")}


class _TextLoader(yaml.SafeLoader):
    """PyYAML's safe loader without the types it guesses."""

    yaml_implicit_resolvers = {  # noqa: RUF012 (PyYAML's own way of settings)
        first: [(tag, pattern) for tag, pattern in pairs if tag in (NULL, MERGE)]
        for first, pairs in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }
    yaml_constructors = {  # noqa: RUF012
        tag: build
        for tag, build in yaml.SafeLoader.yaml_constructors.items()
        if tag is None or tag in BUILT
    }

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        """A map as written; ComposerError where a key stands twice."""
        node = super().compose_mapping_node(anchor)
        found: set[Hashable] = set()
        for key, _ in node.value:
            name = (key.tag, key.value) if isinstance(key, yaml.ScalarNode) else id(key)
            if name in found:
                raise yaml.composer.ComposerError(
                    None, None, f"the key {key.value!r} stands twice", key.start_mark
                )
            found.add(name)
        return node


def read_yaml(path: Path) -> Any:
    """The content of a YAML file: text, None, lists and maps.

    OSError or UnicodeDecodeError when it cannot be read, ValueError when it is no YAML.
    """
    return parse_yaml(path.read_text(encoding="utf-8"))


def parse_yaml(text: str) -> Any:
    """The content of YAML: text, None, lists and maps; ValueError when it is none."""
    try:
        return yaml.load(text, Loader=_TextLoader)
    except yaml.YAMLError as error:
        said = str(error).replace('"<unicode string>", ', "")  # the caller names the file
        raise ValueError(" ".join(said.split())) from error
    except RecursionError as error:
        raise ValueError("lists or maps lie too deep in each other") from error
