"""The soak of `benchmarks/arena/soak.py` for half a minute: nothing is lost or stuck, all ends."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "arena" / "soak.py"


@pytest.mark.slow
def test_half_a_minute_of_battles_with_kills(monkeypatch: pytest.MonkeyPatch) -> None:
    spec = importlib.util.spec_from_file_location("soak", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    soak = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "soak", soak)
    spec.loader.exec_module(soak)
    monkeypatch.setattr(soak, "KILL_SECONDS", 5.0)
    found = soak.run(0.5, visitors=8)
    assert found.faults() == [], soak.told(found)
    assert found.kills >= 2
    assert found.looks[-1].life == 2, "the page was killed once"
