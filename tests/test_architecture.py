"""The direction of imports, the size of modules, and what a quick command may load.

Read from the source with `ast`, so that a module is judged even where it cannot be imported.
"""

from __future__ import annotations

import ast
import json
import subprocess
import sys
import tokenize
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGES = ("arena", "serving", "tuning")

# What knows all three packages, and only inside the bodies of functions.
COMMANDS = {"arena.cli", "arena.commands.models", "arena.up"}
# The folders of the arena, lowest first: each imports from itself and from those before it.
LAYERS = (
    "arena.values",
    "arena.statistics",
    "arena.storage",
    "arena.asking",
    "arena.exchange",
    "arena.battles",
    "arena.web",
    "arena.page",
    "arena.commands",
)
# What the page stands on: can be used, and tested, where no Gradio is.
WITHOUT_GRADIO = set(LAYERS) - {"arena.page"}
HEAVY = {"torch", "transformers", "peft", "trl", "accelerate", "datasets"}

MODULE_LINES = 400
FUNCTION_LINES = 60
TABLES = {"tuning.starter.facts"}  # its functions are lists of sentences
# Tokens that make a line more than a piece of data.
SPEAKING = {tokenize.NAME, tokenize.NUMBER}


@dataclass(frozen=True)
class Import:
    """One import statement: who imports what, and whether at import time."""

    importer: str
    imported: str
    at_top: bool
    line: int

    @property
    def package(self) -> str:
        """The top-level name that is imported."""
        return self.imported.partition(".")[0]

    def __str__(self) -> str:
        return f"{self.importer}:{self.line} imports {self.imported}"


def module_name(path: Path) -> str:
    """`arena/cli.py` is `arena.cli`; a package is named by its folder."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def sources() -> dict[str, ast.Module]:
    """Every module of the three packages, parsed."""
    paths = [path for package in PACKAGES for path in sorted((ROOT / package).rglob("*.py"))]
    return {module_name(path): ast.parse(path.read_text(), str(path)) for path in paths}


def imports_of(name: str, tree: ast.Module) -> Iterator[Import]:
    """All imports of a module, but for those that only a type checker sees."""

    def walk(node: ast.AST, at_top: bool) -> Iterator[Import]:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test):
                continue
            if isinstance(child, ast.Import):
                for alias in child.names:
                    yield Import(name, alias.name, at_top, child.lineno)
            elif isinstance(child, ast.ImportFrom):
                assert child.level == 0, f"{name}:{child.lineno}: relative import"
                assert child.module is not None
                for alias in child.names:
                    inner = f"{child.module}.{alias.name}"
                    yield Import(
                        name, inner if inner in MODULES else child.module, at_top, child.lineno
                    )
            else:
                inside = isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
                yield from walk(child, at_top and not inside)

    yield from walk(tree, True)


MODULES = sources()
IMPORTS = [found for name, tree in MODULES.items() for found in imports_of(name, tree)]


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


def test_gradio_stays_under_the_page() -> None:
    with_gradio = page_side()
    assert "arena.app" in with_gradio
    assert all(name.startswith("arena.") for name in with_gradio), with_gradio
    assert not with_gradio & COMMANDS
    assert not {name for name in with_gradio if folder_of(name) in WITHOUT_GRADIO}
    assert set(MODULES) >= COMMANDS | set(LAYERS), "a name in the lists above is gone"


def folder_of(module: str) -> str:
    """`arena.storage.raw` lies in `arena.storage`."""
    return module if module in LAYERS else module.rpartition(".")[0]


def test_the_folders_of_the_arena_stand_on_each_other_one_way() -> None:
    """`arena.ratings` is the face of the statistics and counts as one of them."""
    height = {folder: number for number, folder in enumerate(LAYERS)}
    above = {"arena.app", "arena.cli", "arena.up"}
    place = dict.fromkeys(above, len(LAYERS)) | {
        name: height["arena.statistics" if name == "arena.ratings" else folder_of(name)]
        for name in MODULES
        if name == "arena.ratings" or folder_of(name) in height
    }
    folders = {name.rpartition(".")[0] for name in MODULES if name.startswith("arena.")}
    assert folders == {"arena", *LAYERS}, "every folder has its place"
    assert not breaches(
        *(
            found
            for found in IMPORTS
            if found.importer in place and place.get(found.imported, -1) > place[found.importer]
        )
    )


def test_only_storage_writes_sql() -> None:
    assert not breaches(
        *(
            found
            for found in IMPORTS
            if found.package in {"sqlite_utils", "sqlite3"}
            and folder_of(found.importer) != "arena.storage"
        )
    )


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


def test_no_import_cycle_at_import_time() -> None:
    """Depth first over the imports at module level; a module met again on its own path is one."""
    below: dict[str, set[str]] = {name: set() for name in MODULES}
    for found in IMPORTS:
        if found.at_top and found.imported in MODULES and found.imported != found.importer:
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
    ["tuning", "tuning.variant", "tuning.starter", "tuning.verifiers", "serving.protocol.schema"],
)
def test_light_modules_load_no_torch(module: str) -> None:
    loaded = loaded_by(f"import {module}")
    assert not loaded & (HEAVY | {"gradio"})


def test_arena_modules_but_the_page_load_no_gradio() -> None:
    light = [name for name in MODULES if name.startswith("arena.") and name not in page_side()]
    loaded = loaded_by("\n".join(f"import {name}" for name in light))
    assert not loaded & {"gradio", "torch", "transformers"}


def lines_of_code(name: str) -> set[int]:
    """Numbers of the lines of a module that hold more than a piece of data.

    Blank lines and comments count, since they are read as well; a line with nothing but a
    string and punctuation, or inside a long string, is a line of a table.
    """
    source = ROOT / Path(*name.split("."))
    path = source / "__init__.py" if source.is_dir() else source.with_suffix(".py")
    with path.open("rb") as content:
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
