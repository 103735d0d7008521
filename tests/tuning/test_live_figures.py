"""The figures of a run while it goes on: whole lines, and no reason to end a run."""

from __future__ import annotations

from pathlib import Path

from tuning.json_lines import load_records
from tuning.training.live import LIVE_FILE, LiveFile


def test_figures_begin_anew_when_a_run_goes_on(tmp_path: Path) -> None:
    told: list[str] = []
    live = LiveFile(tmp_path, told.append)
    live.begin({"name": "one"}, [])
    for step in range(1, 4):
        live.add({"step": step, "loss": 1.5})
    live.begin({"name": "one"}, [{"step": 1, "loss": 1.5}])
    live.add({"step": 2, "samples": [{"prompt": "\ud800", "answer": "\u2028"}]})
    first, *records = load_records(tmp_path / LIVE_FILE)
    assert first["run"]["name"] == "one"
    assert [record["step"] for record in records] == [1, 2]
    assert told == []


def test_figures_that_cannot_be_written_are_told_of_once(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    told: list[str] = []
    live = LiveFile(tmp_path / "file", told.append)
    live.begin({}, [])
    live.add({"step": 1})
    assert len(told) == 1
    assert "no longer written" in told[0]
