"""Every setting with its default and what it means, for `arena tune --settings` and the docs.

A meaning is the string behind the field in `tuning/config.py`; knows no run.
"""

from __future__ import annotations

import ast
import inspect
import json
from collections.abc import Iterator, Mapping
from dataclasses import MISSING, Field, dataclass, fields, is_dataclass
from itertools import pairwise
from typing import Any, Literal, get_args, get_origin

from rich.console import Console
from rich.table import Table

import tuning.config
from tuning.config import TuningConfig, hints_of
from tuning.config_files import OBJECTIVE_DEFAULTS, STARTER_DEFAULTS
from tuning.value_types import plain_type


@dataclass(frozen=True)
class SettingNote:
    """One setting: its full key, its default as text, its meaning, and the values it may have."""

    key: str
    default: str
    meaning: str
    kind: str
    """`choice`, `switch`, `number`, `text`, `list` or `map`."""
    choices: tuple[str, ...] = ()


def setting_notes() -> Iterator[SettingNote]:
    """All settings, those of a section after the others."""
    said = _meanings()
    sections = []
    for item in fields(TuningConfig):
        hint = hints_of(TuningConfig)[item.name]
        if is_dataclass(hint):
            sections.append((f"{item.name}.", hint))
        else:
            yield _note("", item, hint, said["TuningConfig", item.name])
    for prefix, section in sections:
        assert isinstance(section, type)
        for item in fields(section):
            hint = hints_of(section)[item.name]
            yield _note(prefix, item, hint, said[section.__name__, item.name])


def run_settings(*, json_out: bool) -> None:
    """`arena tune --settings`: all of them, and the defaults that hold for some runs only."""
    if json_out:
        content = {
            "settings": [vars(note) for note in setting_notes()],
            "starter": STARTER_DEFAULTS,
            "objectives": OBJECTIVE_DEFAULTS,
        }
        print(json.dumps(content, ensure_ascii=False))
        return
    table = Table("key", "default", "meaning")
    for note in setting_notes():
        table.add_row(note.key, note.default, note.meaning)
    Console().print(table)


def _note(prefix: str, item: Field[Any], hint: Any, meaning: str) -> SettingNote:
    plain = plain_type(hint)
    choices = get_args(plain) if get_origin(plain) is Literal else ()
    kind = "choice" if choices else _kind(plain)
    return SettingNote(f"{prefix}{item.name}", _default(item), meaning, kind, tuple(choices))


def _kind(plain: Any) -> str:
    origin = get_origin(plain) or plain
    if origin is tuple:
        return "list"
    if origin is Mapping:
        return "map"
    if origin is bool:
        return "switch"
    return "number" if origin in (int, float) else "text"


def _meanings() -> dict[tuple[str, str], str]:
    """The string behind each field, by class and field."""
    found = {}
    for owner in ast.parse(inspect.getsource(tuning.config)).body:
        if not isinstance(owner, ast.ClassDef):
            continue
        for item, following in pairwise(owner.body):
            if isinstance(item, ast.AnnAssign) and isinstance(following, ast.Expr):
                text = ast.literal_eval(following.value)
                found[owner.name, ast.unparse(item.target)] = " ".join(text.split())
    return found


def _default(item: Field[Any]) -> str:
    value = item.default
    if value is MISSING:
        return "must be given"
    if value is None or value == ():
        return "none"
    if isinstance(value, tuple):
        return ", ".join(value)
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:g}" if isinstance(value, float) else str(value)
