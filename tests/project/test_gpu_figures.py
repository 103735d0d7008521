"""The script for a GPU works from end to end, on a CPU and a tiny model."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
def test_a_dry_run_gives_every_figure(tmp_path: Path) -> None:
    command = [sys.executable, ROOT / "benchmarks/gpu/figures.py", "--dry-run"]
    out = tmp_path / "gpu.json"
    ended = subprocess.run([*command, "--out", out], cwd=ROOT, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
    told = json.loads(out.read_text())
    assert "dry run" in told["about"]["device"]
    results = told["results"]
    parts = ["1 rows", "8 rows", "32 rows", "on 1 adapters", "on 4 adapters", "lora:", "full:"]
    assert [part for part, name in zip(parts, results, strict=True) if part not in name] == []
    assert all(row["ratio"] > 0 and row["tokens_per_s"] > 0 for row in results.values())
    assert all(results[name]["mfu"] > 0 for name in results if "TRL" in name)
