"""Prompt files to be judged one after another: where they lie, how they read. Knows no battle.

A set is a file in `<home>/sets/`: `.txt` has a prompt a line, `.jsonl` a prompt a line as a JSON
text or as an object with the key `prompt`. Its name is the file's name without the ending.
"""

from __future__ import annotations

import json
import os
import re
from dataclasses import dataclass
from pathlib import Path

from arena.config.page_config import PageLimits
from arena.errors import ArenaError
from arena.values.texts import TextError, check_text

FOLDER = "sets"
ENDINGS = (".jsonl", ".txt")
NAME = re.compile(r"[\w][\w .-]{0,63}")
MOST_BYTES = 16 * 1024 * 1024


class SetError(ArenaError):
    """A prompt set that is missing or cannot be read; the message names file, line and remedy."""

    code = "set_unreadable"


@dataclass(frozen=True)
class PromptSet:
    """A name and its prompts in the order of the file."""

    name: str
    prompts: tuple[str, ...]


def list_sets(home: Path) -> list[str]:
    """Names of the sets of a home folder, sorted."""
    folder = home / FOLDER
    if not folder.is_dir():
        return []
    found = {path.stem for path in folder.iterdir() if path.suffix in ENDINGS and path.is_file()}
    return sorted(name for name in found if NAME.fullmatch(name))


def load_set(home: Path, name: str) -> PromptSet:
    """The set of that name. Raises SetError; a name never leads out of the folder."""
    if NAME.fullmatch(name or ""):
        for ending in ENDINGS:
            path = home / FOLDER / f"{name}{ending}"
            if path.is_file():
                return read_set(path)
    known = ", ".join(list_sets(home)) or "none; add one with 'arena sets add FILE'"
    raise SetError(f"prompt set {name!r} is unknown; known are {known}").coded(
        "set_unknown", name=name
    )


def add_set(
    home: Path, file: Path, *, overwrite: bool = False, limit: int = PageLimits.prompt_chars
) -> PromptSet:
    """Check a file and copy it into the home folder; a file that is there already stays.

    `limit`: the most characters that a prompt may have. Raises SetError.
    """
    read = read_set(file)
    for place, prompt in enumerate(read.prompts, 1):
        if len(prompt) > limit:
            raise SetError(
                f"{file.name}, prompt {place}: {len(prompt)} characters, and at most {limit} can be"
                " asked; shorten it or leave it out"
            )
    target = home / FOLDER / file.name
    if target.exists() and target.resolve() == file.resolve():
        return read
    others = [target.with_suffix(ending) for ending in ENDINGS]
    taken = next((path for path in others if path.exists()), None)
    if taken is not None:
        if taken.read_bytes() == file.read_bytes() and taken == target:
            return read
        if not overwrite:
            raise SetError(f"prompt set {read.name!r} is there already; give --overwrite")
        taken.unlink()
    target.parent.mkdir(parents=True, exist_ok=True)
    beside = target.with_name(f".{target.name}.{os.getpid()}")
    beside.write_bytes(file.read_bytes())
    os.replace(beside, target)
    return read


def read_set(path: Path) -> PromptSet:
    """The prompts of a file, empty lines left out. Raises SetError."""
    if path.suffix not in ENDINGS:
        raise SetError(f"prompt file {str(path)!r} ends in neither of {', '.join(ENDINGS)}")
    if not NAME.fullmatch(path.stem):
        raise SetError(f"prompt file {path.name!r} has a name of other than letters and digits")
    try:
        if path.stat().st_size > MOST_BYTES:
            raise SetError(f"prompt file {str(path)!r} is larger than 16 MB; split it")
        lines = path.read_text(encoding="utf-8-sig").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise SetError(f"prompt file {str(path)!r} cannot be read ({error})") from error
    prompts = []
    for number, line in enumerate(lines, 1):
        if line.strip():
            where = f"{path.name}, line {number}"
            text = _prompt(line, where) if path.suffix == ".jsonl" else line.rstrip("\r")
            prompts.append(_checked(text, where))
    if not prompts:
        raise SetError(f"prompt file {str(path)!r} has no prompt; write one a line")
    return PromptSet(path.stem, tuple(prompts))


def _prompt(line: str, where: str) -> str:
    try:
        value = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise SetError(f"{where}: no JSON ({error}); write a prompt a line") from error
    if isinstance(value, dict):
        value = value.get("prompt")
    if not isinstance(value, str) or not value.strip():
        raise SetError(f'{where}: no prompt; write a text or {{"prompt": "..."}}')
    return value


def _checked(prompt: str, where: str) -> str:
    try:
        return check_text("the prompt", prompt)
    except TextError as error:
        raise SetError(f"{where}: {error}") from error
