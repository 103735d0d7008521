"""The history of a run: losses and rates by step, kept as JSON Lines; knows no weights."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tuning.json_lines import load_records


class History:
    """The records of a run, one JSON line each: losses, held-out losses, sample answers."""

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self.records: list[dict[str, Any]] = []

    def add(self, record: dict[str, Any]) -> None:
        """Append one record, also to the file, whole lines only."""
        self.records.append(record)
        if self._path is not None:
            with self._path.open("a", encoding="utf-8") as stream:
                stream.write(json.dumps(record, ensure_ascii=False) + "\n")

    def load(self, path: Path) -> None:
        """Begin with the records of an earlier part of the run."""
        self.records[:] = load_records(path)

    @property
    def progress(self) -> dict[int, float]:
        """How far the run was after each step."""
        return {item["step"]: item["progress"] for item in self.records if "progress" in item}

    @property
    def losses(self) -> list[tuple[int, float]]:
        """(step, training loss) of every step."""
        return [(item["step"], item["loss"]) for item in self.records if "loss" in item]

    @property
    def eval_losses(self) -> list[tuple[int, float]]:
        """(step, held-out loss) of every evaluation."""
        return [(item["step"], item["eval_loss"]) for item in self.records if "eval_loss" in item]

    @property
    def best_step(self) -> int | None:
        """The step with the lowest held-out loss, the first of equals; None before any."""
        return min(self.eval_losses, key=lambda item: item[1])[0] if self.eval_losses else None
