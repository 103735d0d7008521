"""After a variant is made: merged with parity, made again bit for bit, previewed, compared."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import matplotlib.colors
import matplotlib.image
import pytest
import torch
from forked import Finished, Forked
from rich.console import Console
from tuning_fixtures import files_at_most, make_base, rows, write_rows

from tuning import TuningConfig, tune
from tuning.commands.preview import show_preview
from tuning.config import DataOptions, LoraOptions, TrainingOptions
from tuning.errors import ConfigError, TuningError
from tuning.evaluation.evaluate import Result, compare_all
from tuning.evaluation.statistics import mcnemar
from tuning.evaluation.suites import SuiteItem
from tuning.models.loading import load_variant
from tuning.models.merge import MergeError, merge_loaded, merge_variant
from tuning.training.inputs import prepare
from tuning.training.reproduce import ReproduceError, reproduce
from tuning.variant import read_variant
from tuning.variant.verify import verify_variant

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing.*:FutureWarning"),
    pytest.mark.filterwarnings("ignore:The PEFT config's `base_model_name_or_path`:UserWarning"),
]
KINDS = {
    "lora": LoraOptions(rank=4),
    "rslora": LoraOptions(rank=4, rslora=True),
    "dora": LoraOptions(rank=4, dora=True),
}


def config_for(home: Path, name: str) -> TuningConfig:
    """A LoRA run of eight steps."""
    return TuningConfig(
        base=str(home / "base"),
        data=(str(home / "rows.jsonl"),),
        name=name,
        home=home,
        training=TrainingOptions(max_steps=8, batch_size=8, learning_rate=2e-2, epochs=100),
        data_options=DataOptions(heldout=0.1),
    )


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base stored in bf16, and a variant of it by each way but prompt tuning."""
    home = tmp_path_factory.mktemp("home")
    make_base(home / "base", dtype=torch.bfloat16)
    write_rows(home / "rows.jsonl", rows())
    for name, lora in KINDS.items():
        tune(replace(config_for(home, name), lora=lora))
    for name in ("full", "ia3", "prefix"):
        tune(replace(config_for(home, name), method=name))
    return home


@pytest.mark.parametrize("name", [*KINDS, "ia3"])
def test_a_merged_model_answers_as_adapter_and_base(home: Path, name: str) -> None:
    merged = merge_variant(name, home, f"{name}-merged")
    assert merged.kind == "full"
    assert merged.parent == name
    parity = merged.run["merged"]
    assert parity["fp32"] < 1e-5
    assert parity["dtype"] == "bfloat16"
    assert parity["saved"] < 0.2
    verify_variant(merged.folder, home / "base")
    model = load_variant(f"{name}-merged", home).model
    adapter = load_variant(name, home)
    ids = torch.tensor([[5, 6, 7, 8]])
    with torch.no_grad():
        wanted = adapter.model(ids).logits
        difference = (model(ids).logits - wanted).abs().max() / wanted.abs().max()
    assert difference < 0.2


def test_a_merge_that_changes_answers_is_refused(home: Path) -> None:
    """A merge that is off by one matrix must not be written."""
    loaded = load_variant("lora", home)
    merge = loaded.model.merge_and_unload

    def wrong(**options: bool) -> object:
        model = merge(**options)
        with torch.no_grad():
            model.model.layers[0].self_attn.v_proj.weight.mul_(1.5)
        return model

    loaded.model.merge_and_unload = wrong
    with pytest.raises(MergeError, match=r"logits differ by .* keep the adapter on its base"):
        merge_loaded(loaded, torch.float32)


def test_a_full_disk_leaves_no_half_merge(home: Path) -> None:
    refused = pytest.raises(MergeError, match=r"could not be written .* make room")
    with files_at_most(10_000), refused:
        merge_variant("lora", home, "half")
    assert not list((home / "models").glob("*half*"))


def test_virtual_tokens_and_taken_names_are_refused(home: Path) -> None:
    with pytest.raises(MergeError, match="prefix; only lora, dora, ia3"):
        merge_variant("prefix", home, "x")
    with pytest.raises(MergeError, match="exists; choose another"):
        merge_variant("lora", home, "prefix")
    for name, message in (("x.tmp", "cannot be a folder name"), ("starter", "packaged model's")):
        with pytest.raises(ConfigError, match=message):
            merge_variant("lora", home, name)
        with pytest.raises(ConfigError, match=message):
            tune(config_for(home, name))
        assert not (home / "models" / name).exists()
    assert not (home / "models" / "x").exists()


def test_dora_is_its_own_kind_and_rslora_scales_by_the_root(home: Path) -> None:
    assert load_variant("dora", home).variant.kind == "dora"
    layer = load_variant("rslora", home).model.base_model.model.model.layers[0].self_attn.q_proj
    assert layer.scaling["default"] == pytest.approx(8 / 4**0.5)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["full", "lora", "prefix"])
def test_a_variant_is_made_again_bit_for_bit(home: Path, name: str) -> None:
    assert reproduce(home / "models" / name, home).same


def test_a_variant_from_before_lean_layers_is_made_again_without_them(home: Path) -> None:
    from tuning.training.reproduce import _config_of

    variant = read_variant(home / "models" / "lora")
    assert _config_of(variant, home).training.lean
    del variant.run["config"]["training"]["lean"]
    assert not _config_of(variant, home).training.lean


@pytest.mark.slow
def test_a_run_ended_by_the_clock_is_made_again(home: Path) -> None:
    config = config_for(home, "timed")
    training = replace(config.training, max_steps=100_000, max_minutes=0.08)
    made = tune(replace(config, training=training))
    assert made.run["steps"] < 100_000
    assert reproduce(made.folder, home).same


def test_changed_data_is_not_reproduced(home: Path) -> None:
    data = home / "rows.jsonl"
    kept = data.read_text()
    try:
        data.write_text(kept.replace("red blue", "blue red"))
        with pytest.raises(ReproduceError, match="is not what it was"):
            reproduce(home / "models" / "lora", home)
    finally:
        data.write_text(kept)


def test_preview_marks_exactly_the_trained_tokens(home: Path) -> None:
    from io import StringIO

    prepared = prepare(config_for(home, "p"))
    plain, colour = StringIO(), StringIO()
    show_preview(prepared, 2, Console(file=plain, width=200))
    show_preview(prepared, 1, Console(file=colour, width=200, force_terminal=True))
    answer = prepared.corpus.train[0].messages[1]["content"]
    assert f"Assistant:⟦ {answer}</s>⟧\n" in plain.getvalue()
    assert plain.getvalue().count("⟦") == 2
    assert "exact text of the first row" in plain.getvalue()
    assert f"Assistant: {answer}</s>\\n'" in plain.getvalue()
    assert f"\x1b[1;32m {answer}</s>" in colour.getvalue()


def test_mcnemar_p_values() -> None:
    """By hand: 1 against 5 of 6 flips, both tails: 2 (1 + 6) / 64."""
    assert mcnemar(1, 5) == pytest.approx(14 / 64)
    assert mcnemar(5, 1) == mcnemar(1, 5)
    assert mcnemar(0, 0) == 1.0
    assert mcnemar(3, 3) == 1.0
    items = [
        SuiteItem.model_validate({"id": i, "prompt": "p", "check": {"kind": "quoted"}})
        for i in range(4)
    ]
    left = Result("l", "chat", items, [""] * 4, [True, True, True, False], None)
    right = Result("r", "chat", items, [""] * 4, [True, False, False, True], None)
    assert compare_all([left, right]) == [{"a": "l", "b": "r", "only_a": 2, "only_b": 1, "p": 1.0}]


@pytest.mark.slow
def test_commands(home: Path, tmp_path: Path) -> None:
    def run(*arguments: str) -> Finished:
        return Forked([*arguments, "--home", home]).wait()

    source = ("--base", str(home / "base"), "--data", str(home / "rows.jsonl"))
    shown = run("tune", *source, "--preview", "1")
    assert shown.status == 0, shown.stderr
    assert shown.stdout.count("⟦") == 1
    again = run("tune", "--reproduce", "lora", "--json")
    assert again.status == 0, again.stderr
    assert json.loads(again.stdout)["same"] is True
    refused = run("tune", "--reproduce", "lora", "--base", "starter", "--set", "seed=3")
    assert refused.status == 1
    assert "cannot take --base, --set; leave them out" in refused.stderr
    picture = tmp_path / "losses.png"
    drawn = run("models", "plot", "lora", "prefix", "--out", str(picture))
    assert drawn.status == 0, drawn.stderr
    pixels = matplotlib.image.imread(picture)[..., :3].reshape(-1, 3)
    for name in ("C0", "C1"):  # a curve for each
        colour = matplotlib.colors.to_rgb(name)
        assert (abs(pixels - colour).max(axis=1) < 0.01).sum() > 100, name
    merged = run("models", "merge", "lora", "--as", "m")
    assert merged.status == 0, merged.stderr
    assert "greedy answers are the same" in merged.stdout


def test_base_reproduction_is_refused(home: Path) -> None:
    with pytest.raises(TuningError, match="was not made by a tuning run"):
        reproduce(home / "base", home)
