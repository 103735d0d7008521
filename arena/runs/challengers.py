"""The checkpoints of runs that are served while these go on, as folders `models/NAME@STEP`.

The server finds them there by itself. Knows folders and the state of runs; knows no server.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from arena.runs.found import RunFinder

FOLDER = re.compile(r"(?P<run>[A-Za-z0-9][A-Za-z0-9._-]{0,95})@(?P<step>[0-9]{1,12})")
MOST_SIDES = 8


@dataclass(frozen=True)
class Challenger:
    """One checkpoint. `stays`: it was asked to be kept when its run is done."""

    run: str
    step: int
    stays: bool
    folder: Path

    @property
    def name(self) -> str:
        """What it is called in battles."""
        return self.folder.name


def challengers(home: Path, run: str | None = None) -> list[Challenger]:
    """The checkpoints that are served, of one run or of all, by run and step."""
    found = []
    for folder in (home / "models").glob(f"{run or '*'}@*"):
        if (named := FOLDER.fullmatch(folder.name)) and (one := _read(folder, named["run"])):
            found.append(one)
    return sorted(found, key=lambda one: (one.run, one.step))


def _read(folder: Path, run: str) -> Challenger | None:
    """None for a variant of another origin that somebody gave such a name."""
    try:
        content = json.loads((folder / "variant.json").read_text(encoding="utf-8"))
        noted = content["run"]["checkpoint"]
        if noted["of"] != run or folder.is_symlink():
            return None
        return Challenger(run, int(noted["step"]), bool(noted["stays"]), folder)
    except (OSError, ValueError, LookupError, TypeError, RecursionError):
        return None


def remove(home: Path, run: str) -> None:
    """Serve no checkpoint of this run any more."""
    for one in challengers(home, run):
        _remove(one)


def sweep(finder: RunFinder) -> None:
    """Remove what is left of runs that are done or were forgotten: who wrote it has died."""
    left = [one for one in challengers(finder.home) if not one.stays]
    for run in {one.run for one in left}:
        found = finder.find(run)
        if found is None or found.state == "done":
            for one in left:
                if one.run == run:
                    _remove(one)


def _remove(one: Challenger) -> None:
    """Renamed first, so that no server reads half of it."""
    doomed = one.folder.with_name(f".{one.name}.removed.tmp")
    with suppress(OSError):  # gone already: the run itself, or another page, was first
        shutil.rmtree(doomed, ignore_errors=True)
        one.folder.rename(doomed)
        shutil.rmtree(doomed)


def to_watch(steps: Sequence[str], base: str | None, final: str | None) -> list[str]:
    """Base, steps and final variant to be asked side by side: at most eight names.

    Of more steps than there are places the first, the newest and those evenly between.
    """
    ends = [name for name in (base, final) if name is not None]
    places = MOST_SIDES - len(ends)
    if len(steps) > places:
        steps = [steps[round(at * (len(steps) - 1) / (places - 1))] for at in range(places)]
    return [*([base] if base else []), *steps, *([final] if final else [])]
