"""Writes the tables that the code holds: tuning's settings and checks, and the page's limits.

`python tools/settings_table.py` rewrites them in docs/; a test compares them with the code. A
setting's meaning is the string behind its field in `tuning/config.py`, a check's is its class's
docstring, a limit's is its field's title.
"""

from __future__ import annotations

import ast
import inspect
from collections.abc import Iterator
from dataclasses import MISSING, Field, fields, is_dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import tuning.config
from arena.config.page_config import PageLimits
from tuning.config import TuningConfig, hints_of
from tuning.config_files import OBJECTIVE_DEFAULTS, STARTER_DEFAULTS
from tuning.evaluation.verifiers import KINDS

DOCS = Path(__file__).parent.parent / "docs"
LIMITS = "limits of the page"


def settings() -> Iterator[tuple[str, str, str]]:
    """Key, default and meaning of every setting, those of a section after the others."""
    said = _meanings()
    sections = []
    for item in fields(TuningConfig):
        hint = hints_of(TuningConfig)[item.name]
        if is_dataclass(hint):
            sections.append((f"{item.name}.", hint))
        else:
            yield item.name, _default(item), said["TuningConfig", item.name]
    for prefix, section in sections:
        assert isinstance(section, type)
        for item in fields(section):
            yield f"{prefix}{item.name}", _default(item), said[section.__name__, item.name]


def render() -> dict[str, str]:
    """The tables by the names of their places in the page."""
    starter = [
        (f"`{method}`", ", ".join(f"`{key}` {value:g}" for key, value in values.items()))
        for method, values in STARTER_DEFAULTS.items()
    ]
    objectives = [
        (f"`{name}`", ", ".join(f"`{key}` {value:g}" for key, value in values.items()))
        for name, values in OBJECTIVE_DEFAULTS.items()
    ]
    checks = [
        (
            f"`{name}`",
            ", ".join(f"`{field}`" for field in sorted(kind.model_fields) if field != "kind"),
            " ".join(str(kind.__doc__).split()),
        )
        for name, kind in sorted(KINDS.items())
    ]
    return {
        "settings": _table(
            ("key", "default", "meaning"),
            [(f"`{key}`", default, meaning) for key, default, meaning in settings()],
        ),
        "starter settings": _table(("method", "settings"), starter),
        "objective settings": _table(("objective", "settings"), objectives),
        "checks": _table(("kind", "fields", "passes when"), checks),
        LIMITS: _table(
            ("key", "default", "meaning"),
            [
                (f"`{name}`", f"{field.default:g}", str(field.title))
                for name, field in PageLimits.__pydantic_fields__.items()
            ],
        ),
    }


def page_of(name: str) -> Path:
    """The page that has this table."""
    return DOCS / ("arena.md" if name == LIMITS else "tuning.md")


def shown(name: str) -> str:
    """The table as the page has it now."""
    before, _, rest = page_of(name).read_text(encoding="utf-8").partition(f"<!-- {name} -->\n\n")
    assert rest, f"{before[:20]}: has no place for {name}"
    return rest.partition(f"\n\n<!-- /{name} -->")[0]


def _table(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    rule = f"|{'---|' * len(head)}"
    lines = [
        f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |"
        for line in (head, *rows)
    ]
    return "\n".join([lines[0], rule, *lines[1:]])


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


if __name__ == "__main__":
    for name, table in render().items():
        page = page_of(name)
        text = page.read_text(encoding="utf-8")
        begin = f"<!-- {name} -->"
        page.write_text(
            text.replace(f"{begin}\n\n{shown(name)}", f"{begin}\n\n{table}"), encoding="utf-8"
        )
        print(f"wrote the {name} in {page.name}")
