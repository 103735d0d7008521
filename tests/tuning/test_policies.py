"""Policies begin exactly where a variant stands, learn, and become variants themselves."""

from __future__ import annotations

import itertools
import json
import math
import signal
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from forked import run_script
from preference_fixtures import pairs, write_pairs
from tuning_fixtures import make_base, rows, write_rows

from tuning import TuningConfig, TuningError, tune
from tuning.commands.best_of_n import run_best_of
from tuning.config_files import load_config
from tuning.data.batching import Plan
from tuning.models.loading import load_variant
from tuning.objectives import objective_of
from tuning.preference.kto import mismatches
from tuning.preference.policy import Policy
from tuning.training.train import run_path
from tuning.variant.folder import Variant, read_variant
from tuning.variant.verify import verify_variant

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing.*:FutureWarning"),
    pytest.mark.filterwarnings("ignore:Position ids are not supported:UserWarning"),
]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home with a base, a LoRA and a prefix variant of it, pairs, votes and a suite."""
    place = tmp_path_factory.mktemp("policies")
    make_base(place / "base")
    write_pairs(place / "pairs.jsonl")
    write_rows(place / "rows.jsonl", rows(16))
    (place / "suite.jsonl").write_text(
        "".join(
            json.dumps({"id": n, "prompt": f"Say {n}.", "check": E_CHECK}) + "\n" for n in range(16)
        )
    )
    for method in ("lora", "prefix"):
        settings = {"data": str(place / "rows.jsonl"), "objective": "sft", "name": f"one-{method}"}
        made = {"prefix.virtual_tokens": 4} if method == "prefix" else {"lora.rank": 4}
        tune(config_for(place, method=method, **{"training.max_steps": 2}, **settings, **made))
    return place


E_CHECK = {"kind": "letter_count", "letter": "e", "count": 1, "relation": "at least"}


def config_for(place: Path, **settings: Any) -> TuningConfig:
    """A short DPO run on the base, saved and held out as the settings say."""
    return load_config(
        None,
        {
            "base": str(place / "base"),
            "data": str(place / "pairs.jsonl"),
            "name": "v",
            "home": str(place),
            "objective": "dpo",
            "training.batch_size": 8,
            "training.max_steps": 4,
            "training.learning_rate": 1e-2,
            "training.precision": "fp32",
            "data_options.heldout": 0,
            "checks.samples": 0,
            **settings,
        },
    )


def plain_log_prob(model: Any, prompt: Sequence[int], completion: Sequence[int]) -> float:
    """From whole logits, of a model as it is loaded to be served."""
    ids = torch.tensor([[*prompt, *completion]])
    with torch.no_grad():
        logs = torch.log_softmax(model(input_ids=ids).logits[0].float(), -1)
    return sum(logs[len(prompt) - 1 + at, token].item() for at, token in enumerate(completion))


def history(variant: Variant) -> list[dict[str, Any]]:
    lines = (variant.folder / "history.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


@pytest.mark.parametrize(
    ("start", "method"),
    [("", "full"), ("", "lora"), ("one-lora", "lora"), ("one-prefix", "prefix")],
)
@pytest.mark.slow
def test_reference_is_the_start_and_the_first_loss_ln_2(
    place: Path, start: str, method: str
) -> None:
    config = config_for(place, base=start or str(place / "base"), method=method, name="ref")
    objective = objective_of(config)
    inputs = objective.prepare(config, None)
    model, _ = objective.build(config, inputs, "fp32")
    steps = objective.steps(config, inputs, model, Plan(((0,),), 1), "fp32", print)
    batch = steps.collate([[row] for row in inputs.rows[:3]])
    measured = steps.loss(model, batch)
    assert measured.total.item() / 3 == pytest.approx(math.log(2), abs=1e-6)
    served = load_variant(start or str(place / "base"), place).model
    for row, found in zip(inputs.rows[:3], batch["reference"].tolist(), strict=True):
        for ids, value in zip((row.chosen, row.rejected), found, strict=True):
            assert ids[-1] in inputs.stop_ids
            wanted = plain_log_prob(served, row.prompt.tolist(), ids.tolist())
            assert value == pytest.approx(wanted, abs=2e-4)
    # Steps computed the reference once: it lies in the run's folder.
    assert (run_path(config) / "reference.safetensors").is_file()


@pytest.mark.slow
def test_dpo_on_an_adapter_makes_a_variant_of_the_same_base(place: Path) -> None:
    config = config_for(place, base="one-lora", name="better", **{"training.max_steps": 8})
    made = tune(config)
    records = [item for item in history(made) if "rewards/margins" in item]
    assert records[0]["loss"] == pytest.approx(math.log(2), abs=1e-6)
    assert records[0]["rewards/margins"] == 0
    assert records[-1]["rewards/margins"] > 0.05
    assert records[-1]["rewards/accuracies"] > 0.9
    start = read_variant(place / "models" / "one-lora")
    assert (made.kind, made.parent, made.base) == ("lora", "one-lora", start.base)
    assert made.run["config"]["objective"] == "dpo"
    assert made.run["start"] == {"name": "one-lora", "sha256": start.weights_sha256}
    assert made.weights_sha256 != start.weights_sha256
    assert json.loads((made.folder / "adapter_config.json").read_text())["r"] == 4
    assert verify_variant(made.folder, place / "base").name == "better"
    assert load_variant("better", place).variant.parent == "one-lora"


SCRIPT = """
import json, os, signal, sys
import tuning.training.checkpoints as checkpoint
from tuning import tune
from tuning.config_files import load_config
commit = checkpoint.RunFolder.commit
def commit_and_die(self, written, step, seconds, **others):
    commit(self, written, step, seconds, **others)
    os.kill(os.getpid(), signal.SIGKILL)
checkpoint.RunFolder.commit = commit_and_die
tune(load_config(None, json.loads(sys.argv[1])))
"""


@pytest.mark.slow
def test_a_killed_run_goes_on_with_the_reference_it_had(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = {"base": "one-lora", "name": "killed", "checks.save_steps": 2}
    config = config_for(place, **settings)
    flat: dict[str, Any] = {}
    for key, value in config.to_json().items():
        inner = value if isinstance(value, dict) else None
        flat.update({key: value} if inner is None else {f"{key}.{k}": v for k, v in inner.items()})
    done = run_script(SCRIPT, json.dumps(flat))
    assert done.status == -signal.SIGKILL, done.stderr
    whole = tune(config_for(place, **{**settings, "name": "whole"}))

    def refuse(*arguments: Any) -> Any:
        raise AssertionError("the reference was computed again")

    monkeypatch.setattr(Policy, "at_start", refuse)
    made = tune(config)
    assert made.run["resumed_at"] == 2
    assert made.weights_sha256 == whole.weights_sha256


@pytest.mark.slow
def test_kto_learns_from_votes_of_both_bad(place: Path) -> None:
    """Good answers are one class, bad ones and both-bad ones the other; both weigh the same."""
    labelled = [
        {"prompt": row["prompt"], "completion": row[side], "label": side == "chosen"}
        for row in pairs(24)
        for side in ("chosen", "rejected", "rejected")
    ]
    data = write_pairs(place / "labelled.jsonl", labelled)
    settings = {"data_options.deduplicate": False, "training.max_steps": 8}
    config = config_for(place, data=str(data), name="kto", objective="kto", **settings)
    inputs = objective_of(config).prepare(config, None)
    weight = {True: 0.0, False: 0.0}
    for row in inputs.rows:
        weight[row.label] += row.factor
    assert weight[True] == pytest.approx(weight[False])
    made = tune(config)
    records = [item for item in history(made) if "rewards/margins" in item]
    assert records[0]["rewards/margins"] == records[0]["kl"] == 0
    assert records[-1]["rewards/margins"] > 0.05


def test_mismatched_answers_are_those_of_other_prompts() -> None:
    import numpy as np

    prompts = [np.array([at // 3], dtype=np.int32) for at in range(12)]
    found = mismatches(prompts, seed=1)
    assert all(at // 3 != other // 3 for at, other in enumerate(found))
    with pytest.raises(TuningError, match="one and the same prompt"):
        mismatches(prompts[:3], seed=1)


def test_kto_holds_out_a_single_prompt_and_refuses_one_class(place: Path) -> None:
    """Held-out answers to one prompt are compared with trained ones to others."""
    rows = [
        {"prompt": row["prompt"], "completion": row["chosen"], "label": at % 2 == 0}
        for at, row in enumerate(pairs(12))
    ]
    data = write_pairs(place / "dozen.jsonl", rows)
    settings = {"data": str(data), "objective": "kto", "name": "dozen"}
    config = config_for(place, **settings, **{"data_options.heldout": 0.1})
    inputs = objective_of(config).prepare(config, None)
    assert len(inputs.heldout) == 1
    one = write_pairs(place / "one.jsonl", [{**row, "label": True} for row in rows])
    single = config_for(place, **{**settings, "data": str(one)})
    with pytest.raises(TuningError, match="good and bad"):
        objective_of(single).prepare(single, None)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["rloo", "grpo"])
def test_rl_raises_the_reward_of_a_suite(place: Path, kind: str) -> None:
    config = config_for(
        place,
        data=str(place / "suite.jsonl"),
        name=kind,
        objective="rl",
        method="full",
        **{
            "preference.reward": "suite",
            "preference.policy_gradient": kind,
            "preference.generations": 8,
            "preference.answer_tokens": 6,
            "training.max_steps": 24,
            "training.epochs": 100,
            "data_options.heldout": 0.2,
        },
    )
    made = tune(config)
    records = [item for item in history(made) if "kl" in item]
    first, last = (
        sum(item["reward"] for item in part) / len(part) for part in (records[:4], records[-4:])
    )
    assert records[0]["kl"] == pytest.approx(0, abs=1e-4)
    assert last > first + 0.15
    assert records[-1]["kl"] > 0
    assert "nats from the start" in made.run["remarks"][0]


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"method": "prefix"}, "new virtual tokens change the model before the first step"),
        ({"lora.dropout": 0.1}, "lora.dropout: 0.1"),
        ({"base": "one-prefix"}, "give --method prefix"),
        ({"base": "one-lora", "lora.rank": 8}, "leave lora.* out"),
        ({"base": "one-lora", "objective": "sft"}, "merge it first"),
        ({"base": "one-prefix", "objective": "sft"}, "give the model it was made from"),
        ({"preference.loss": "kto"}, "give --objective kto"),
        ({"preference.loss": "exo_pair"}, "more than 0"),
        ({"preference.label_smoothing": 0.1}, "changes nothing in sigmoid"),
        ({"preference.label_smoothing": "auto", "preference.loss": "robust"}, "voted on twice"),
        ({"preference.loss": "ipo", "preference.strength": "margin"}, "nothing in ipo"),
        ({"objective": "kto", "preference.loss": "ipo"}, "not for single answers"),
        ({"objective": "rl"}, "rl needs a reward"),
        ({"objective": "rl", "preference.reward": "suite"}, "has none; give starter"),
        ({"objective": "rl", "preference.reward": "base"}, "'base'"),
    ],
)
def test_what_cannot_be_is_refused_by_name(
    place: Path, settings: dict[str, Any], says: str
) -> None:
    with pytest.raises(TuningError, match=says.replace("*", r"\*")):
        tune(config_for(place, name="refused", **settings))
    assert not (place / "models" / "refused").exists()


@pytest.fixture(scope="module")
def judge(place: Path) -> str:
    """A reward model of the base, hardly trained."""
    settings = {"objective": "reward", "name": "judge", "training.max_steps": 2}
    tune(config_for(place, **settings, **{"checks.patience": None}))
    return "judge"


@pytest.mark.slow
def test_best_of_n_prints_a_curve_that_can_be_repeated(
    place: Path, judge: str, capsys: pytest.CaptureFixture[str]
) -> None:
    found = []
    for _ in range(2):
        run_best_of(
            "one-lora",
            judge,
            place,
            suite=str(place / "suite.jsonl"),
            samples=4,
            limit=3,
            temperature=1.0,
            max_new_tokens=5,
            seed=7,
            plot=place / "curve.png",
            json_out=True,
        )
        found.append(json.loads(capsys.readouterr().out))
    assert found[0] == found[1]
    curve = found[0]["curve"]
    assert [point["n"] for point in curve] == [1, 2, 4]
    assert curve[0]["kl_bound"] == 0
    assert all(earlier["reward"] <= later["reward"] for earlier, later in itertools.pairwise(curve))
    assert all(0 <= point["gold"] <= point["most"] <= 1 for point in curve)
    assert (place / "curve.png").is_file()


@pytest.mark.slow
def test_a_reward_model_that_is_an_adapter_is_no_start(place: Path, judge: str) -> None:
    """Whatever the objective: it writes no answers, and nothing merges it."""
    for objective in ("dpo", "kto", "rl", "sft", "reward"):
        asked = {"preference.reward": judge} if objective == "rl" else {}
        with pytest.raises(TuningError, match=r"reward model.*give the model") as no:
            tune(config_for(place, base=judge, objective=objective, name="refused", **asked))
        assert "merge" not in str(no.value)


@pytest.mark.slow
def test_rl_takes_the_scores_of_a_reward_model(place: Path, judge: str) -> None:
    """Prompts are those of pairs; a reward model's scores are the rewards."""
    config = config_for(
        place,
        objective="rl",
        name="pleasing",
        **{"preference.reward": judge, "preference.answer_tokens": 4, "training.max_steps": 2},
    )
    records = [item for item in history(tune(config)) if "kl" in item]
    assert [item["step"] for item in records] == [1, 2]
    assert records[0]["kl"] == pytest.approx(0, abs=1e-4)


def test_defaults_of_the_starters_rows_are_those_of_supervised_tuning(place: Path) -> None:
    """Its learning rate, which makes a variant of a base, would spoil a policy."""
    settings = {"base": "starter", "data": "starter", "name": "v", "home": str(place)}
    assert load_config(None, settings).training.learning_rate == 2e-3
    assert load_config(None, {**settings, "objective": "rl"}).training.learning_rate is None
