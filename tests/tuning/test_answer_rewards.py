"""Answers that a reward model cannot read: counted, the worst of their prompt, no run's end."""

from __future__ import annotations

import hashlib
import json
import math
from pathlib import Path
from typing import Any

import pytest
from preference_fixtures import write_pairs
from tuning_fixtures import make_base

from tuning import TuningError, tune
from tuning.commands.best_of_n import run_best_of
from tuning.config_files import load_config
from tuning.data.fields import Message
from tuning.models.scorer import Scorer, load_scorer
from tuning.preference.answer_rewards import answer_room, score_answers
from tuning.variant.folder import Variant

E_CHECK = {"kind": "letter_count", "letter": "e", "count": 1, "relation": "at least"}
TEXTS = [f"Say {n}." if n < 10 else f"Say {n}, and then say {n}." for n in range(16)]
PROMPTS: list[list[Message]] = [[{"role": "user", "content": text}] for text in TEXTS]


def tuned(place: Path, **settings: Any) -> Variant:
    """A variant of two steps on the base in a home."""
    common = {
        "base": str(place / "base"),
        "data": str(place / "pairs.jsonl"),
        "home": str(place),
        "training.batch_size": 8,
        "training.max_steps": 2,
        "training.precision": "fp32",
        "data_options.heldout": 0,
        "checks.samples": 0,
    }
    return tune(load_config(None, common | settings))


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home with sixteen prompts, and a reward model that reads little more than one of them."""
    place = tmp_path_factory.mktemp("unread")
    make_base(place / "base")
    write_pairs(place / "pairs.jsonl")
    (place / "suite.jsonl").write_text(
        "".join(
            json.dumps({"id": n, "prompt": text, "check": E_CHECK}) + "\n"
            for n, text in enumerate(TEXTS)
        )
    )
    tuned(place, objective="reward", method="full", name="short", **{"checks.patience": None})
    scorer = load_scorer("short", place)
    most = len(scorer.encode(PROMPTS[0], [{"role": "assistant", "content": "."}])) + 5
    config = place / "models" / "short" / "config.json"
    told = json.loads(config.read_text())
    config.write_text(json.dumps(told | {"max_position_embeddings": most}))
    manifest = config.with_name("variant.json")
    described = json.loads(manifest.read_text())
    described["files"]["config.json"] = hashlib.sha256(config.read_bytes()).hexdigest()
    manifest.write_text(json.dumps(described))
    return place


@pytest.fixture(scope="module")
def scorer(place: Path) -> Scorer:
    """That reward model."""
    return load_scorer("short", place)


@pytest.mark.slow
def test_an_answer_that_cannot_be_read_is_the_worst_of_its_prompt(scorer: Scorer) -> None:
    assert answer_room(scorer, PROMPTS[0], "here") == 6
    assert answer_room(scorer, PROMPTS[-1], "here") <= 0
    said = ["Ex!", "e" * 40, f"{scorer.tokenizer.eos_token}", "!"]
    judged = score_answers(scorer, [PROMPTS[0]] * 4, said)
    apart = [
        score_answers(scorer, PROMPTS[:1], [answer]).rewards[0] for answer in ("Ex!", "!", ".")
    ]
    assert judged.unread == 2
    assert judged.rewards[::3] == pytest.approx(apart[:2], abs=1e-5)
    assert judged.rewards[1:3] == pytest.approx([min(apart)] * 2, abs=1e-5)
    # The answers to other prompts say nothing about it.
    mixed = score_answers(scorer, PROMPTS[:2], ["e" * 40, "!"])
    assert mixed.rewards[0] == pytest.approx(apart[2], abs=1e-5)
    with pytest.raises(TuningError, match="row 7: holds the special token"):
        answer_room(scorer, [{"role": "user", "content": said[2]}], "row 7")


@pytest.mark.slow
def test_neither_rl_nor_best_of_ends_at_such_an_answer(
    place: Path, scorer: Scorer, capsys: pytest.CaptureFixture[str]
) -> None:
    """A prompt that leaves no room from the start is left out, and counted."""
    asked = {"objective": "rl", "preference.reward": "short", "data": str(place / "suite.jsonl")}
    made = tuned(place, name="policy", **asked, **{"preference.answer_tokens": 6})
    lines = (made.folder / "history.jsonl").read_text().splitlines()
    records = [item for item in map(json.loads, lines) if "kl" in item]
    assert len(records) == 2
    assert all(0 < item["unread"] < 1 and math.isfinite(item["reward"]) for item in records)
    assert "could not be read by the reward model" in made.run["remarks"][1]
    assert made.run["ledger"]["left_out"]["prompt too long"] == 6
    with pytest.raises(TuningError, match="lower it"):
        tuned(place, name="none", **asked, **{"preference.answer_tokens": 7})
    run_best_of(
        "policy",
        "short",
        place,
        suite=str(place / "suite.jsonl"),
        samples=4,
        limit=None,
        temperature=1.0,
        max_new_tokens=50,
        seed=7,
        plot=None,
        json_out=True,
    )
    told = json.loads(capsys.readouterr().out)
    assert (told["num_prompts"], told["left_out"]) == (10, 6)
    assert told["unread"] > 0
    assert all(point["length"] <= 6 for point in told["curve"])
