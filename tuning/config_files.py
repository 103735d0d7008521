"""Reads settings from YAML and from the command line into a checked config.

Knows the fields of `tuning.config` by reflection only, so a new field needs no change here. Here
is what a line of text stands for; whether the value is good is for `tuning.config`.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, fields, is_dataclass
from pathlib import Path
from typing import Any, get_origin

from tuning.config import TuningConfig, hints_of
from tuning.errors import ConfigError
from tuning.value_types import is_optional, plain_type, shown

NONE = ("none", "null")
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
# Of the other objectives: one pass, held-out prompts, for scores the best evaluation's weights.
OBJECTIVE_DEFAULTS: dict[str, dict[str, Any]] = {
    "reward": {"epochs": 1, "heldout": 0.1, "patience": 2},
    "dpo": {"epochs": 1, "heldout": 0.1},
    "kto": {"epochs": 1, "heldout": 0.1},
    "rl": {"epochs": 1, "heldout": 0.1},
}


def load_config(
    path: Path | None = None,
    settings: Mapping[str, Any] | None = None,
    home: Path = TuningConfig.home,
) -> TuningConfig:
    """Settings of a YAML file and of the command line (which win) as one checked config.

    Keys are `section.key`, or the bare key where only one section has it. Text among `settings` is
    as typed on a command line: commas part the items of a list. `home` is that where neither says
    one. ConfigError names an unknown key and the nearest known one.
    """
    hints = setting_keys()
    merged: dict[str, Any] = {"home": home}
    if path is not None:
        merged.update(_full_keys(_pairs(_read_yaml(path))))
    typed = _full_keys((settings or {}).items())
    merged.update({key: _from_line(key, value, hints[key]) for key, value in typed.items()})
    merged = {key: _or_none(value, hints[key]) for key, value in merged.items()}
    for key in ("base", "data", "name"):
        if merged.get(key) in (None, "", (), []):
            raise ConfigError(f"{key}: is not set; give --{key} or write it in --config")
    objective = str(merged.get("objective", TuningConfig.objective))
    is_starter = merged["data"] in ("starter", ("starter",), ["starter"])
    if is_starter and objective == TuningConfig.objective:
        defaults = STARTER_DEFAULTS.get(str(merged.get("method", TuningConfig.method)), {})
        merged = {**{_full_key(key): value for key, value in defaults.items()}, **merged}
    defaults = OBJECTIVE_DEFAULTS.get(objective, {})
    merged = {**{_full_key(key): value for key, value in defaults.items()}, **merged}
    config: TuningConfig = _build(TuningConfig, merged, "")
    return config


def refuse_without_use(config: TuningConfig) -> None:
    """ConfigError for a setting of a section that the run has no use for, as somebody gave it."""
    for section, is_used, remedy in (
        ("lora", config.method in ("lora", "qlora"), "tune by method lora or qlora"),
        ("prefix", config.method in ("prefix", "prompt"), "tune by method prefix or prompt"),
        ("preference", config.objective != "sft", "give an objective that learns preferences"),
    ):
        options = getattr(config, section)
        given, usual = asdict(options), asdict(type(options)())
        for key in () if is_used else given:
            if given[key] != usual[key]:
                raise ConfigError(
                    f"{section}.{key}: {shown(given[key])} does nothing with method "
                    f"{config.method!r} and objective {config.objective!r}; leave it out, or "
                    f"{remedy}"
                )


def setting_keys() -> dict[str, Any]:
    """Every full key of the config with its type, for help, documentation and checks."""
    return dict(_walk(TuningConfig, ""))


def parse_assignment(text: str) -> tuple[str, str]:
    """Split one `key=value` of `--set`."""
    key, separator, value = text.partition("=")
    if not separator or not key.strip():
        raise ConfigError(f"--set {text!r}: write it as key=value, such as lora.rank=8")
    return key.strip(), value.strip()


def add_assignments(given: Mapping[str, Any], texts: Iterable[str]) -> dict[str, Any]:
    """Settings of flags, by full key, and of every `--set`; lists given several times are joined.

    ConfigError names both values of another setting that is given twice.
    """
    hints, found = setting_keys(), dict(given)
    for text in texts:
        key, value = parse_assignment(text)
        full = _full_key(key)
        before = found.get(full)
        joins = isinstance(before, str) and get_origin(plain_type(hints[full])) in (tuple, Mapping)
        if full in found and not joins:
            raise ConfigError(
                f"{full}: is set twice, as {shown(before)} and as {shown(value)}; leave one of them"
            )
        found[full] = f"{before},{value}" if joins else value
    return found


def _walk(owner: type, prefix: str) -> Iterator[tuple[str, Any]]:
    for name, hint in hints_of(owner).items():
        if is_dataclass(hint):
            assert isinstance(hint, type)
            yield from _walk(hint, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", hint


def _full_keys(pairs: Iterable[tuple[Any, Any]]) -> dict[str, Any]:
    full: dict[str, Any] = {}
    for key, value in pairs:
        name = _full_key(key)
        if name in full:
            raise ConfigError(f"{name}: is set twice, once as {shown(key)}; leave one of them")
        full[name] = value
    return full


def _full_key(key: Any) -> str:
    known = setting_keys()
    if key in known:
        return str(key)
    matches = [full for full in known if full.rpartition(".")[2] == key]
    if len(matches) == 1:
        return matches[0]
    name = key if isinstance(key, str) and key.isprintable() else shown(key)
    names = [*known, *(full.rpartition(".")[2] for full in known)]
    near = difflib.get_close_matches(name[:100], names, n=1, cutoff=0.5)
    hint = f"did you mean {near[0]!r}?" if near else f"known are {', '.join(known)}"
    raise ConfigError(f"{name[:100]}: unknown setting; {hint}")


def _is_setting(key: Any) -> bool:
    return any(key in (full, full.rpartition(".")[2]) for full in setting_keys())


def _pairs(content: Mapping[Any, Any]) -> Iterator[tuple[Any, Any]]:
    """Keys and values of a YAML file, those of a section with its name; an empty one has none."""
    sections = {name for name, hint in hints_of(TuningConfig).items() if is_dataclass(hint)}
    for key, value in content.items():
        if key not in sections:
            near = difflib.get_close_matches(str(key)[:100], sections, n=1)
            if isinstance(value, Mapping) and near and not _is_setting(key):
                raise ConfigError(f"{shown(key)}: unknown section; did you mean {near[0]!r}?")
            yield key, value
        elif isinstance(value, Mapping):
            yield from ((f"{key}.{inner}", item) for inner, item in value.items())
        elif value is not None:
            raise ConfigError(
                f"{key}: {shown(value)} is no section; write its settings below it, each as "
                "`key: value` on a line of its own"
            )


def _read_yaml(path: Path) -> Mapping[Any, Any]:
    from tuning.yaml_text import read_yaml

    try:
        content = read_yaml(path)
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ConfigError(
            f"{path}: cannot be read ({reason}); give a readable YAML file"
        ) from error
    except ValueError as error:
        raise ConfigError(f"{path}: no valid YAML ({error}); mend the file") from error
    if not isinstance(content, Mapping):
        raise ConfigError(f"{path}: holds no keys; write settings such as `method: lora`")
    return content


def _build(owner: type, merged: Mapping[str, Any], prefix: str) -> Any:
    hints = hints_of(owner)
    values: dict[str, Any] = {}
    for item in fields(owner):
        key, hint = f"{prefix}{item.name}", hints[item.name]
        if is_dataclass(hint):
            assert isinstance(hint, type)
            values[item.name] = _build(hint, merged, f"{key}.")
        elif key in merged:
            values[item.name] = merged[key]
    return owner(**values)


def _from_line(key: str, value: Any, hint: Any) -> Any:
    """What text of a command line stands for: `a,b` is a list, `a:b,c:d` a map."""
    wanted = get_origin(plain_type(hint))
    if not isinstance(value, str) or wanted not in (tuple, Mapping):
        return value
    parts = [part.strip() for part in value.split(",") if part.strip()]
    if wanted is tuple:
        return tuple(parts)
    if is_optional(hint) and value.lower() in NONE:
        return None
    pairs = dict(part.split(":", 1) for part in parts if ":" in part)
    if len(pairs) != len(parts):
        raise ConfigError(
            f"{key}: must be a map, got {shown(value)}; write keys and values in YAML, or "
            "--set columns=prompt:ask,response:reply"
        )
    return pairs


def _or_none(value: Any, hint: Any) -> Any:
    """`none` and `null` are None where that is a value."""
    is_none = isinstance(value, str) and value.lower() in NONE
    return None if is_none and is_optional(hint) else value
