"""The direction of imports, the size of modules, and what a quick command may load.

Read from the source with `ast`, so that a module is judged even where it cannot be imported.
"""

from __future__ import annotations

import ast
import json
import re
import subprocess
import sys
import tokenize
from pathlib import Path

import pytest
from architecture import (
    PACKAGES,
    PAGE,
    ROOMS,
    ROOT,
    Import,
    arrows,
    imports_of,
    render,
    room_of,
    runs_back,
    sources,
)

# What knows all three packages, and only inside the bodies of functions.
COMMANDS = {
    "arena.cli",
    "arena.commands.deploy",
    "arena.commands.doctor",
    "arena.commands.imports",
    "arena.commands.judge",
    "arena.commands.loop",
    "arena.commands.serve",
    "arena.commands.models",
    "arena.commands.reward",
}
# All that loads Gradio; the rest can be used, and tested, where there is none.
WITH_GRADIO = {"arena.page", "arena.app"}
HEAVY = {"torch", "transformers", "peft", "trl", "accelerate", "datasets"}

MODULE_LINES = 400
FUNCTION_LINES = 60
TABLES = {"tuning.starter.world.facts"}  # its functions are lists of sentences
# Tokens that make a line more than a piece of data.
SPEAKING = {tokenize.NAME, tokenize.NUMBER}


MODULES = sources()
IMPORTS = [found for name, tree in MODULES.items() for found in imports_of(name, tree, MODULES)]


def breaches(*offending: Import) -> list[str]:
    """The imports as lines, for a readable failure."""
    return [str(found) for found in offending]


def test_the_reader_sees_the_imports_there_are() -> None:
    """A rule over nothing would always hold."""
    seen = {(found.importer, found.package) for found in IMPORTS}
    assert {name.partition(".")[0] for name in MODULES} == set(PACKAGES)
    assert ("arena.storage.store", "sqlite_utils") in seen
    assert any(found.package == "gradio" for found in IMPORTS)
    assert any(
        found.package == "torch" and found.importer.startswith("serving") for found in IMPORTS
    )
    assert any(
        found.package == "torch" and found.importer.startswith("tuning") for found in IMPORTS
    )


def test_tuning_knows_neither_serving_nor_arena() -> None:
    assert not breaches(
        *(
            found
            for found in IMPORTS
            if found.importer.startswith("tuning") and found.package in {"serving", "arena"}
        )
    )


def test_serving_knows_of_tuning_only_the_variant_folder() -> None:
    assert not breaches(
        *(
            found
            for found in IMPORTS
            if found.importer.startswith("serving")
            and (
                found.package == "arena"
                or (found.package == "tuning" and found.imported != "tuning.variant")
            )
        )
    )


def test_only_the_commands_know_all_three_and_only_in_their_bodies() -> None:
    outside = [
        found
        for found in IMPORTS
        if found.importer.startswith("arena") and found.package in {"serving", "tuning"}
    ]
    assert outside, "the commands import the other packages"
    assert not breaches(
        *(
            found
            for found in outside
            if found.importer not in COMMANDS
            or (found.at_top and not found.imported.endswith(".errors"))
        )
    )


def page_side() -> set[str]:
    """The modules that load gradio when they are imported, by themselves or through others."""
    found = {found.importer for found in IMPORTS if found.package == "gradio"}
    while True:
        more = {use.importer for use in IMPORTS if use.at_top and use.imported in found} - found
        if not more:
            return found
        found |= more


def test_gradio_stays_in_the_page() -> None:
    with_gradio = page_side()
    assert {"arena.app", "arena.page.layout"} <= with_gradio
    assert {f"arena.{room_of(name)}" for name in with_gradio} == WITH_GRADIO


@pytest.mark.parametrize("package", ROOMS)
def test_rooms_stand_on_each_other_one_way(package: str) -> None:
    """Prints the arrows between rooms, lowest first; those that run back are none."""
    rooms = ROOMS[package]
    members = {name for name in MODULES if name.startswith(f"{package}.")}
    assert {room_of(name) for name in members} <= {*rooms, None}
    homeless = {name for name in members if room_of(name) is None}
    assert all(
        any(room.startswith(f"{name.partition('.')[2]}.") for room in rooms) for name in homeless
    )
    found = [arrow for arrow in arrows(IMPORTS) if arrow[0] == package]
    for room in rooms:
        below = [lower for _, upper, lower in found if upper == room]
        print(room, "->", ", ".join(sorted(below, key=rooms.index)) or "nothing")
    assert found
    assert not [arrow for arrow in found if runs_back(*arrow)]


@pytest.mark.parametrize("package", ROOMS)
def test_a_room_says_what_it_is_for_and_what_it_does_not_know(package: str) -> None:
    for room in ROOMS[package]:
        name = f"{package}.{room}"
        if path_of(name).name == "__init__.py":
            told = ast.get_docstring(MODULES[name]) or ""
            assert re.search(r"\bknows? (no|neither)", told, re.IGNORECASE), name


@pytest.mark.slow
def test_page_shows_the_trees() -> None:
    text = PAGE.read_text(encoding="utf-8")
    assert render(text) == text, "docs/architecture.md is old: run `make docs`"


# One name in two places for one thing: a wire type copies its specification's name.
SAME_THING = {"Message"}


def test_two_things_never_share_a_name() -> None:
    """Public classes and type aliases, over all three packages; imported names do not count."""
    places: dict[str, set[str]] = {}
    for module, tree in MODULES.items():
        for node in tree.body:
            names = [node.name] if isinstance(node, ast.ClassDef) else []
            if isinstance(node, ast.Assign):
                names = [one.id for one in node.targets if isinstance(one, ast.Name)]
            for name in names:
                if re.fullmatch(r"[A-Z][A-Za-z]*[a-z][A-Za-z]*", name):
                    places.setdefault(name, set()).add(module)
    assert len(places) > 300, "the reader sees the names there are"
    shared = {name: sorted(where) for name, where in places.items() if len(where) > 1}
    assert set(shared) == SAME_THING, shared


SQL = re.compile(
    r"""\s*(
    SELECT\b.+\bFROM\b | WITH\s.+\bAS\s*\( | (INSERT|REPLACE)\s+(OR\s+\w+\s+)?INTO\b
    | UPDATE\s+\S+\s+SET\b | DELETE\s+FROM\b | PRAGMA\s+\w+ | VACUUM\b
    | (CREATE|DROP|ALTER)\s+(TEMP\w*\s+|UNIQUE\s+|VIRTUAL\s+)?(TABLE|INDEX|TRIGGER|VIEW)\b
    | (BEGIN|COMMIT|ROLLBACK)(\s+(IMMEDIATE|EXCLUSIVE|DEFERRED|TRANSACTION)|\s*;|\s*$)
    )""",
    re.IGNORECASE | re.DOTALL | re.VERBOSE,
)


def statements_in(name: str) -> list[str]:
    """The places of a module where a text is an SQL statement; a docstring is none."""
    texts = [
        node
        for node in ast.walk(MODULES[name])
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    ]
    told = {id(node.value) for node in ast.walk(MODULES[name]) if isinstance(node, ast.Expr)}
    return [
        f"{name}:{text.lineno} {text.value.strip()[:60]!r}"
        for text in texts
        if id(text) not in told and SQL.match(text.value)
    ]


@pytest.mark.slow
def test_only_storage_writes_sql() -> None:
    """Neither the libraries nor a statement stands elsewhere, nor what would run one."""
    outside = [name for name in MODULES if not in_storage(name)]
    assert not breaches(
        *(
            found
            for found in IMPORTS
            if found.package in {"sqlite_utils", "sqlite3"} and found.importer in outside
        )
    )
    assert not [place for name in outside for place in statements_in(name)]
    runs = {"execute", "executemany", "executescript", "query"}
    assert not [
        f"{name}:{node.lineno} {ast.unparse(node.func)}"
        for name in outside
        for node in ast.walk(MODULES[name])
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and node.func.attr in runs
    ]
    inside = [place for name in MODULES if name not in outside for place in statements_in(name)]
    assert len(inside) > 50, "the reader sees the statements there are"


def in_storage(name: str) -> bool:
    """Whether a module is part of `arena.storage`."""
    return name == "arena.storage" or name.startswith("arena.storage.")


def test_the_arena_loads_no_model_library() -> None:
    """It talks HTTP and reads SQLite; `datasets` may write an export, inside a function."""
    assert not breaches(
        *(
            found
            for found in IMPORTS
            if found.importer.startswith("arena")
            and found.package in HEAVY
            and (found.package != "datasets" or found.at_top)
        )
    )


def test_serving_needs_nothing_of_training() -> None:
    assert not breaches(
        *(
            found
            for found in IMPORTS
            if found.importer.startswith("serving")
            and found.package in {"trl", "accelerate", "datasets", "gradio", "sqlite_utils"}
        )
    )


def test_no_import_cycle() -> None:
    """Depth first over all imports, also those inside functions; a module met again on its own
    path is a cycle.
    """
    below: dict[str, set[str]] = {name: set() for name in MODULES}
    for found in IMPORTS:
        if found.imported in MODULES and found.imported != found.importer:
            below[found.importer].add(found.imported)
    finished: set[str] = set()

    def visit(name: str, path: tuple[str, ...]) -> None:
        assert name not in path, " -> ".join((*path[path.index(name) :], name))
        if name not in finished:
            for other in sorted(below[name]):
                visit(other, (*path, name))
            finished.add(name)

    for name in below:
        visit(name, ())


def loaded_by(code: str) -> set[str]:
    """Top-level names in `sys.modules` after running `code` in a fresh interpreter."""
    script = (
        "import json, sys\n"
        f"try:\n    exec({code!r})\n"
        "except SystemExit as stop:\n    assert not stop.code, stop.code\n"
        "print()\n"
        "print(json.dumps(sorted({name.partition('.')[0] for name in sys.modules})))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=ROOT
    )
    return set(json.loads(done.stdout.splitlines()[-1]))


@pytest.mark.parametrize("command", ["arena", "arena up", "arena tune", "arena serve", "arena ui"])
def test_help_loads_nothing_heavy(command: str) -> None:
    arguments = [*command.split(), "--help"]
    loaded = loaded_by(f"import sys; sys.argv = {arguments}; from arena.cli import main; main()")
    assert "typer" in loaded
    assert not loaded & (HEAVY | {"gradio", "fastapi", "uvicorn", "numpy", "pandas", "matplotlib"})


@pytest.mark.parametrize(
    "module",
    [
        "tuning",
        "tuning.variant",
        "tuning.starter",
        "tuning.evaluation.verifiers",
        "serving.protocol.schema",
    ],
)
def test_light_modules_load_no_torch(module: str) -> None:
    loaded = loaded_by(f"import {module}")
    assert not loaded & (HEAVY | {"gradio"})


@pytest.mark.slow
def test_arena_modules_but_the_page_load_no_gradio() -> None:
    light = [name for name in MODULES if name.startswith("arena.") and name not in page_side()]
    loaded = loaded_by("\n".join(f"import {name}" for name in light))
    assert not loaded & {"gradio", "torch", "transformers"}


def path_of(name: str) -> Path:
    """The file of a module."""
    source = ROOT / Path(*name.split("."))
    return source / "__init__.py" if source.is_dir() else source.with_suffix(".py")


def lines_of_code(name: str) -> set[int]:
    """Numbers of the lines of a module that hold more than a piece of data.

    Blank lines and comments count, since they are read as well; a line with nothing but a
    string and punctuation, or inside a long string, is a line of a table.
    """
    with path_of(name).open("rb") as content:
        tokens = list(tokenize.tokenize(content.readline))
    data = {
        line for token in tokens if token.type == tokenize.STRING for line in rows_of(token)
    } - {line for token in tokens if token.type in SPEAKING for line in rows_of(token)}
    documentation = {
        line
        for node in ast.walk(MODULES[name])
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
        for line in range(node.lineno, (node.end_lineno or node.lineno) + 1)
    }
    return set(range(1, tokens[-1].start[0])) - (data - documentation)


def rows_of(token: tokenize.TokenInfo) -> range:
    """The lines a token lies on."""
    return range(token.start[0], token.end[0] + 1)


@pytest.mark.parametrize("name", MODULES)
def test_module_is_small_and_says_what_it_is_for(name: str) -> None:
    """The body of a function is measured: an option of a command is a line of its signature."""
    assert ast.get_docstring(MODULES[name]), f"{name} has no docstring"
    code = lines_of_code(name)
    assert len(code) <= MODULE_LINES
    long = {}
    for node in ast.walk(MODULES[name]):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            body = code & set(range(node.body[0].lineno, (node.end_lineno or 0) + 1))
            if len(body) > FUNCTION_LINES and name not in TABLES:
                long[f"{node.name}:{node.lineno}"] = len(body)
    assert not long


@pytest.mark.parametrize("name", MODULES)
def test_nothing_is_swallowed_and_nothing_global(name: str) -> None:
    """No bare except, no broad one that does nothing, no `global`."""
    for node in ast.walk(MODULES[name]):
        assert not isinstance(node, ast.Global), f"{name}:{node.lineno}: global"
        if isinstance(node, ast.ExceptHandler):
            assert node.type is not None, f"{name}:{node.lineno}: bare except"
            broad = ast.unparse(node.type) in {"Exception", "BaseException"}
            silent = all(isinstance(inside, ast.Pass | ast.Continue) for inside in node.body)
            assert not (broad and silent), f"{name}:{node.lineno}: swallows every error"


@pytest.mark.parametrize("name", MODULES)
def test_no_pickle_and_no_remote_code(name: str) -> None:
    for node in ast.walk(MODULES[name]):
        if isinstance(node, ast.Call):
            called = ast.unparse(node.func)
            if called == "torch.load":
                arguments = {word.arg: ast.unparse(word.value) for word in node.keywords}
                assert arguments.get("weights_only") == "True", f"{name}:{node.lineno}"
            for word in node.keywords:
                if word.arg == "trust_remote_code":
                    assert ast.unparse(word.value) == "False", f"{name}:{node.lineno}"
                if word.arg == "use_safetensors":
                    assert ast.unparse(word.value) == "True", f"{name}:{node.lineno}"
    modules = {found.imported.partition(".")[0] for found in IMPORTS if found.importer == name}
    assert not modules & {"pickle", "dill", "cloudpickle", "joblib", "shelve"}
