"""Loops from votes to a better model as runs of the queue: their command, and what they found.

Such a run is `arena loop` itself; its folder is `<home>/loops/<name>`. Knows its JSON and its
report; knows no votes and no training.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from arena.runs.json_files import read_json

FOLDER = "loops"
REPORT = "report.html"
REPORT_BYTES = 32 << 20
LOG_BYTES = 65_536
PLACE = re.compile(r"^\[(\d+)/(\d+)\] (.*)$", re.MULTILINE)
"""How `arena loop` says which of its tasks it is at."""
OPTIONS = ("base", "data", "policy", "skip", "suite", "prompts", "samples")
CONTROLS = ("curve", "shuffled", "inverted")
"""Steps that make nothing, and tell whether the votes did: most of the time that a loop takes."""


def folder_of_loop(home: Path, name: str) -> Path:
    """Where the loop keeps what it found."""
    return home / FOLDER / name


def loop_words(name: str, settings: Mapping[str, Any]) -> list[str]:
    """The arguments of `arena loop`: its options by name, all else as settings of its runs."""
    words = [f"--name={name}"]
    for key, value in settings.items():
        several = value if isinstance(value, list) else [value]
        if key in OPTIONS:
            words += [f"--{key}={one}" for one in several]
        else:
            words += ["--set", f"{key}={value}"]
    return words


def loop_told(home: Path, name: str) -> dict[str, Any]:
    """How far a loop is (`progress` of 1, `at`), and once it is done what it made and found."""
    found = read_json(home / "runs" / name / "result.json")
    policies = [one for one in found.get("policies") or () if isinstance(one, dict)]
    votes = found.get("votes")
    counts = votes.get("num_votes") if isinstance(votes, dict) else None
    number, count, about = _place(home / "runs" / name / "log.txt")
    return {
        "progress": 1.0 if policies else (number - 1) / count if count else 0.0,
        "at": about,
        "made": [one["model"] for one in policies if one.get("model")],
        "verdicts": [_verdict(one) for one in policies],
        "num_votes": sum(counts.values()) if isinstance(counts, dict) else None,
        "has_report": (folder_of_loop(home, name) / REPORT).is_file(),
    }


def report_of(home: Path, name: str) -> str:
    """The report as a page that needs no other file; "" where there is none."""
    try:
        with (folder_of_loop(home, name) / REPORT).open(encoding="utf-8") as file:
            return file.read(REPORT_BYTES)
    except (OSError, UnicodeError):
        return ""


def _verdict(policy: Mapping[str, Any]) -> str:
    told = policy.get("verdict")
    if not isinstance(told, dict):
        return ""
    return f"{policy.get('objective')}: {told.get('verdict')} ({told.get('why')})"


def _place(log: Path) -> tuple[int, int, str]:
    try:
        with log.open("rb") as stream:
            stream.seek(max(0, log.stat().st_size - LOG_BYTES))
            found = PLACE.findall(stream.read().decode("utf-8", "replace"))
    except OSError:
        found = []
    return (int(found[-1][0]), int(found[-1][1]), found[-1][2]) if found else (0, 0, "")
