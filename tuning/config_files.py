"""Reads settings from YAML and from the command line into a checked config.

Knows the fields of `tuning.config` by reflection only, so a new field needs no change here.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping
from dataclasses import fields, is_dataclass
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Union, get_args, get_origin, get_type_hints

from tuning.config import ConfigError, TuningConfig

# Settings that suit the starter's size and instructions. They are defaults only: a flag, a YAML
# key or a field given by the caller wins.
STARTER_DEFAULTS: dict[str, dict[str, Any]] = {
    "full": {"epochs": 8, "max_minutes": 4.0, "batch_size": 32, "learning_rate": 2e-4},
    "lora": {"epochs": 6, "max_minutes": 1.7, "batch_size": 32, "learning_rate": 2e-3},
    "prefix": {
        "epochs": 12,
        "max_minutes": 4.2,
        "batch_size": 16,
        "learning_rate": 5e-1,
        "prefix.virtual_tokens": 64,
    },
    "prompt": {"epochs": 12, "max_minutes": 4.7, "batch_size": 64, "learning_rate": 3e-2},
    "ia3": {"epochs": 12, "max_minutes": 4.7, "batch_size": 64, "learning_rate": 2e-2},
}


def load_config(
    path: Path | None = None, settings: Mapping[str, Any] | None = None
) -> TuningConfig:
    """Settings of a YAML file and of the command line (which win) as one checked config.

    Keys are `section.key`, or the bare key where only one section has it. ConfigError names an
    unknown key and the nearest known one.
    """
    merged: dict[str, Any] = {}
    if path is not None:
        merged.update(_flatten(_read_yaml(path)))
    merged.update({_full_key(key): value for key, value in (settings or {}).items()})
    for key in ("base", "data", "name"):
        if merged.get(key) in (None, "", (), []):
            raise ConfigError(f"{key}: is not set; give --{key} or write it in --config")
    if _as_tuple(merged["data"]) == ("starter",):
        method = str(merged.get("method", TuningConfig.method))
        for key, value in STARTER_DEFAULTS.get(method, {}).items():
            merged.setdefault(_full_key(key), value)
    config: TuningConfig = _build(TuningConfig, merged, "")
    return config


def setting_keys() -> dict[str, Any]:
    """Every full key of the config with its type, for help, documentation and checks."""
    return dict(_walk(TuningConfig, ""))


def parse_assignment(text: str) -> tuple[str, str]:
    """Split one `key=value` of `--set`."""
    key, separator, value = text.partition("=")
    if not separator or not key.strip():
        raise ConfigError(f"--set {text!r}: write it as key=value, such as lora.rank=8")
    return key.strip(), value.strip()


def _walk(owner: type, prefix: str) -> Iterator[tuple[str, Any]]:
    hints = get_type_hints(owner)
    for item in fields(owner):
        hint = hints[item.name]
        if is_dataclass(hint):
            assert isinstance(hint, type)
            yield from _walk(hint, f"{prefix}{item.name}.")
        else:
            yield f"{prefix}{item.name}", hint


def _full_key(key: str) -> str:
    known = setting_keys()
    if key in known:
        return key
    matches = [full for full in known if full.rpartition(".")[2] == key]
    if len(matches) == 1:
        return matches[0]
    names = [*known, *(full.rpartition(".")[2] for full in known)]
    near = difflib.get_close_matches(key, names, n=1, cutoff=0.5)
    hint = f"did you mean {near[0]!r}?" if near else f"known are {', '.join(known)}"
    raise ConfigError(f"{key}: unknown setting; {hint}")


def _flatten(content: Mapping[str, Any]) -> dict[str, Any]:
    sections = {item.name for item in fields(TuningConfig)} & {
        key.partition(".")[0] for key in setting_keys() if "." in key
    }
    flat: dict[str, Any] = {}
    for key, value in content.items():
        if key in sections and isinstance(value, Mapping):
            for inner, inner_value in value.items():
                flat[_full_key(f"{key}.{inner}")] = inner_value
        else:
            flat[_full_key(str(key))] = value
    return flat


def _read_yaml(path: Path) -> Mapping[str, Any]:
    import yaml

    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read ({error}); give a readable YAML file") from error
    except yaml.YAMLError as error:
        reason = " ".join(str(error).split())
        raise ConfigError(f"{path}: no valid YAML ({reason}); mend the file") from error
    if not isinstance(content, Mapping):
        raise ConfigError(f"{path}: holds no keys; write settings such as `method: lora`")
    return content


def _build(owner: type, merged: Mapping[str, Any], prefix: str) -> Any:
    hints = get_type_hints(owner)
    values: dict[str, Any] = {}
    for item in fields(owner):
        key, hint = f"{prefix}{item.name}", hints[item.name]
        if is_dataclass(hint):
            assert isinstance(hint, type)
            values[item.name] = _build(hint, merged, f"{key}.")
        elif key in merged:
            values[item.name] = _coerce(key, merged[key], hint)
    return owner(**values)


def _coerce(key: str, value: Any, hint: Any) -> Any:
    """Turn YAML or command-line text into the field's type; ConfigError when it cannot be."""
    if get_origin(hint) in (Union, UnionType):
        if value is None or (isinstance(value, str) and value.lower() in ("none", "null")):
            return None
        (hint,) = (part for part in get_args(hint) if part is not NoneType)
    problem = ConfigError(f"{key}: {value!r} is no {_type_name(hint)}; give one")
    if get_origin(hint) is tuple:
        return tuple(_coerce(key, part, get_args(hint)[0]) for part in _as_tuple(value))
    if get_origin(hint) is not None:
        if isinstance(value, str) and ":" in value:
            value = dict(part.split(":", 1) for part in value.split(",") if ":" in part)
        if not isinstance(value, Mapping):
            raise ConfigError(
                f"{key}: {value!r} is no map; write keys and values in YAML, or "
                "--set columns=prompt:ask,response:reply"
            )
        return {str(left): str(right) for left, right in value.items()}
    if hint is bool:
        truth = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}
        if isinstance(value, bool):
            return value
        if str(value).lower() not in truth:
            raise problem
        return truth[str(value).lower()]
    if isinstance(value, bool) or not isinstance(value, str | int | float | Path):
        raise problem
    try:
        return hint(value) if hint is not int else _whole(value)
    except ValueError as error:
        raise problem from error


def _whole(value: Any) -> int:
    number = float(value)
    if number != int(number):
        raise ValueError(value)
    return int(number)


def _as_tuple(value: Any) -> tuple[Any, ...]:
    if isinstance(value, str):
        return tuple(part for part in value.split(",") if part)
    return tuple(value) if isinstance(value, list | tuple) else (value,)


def _type_name(hint: Any) -> str:
    return {int: "whole number", float: "number", bool: "true or false"}.get(hint, "text")
