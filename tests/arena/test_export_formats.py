"""Every export format is what its readers expect, column by column and text by text."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from store_fixtures import BASE, FULL, LORA, Hand

from arena.exports.dataset import ExportError, ExportOptions, export
from arena.exports.formats import FORMATS
from arena.exports.llm_comparator import TwoModelsError
from arena.storage.selection import Selection
from arena.values.vote import Judgement, Strength, Winner

NASTY = "=SUM(1)\r\n“𝄞”\t```py\n  x = 1\n```\n# h\n- i\n1. j\n**b**"

# Column names of the published datasets, in their order.
LMSYS = (
    "question_id model_a model_b winner judge conversation_a conversation_b turn anony language"
    " tstamp openai_moderation toxic_chat_tag"
)
COLUMNS = {
    "lmsys": LMSYS,
    "55k": "id model_a model_b prompt response_a response_b"
    " winner_model_a winner_model_b winner_tie",
    "100k": "question_id model_a model_b winner conversation_a conversation_b turn anony language"
    " tstamp conv_metadata is_code is_refusal dedup_tag category_tag judge_hash",
    "140k": "id model_a model_b winner evaluation_session_id evaluation_order conversation_a"
    " conversation_b full_conversation conv_metadata category_tag language is_code timestamp",
}


def run(hand: Hand, out: Path, name: str, **selection: Any) -> None:
    """Export in a format."""
    export(hand.store, out, ExportOptions(format=name, selection=Selection(**selection)))


def table(out: Path) -> list[dict[str, Any]]:
    """The rows of the Parquet file, the same as those of the JSON lines."""
    rows: list[dict[str, Any]] = pq.read_table(
        out / "data/train-00000-of-00001.parquet"
    ).to_pylist()
    lines = (out / "train.jsonl").read_bytes().decode().split("\n")
    assert [json.loads(line) for line in lines if line] == rows
    return rows


@pytest.fixture
def votes(hand: Hand) -> Hand:
    """One vote of each kind by two voters."""
    for winner, voter in zip(Winner, "xyxy", strict=True):
        hand.vote(winner, [NASTY, "other"], prompt=NASTY, voter=hand.voter(voter))
    return hand


@pytest.mark.parametrize("name", sorted(COLUMNS))
def test_columns_are_those_of_the_published_dataset(votes: Hand, tmp_path: Path, name: str) -> None:
    run(votes, tmp_path / "out", name)
    assert list(table(tmp_path / "out")[0]) == COLUMNS[name].split()


def test_lmsys_words_and_voters(votes: Hand, tmp_path: Path) -> None:
    run(votes, tmp_path / "out", "lmsys")
    rows = table(tmp_path / "out")
    assert [row["winner"] for row in rows] == ["model_a", "model_b", "tie", "tie (bothbad)"]
    assert [row["judge"] for row in rows] == [
        "arena_user_1",
        "arena_user_2",
        "arena_user_1",
        "arena_user_2",
    ]
    assert rows[0]["conversation_a"] == [
        {"role": "user", "content": NASTY},
        {"role": "assistant", "content": NASTY},
    ]
    assert (rows[0]["turn"], rows[0]["anony"], rows[0]["openai_moderation"]) == (1, True, None)


def test_55k_holds_json_lists_and_merges_both_bad(votes: Hand, tmp_path: Path) -> None:
    run(votes, tmp_path / "out", "55k")
    rows = table(tmp_path / "out")
    assert json.loads(rows[0]["response_a"]) == [NASTY]
    flags = [(r["winner_model_a"], r["winner_model_b"], r["winner_tie"]) for r in rows]
    assert flags == [(1, 0, 0), (0, 1, 0), (0, 0, 1), (0, 0, 1)]
    assert len({row["id"] for row in rows}) == 4


def test_140k_and_100k_count_style(votes: Hand, tmp_path: Path) -> None:
    run(votes, tmp_path / "140k", "140k")
    row = table(tmp_path / "140k")[3]
    assert row["winner"] == "both_bad"
    part = {"type": "text", "text": NASTY, "image": None, "mimeType": None}
    assert row["conversation_a"][1] == {"role": "assistant", "content": [part]}
    assert row["full_conversation"][0]["model_side_b"]["content"][0]["text"] == "other"
    told = row["conv_metadata"]
    assert told["header_count_a"]["h1"] == 1
    assert told["list_count_a"] == {"ordered": 1, "unordered": 1}
    assert (told["bold_count_a"]["**"], told["bold_count_b"]["**"]) == (1, 0)
    assert (row["is_code"], told["sum_assistant_a_tokens"]) == (True, 3)
    run(votes, tmp_path / "100k", "100k")
    assert table(tmp_path / "100k")[0]["conv_metadata"] == told


def test_kto_says_of_each_answer_whether_it_is_good(votes: Hand, tmp_path: Path) -> None:
    run(votes, tmp_path / "out", "kto")
    found = [(row["winner"], row["side"], row["label"]) for row in table(tmp_path / "out")]
    assert found == [
        ("model_a", "a", True),
        ("model_a", "b", False),
        ("model_b", "a", False),
        ("model_b", "b", True),
        ("tie", "a", True),
        ("tie", "b", True),
        ("both_bad", "a", False),
        ("both_bad", "b", False),
    ]


def test_kto_refuses_a_text_that_would_be_good_and_bad(hand: Hand, tmp_path: Path) -> None:
    hand.vote(Winner.MODEL_A, ["same", "same"])
    hand.vote(Winner.TIE, ["same", "same"])
    done = export(hand.store, tmp_path / "out", ExportOptions(format="kto"))
    assert [row["label"] for row in table(tmp_path / "out")] == [True, True]
    assert done.left_out == {"identical": 1}


def test_kto_counts_blank_answers(hand: Hand, tmp_path: Path) -> None:
    """Beside the other answer's row as one row less; both blank as a pair that makes none."""
    hand.vote(Winner.MODEL_A, ["good", " \n"])
    hand.vote(Winner.BOTH_BAD, ["", "poor"])
    hand.vote(Winner.BOTH_BAD, ["", " "])
    done = export(hand.store, tmp_path / "out", ExportOptions(format="kto"))
    assert [(row["side"], row["label"]) for row in table(tmp_path / "out")] == [
        ("a", True),
        ("b", False),
    ]
    assert (done.left_out, done.rows_left_out) == ({"empty": 1}, {"empty": 2})
    manifest = json.loads((tmp_path / "out/MANIFEST.json").read_text())
    assert (manifest["left_out"], manifest["rows_left_out"]) == ({"empty": 1}, {"empty": 2})
    assert "did not make beside others: empty 2" in (tmp_path / "out/README.md").read_text()


def test_kto_takes_first_and_last_of_a_ranking_once(hand: Hand, tmp_path: Path) -> None:
    battle, _ = hand.battle(["x", "y", "z"], participants=[BASE, LORA, FULL])
    hand.store.cast_vote(battle, Judgement(ranking=(2, 1, 3)), voter=hand.voter())
    run(hand, tmp_path / "out", "kto")
    found = [(row["completion"][0]["content"], row["label"]) for row in table(tmp_path / "out")]
    assert found == [("y", True), ("z", False)]


def test_open_webui_reads_a_list_of_feedback(votes: Hand, tmp_path: Path) -> None:
    run(votes, tmp_path / "out", "openwebui")
    rows = json.loads((tmp_path / "out/train.json").read_text())
    assert [row["data"]["rating"] for row in rows] == [1, 1, 0]
    assert [row["data"]["model_id"] for row in rows] == ["starter", "lora", "starter"]
    messages = rows[1]["snapshot"]["chat"]["history"]["messages"]
    rated = messages[rows[1]["meta"]["message_id"]]
    siblings = [messages[i]["content"] for i in messages[rated["parentId"]]["childrenIds"]]
    assert (rated["content"], rated["model"]) == ("other", "lora")
    assert sorted(siblings) == sorted([NASTY, "other"])
    manifest = json.loads((tmp_path / "out/MANIFEST.json").read_text())
    assert manifest["left_out"] == {"other_format": 1}


def test_comparator_scores_are_positive_for_the_first_model(hand: Hand, tmp_path: Path) -> None:
    judgement = Judgement(Winner.MODEL_A, strength=Strength.MUCH, comment="why")
    hand.vote(texts=["base", "tuned"], judgement=judgement)
    hand.vote(texts=["tuned", "base"], participants=[LORA, BASE])
    run(hand, tmp_path / "out", "comparator", models=("lora", "starter"))
    found = json.loads((tmp_path / "out/train.json").read_text())
    assert found["models"] == [{"name": "lora"}, {"name": "starter"}]
    one, two = found["examples"]
    assert (one["output_text_a"], one["score"]) == ("tuned", -1.5)
    assert one["individual_rater_scores"][0]["rationale"] == "why"
    assert (two["output_text_a"], two["score"]) == ("tuned", 1.0)
    hand.vote(participants=[FULL, BASE])
    with pytest.raises(TwoModelsError, match="--model twice"):
        run(hand, tmp_path / "three", "comparator")
    assert not (tmp_path / "three").exists()


def test_a_spreadsheet_runs_no_formula(votes: Hand, tmp_path: Path) -> None:
    run(votes, tmp_path / "out", "csv")
    with (tmp_path / "out/train.csv").open(encoding="utf-8-sig", newline="") as file:
        rows = list(csv.DictReader(file))
    assert rows[0]["prompt"] == rows[0]["answer_a"] == "'" + NASTY
    assert rows[0]["answer_b"] == "other"
    cells = [cell for row in rows for cell in row.values()]
    assert not [cell for cell in cells if cell.startswith(("=", "+", "-", "@", "\t", "\r"))]


def test_dedupe_writes_equal_rows_once(hand: Hand, tmp_path: Path) -> None:
    for prompt in ("p", "p", "q"):
        hand.vote(prompt=prompt)
    done = export(hand.store, tmp_path / "out", ExportOptions(dedupe=True))
    assert (done.splits, done.left_out) == ({"train": 2}, {"duplicate": 1})


def test_redaction_replaces_addresses_numbers_and_keys(hand: Hand, tmp_path: Path) -> None:
    secret = "Write to ann.lee@mail.example.org or +49 30 1234567, key sk-abcdefghijklmnopqrstuv."
    plain = "Pi is 3.14159265, born 1999-12-31, 1234567 users, x@y, 555 things, a - b."
    hand.vote(texts=[secret, plain], prompt=secret, judgement=Judgement(Winner.MODEL_A))
    options = ExportOptions(redact=True)
    export(hand.store, tmp_path / "out", options)
    (row,) = table(tmp_path / "out")
    assert row["chosen"][0]["content"] == "Write to [email] or [phone], key [key]."
    assert row["prompt"][0]["content"] == "Write to [email] or [phone], key [key]."
    assert row["rejected"][0]["content"] == plain
    manifest = json.loads((tmp_path / "out/MANIFEST.json").read_text())
    assert manifest["redacted"] == {"email": 2, "key": 2, "phone": 2}


# What the reader of each format takes for the text of the left answer.
LEFT_TEXT = {
    "votes": lambda row: row["completion_a"][0]["content"],
    "trl": lambda row: row["chosen"][0]["content"],
    "kto": lambda row: row["completion"][0]["content"],
    "lmsys": lambda row: row["conversation_a"][1]["content"],
    "55k": lambda row: json.loads(row["response_a"])[0],
    "100k": lambda row: row["conversation_a"][1]["content"],
    "140k": lambda row: row["conversation_a"][1]["content"][0]["text"],
    "openwebui": lambda row: row["snapshot"]["chat"]["history"]["messages"][
        row["meta"]["message_id"]
    ]["content"],
    "comparator": lambda row: row["output_text_a"],
    "csv": lambda row: row["answer_a"],
    "raw": lambda row: row["turns"][0]["answers"][0]["text"],
}
BARE = [
    "  spaces\tand tab  ",
    "CRLF\r\nLF\nCR\rend\r\n",
    "def f():\n\treturn `x`\n",
    "e\u0301 é 𝄞 \u2028 \u2029 \x85 \x1f \ufeff \u202e “quotes” \"quotes\", 'x';\\n",
    '<script>&amp;</script> {"json": [1]} |a|b|',
]


@pytest.mark.parametrize("name", [*FORMATS, "raw"])
def test_texts_come_out_byte_by_byte(hand: Hand, tmp_path: Path, name: str) -> None:
    """Read with the format's own reader: Parquet, JSON, JSON lines or a sheet."""
    for text in BARE:
        hand.vote(Winner.MODEL_A, [text, "other"], prompt=text)
    run(hand, tmp_path / "out", name)
    out = tmp_path / "out"
    if name == "csv":
        with (out / "train.csv").open(encoding="utf-8-sig", newline="") as file:
            rows: list[dict[str, Any]] = list(csv.DictReader(file))
    elif name in ("openwebui", "comparator"):
        found = json.loads((out / "train.json").read_text(encoding="utf-8"))
        rows = found["examples"] if name == "comparator" else found
    elif name == "raw":
        lines = (out / "battles.jsonl").read_bytes().decode().split("\n")
        rows = [json.loads(line) for line in lines if line]
    else:
        rows = table(out)
    texts = [LEFT_TEXT[name](row) for row in rows]
    kept = texts[::2] if name == "kto" else texts
    assert [text.encode() for text in kept] == [text.encode() for text in BARE]


def test_raw_takes_no_filter(votes: Hand, tmp_path: Path) -> None:
    with pytest.raises(ExportError, match="takes no filter"):
        run(votes, tmp_path / "out", "raw", models=("lora",))


def test_no_format_tells_who_voted(votes: Hand, tmp_path: Path) -> None:
    names = [votes.voter(name) for name in "xy"]
    for name in [*FORMATS, "raw"]:
        run(votes, tmp_path / name, name)
        for path in (tmp_path / name).rglob("*"):
            if path.is_file():
                assert not [v for v in names if v.encode() in path.read_bytes()], path


@pytest.mark.slow
# TRL's own default sets an option that transformers has renamed.
@pytest.mark.filterwarnings("ignore:`gradient_checkpointing` is deprecated:FutureWarning")
def test_trl_takes_every_row_for_kto_and_for_a_reward_model(
    votes: Hand, tmp_path: Path, tiny_chat_model: Path
) -> None:
    """The real preprocessing of TRL's KTO and Reward trainers."""
    from datasets import load_dataset
    from trl import KTOConfig, KTOTrainer, RewardConfig, RewardTrainer

    common: dict[str, Any] = {"report_to": [], "use_cpu": True, "max_length": 2048}
    for name, trainer_of, config_of in (
        ("kto", KTOTrainer, KTOConfig),
        ("trl", RewardTrainer, RewardConfig),
    ):
        run(votes, tmp_path / name, name)
        rows = load_dataset(str(tmp_path / name), cache_dir=str(tmp_path / "cache"))["train"]
        trainer = trainer_of(
            model=str(tiny_chat_model),
            args=config_of(output_dir=str(tmp_path / "run"), **common),
            train_dataset=rows,
        )
        assert len(trainer.train_dataset) == len(rows) == {"kto": 8, "trl": 2}[name]


def test_datasets_opens_every_table_and_sheet(votes: Hand, tmp_path: Path) -> None:
    from datasets import load_dataset

    for name in (*COLUMNS, "kto", "trl", "csv"):
        run(votes, tmp_path / name, name)
        rows = load_dataset(str(tmp_path / name), cache_dir=str(tmp_path / "cache"))["train"]
        assert len(rows) == {"kto": 8, "trl": 2}.get(name, 4)
