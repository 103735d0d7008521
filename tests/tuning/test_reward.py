"""Reward models: their loss against TRL's, the head saved and restored, padding, refusals."""

from __future__ import annotations

import json
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from forked import run_script
from preference_fixtures import pairs, write_pairs
from tuning_fixtures import make_base, make_tokenizer, write_rows
from typer.testing import CliRunner

from arena.cli import app
from tuning import TuningConfig, TuningError, tune
from tuning.config_files import load_config
from tuning.data.preferences.pairs import Origin
from tuning.models.merge import merge_variant
from tuning.models.scorer import load_head, load_scorer, pick_pad, score_ids
from tuning.objectives import objective_of
from tuning.preference.reward import PairCollator, PairRow, measured, pair_losses
from tuning.training.reproduce import reproduce
from tuning.variant.folder import read_variant
from tuning.variant.verify import read_tensors, verify_variant

pytestmark = pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing.*:FutureWarning")
ORIGIN = Origin("rows.jsonl", 1)
SCORE_ANEW = """
import json, sys
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer
folder, base, rows = sys.argv[1], sys.argv[2], json.loads(sys.argv[3])
tokenizer = AutoTokenizer.from_pretrained(folder)
model = AutoModelForSequenceClassification.from_pretrained(
    base, num_labels=1, pad_token_id=tokenizer.pad_token_id, dtype=torch.float32)
if base != folder:
    from peft import PeftModel
    model = PeftModel.from_pretrained(model, folder)
batch = tokenizer.pad({"input_ids": rows}, padding_side="right", return_tensors="pt")
with torch.no_grad():
    print(json.dumps(model.eval()(**batch).logits[:, 0].tolist()))
"""
# Dies, hard, right after its checkpoint of step 4.
KILLED = """
import json, os, signal, sys
from tuning import tune
from tuning.config_files import load_config
from tuning.training.checkpoints import RunFolder
commit = RunFolder.commit
def commit_and_die(self, written, step, *others, **named):
    made = commit(self, written, step, *others, **named)
    if step == 4:
        os.kill(os.getpid(), signal.SIGKILL)
    return made
RunFolder.commit = commit_and_die
tune(load_config(None, json.loads(sys.argv[1])))
"""


def config_for(base: Path, data: Path, home: Path, **settings: Any) -> TuningConfig:
    """A reward model in a few steps of fp32 unless told otherwise."""
    given = {
        "base": str(base),
        "data": (str(data),),
        "name": "judge",
        "home": str(home),
        "objective": "reward",
        "epochs": 3,
        "batch_size": 8,
        "precision": "fp32",
        "learning_rate": 3e-3,
        **settings,
    }
    return load_config(None, given)


def encoded(home: Path, count: int = 6) -> list[list[int]]:
    """Ids of the answers of some pairs, as the reward model called judge reads them."""
    scorer = load_scorer("judge", home)
    rows = pairs(count)
    return [
        scorer.encode(row["prompt"], row[side]) for row in rows for side in ("chosen", "rejected")
    ]


@pytest.mark.slow
@pytest.mark.parametrize("method", ["lora", "full"])
def test_a_reward_model_learns_and_scores_the_same_in_a_new_process(
    method: str, tiny_base: Path, tmp_path: Path
) -> None:
    data = write_pairs(tmp_path / "pairs.jsonl")
    made = tune(config_for(tiny_base, data, tmp_path, method=method))
    assert (made.kind, made.is_adapter) == ("reward", method == "lora")
    assert made.metrics["eval_accuracy"] == 1.0
    rows = encoded(tmp_path)
    ours = load_scorer("judge", tmp_path).scores_of_ids(rows)
    assert all(first > second for first, second in zip(ours[::2], ours[1::2], strict=True))
    base = str(tiny_base if made.is_adapter else made.folder)
    done = run_script(SCORE_ANEW, made.folder, base, json.dumps(rows))
    assert done.status == 0, done.stderr
    assert json.loads(done.stdout) == pytest.approx(ours, abs=1e-6)
    verify_variant(made.folder, tiny_base)
    report = json.loads((made.folder / "reward_report.json").read_text())
    assert report["agreement"]["share"] == made.metrics["agreement"] == 1.0
    assert report["num_pairs"] == made.run["ledger"]["heldout"] == 4
    assert set(report["baselines"]) == {"longer", "shorter", "author", "likelihood", "untuned"}
    assert report["styles"]["num_prompts"] == 4
    assert (made.folder / "reward_report.md").is_file()
    card = (made.folder / "README.md").read_text()
    assert "arena reward score" in card
    assert "text-classification" in card
    again = reproduce(made.folder, tmp_path, objective_of=objective_of)
    assert again.same


@pytest.mark.slow
def test_the_score_command_prints_the_scores_in_the_order_of_the_rows(
    tiny_base: Path, tmp_path: Path
) -> None:
    data = write_pairs(tmp_path / "pairs.jsonl")
    tune(config_for(tiny_base, data, tmp_path, epochs=1))
    asked = [
        {"prompt": row["prompt"], "completion": row[side]}
        for row in pairs(3)
        for side in ("chosen", "rejected")
    ]
    texts = [
        {"prompt": row["prompt"][0]["content"], "completion": row["completion"][0]["content"]}
        for row in asked
    ]
    printed = []
    for name, rows in (("lists", asked), ("texts", texts)):
        file = write_rows(tmp_path / f"{name}.jsonl", rows)
        result = CliRunner().invoke(
            app,
            ["reward", "score", str(file), "--model", "judge", "--home", str(tmp_path), "--json"],
            catch_exceptions=False,
        )
        assert result.exit_code == 0, result.output
        printed.append(json.loads(result.stdout))
    scorer = load_scorer("judge", tmp_path)
    expected = [scorer.scores([(row["prompt"], row["completion"])])[0] for row in asked]
    assert printed[0]["model"] == "judge"
    assert printed[0]["scores"] == pytest.approx(expected, abs=1e-6)
    assert printed[1] == printed[0]
    # A bench is scored by the same scores: its right answer is the best where theirs says so.
    ids = [f"{at}" for at in range(3)]
    bench = [
        {
            "id": name,
            "subset": "Math",
            "prompt": pair["prompt"][0]["content"],
            "chosen": [pair["chosen"][0]["content"]],
            "rejected": [pair["rejected"][0]["content"]],
        }
        for name, pair in zip(ids, pairs(3), strict=True)
    ]
    file = write_rows(tmp_path / "bench.jsonl", bench)
    command = ["reward", "bench", str(file), "--model", "judge", "--home", str(tmp_path)]
    result = CliRunner().invoke(app, [*command, "--json"], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    right = [first > second for first, second in zip(expected[::2], expected[1::2], strict=True)]
    assert json.loads(result.stdout)["subsets"] == {"Math": pytest.approx(sum(right) / 3)}
    shown = CliRunner().invoke(app, command, catch_exceptions=False).stdout
    assert f"{sum(right) / 3:8.1%}  Math, 3 prompts" in shown
    for row, said in (
        ({"prompt": "a"}, "completion: column is missing"),
        ({"prompt": "a", "completion": "b", "score": 3}, "no column that a score is made of"),
        ({"prompt": "a", "completion": "\ud800"}, "lone surrogate"),
        ({"prompt": "a", "completion": "b </s> c"}, "special token '</s>'"),
        ({"prompt": "a", "completion": "red " * 600}, "reads at most 256"),
        ({"prompt": "a", "completion": [{"role": "user", "content": "b"}]}, "answer of the assist"),
    ):
        file = write_rows(tmp_path / "bad.jsonl", [row])
        given = ["reward", "score", str(file), "--model", "judge", "--home", str(tmp_path)]
        refused = CliRunner().invoke(app, given)
        assert isinstance(refused.exception, TuningError)
        assert said in str(refused.exception)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*gradient_checkpointing.*:FutureWarning")
def test_losses_are_those_of_trl(tmp_path: Path) -> None:
    from datasets import Dataset
    from trl import RewardConfig, RewardTrainer

    base = make_base(tmp_path / "base")
    tokenizer = make_tokenizer()
    tokenizer.pad_token = "<s>"
    generator = np.random.default_rng(0)
    rows = [
        PairRow(
            *(np.append(generator.integers(5, 300, size), 1).astype(np.int32) for size in (9, 14)),
            ORIGIN,
            number,
            margin=margin,
        )
        for number, margin in enumerate([0.0, 1.0, 0.33, 0.66])
    ]
    data = Dataset.from_list(
        [
            {
                "chosen_ids": row.chosen.tolist(),
                "rejected_ids": row.rejected.tolist(),
                "margin": row.margin,
            }
            for row in rows
        ]
    )
    torch.manual_seed(3)
    model = load_head(base, 0, dtype=torch.float32)
    trainer = RewardTrainer(
        model=model,
        args=RewardConfig(
            output_dir=str(tmp_path / "trl"),
            use_cpu=True,
            bf16=False,
            gradient_checkpointing=False,
            center_rewards_coefficient=0.01,
            per_device_train_batch_size=4,
            report_to="none",
        ),
        train_dataset=data,
        processing_class=tokenizer,
    )
    batch = trainer.data_collator([trainer.train_dataset[at] for at in range(4)])
    theirs = trainer.compute_loss(model, dict(batch))
    mine = PairCollator(0)([[row] for row in rows])
    chosen, rejected = score_ids(model, mine["input_ids"], 0).chunk(2)
    found = measured(chosen, rejected, mine, 0.01)
    ours = float(found.total.detach() / found.items)
    assert ours == pytest.approx(float(theirs.detach()), abs=1e-5)


def test_a_margin_shifts_a_factor_multiplies_and_a_tie_pulls_together() -> None:
    chosen, rejected = torch.tensor([1.0, 1.0, 2.0]), torch.tensor([0.0, 0.0, 0.0])
    losses = pair_losses(
        chosen, rejected, torch.tensor([0.0, 1.0, 0.0]), torch.tensor([False, False, True])
    )
    # ln(1 + e^-1), ln 2, and the mean of ln(1 + e^-2) and ln(1 + e^2).
    assert losses.tolist() == pytest.approx([0.313262, 0.693147, 1.126928], abs=1e-6)
    batch = {
        "factor": torch.tensor([2.0, 1.0, 0.5]),
        "margin": torch.tensor([0.0, 1.0, 0.0]),
        "tie": torch.tensor([False, False, True]),
    }
    found = measured(chosen, rejected, batch, 0.1)
    center = 0.1 * (1 + 1 + 4)
    assert float(found.total) == pytest.approx(2 * 0.313262 + 0.693147 + 0.563464 + center)
    assert found.sums["accuracy"] == 2.5


def test_padding_is_never_the_token_that_ends_an_answer(tmp_path: Path) -> None:
    tokenizer = make_tokenizer()
    tokenizer.pad_token = tokenizer.eos_token  # as many are saved
    assert pick_pad(tokenizer, (1,), 400) == tokenizer.bos_token_id
    alone = make_tokenizer(bos=False)
    with pytest.raises(TuningError, match="only special token"):
        pick_pad(alone, (alone.eos_token_id,), len(alone))
    added = pick_pad(alone, (alone.eos_token_id,), len(alone) + 1)
    assert alone.convert_ids_to_tokens(added) == "<|pad|>"
    model = load_head(make_base(tmp_path / "base"), 0, dtype=torch.float32).eval()
    ended, cut = [5, 6, 7, 1], [5, 6, 7]
    ids = torch.tensor([[*ended, 0, 0], [*cut, 0, 0, 0]])
    with torch.no_grad():
        together = score_ids(model, ids, 0)
        alone_scores = [float(score_ids(model, torch.tensor([row]), 0)[0]) for row in (ended, cut)]
    assert together.tolist() == pytest.approx(alone_scores, abs=1e-6)
    assert abs(alone_scores[0] - alone_scores[1]) > 1e-3


@pytest.mark.parametrize(
    ("settings", "rows", "said"),
    [
        ({"method": "prompt"}, pairs(), "makes no reward model"),
        ({"method": "prefix"}, pairs(), "makes no reward model"),
        ({"packing": True}, pairs(), "training.packing"),
        ({}, [], "no"),
        ({}, [{**row, "chosen": row["rejected"]} for row in pairs(4)], "identical"),
        ({}, pairs(6, strengths=(1.0, None)), "3 of 6 pairs do not say"),
        ({"max_length": 8}, pairs(4), "too long"),
        ({"heldout_file": "x.jsonl"}, pairs(4), "heldout_file"),
    ],
)
def test_what_cannot_be_trained_is_refused_by_name(
    settings: dict[str, Any],
    rows: list[dict[str, Any]],
    said: str,
    tiny_base: Path,
    tmp_path: Path,
) -> None:
    data = tmp_path / "pairs.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    with pytest.raises(TuningError, match=said):
        tune(config_for(tiny_base, data, tmp_path, heldout=0, **settings))
    assert not (tmp_path / "models" / "judge").exists()


@pytest.mark.slow
def test_a_reward_model_is_no_base_for_answers_and_writes_none(
    tiny_base: Path, tmp_path: Path
) -> None:
    data = write_pairs(tmp_path / "pairs.jsonl", pairs(12))
    made = tune(config_for(tiny_base, data, tmp_path, method="full", epochs=1, heldout=0))
    rows = write_rows(tmp_path / "rows.jsonl", [{"prompt": "a", "completion": "b"}])
    sft = load_config(
        None, {"base": "judge", "data": (str(rows),), "name": "x", "home": str(tmp_path)}
    )
    with pytest.raises(TuningError, match="is a reward model, which scores"):
        tune(sft)
    result = CliRunner().invoke(app, ["eval", "judge", "--home", str(tmp_path)])
    assert isinstance(result.exception, TuningError)
    assert "arena reward score" in str(result.exception)
    with pytest.raises(TuningError, match="reward"):
        merge_variant("judge", tmp_path, "merged")
    more = config_for(made.folder, data, tmp_path, name="more", method="full", epochs=1, heldout=0)
    assert tune(more).parent == "judge"


@pytest.mark.slow
def test_weights_of_rows_count_unless_left_out(tiny_base: Path, tmp_path: Path) -> None:
    rows = [{**row, "weight": 1 + index % 3} for index, row in enumerate(pairs(9))]
    data = write_pairs(tmp_path / "pairs.jsonl", rows)
    config = config_for(tiny_base, data, tmp_path, heldout=0)
    counted = objective_of(config).prepare(config, None).rows
    assert [row.factor for row in counted] == pytest.approx([0.5, 1.0, 1.5] * 3)
    alike = replace(config, preference=replace(config.preference, row_weights=False))
    assert {row.factor for row in objective_of(alike).prepare(alike, None).rows} == {1.0}
    strong = write_pairs(tmp_path / "strong.jsonl", pairs(4, strengths=(1.0, 3.0)))
    scaled = config_for(tiny_base, strong, tmp_path, heldout=0)
    assert [row.factor for row in objective_of(scaled).prepare(scaled, None).rows] == [
        *(0.5, 1.5),
        *(0.5, 1.5),
    ]
    margin = config_for(tiny_base, strong, tmp_path, heldout=0, strength="margin")
    assert [row.margin for row in objective_of(margin).prepare(margin, None).rows] == [
        *(1.0, 3.0),
        *(1.0, 3.0),
    ]


@pytest.mark.slow
def test_a_killed_run_goes_on_to_the_same_weights(tiny_base: Path, tmp_path: Path) -> None:
    data = write_pairs(tmp_path / "pairs.jsonl")
    settings = {"epochs": 6, "checks.save_steps": 2, "patience": "none"}
    whole = tune(config_for(tiny_base, data, tmp_path / "whole", **settings))
    config = config_for(tiny_base, data, tmp_path / "killed", **settings)
    given = {
        "base": str(tiny_base),
        "data": [str(data)],
        "name": "judge",
        "home": str(tmp_path / "killed"),
        "objective": "reward",
        "batch_size": 8,
        "precision": "fp32",
        "learning_rate": 3e-3,
        **settings,
    }
    died = run_script(KILLED, json.dumps(given))
    assert died.status == -signal.SIGKILL, died.stderr
    assert not config.folder.exists()
    resumed = tune(config)
    assert resumed.run["resumed_at"] == 4
    assert resumed.weights_sha256 == whole.weights_sha256


@pytest.mark.slow
def test_a_damaged_head_is_found_by_verify(tiny_base: Path, tmp_path: Path) -> None:
    from safetensors.torch import save_file

    from tuning.variant.manifest import seal_variant

    data = write_pairs(tmp_path / "pairs.jsonl", pairs(12))
    made = tune(config_for(tiny_base, data, tmp_path, epochs=1, heldout=0))
    path = made.folder / "adapter_model.safetensors"
    tensors = read_tensors(made.folder)
    head = "base_model.model.score.weight"
    for change, said in (
        ({head: tensors[head][:, :-1].contiguous()}, "has shape"),
        ({head: None}, "lacks score.weight"),
    ):
        changed = {k: v for k, v in {**tensors, **change}.items() if v is not None}
        save_file(changed, path)
        seal_variant(made.folder, name="judge", kind="reward", base=made.base)
        with pytest.raises(TuningError, match=said):
            verify_variant(made.folder, tiny_base)
    assert read_variant(made.folder).is_adapter
