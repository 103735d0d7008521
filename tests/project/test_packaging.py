"""The wheel carries all that is needed and runs outside the checkout; the image is consistent.

No container engine is needed: the Dockerfile is read, and its health check is run on the page.
"""

from __future__ import annotations

import ast
import fnmatch
import json
import re
import subprocess
import sys
import sysconfig
import tomllib
import urllib.request
import venv
import zipfile
from email.parser import Parser
from importlib.metadata import distributions, packages_distributions, version
from pathlib import Path

import cli_reference
import licences
import pytest
from running import arena_up, clean_environment

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
SHIPPED = ("starter", "starter-full", "starter-lora", "starter-prefix")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel of this checkout, built with the hatchling that is installed."""
    out = tmp_path_factory.mktemp("dist")
    subprocess.run(
        [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", out, ROOT],
        check=True,
        capture_output=True,
        env=clean_environment(),
    )
    (built,) = out.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A venv that holds the wheel and borrows this venv's libraries, but not its checkout."""
    place = tmp_path_factory.mktemp("elsewhere")
    venv.create(place / "venv", with_pip=False)
    python = place / "venv" / "bin" / "python"
    libraries = Path(sysconfig.get_path("purelib"))
    pip = [sys.executable, "-m", "pip", "--python", python, "install"]
    subprocess.run(
        [*pip, "-q", "--no-deps", "--no-index", "--disable-pip-version-check", wheel],
        check=True,
        env=clean_environment(),
    )
    own = "import sysconfig; print(sysconfig.get_path('purelib'))"
    packages = Path(subprocess.check_output([python, "-c", own], text=True).strip())
    # A plain path line: .pth files inside the borrowed folder (the checkout's) are not read.
    (packages / "borrowed.pth").write_text(f"{libraries}\n")
    return place


@pytest.mark.slow
def test_wheel_holds_models_types_and_static_files(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        metadata_name = next(name for name in names if name.endswith(".dist-info/METADATA"))
        metadata = Parser().parsestr(archive.read(metadata_name).decode())
        sizes = {info.filename: info.file_size for info in archive.infolist()}
    for package in ("arena", "tuning", "serving"):
        assert f"{package}/py.typed" in names
    weights = "tuning/starter/weights"
    for model in SHIPPED:
        held = {name for name in names if name.startswith(f"{weights}/{model}/")}
        assert f"{weights}/{model}/variant.json" in held
        assert any(name.endswith(".safetensors") for name in held), model
    assert sum(size for name, size in sizes.items() if name.startswith(weights)) <= 50e6
    tracked = subprocess.check_output(
        ["git", "ls-files", "arena", "tuning", "serving"], cwd=ROOT, text=True
    ).split()
    assert set(tracked) <= names, "a tracked file of the packages is not in the wheel"
    assert not any(name.startswith(("tests/", "docs/", "benchmarks/")) for name in names)
    assert metadata["Name"] == "instruct-arena"
    assert metadata["License-Expression"] == "Apache-2.0"
    assert any(name.endswith("licenses/LICENSE") for name in names)


@pytest.mark.slow
def test_installed_wheel_runs_outside_the_checkout(installed: Path) -> None:
    python = installed / "venv" / "bin" / "python"
    where = (
        "import arena, serving, tuning; print(arena.__file__, serving.__file__, tuning.__file__)"
    )
    origins = subprocess.check_output(
        [python, "-c", where], cwd=installed, env=clean_environment(), text=True
    ).split()
    assert all(Path(origin).is_relative_to(installed) for origin in origins), origins
    empty = installed / "empty"
    empty.mkdir()
    environment = clean_environment(XDG_DATA_HOME=str(installed / "data"))
    command = [python.with_name("instruct-arena")]
    with arena_up(cwd=empty, command=command, environment=environment) as running:
        with urllib.request.urlopen(f"{running.url}/healthz", timeout=10) as reply:
            assert reply.status == 200
        health = json.loads(dockerfile()["HEALTHCHECK"].partition("CMD ")[2])
        probe = health[-1].replace(":7860", f":{running.port}")
        assert probe != health[-1], "the health check asks the page's port"
        subprocess.run([sys.executable, "-c", probe], check=True)
    home = installed / "data" / "instruct-arena"
    assert (home / "arena.db").is_file()
    assert f"home is {home}" in running.log.read_text()
    assert not (empty / "workspace").exists()
    assert subprocess.run([sys.executable, "-c", probe], capture_output=True).returncode != 0


def dockerfile() -> dict[str, str]:
    """The last instruction of each name in the image's last stage, on one line."""
    return dict(instructions()[-1])


def instructions() -> list[list[tuple[str, str]]]:
    """The Dockerfile's (name, arguments), one list a stage."""
    text = re.sub(r"^\s*#.*\n", "", (ROOT / "Dockerfile").read_text(), flags=re.MULTILINE)
    stages: list[list[tuple[str, str]]] = []
    for line in re.sub(r"\\\n\s*", "", text).splitlines():
        name, _, rest = line.partition(" ")
        if name == "FROM":
            stages.append([])
        if name:
            stages[-1].append((name, rest.strip()))
    return stages


def test_image_copies_what_the_wheel_is_made_of() -> None:
    lines = (ROOT / ".dockerignore").read_text().splitlines()
    allowed = {line[1:] for line in lines if line.startswith("!")}
    assert "*" in lines, ".dockerignore lets in only what it names"
    copied = set()
    for stage in instructions():
        for name, rest in stage:
            if name == "COPY" and not rest.startswith("--from="):
                *parts, _target = rest.split()
                copied.update(parts)
    assert copied == allowed
    for source in copied:
        assert (ROOT / source).exists(), source
        assert not any(fnmatch.fnmatch(source, line) for line in lines if line[0] not in "!*#")
    packages = PROJECT["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]
    assert {*packages, "README.md", "LICENSE", "pyproject.toml", "constraints.txt"} <= copied


def test_image_serves_the_page_without_root() -> None:
    last = dockerfile()
    assert last["USER"] == "1000:1000"
    assert last["EXPOSE"] == "7860"
    assert json.loads(last["VOLUME"]) == ["/data"]
    environment = dict(re.findall(r"(\w+)=(\S+)", last["ENV"]))
    for name in ("HOME", "ARENA_HOME", "HF_HOME", "GRADIO_TEMP_DIR", "MPLCONFIGDIR"):
        assert environment[name].startswith("/data"), name
    assert json.loads(last["ENTRYPOINT"])[-1] == "arena"
    command, *arguments = json.loads(last["CMD"])
    known = cli_reference.options(dict(cli_reference.commands())[(command,)])
    assert {word for word in arguments if word.startswith("--")} <= known
    order = [name for name, _ in instructions()[-1]]
    assert "RUN" not in order[order.index("USER") :], "nothing runs after the user is set"


def test_image_has_a_python_that_the_project_supports() -> None:
    (version,) = {stage[0][1].split()[0] for stage in instructions()}
    minor = re.fullmatch(r"python:3\.(\d+)-slim", version)
    assert minor
    lowest = re.fullmatch(r">=3\.(\d+)", PROJECT["project"]["requires-python"])
    assert lowest
    assert int(minor[1]) >= int(lowest[1])


def test_every_licence_was_looked_at() -> None:
    """Of what the constraints name; the list of `make audit` has the others, too."""
    pinned = {
        re.sub(r"[-_.]+", "-", line.partition("==")[0]).lower()
        for line in (ROOT / "constraints.txt").read_text().splitlines()
        if "==" in line
    }
    installed = list(distributions())
    ours = [one for one in installed if re.sub(r"[-_.]+", "-", one.name).lower() in pinned]
    assert len(ours) > 50
    assert licences.unknown(ours) == {}
    (some,) = [one for one in installed if one.name == "pytest"]
    assert licences.licences_of(some) == ["MIT"]


def test_constraints_pin_every_dependency_once() -> None:
    lines = [
        line
        for line in (ROOT / "constraints.txt").read_text().splitlines()
        if not line.startswith("#")
    ]
    pins = dict(line.split("==") for line in lines)
    assert len(pins) == len(lines)
    assert all("+" not in version for version in pins.values()), "a local build is no version"
    pinned = {canonical(name) for name in pins}
    groups = PROJECT["dependency-groups"]
    for wanted in [*PROJECT["project"]["dependencies"], *groups["test"], *groups["lint"]]:
        name = re.split(r"[<>=!~\[; ]", wanted)[0]
        assert canonical(name) in pinned, wanted


def test_installed_versions_are_the_pinned_ones() -> None:
    """What the tests run with is what the file says."""
    groups = PROJECT["dependency-groups"]
    pins = dict(
        line.split("==")
        for line in (ROOT / "constraints.txt").read_text().splitlines()
        if not line.startswith("#")
    )
    pins = {canonical(name): pin for name, pin in pins.items()}
    for wanted in [*PROJECT["project"]["dependencies"], *groups["test"]]:
        name = canonical(re.split(r"[<>=!~\[; ]", wanted)[0])
        assert version(name).partition("+")[0] == pins[name], wanted


def imported(folder: str) -> dict[str, str]:
    """Third-party top-level names that the modules of a folder import, each with one place."""
    own = [
        path for place in ("tests", "tools", "benchmarks") for path in (ROOT / place).rglob("*.py")
    ]
    ours = {"arena", "serving", "tuning"} | {path.stem for path in own}
    found = {}
    for path in (ROOT / folder).rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and node.module:
                names = [node.module]
            for name in names:
                top = name.partition(".")[0]
                if top not in sys.stdlib_module_names and top not in ours:
                    found[top] = f"{path.relative_to(ROOT)}:{node.lineno}"
    return found


@pytest.mark.parametrize("folder", ["arena", "serving", "tuning", "tests", "tools"])
def test_every_library_that_is_imported_is_declared(folder: str) -> None:
    """A library that comes only because another one needs it may leave with that one."""
    wanted = list(PROJECT["project"]["dependencies"])
    if folder in ("tests", "tools"):
        wanted += [*PROJECT["dependency-groups"]["test"], "text-generation"]  # Makefile
    declared = {canonical(re.split(r"[<>=!~\[; ]", one)[0]) for one in wanted}
    providers = packages_distributions()
    missing = {
        f"{name} ({place})"
        for name, place in imported(folder).items()
        if not declared & {canonical(one) for one in providers.get(name, [name])}
    }
    assert not missing


# Declared, though no module imports it: what needs it, and how.
NOT_IMPORTED = {"accelerate": "transformers' Trainer imports it"}


def test_every_library_that_is_declared_is_imported() -> None:
    """The other way round: what nothing needs any more is not installed either."""
    used = {name for folder in ("arena", "serving", "tuning") for name in imported(folder)}
    providers = packages_distributions()
    needed = {canonical(one) for name in used for one in providers.get(name, [name])}
    declared = {
        canonical(re.split(r"[<>=!~\[; ]", one)[0]) for one in PROJECT["project"]["dependencies"]
    }
    assert declared - needed == set(NOT_IMPORTED)


def canonical(name: str) -> str:
    """A distribution's name as indexes compare it."""
    return re.sub(r"[-_.]+", "-", name).lower()
