"""Tries clients that others wrote against a server: each in an environment of its own.

`make clients` runs this: `.clients/NAME` gets the client by pip or npm, its check runs against
`arena serve`, and docs/clients.md gets the table of what passed. Given names, it tries those, and
keeps the other lines of the table. Knows pip, npm and the checks; does not know the server's
insides.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from client_checks import CHECKS, QUESTION

ROOT = Path(__file__).parent.parent
FOLDER = ROOT / ".clients"
PAGE = ROOT / "docs" / "clients.md"
MODEL = "starter-lora"
HEAD = "# Clients\n\nWhat `make clients` found when it last ran.\n\n"
SECONDS = 300


def program(name: str) -> str:
    """The check of a client as a program, which takes URL, model and tokenizer folder."""
    check = CHECKS[name]
    if check.language == "javascript":
        head = f"const [URL, MODEL] = process.argv.slice(2), QUESTION = {json.dumps(QUESTION)};\n"
        return _imports_first(head, check.program)
    return f"import sys\nURL, MODEL, TOKENIZER = sys.argv[1:]\nQUESTION = {QUESTION!r}\n" + (
        check.program
    )


def check(runner: Path, name: str, url: str, model: str, tokenizer: Path) -> str:
    """'' where the client works, else the last line of what it said; `runner` runs its language."""
    asked = [url, model, str(tokenizer)]
    command = [str(runner), "-c", program(name), *asked]
    if CHECKS[name].language == "javascript":
        file = _folder(name) / "check.mjs"
        file.write_text(program(name), encoding="utf-8")
        command = [str(runner), str(file), *asked]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=SECONDS, check=False,
            env=_environment(),
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        return f"no end after {SECONDS} s"
    if done.returncode == 0:
        return ""
    lines = [line.strip() for line in done.stderr.splitlines() if line.strip()]
    errors = [line for line in lines if re.match(r"[\w.]*(Error|Exception)\b", line)]
    return (errors or lines or ["?"])[-1]


def install(name: str) -> Path:
    """What runs a client's check, with the client in a folder of its own, made if it is missing."""
    check = CHECKS[name]
    if not check.installs:
        return Path(sys.executable)
    folder = _folder(name)
    if check.language == "javascript":
        if not (folder / "done").is_file():
            folder.mkdir(parents=True, exist_ok=True)
            (folder / "package.json").write_text('{"private": true}\n', encoding="utf-8")
            command = ["npm", "install", "--no-audit", "--no-fund", "--silent", *check.installs]
            subprocess.run(command, check=True, cwd=folder)
            (folder / "done").touch()
        return Path("node")
    python = folder / "bin" / "python"
    if not (folder / "done").is_file():
        subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
        subprocess.run([str(python), "-m", "pip", "install", "-qq", *check.installs], check=True)
        (folder / "done").touch()
    return python


def version(runner: Path, name: str) -> str:
    """The version of the client that is installed."""
    check = CHECKS[name]
    if not check.installs:
        return subprocess.run([name, "--version"], capture_output=True, text=True).stdout.split()[1]
    if check.language == "javascript":
        package = _folder(name) / "node_modules" / check.package / "package.json"
        return str(json.loads(package.read_text(encoding="utf-8"))["version"])
    return version_of(runner, check.package)


def version_of(python: Path, package: str) -> str:
    """The version of a package that a Python finds."""
    text = f"import importlib.metadata as m; print(m.version({package!r}))"
    return subprocess.run([str(python), "-c", text], capture_output=True, text=True).stdout.strip()


@contextmanager
def served() -> Iterator[str]:
    """The address of `arena serve` with the shipped models."""
    command = [sys.executable, "-m", "arena.cli", "serve", "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT) as process:
        assert process.stdout is not None
        try:
            yield next(line.split()[-1] for line in process.stdout if line.startswith("Serving at"))
        finally:
            process.terminate()


def write_table(rows: dict[str, str]) -> None:
    """Write the lines, by client; those of clients that were not tried stay."""
    text = PAGE.read_text(encoding="utf-8") if PAGE.is_file() else ""
    known = {line.split(" | ")[0][2:]: line for line in text.splitlines() if line[:2] == "| "}
    lines = [(known | rows)[name] for name in CHECKS if name in known or name in rows]
    table = "\n".join(["| client | version | result |", "|---|---|---|", *lines])
    PAGE.write_text(f"{HEAD}{table}\n", encoding="utf-8")


def main(names: list[str]) -> None:
    """Try the clients that are named, or all, and write the table."""
    from tuning.starter import shipped_models

    tokenizer = shipped_models()["starter"]
    with served() as url:
        for name in names or list(CHECKS):
            try:
                runner = install(name)
            except (OSError, subprocess.CalledProcessError) as error:
                print(name, f"not installed: {error}", flush=True)
                continue
            said = check(runner, name, url, MODEL, tokenizer)
            print(name, said or "passed", flush=True)
            told = (said or "passed").replace("|", "\\|")
            write_table({name: f"| {name} | {version(runner, name)} | {told} |"})


def _folder(name: str) -> Path:
    return FOLDER / re.sub(r"[^\w.]+", "-", name).strip("-")


def _imports_first(head: str, text: str) -> str:
    """A module whose imports stand before its constants."""
    lines = text.strip().splitlines()
    imports = [line for line in lines if line.startswith("import ")]
    rest = [line for line in lines if not line.startswith("import ")]
    return "\n".join([*imports, head, *rest])


def _environment() -> dict[str, str]:
    """Without proxies and Python paths of this process; the hub is not asked."""
    dropped = {"PYTHONPATH", "VIRTUAL_ENV"}
    kept = {key: value for key, value in os.environ.items() if key not in dropped}
    return {**kept, "NO_PROXY": "127.0.0.1", "no_proxy": "127.0.0.1"}


if __name__ == "__main__":
    main(sys.argv[1:])
