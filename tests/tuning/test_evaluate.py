"""Scores with their intervals, suites, completion mode, and the commands that print them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from forked import Finished, Forked
from tuning_fixtures import make_base, rows, write_rows

from tuning import TuningConfig, tune
from tuning.commands.tune import print_results
from tuning.config import TrainingOptions
from tuning.errors import TuningError
from tuning.evaluation.evaluate import (
    Score,
    answer_items,
    compare_all,
    document_perplexity,
    evaluate,
    plain_documents,
)
from tuning.evaluation.statistics import wilson
from tuning.evaluation.suites import SuiteError, SuiteItem, load_suite
from tuning.models.generate import greedy_answers
from tuning.models.loading import find_base, load_variant
from tuning.variant import read_variant

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing.*:FutureWarning"),
    pytest.mark.filterwarnings("ignore:Position ids are not supported:UserWarning"),
    pytest.mark.filterwarnings("ignore:The PEFT config's `base_model_name_or_path`:UserWarning"),
]
SUITE = [
    {
        "id": str(i),
        "family": "even" if i % 2 == 0 else "odd",
        "prompt": row["messages"][0]["content"],
        "check": {"kind": "exact", "answers": [row["messages"][1]["content"]]},
    }
    for i, row in enumerate(rows(10))
]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home with a base, and one variant of each kind after a few steps; and a suite file."""
    home = tmp_path_factory.mktemp("home")
    make_base(home / "base")
    data = write_rows(home / "rows.jsonl", rows())
    write_rows(home / "suite.jsonl", SUITE)
    for method, steps in (("full", 150), ("lora", 2), ("prefix", 2), ("prompt", 2)):
        tune(
            TuningConfig(
                base=str(home / "base"),
                data=(str(data),),
                name=method,
                method=method,
                home=home,
                training=TrainingOptions(
                    max_steps=steps, epochs=100, batch_size=8, learning_rate=1e-2
                ),
            )
        )
    return home


def test_wilson_interval_from_the_literature() -> None:
    """R. G. Newcombe (Statistics in Medicine 17, 1998), table I: 81 of 263 and 15 of 148."""
    assert wilson(81, 263) == pytest.approx((0.2553, 0.3662), abs=5e-5)
    assert wilson(15, 148) == pytest.approx((0.0624, 0.1605), abs=5e-5)
    assert wilson(0, 20) == pytest.approx((0.0, 0.1611), abs=5e-5)
    assert Score(3, 4).to_json()["accuracy"] == 0.75


def test_suite_limit_is_spread_and_lines_are_named(tmp_path: Path) -> None:
    path = write_rows(tmp_path / "suite.jsonl", SUITE)
    assert [item.id for item in load_suite(str(path), 5)] == ["0", "2", "4", "6", "8"]
    for line, message in (
        ("{", "suite.jsonl:1: is no JSON"),
        ('{"check": {"kind": "quoted"}}', "suite.jsonl:1: lacks the field 'prompt'"),
        ('{"prompt": "p"}', "suite.jsonl:1: lacks the field 'check'"),
        ('{"prompt": " ", "check": {"kind": "quoted"}}', "suite.jsonl:1: prompt: ' ' is empty"),
        ('{"prompt": "\\ud800", "check": {"kind": "quoted"}}', "prompt: .* is no text of UTF-8"),
        (
            '{"prompt": "p", "check": {"kind": "quoted"}, "famly": "f"}',
            "suite.jsonl:1: has no field 'famly'; did you mean 'family'",
        ),
        ('{"prompt": "p", "check": {"kind": "rhyme"}}', "suite.jsonl:1: check: unknown check kind"),
        (
            '{"id": 1, "prompt": "p", "check": {"kind": "quoted"}}\n\n'
            '{"id": "1", "prompt": "q", "check": {"kind": "quoted"}}',
            "suite.jsonl:3: id '1' is that of line 1 as well; give each prompt its own",
        ),
        ("", "holds no prompts"),
    ):
        path.write_text(line)
        with pytest.raises(SuiteError, match=message):
            load_suite(str(path))
    for name in (
        str(tmp_path / "none.jsonl"),
        str(tmp_path),
        "~nobody/suite.jsonl",
        "a\0b",
        "x" * 5000,
    ):
        with pytest.raises(SuiteError, match="cannot be read") as caught:
            load_suite(name)
        assert "Errno" not in str(caught.value)
        assert str(caught.value).count("none.jsonl") <= 1


@pytest.mark.parametrize("name", ["full", "lora", "prefix", "prompt"])
def test_batched_answers_equal_single_ones(home: Path, name: str) -> None:
    loaded = load_variant(name, home)
    items = load_suite(str(home / "suite.jsonl"))
    together = answer_items(loaded, items, 12)
    alone = [answer_items(loaded, [item], 12)[0] for item in items]
    assert together == alone


def test_answers_equal_plain_generate(home: Path) -> None:
    """Expected text from transformers' own generate on one prompt."""
    loaded = load_variant("full", home)
    ids = loaded.tokenizer.apply_chat_template(
        [{"role": "user", "content": SUITE[0]["prompt"]}],
        add_generation_prompt=True,
        return_tensors="pt",
        return_dict=True,
    )
    output = loaded.model.generate(**ids, max_new_tokens=12, do_sample=False)
    text = loaded.tokenizer.decode(output[0, ids["input_ids"].shape[1] :], skip_special_tokens=True)
    assert answer_items(loaded, load_suite(str(home / "suite.jsonl"))[:1], 12) == [text.strip()]


def test_a_base_is_asked_in_completion_mode(home: Path) -> None:
    loaded = load_variant(str(home / "base"), home)
    assert not loaded.speaks_chat
    item = SuiteItem.model_validate({"id": 1, "prompt": "Say red", "check": {"kind": "quoted"}})
    (answer,) = answer_items(loaded, [item], 12)
    (raw,) = greedy_answers(
        loaded.model,
        loaded.tokenizer,
        ["Say red"],
        max_new_tokens=12,
        stop_ids=loaded.stop_ids,
        special_tokens=True,
    )
    assert answer == raw.strip().split("\n")[0].strip()


def test_plain_texts_are_the_starters_or_everyday_english() -> None:
    worlds, english = plain_documents(of_starter=True), plain_documents(of_starter=False)
    assert len(worlds) == 100
    assert len(english) >= 16
    assert all(60 < len(text.split()) < 120 for text in english)


def test_perplexity_is_the_exponential_of_the_mean_loss(home: Path) -> None:
    loaded = load_variant(str(home / "base"), home)
    text = "red blue green"
    ids = loaded.tokenizer(text, return_tensors="pt")["input_ids"]
    with torch.no_grad():
        loss = loaded.model(input_ids=ids, labels=ids).loss
    assert document_perplexity(loaded, [text]) == pytest.approx(float(loss.exp()), rel=1e-5)
    assert document_perplexity(load_variant("prefix", home), [text, "one two"]) > 1


def test_base_is_found_by_fingerprint_wherever_it_lies(home: Path, tmp_path: Path) -> None:
    variant = read_variant(home / "models" / "lora")
    assert find_base(variant, home).resolve() == (home / "base").resolve()
    moved = tmp_path / "home" / "models" / "renamed"
    moved.parent.mkdir(parents=True)
    import shutil

    shutil.copytree(home / "base", moved)
    shutil.copytree(home / "models" / "lora", moved.parent / "lora")
    copied = read_variant(moved.parent / "lora")
    assert find_base(copied, tmp_path / "home") == moved
    with pytest.raises(TuningError, match="is not here; give the same checkpoint with --base"):
        find_base(copied, tmp_path / "elsewhere")


def test_evaluate_counts_by_family(home: Path) -> None:
    result = evaluate("full", home, suite=str(home / "suite.jsonl"), max_new_tokens=12)
    content = result.to_json()
    assert content["mode"] == "chat"
    assert content["num_prompts"] == 10
    assert content["accuracy"] >= 0.3
    families = content["families"]
    assert {name: score["num_prompts"] for name, score in families.items()} == {
        "even": 5,
        "odd": 5,
    }
    mean = sum(score["accuracy"] for score in families.values()) / 2
    assert content["accuracy"] == pytest.approx(mean)


def test_the_table_has_intervals_pairs_and_forgetting(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = {"suite": str(home / "suite.jsonl"), "max_new_tokens": 12, "documents": ["Say red."]}
    scored = [evaluate(name, home, **options) for name in ("full", "lora")]
    results = [result.to_json() for result in scored]
    print_results("mine", results, compare_all(scored))
    shown = capsys.readouterr().out
    for result in results:
        for score in (result, *result["families"].values()):
            low, high = wilson(
                round(score["accuracy"] * score["num_prompts"]), score["num_prompts"]
            )
            assert f"{score['accuracy']:.1%} [{low:.1%}, {high:.1%}]" in shown
        assert f"{result['perplexity'] / result['base_perplexity']:.3f}" in shown
    assert "full against lora: only the first passes" in shown
    assert "(exact McNemar)" in shown


def test_forgetting_is_measured_against_the_base(home: Path) -> None:
    documents = ["Say red then blue. Say one then two.", "The sea and the moon."]
    options = {"suite": str(home / "suite.jsonl"), "limit": 1, "documents": documents}
    base = evaluate(str(home / "base"), home, **options)
    assert base.base_perplexity is None
    for name in ("lora", "full"):
        made = evaluate(name, home, **options)
        assert made.base_perplexity == pytest.approx(base.perplexity, rel=1e-6)
        assert made.perplexity != made.base_perplexity
        assert made.to_json()["base_perplexity"] == made.base_perplexity


def run(home: Path, *arguments: str) -> Finished:
    """Run the real command."""
    return Forked([*arguments, "--home", home]).wait()


@pytest.mark.slow
def test_eval_command(home: Path, tmp_path: Path) -> None:
    suite = str(home / "suite.jsonl")
    made = run(
        home,
        "eval",
        "lora",
        str(home / "base"),
        "--suite",
        suite,
        "--no-forgetting",
        "--json",
        "--answers",
        str(tmp_path / "a.jsonl"),
        "--plot",
        str(tmp_path / "p.png"),
    )
    assert made.status == 0, made.stderr
    content = json.loads(made.stdout)
    assert content["suite"] == suite
    assert [item["name"] for item in content["results"]] == ["lora", str(home / "base")]
    assert content["results"][1]["mode"] == "completion"
    stored = read_variant(home / "models" / "lora").metrics[f"eval:{suite}"]
    assert stored["accuracy"] == content["results"][0]["accuracy"]
    assert len((tmp_path / "a.jsonl").read_text().splitlines()) == 20
    assert (tmp_path / "p.png").read_bytes().startswith(b"\x89PNG")
    assert not (home / "base" / "variant.json").exists()


@pytest.mark.slow
def test_models_commands(home: Path, tmp_path: Path) -> None:
    listed = json.loads(run(home, "models", "list", "--json").stdout)["models"]
    assert {"full", "lora", "prefix", "prompt"} <= {row["name"] for row in listed}
    verified = run(home, "models", "verify", "lora", "full", "prefix")
    assert verified.status == 0, verified.stderr
    assert verified.stdout.count("all tensors good") == 3
    other = tmp_path / "home"
    made = run(
        other,
        "tune",
        "--base",
        str(home / "base"),
        "--data",
        str(home / "rows.jsonl"),
        "--name",
        "x",
        "--max-steps",
        "1",
    )
    assert made.status == 0, made.stderr
    assert "Made x (lora)" in made.stdout
    (other / "models" / "x" / "adapter_config.json").write_text("{}")
    broken = run(other, "models", "verify", "x")
    assert broken.status == 1
    assert "adapter_config.json: content differs" in broken.stderr
    told = run(other, "models", "verify", "x", str(home / "base"), "--json")
    assert told.status == 1
    bad, good = json.loads(told.stdout)["models"]
    assert (bad["good"], good["good"], good["problem"]) == (False, True, None)
    assert "adapter_config.json: content differs" in bad["problem"]
    assert told.stderr.count("\n") == 1
    cut_short = other / "models" / ".x.removed.tmp"  # by a kill
    cut_short.mkdir()
    (cut_short / "left").touch()
    assert run(other, "models", "remove", "x", "--yes").status == 0
    assert list((other / "models").iterdir()) == []
    gone = run(other, "models", "remove", "x", "--yes")
    assert gone.status == 1
    assert gone.stderr.count("\n") == 1


@pytest.mark.slow
@pytest.mark.parametrize(
    "arguments",
    [
        ("--method", "lorra"),
        ("--data", "nowhere.jsonl"),
        ("--base", "nowhere"),
        ("--set", "ranc=3"),
        ("--config", "nowhere.yaml"),
    ],
)
def test_tune_command_names_mistakes_in_one_line(
    home: Path, tmp_path: Path, arguments: tuple[str, ...]
) -> None:
    wrong = run(
        tmp_path,
        "tune",
        "--base",
        str(home / "base"),
        "--data",
        str(home / "rows.jsonl"),
        "--name",
        "x",
        *arguments,
    )
    assert wrong.status == 1
    assert wrong.stderr.startswith("arena: ")
    assert wrong.stderr.count("\n") == 1, wrong.stderr
    assert arguments[-1].partition("=")[0] in wrong.stderr
