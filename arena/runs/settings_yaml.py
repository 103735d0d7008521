"""The settings of a run as YAML for `arena tune --config`, and back; knows no setting.

Values stay the text that was written, as `arena tune` itself reads them.
"""

from __future__ import annotations

from typing import Any

import yaml

from arena.runs.requests import RunRefusedError, RunRequest, Setting

MOST_CHARS = 50_000


class SettingsYamlError(RunRefusedError):
    """YAML that says no settings; the message says where."""

    status = 422


def as_yaml(request: RunRequest) -> str:
    """What was asked for, a setting a line."""
    content = {"name": request.name, **request.settings}
    text: str = yaml.safe_dump(content, sort_keys=False, allow_unicode=True, width=1000)
    return text


def from_yaml(text: str) -> tuple[str | None, dict[str, Setting]]:
    """Name and settings by full key; a section's settings may stand below its name.

    Raises SettingsYamlError, also for a key that stands twice.
    """
    if len(text) > MOST_CHARS:
        raise SettingsYamlError(f"YAML of {len(text)} characters is no run; give {MOST_CHARS}")
    try:
        node = yaml.compose(text, Loader=yaml.SafeLoader)
    except (yaml.YAMLError, RecursionError) as error:
        said = " ".join(str(error).replace('"<unicode string>", ', "").split())
        raise SettingsYamlError(f"this is no YAML ({said[:300]})") from error
    found: dict[str, Setting] = {}
    for key, value in _pairs(node, "the settings"):
        if isinstance(value, yaml.MappingNode) and "." not in key:
            inner_pairs = [(f"{key}.{name}", one) for name, one in _pairs(value, key)]
        else:
            inner_pairs = [(key, value)]
        for full, one in inner_pairs:
            if full in found:
                raise SettingsYamlError(f"{full} stands twice; leave one out")
            if (said_value := _value(full, one)) is not None:
                found[full] = said_value
    name = found.pop("name", None)
    if name is not None and not isinstance(name, str):
        raise SettingsYamlError("name: give one name")
    return name, found


def _pairs(node: Any, what: str) -> list[tuple[str, Any]]:
    if not isinstance(node, yaml.MappingNode):
        raise SettingsYamlError(f"{what}: give a line of 'key: value' for each setting")
    if not all(isinstance(key, yaml.ScalarNode) for key, _ in node.value):
        raise SettingsYamlError(f"{what}: a key is no text")
    return [(key.value, value) for key, value in node.value]


def _value(key: str, node: Any) -> Setting:
    if isinstance(node, yaml.ScalarNode):
        return None if node.tag == "tag:yaml.org,2002:null" else str(node.value)
    if isinstance(node, yaml.SequenceNode) and all(
        isinstance(one, yaml.ScalarNode) for one in node.value
    ):
        return [str(one.value) for one in node.value]
    if isinstance(node, yaml.MappingNode):
        pairs = _pairs(node, key)
        if all(isinstance(one, yaml.ScalarNode) for _, one in pairs):
            return {name: str(one.value) for name, one in pairs}
    raise SettingsYamlError(f"{key}: give a value, a list of values, or a map of names to values")
