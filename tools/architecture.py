"""The rooms of the three packages, lowest first, the imports between them, and their trees as text.

`python tools/architecture.py` rewrites the trees in docs/architecture.md; tests hold page and
imports to this. Modules are read with `ast`, so that one is judged even where it cannot be
imported.
"""

from __future__ import annotations

import ast
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs" / "architecture.md"
PACKAGES = ("tuning", "serving", "arena")

ROOMS: dict[str, tuple[str, ...]] = {
    "tuning": (
        "errors",
        "json_lines",
        "value_types",
        "yaml_text",
        "config",
        "config_files",
        "hardware",
        "quiet",
        "starter.world",
        "starter",
        "smollm2",
        "variant",
        "data",
        "models",
        "fused",
        "methods",
        "training",
        "evaluation",
        "verified",
        "starter.pretraining",
        "preference",
        "objectives",
        "loop",
        "commands",
    ),
    "serving": (
        "errors",
        "config",
        "attention",
        "kernels",
        "adapters",
        "engine",
        "models",
        "deploy",
        "protocol",
        "completion",
        "elsewhere",
        "http",
    ),
    "arena": (
        "errors",
        "i18n",
        "values",
        "config",
        "ratings",
        "storage",
        "backends",
        "exports",
        "imports",
        "battles",
        "runs",
        "web",
        "page.html",
        "page.drawing",
        "page",
        "program_log",
        "children",
        "app",
        "up",
        "commands",
        "cli",
        "serve_child",
    ),
}
"""A room is a folder or a module of its package. It imports from itself and those before it."""


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


def imports_of(name: str, tree: ast.Module, modules: dict[str, ast.Module]) -> Iterator[Import]:
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
                    imported = inner if inner in modules else child.module
                    yield Import(name, imported, at_top, child.lineno)
            else:
                inside = isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
                yield from walk(child, at_top and not inside)

    yield from walk(tree, True)


def room_of(module: str) -> str | None:
    """`tuning.data.formats` lies in `data`; the package's own `__init__` in none."""
    package, _, inner = module.partition(".")
    rooms = (room for room in ROOMS[package] if f"{inner}.".startswith(f"{room}."))
    return max(rooms, key=len, default=None)


def arrows(imports: list[Import]) -> Counter[tuple[str, str, str]]:
    """(package, importing room, imported room) with the number of statements, itself left out."""
    found: Counter[tuple[str, str, str]] = Counter()
    for one in imports:
        package = one.importer.partition(".")[0]
        if package == one.package and package in ROOMS:
            ends = room_of(one.importer), room_of(one.imported)
            if None not in ends and ends[0] != ends[1]:
                found[package, str(ends[0]), str(ends[1])] += 1
    return found


def runs_back(package: str, importer: str, imported: str) -> bool:
    """Whether an arrow goes from a lower room to a higher one."""
    order = ROOMS[package]
    return order.index(imported) > order.index(importer)


def purpose(tree: ast.Module) -> str:
    """The first sentence of a module's docstring, without its full stop."""
    text = " ".join((ast.get_docstring(tree) or "").split("\n\n")[0].split())
    return text.removesuffix(".")


def tree_of(package: str, modules: dict[str, ast.Module]) -> str:
    """The rooms of a package, lowest first, each with its modules and what they are for."""
    lines = []
    for room in ROOMS[package]:
        name = f"{package}.{room}"
        inside = [m for m in modules if m.startswith(f"{name}.") and room_of(m) == room]
        is_folder = (ROOT / package / room.replace(".", "/")).is_dir()
        sign = "/" if is_folder else ".py"
        lines.append(f"- **`{room.replace('.', '/')}{sign}`** {purpose(modules[name])}")
        for module in inside:
            if modules[module].body[1:]:  # more than a docstring
                short = module.removeprefix(f"{name}.").replace(".", "/")
                lines.append(f"  - `{short}` {purpose(modules[module])}")
    return "\n".join(lines)


def render(text: str) -> str:
    """The page with the trees as they are now between its marks."""
    modules = sources()
    for package in ROOMS:
        begin, end = f"<!-- tree {package} -->\n", f"\n<!-- /tree {package} -->"
        head, rest = text[: text.index(begin)], text[text.index(end) :]
        text = head + begin + tree_of(package, modules) + rest
    return text


if __name__ == "__main__":
    PAGE.write_text(render(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
    print(f"wrote the trees in {PAGE.relative_to(ROOT)}")
