"""The preference dataset: readers open it, trainers take every row, nothing is guessed."""

from __future__ import annotations

import csv
import hashlib
import json
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import yaml
from store_fixtures import BASE, FULL, LORA, Hand

from arena.exports.dataset import Exported, ExportError, ExportOptions, export
from arena.exports.folders import FolderError
from arena.storage.selection import LeftOut, Selection
from arena.values.battle import AnswerStatus, Participant
from arena.values.vote import Judgement, Strength, Winner


def read_lines(folder: Path, split: str = "train") -> list[dict[str, Any]]:
    """The JSON-lines mirror as a plain reader sees it."""
    text = (folder / f"{split}.jsonl").read_bytes().decode()
    return [json.loads(line) for line in text.split("\n") if line]


def run(hand: Hand, out: Path, **selection: Any) -> Exported:
    """Export with a selection."""
    return export(hand.store, out, ExportOptions(selection=Selection(**selection)))


def test_rows_answer_one_prompt_and_name_their_lineage(hand: Hand, tmp_path: Path) -> None:
    judgement = Judgement(Winner.MODEL_B, strength=Strength.MUCH, reasons=("correct",))
    hand.vote(texts=["bad", "good"], prompt="p", judgement=judgement, tags=["facts"])
    run(hand, tmp_path / "out")
    (row,) = read_lines(tmp_path / "out")
    assert row["prompt"] == [{"role": "user", "content": "p"}]
    assert row["chosen"] == [{"role": "assistant", "content": "good"}]
    assert row["rejected"] == [{"role": "assistant", "content": "bad"}]
    assert (row["chosen_model"], row["rejected_model"]) == ("lora", "starter")
    assert (row["chosen_side"], row["rejected_side"]) == ("b", "a")
    assert row["chosen_weights_sha256"] == LORA.weights_sha256
    assert json.loads(row["rejected_sampling"]) == {"seed": 7, "temperature": 0.5}
    assert (row["strength"], row["margin"], row["reasons"]) == ("much", 1.0, ["correct"])
    assert (row["blind"], row["propensity"], row["tags"]) == (True, 0.5, ["facts"])


def test_parquet_and_lines_hold_the_same_bytes_of_text(hand: Hand, tmp_path: Path) -> None:
    nasty = "  tab\tCRLF\r\n\u2028 “𝄞” \x85 def f():\n    return 1\n```\n\n"
    hand.vote(texts=[nasty, "x"], prompt=nasty)
    run(hand, tmp_path / "out")
    table = pq.read_table(tmp_path / "out/data/train-00000-of-00001.parquet").to_pylist()
    assert table == read_lines(tmp_path / "out")
    assert table[0]["chosen"][0]["content"] == nasty
    assert table[0]["prompt"][0]["content"] == nasty


def test_what_makes_no_row_is_counted_by_reason(hand: Hand, tmp_path: Path) -> None:
    hand.vote(Winner.MODEL_A)
    hand.vote(Winner.TIE)
    hand.vote(Winner.BOTH_BAD)
    hand.vote(texts=["same", "same"])
    hand.vote(texts=["", "text"])
    stopped, _ = hand.battle(statuses=[AnswerStatus.STOPPED, AnswerStatus.COMPLETE])
    leaking, _ = hand.battle(leaks=[True, False])
    for battle in (stopped, leaking):
        hand.store.cast_vote(battle, Judgement(Winner.MODEL_A), voter=hand.voter())
    hand.battle()
    hand.battle(statuses=[AnswerStatus.FAILED, AnswerStatus.COMPLETE])
    done = run(hand, tmp_path / "out")
    expected = {
        "tie": 1,
        "both_bad": 1,
        "identical": 1,
        "empty": 1,
        "partial": 1,
        "identity_leak": 1,
    }
    assert done.left_out == expected
    manifest = json.loads((tmp_path / "out/MANIFEST.json").read_text())
    assert manifest["left_out"] == expected
    assert (manifest["num_rows"], manifest["num_judged_pairs"]) == (1, 7)
    assert (manifest["store"]["turns_without_vote"], manifest["store"]["turns_failed"]) == (1, 1)
    card = (tmp_path / "out/README.md").read_text()
    assert "| both_bad | 1 | the voter found both answers bad |" in card


def test_flagged_and_partial_votes_come_when_asked_for(hand: Hand, tmp_path: Path) -> None:
    leaking, _ = hand.battle(leaks=[True, False])
    stopped, _ = hand.battle(statuses=[AnswerStatus.STOPPED, AnswerStatus.COMPLETE])
    for battle in (stopped, leaking):
        hand.store.cast_vote(battle, Judgement(Winner.MODEL_A), voter=hand.voter())
    run(hand, tmp_path / "out", include=frozenset({LeftOut.PARTIAL, LeftOut.IDENTITY_LEAK}))
    rows = read_lines(tmp_path / "out")
    assert [(row["partial"], row["flags"]) for row in rows] == [
        (True, []),
        (False, ["identity_leak"]),
    ]


def test_filters(hand: Hand, tmp_path: Path) -> None:
    hand.vote(prompt="1", tags=["math"])
    hand.vote(prompt="2", participants=[BASE, FULL])
    seen, _ = hand.battle(prompt="3")
    hand.store.skip_turn(seen, voter=hand.voter())
    hand.store.cast_vote(seen, Judgement(Winner.MODEL_A), voter=hand.voter())
    cases: dict[str, dict[str, Any]] = {
        "13": {"models": ("starter", "lora")},
        "1": {"tags": ("math", "other")},
        "12": {"blind_only": True},
        "123": {"until_ms": 2**60},
    }
    for prompts, selection in cases.items():
        run(hand, tmp_path / prompts, **selection)
        assert (
            "".join(row["prompt"][0]["content"] for row in read_lines(tmp_path / prompts))
            == prompts
        )
    with pytest.raises(ExportError, match="3 judged pairs: other_date 3"):
        run(hand, tmp_path / "none", since_ms=2**60)


def test_later_turns_only_with_one_shared_history(hand: Hand, tmp_path: Path) -> None:
    battle, _ = hand.battle(["a1", "b1"], prompt="p1")
    hand.store.cast_vote(battle, Judgement(Winner.MODEL_A), voter=hand.voter())
    hand.turn(battle, "p2", ["a2", "b2"], shared_side=1)
    hand.store.cast_vote(battle, Judgement(Winner.MODEL_A), voter=hand.voter())
    hand.turn(battle, "p3", ["a3", "b3"])
    hand.store.cast_vote(battle, Judgement(Winner.MODEL_A), voter=hand.voter())
    done = run(hand, tmp_path / "out")
    assert done.left_out == {"diverged": 1}
    # Where each side has a conversation of its own, they are written when asked for; one prompt
    # they never have.
    for name, more, left_out in (
        ("lmsys", frozenset({LeftOut.DIVERGED}), {}),
        ("lmsys", frozenset(), {"diverged": 1}),
        ("trl", frozenset({LeftOut.DIVERGED}), {"diverged": 1}),
    ):
        options = ExportOptions(format=name, selection=Selection(include=more))
        told = export(hand.store, tmp_path / f"{name}{len(more)}", options)
        assert (told.splits["train"], told.left_out) == (3 - len(left_out), left_out)
    rows = read_lines(tmp_path / "out")
    assert rows[1]["prompt"] == [
        {"role": "user", "content": "p1"},
        {"role": "assistant", "content": "b1"},
        {"role": "user", "content": "p2"},
    ]


def test_an_edited_answer_beats_every_side_once(hand: Hand, tmp_path: Path) -> None:
    judgement = Judgement(Winner.BOTH_BAD, edited_answer="better")
    people = [BASE, LORA, FULL]
    battle, _ = hand.battle(["a", "b", "c"], participants=people)
    hand.store.cast_vote(battle, judgement, voter=hand.voter())
    hand.vote(judgement=Judgement(Winner.MODEL_A, edited_answer="mine"))
    run(hand, tmp_path / "out")
    found = [
        (row["chosen"][0]["content"], row["rejected"][0]["content"], row["chosen_model"])
        for row in read_lines(tmp_path / "out")
    ]
    assert found == [
        ("better", "a", "human edit"),
        ("better", "b", "human edit"),
        ("better", "c", "human edit"),
        ("one", "two", "starter"),
        ("mine", "one", "human edit"),
        ("mine", "two", "human edit"),
    ]


def test_a_prompt_is_never_in_both_splits(hand: Hand, tmp_path: Path) -> None:
    for i in range(16):
        hand.vote(prompt=f"Prompt {i % 8}", texts=[f"x{i}", "y"])
    options = ExportOptions(test_fraction=0.4)
    done = export(hand.store, tmp_path / "out", options)
    train, test = (
        {row["prompt"][0]["content"] for row in read_lines(tmp_path / "out", split)}
        for split in ("train", "test")
    )
    assert not train & test
    assert len(train | test) == 8
    assert sum(done.splits.values()) == 16
    assert 1 <= len(test) <= 7


@pytest.mark.parametrize(
    "secrets",
    [
        [f"u{i}@example.org" for i in range(9)],
        [f"+49 30 1234{i:02}8" for i in range(9)],
        [f"hf_{i:02}{'k' * 30}" for i in range(9)],
    ],
)
def test_prompts_that_redaction_makes_equal_are_in_one_split(
    hand: Hand, tmp_path: Path, secrets: list[str]
) -> None:
    for i, secret in enumerate(secrets):
        hand.vote(prompt=f"Who is {secret}?", texts=[f"x{i}", "y"])
        hand.vote(prompt=f"Prompt {i}", texts=[f"x{i}", "y"])
    export(hand.store, tmp_path / "out", ExportOptions(test_fraction=0.5, redact=True))
    train, test = (
        {row["prompt"][0]["content"] for row in read_lines(tmp_path / "out", split)}
        for split in ("train", "test")
    )
    assert not train & test
    assert len(train | test) == 10


def test_turns_count_from_one_in_every_format(hand: Hand, tmp_path: Path) -> None:
    """The first turn is 1, as `turn` of the public datasets counts a conversation's rounds."""
    battle, _ = hand.battle(["a1", "b1"])
    hand.store.cast_vote(battle, Judgement(Winner.MODEL_A), voter=hand.voter())
    hand.turn(battle, "p2", ["a2", "b2"], shared_side=0)
    hand.store.cast_vote(battle, Judgement(Winner.MODEL_B), voter=hand.voter())
    for name, column in (
        *(("trl", "turn"), ("votes", "turn"), ("lmsys", "turn"), ("100k", "turn")),
        ("140k", "evaluation_order"),
    ):
        export(hand.store, tmp_path / name, ExportOptions(format=name))
        assert [row[column] for row in read_lines(tmp_path / name)] == [1, 2], name
    export(hand.store, tmp_path / "kto", ExportOptions(format="kto"))
    assert sorted(row["turn"] for row in read_lines(tmp_path / "kto")) == [1, 1, 2, 2]
    export(hand.store, tmp_path / "csv", ExportOptions(format="csv"))
    (table,) = (tmp_path / "csv").rglob("*.csv")
    with table.open(newline="", encoding="utf-8-sig") as file:
        assert [row["turn"] for row in csv.DictReader(file)] == ["1", "2"]


def test_no_voter_address_or_session_in_any_file(hand: Hand, tmp_path: Path) -> None:
    voter = hand.voter()
    battle, token = hand.battle()
    hand.store.cast_vote(battle, Judgement(Winner.MODEL_A), voter=voter)
    run(hand, tmp_path / "out")
    for path in (tmp_path / "out").rglob("*"):
        if path.is_file():
            content = path.read_bytes()
            assert voter.encode() not in content
            assert token.encode() not in content
            assert hashlib.sha256(token.encode()).hexdigest().encode() not in content


def test_the_manifest_names_every_file_with_its_hash(hand: Hand, tmp_path: Path) -> None:
    hand.vote()
    run(hand, tmp_path / "out")
    manifest = json.loads((tmp_path / "out/MANIFEST.json").read_text())
    on_disk = {
        path.relative_to(tmp_path / "out").as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in (tmp_path / "out").rglob("*")
        if path.is_file() and path.name != "MANIFEST.json"
    }
    assert {name: file["sha256"] for name, file in manifest["files"].items()} == on_disk
    assert len(on_disk) == 3


def test_the_same_votes_give_the_same_bytes(hand: Hand, tmp_path: Path) -> None:
    for i in range(5):
        hand.vote(texts=[f"x{i}", "y"])
    for name in ("one", "two"):
        run(hand, tmp_path / name)
    one, two = (
        {
            path.relative_to(tmp_path / name): path.read_bytes()
            for path in (tmp_path / name).rglob("*")
            if path.is_file()
        }
        for name in ("one", "two")
    )
    assert one == two


def test_a_failed_export_leaves_what_was_there(hand: Hand, tmp_path: Path) -> None:
    hand.vote(Winner.TIE)
    with pytest.raises(ExportError, match=r"no vote makes a trl row .* tie 1"):
        run(hand, tmp_path / "out")
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos/cat.jpg").write_text("cat")
    with pytest.raises(FolderError, match="exists already"):
        export(hand.store, tmp_path / "photos", ExportOptions(), overwrite=True)
    assert (tmp_path / "photos/cat.jpg").read_text() == "cat"


def test_an_earlier_export_is_replaced_only_on_request(hand: Hand, tmp_path: Path) -> None:
    hand.vote()
    run(hand, tmp_path / "out")
    hand.vote()
    with pytest.raises(FolderError, match="--overwrite"):
        run(hand, tmp_path / "out")
    assert len(read_lines(tmp_path / "out")) == 1
    export(hand.store, tmp_path / "out", ExportOptions(), overwrite=True)
    assert len(read_lines(tmp_path / "out")) == 2
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out"]


def test_the_card_opens_with_the_yaml_that_readers_need(hand: Hand, tmp_path: Path) -> None:
    hand.vote()
    export(hand.store, tmp_path / "out", ExportOptions(license="cc0-1.0"))
    front = yaml.safe_load((tmp_path / "out/README.md").read_text().split("---\n")[1])
    assert front["license"] == "cc0-1.0"
    assert front["size_categories"] == ["n<1K"]
    assert front["configs"][0]["data_files"] == [{"split": "train", "path": "data/train-*.parquet"}]


def test_a_shared_system_prompt_is_part_of_the_prompt(hand: Hand, tmp_path: Path) -> None:
    people = [
        Participant("m", "m", system_prompt="Be brief."),
        Participant("n", "n", system_prompt="Be brief."),
    ]
    hand.vote(participants=people)
    run(hand, tmp_path / "out")
    assert read_lines(tmp_path / "out")[0]["prompt"][0] == {
        "role": "system",
        "content": "Be brief.",
    }


@pytest.mark.slow
# TRL's own default sets an option that transformers has renamed.
@pytest.mark.filterwarnings("ignore:`gradient_checkpointing` is deprecated:FutureWarning")
def test_datasets_opens_it_and_trl_takes_every_row(
    hand: Hand, tmp_path: Path, tiny_chat_model: Path
) -> None:
    """The real `load_dataset` and the real preprocessing of TRL's DPO trainer."""
    from datasets import load_dataset
    from trl import DPOConfig, DPOTrainer

    for i in range(6):
        hand.vote(texts=[f"answer {i}\r\n", "  other 𝄞"], prompt=f"prompt {i}")
    hand.vote(judgement=Judgement(Winner.TIE, edited_answer="a better one"))
    run(hand, tmp_path / "out")
    dataset = load_dataset(str(tmp_path / "out"), cache_dir=str(tmp_path / "cache"))["train"]
    assert dataset.to_list() == read_lines(tmp_path / "out")
    arguments = DPOConfig(
        output_dir=str(tmp_path / "dpo"), report_to=[], use_cpu=True, max_length=256
    )
    trainer = DPOTrainer(model=str(tiny_chat_model), args=arguments, train_dataset=dataset)
    tokenizer = trainer.processing_class
    assert len(trainer.train_dataset) == len(dataset) == 8
    for tokens, row in zip(trainer.train_dataset, dataset, strict=True):
        text = tokenizer.decode(tokens["chosen_ids"])
        assert row["chosen"][0]["content"].strip() in text
        assert row["rejected"][0]["content"].strip() in tokenizer.decode(tokens["rejected_ids"])
        assert row["prompt"][-1]["content"] in tokenizer.decode(tokens["prompt_ids"])
