"""Writes the tables that the code holds: tuning's settings and checks, and the page's limits.

`python tools/settings_table.py` rewrites them in docs/; a test compares them with the code. A
setting's meaning is the string behind its field in `tuning/config.py`, a check's is its class's
docstring, a limit's is its field's title.
"""

from __future__ import annotations

from pathlib import Path

from arena.config.page_config import PageLimits
from tuning.commands.settings import setting_notes
from tuning.config_files import OBJECTIVE_DEFAULTS, STARTER_DEFAULTS
from tuning.evaluation.verifiers import KINDS

DOCS = Path(__file__).parent.parent / "docs"
LIMITS = "limits of the page"


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
            [(f"`{note.key}`", note.default, note.meaning) for note in setting_notes()],
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


if __name__ == "__main__":
    for name, table in render().items():
        page = page_of(name)
        text = page.read_text(encoding="utf-8")
        begin = f"<!-- {name} -->"
        page.write_text(
            text.replace(f"{begin}\n\n{shown(name)}", f"{begin}\n\n{table}"), encoding="utf-8"
        )
        print(f"wrote the {name} in {page.name}")
