"""Rows of published preference sets, column by column as they are published, and what they say."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest
from tuning_fixtures import write_rows

from tuning.data.preferences.load import read_preferences
from tuning.data.preferences.pairs import Preferences
from tuning.errors import TuningError


def read(path: Path, *rows: dict[str, Any]) -> Preferences:
    """What rows of a file say."""
    found = read_preferences([str(write_rows(path / "data.jsonl", list(rows)))])
    found.ledger.check()
    return found


def told(found: Preferences) -> list[tuple[str, str, str]]:
    """Last prompt, better and worse answer of each pair."""
    return [
        (pair.prompt[-1]["content"], pair.chosen[0]["content"], pair.rejected[0]["content"])
        for pair in found.pairs
    ]


def turns(*texts: str) -> list[dict[str, Any]]:
    return [{"role": ("user", "assistant")[i % 2], "content": t} for i, t in enumerate(texts)]


FLAGS = {
    "id": 30192,
    "model_a": "gpt-4-1106-preview",
    "model_b": "gpt-4-0613",
    "prompt": '["Is it morally right?", "OK, and now?"]',
    "response_a": '["It depends.", "Longer."]',
    "response_b": '["It depends.", null]',
    "winner_model_a": 1,
    "winner_model_b": 0,
    "winner_tie": 0,
}


def test_human_preference_55k_as_json_lines_and_csv(tmp_path: Path) -> None:
    second = {**FLAGS, "response_b": '["It depends.", "Short."]'}
    tie = {**second, "winner_model_a": 0, "winner_tie": 1}
    torn = {**second, "winner_model_b": 1}
    found = read(tmp_path, FLAGS, second, tie, torn)
    assert told(found) == [("OK, and now?", "Longer.", "Short.")]
    assert found.pairs[0].models == ("gpt-4-1106-preview", "gpt-4-0613")
    assert [message["content"] for message in found.pairs[0].prompt][:2] == [
        "Is it morally right?",
        "It depends.",
    ]
    assert found.ledger.left_out == {"empty answer": 1}
    assert len(found.ties) == 1
    assert "exactly one of the three winners must be 1" in str(found.ledger.bad_rows[0])
    path = tmp_path / "train.csv"
    with path.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, FLAGS)
        writer.writeheader()
        writer.writerows([second, tie])
    again = read_preferences([str(path)])
    assert told(again) == told(found)
    assert len(again.ties) == 1


def test_a_table_of_battles_takes_the_words_seen_in_the_wild(tmp_path: Path) -> None:
    row = {
        "prompt": "Hi?",
        "model_a": "x",
        "model_b": "y",
        "response_a": "one",
        "response_b": "two",
        "judge": "me",
    }
    words = ["Model_A", "rightvote", "-", "tie (bothgood)", "bothbad"]
    found = read(tmp_path, *({**row, "winner": word, "judge": word} for word in words))
    assert told(found) == [("Hi?", "one", "two"), ("Hi?", "two", "one")]
    assert [tie.both_bad for tie in found.ties] == [False, False, True]
    assert found.pairs[0].origin.voter == "Model_A"


VOTE = {
    "id": 7,
    "timestamp": "2024-10-14T11:23:41.563000",
    "model_a_name": "gemma-2-9b-it",
    "model_b_name": "mistral-nemo-2407",
    "model_pair_name": ["gemma-2-9b-it", "mistral-nemo-2407"],
    "chosen_model_name": "mistral-nemo-2407",
    "both_equal": False,
    "opening_msg": "Bonjour ?",
    "conversation_a": turns("Bonjour ?", "Salut."),
    "conversation_b": [
        {"role": "user", "content": "Bonjour ?", "metadata": None},
        {
            "role": "assistant",
            "content": "Bonjour !",
            "metadata": {"generation_id": "abc", "output_tokens": 12, "duration": 0.5},
        },
    ],
    "conv_turns": 1,
    "system_prompt_a": None,
    "system_prompt_b": None,
    "conversation_pair_id": "a-b",
    "session_hash": "5f",
    "visitor_id": "9c",
    "conv_useful_a": True,
    "conv_superficial_b": None,
    "conv_comments_a": None,
}


def test_votes_of_comparia(tmp_path: Path) -> None:
    equal = {**VOTE, "both_equal": True, "chosen_model_name": None, "visitor_id": "10"}
    nobody = {**VOTE, "chosen_model_name": "other"}
    found = read(tmp_path, VOTE, equal, nobody)
    assert told(found) == [("Bonjour ?", "Bonjour !", "Salut.")]
    assert found.pairs[0].models == ("mistral-nemo-2407", "gemma-2-9b-it")
    assert found.pairs[0].origin.voter == "9c"
    assert len(found.ties) == 1
    assert "'other' is neither of the two models" in str(found.ledger.bad_rows[0])
    other = {**VOTE, "system_prompt_a": "Be brief."}
    assert read(tmp_path, other).ledger.left_out == {"prompt differs": 1}


def test_reactions_of_comparia_are_labels(tmp_path: Path) -> None:
    row = {
        "timestamp": "2024-10-14T11:23:41",
        "model_a_name": "gemma-2-9b-it",
        "model_b_name": "mistral-nemo-2407",
        "refers_to_model": "gemma-2-9b-it",
        "model_pos": "a",
        "msg_index": 3,
        "msg_rank": 1,
        "opening_msg": "Bonjour ?",
        "conversation_a": turns("Bonjour ?", "Salut.", "Encore ?", "Oui."),
        "conversation_b": turns("Bonjour ?", "Bonjour !", "Encore ?", "Non."),
        "question_content": "Encore ?",
        "response_content": "Oui.",
        "liked": True,
        "disliked": False,
        "visitor_id": "9c",
        "useful": True,
    }
    neither = {**row, "liked": False}
    found = read(tmp_path, row, neither)
    (label,) = found.labelled
    assert (label.label, label.model) == (True, "gemma-2-9b-it")
    assert [message["content"] for message in label.prompt] == ["Bonjour ?", "Salut.", "Encore ?"]
    assert "neither liked nor disliked" in str(found.ledger.bad_rows[0])


def test_helpsteer_two_in_both_forms_and_three(tmp_path: Path) -> None:
    scores = {"correctness": 3, "coherence": 4, "complexity": 1, "verbosity": 1}
    rows = [
        {"prompt": "c#?", "response": "good", "helpfulness": 4, **scores},
        {"prompt": "c#?", "response": "poor", "helpfulness": 1, **scores},
        {"prompt": "same?", "response": "one", "helpfulness": 2, **scores},
        {"prompt": "same?", "response": "two", "helpfulness": 2, **scores},
        {"prompt": "alone?", "response": "one", "helpfulness": 2, **scores},
    ]
    found = read(tmp_path, *rows)
    assert told(found) == [("c#?", "good", "poor")]
    assert found.pairs[0].ratings == (4.0, 1.0)
    assert len(found.ties) == 1
    assert "only one answer to it" in str(found.ledger.bad_rows[0])
    second = {
        "split": "train",
        "prompt": "c#?",
        "response_1": "poor",
        "response_2": "good",
        "preference_strength": 3,
        "preference_statement": "Response 2 is much better",
        "preference_elaboration": "since",
    }
    third = {
        "domain": "general",
        "language": "english",
        "context": turns("c#?", "so", "more?"),
        "response1": "good",
        "response2": "poor",
        "overall_preference": -1,
        "individual_preference": [
            {"score": -1, "reasoning": "r", "feedback1": "", "feedback2": ""}
        ],
    }
    for row, prompt, strength in ((second, "c#?", 1.0), (third, "more?", 1 / 3)):
        found = read(tmp_path, row)
        assert told(found) == [(prompt, "good", "poor")]
        assert found.pairs[0].strength == pytest.approx(strength)
    assert len(read(tmp_path, {**third, "overall_preference": 0}).ties) == 1
    assert read(tmp_path, {**third, "overall_preference": 4}).ledger.bad_rows


def test_rankings_make_all_pairs_that_weigh_as_one_judgement(tmp_path: Path) -> None:
    nectar = {
        "prompt": "\n\nHuman: 0.002 = 1000 \n1 = x?\n\nAssistant: ",
        "answers": [
            {"answer": "second", "model": "gpt-4", "rank": 2.0},
            {"answer": "first", "model": "claude", "rank": 1.0},
            {"answer": "third", "model": "llama", "rank": 3.0},
        ],
        "turns": 1,
        "num_responses": 3,
        "source": ["lmsys-chat-1m"],
        "good_natured": True,
    }
    found = read(tmp_path, nectar)
    asked = "0.002 = 1000 \n1 = x?"
    assert set(told(found)) == {
        (asked, "first", "second"),
        (asked, "second", "third"),
        (asked, "first", "third"),
    }
    assert sum(pair.weight for pair in found.pairs) == pytest.approx(2.0)
    feedback = {
        "source": "evol_instruct",
        "instruction": "Why?",
        "models": ["a", "b", "c"],
        "completions": [
            {"model": "a", "response": "well", "overall_score": 8.0, "critique": "…"},
            {"model": "b", "response": "ill", "overall_score": 2.5, "critique": "…"},
            {"model": "c", "response": "good", "overall_score": 8.0, "critique": "…"},
        ],
        "correct_answers": ["None"],
        "incorrect_answers": ["None"],
    }
    found = read(tmp_path, feedback)
    assert set(told(found)) == {("Why?", "well", "ill"), ("Why?", "good", "ill")}
    assert len(found.ties) == 1


def message(
    name: str, parent: str | None, role: str, text: str, rank: int | None
) -> dict[str, Any]:
    """A row of OpenAssistant."""
    return {
        "message_id": name,
        "parent_id": parent,
        "user_id": "u",
        "created_date": "2023-02-05T14:23:50.983374+00:00",
        "text": text,
        "role": role,
        "lang": "en",
        "review_count": 3,
        "review_result": True,
        "deleted": False,
        "rank": rank,
        "synthetic": False,
        "model_name": None,
        "detoxify": {"toxicity": 0.1},
        "message_tree_id": "q",
        "tree_state": "ready_for_export",
        "emojis": {"name": ["+1"], "count": [1]},
        "labels": {"name": ["spam"], "value": [0.0], "count": [3]},
    }


def test_trees_of_openassistant_flat_and_nested(tmp_path: Path) -> None:
    flat = [
        message("q", None, "prompter", "Why?", None),
        message("b", "q", "assistant", "Since.", 1),
        message("a", "q", "assistant", "Because.", 0),
        message("n", "a", "prompter", "And?", None),
        message("y", "n", "assistant", "So.", 0),
        message("z", "n", "assistant", "Hm.", 1),
    ]
    expected = [("Why?", "Because.", "Since."), ("And?", "So.", "Hm.")]
    found = read(tmp_path, *flat)
    assert told(found) == expected
    assert [m["content"] for m in found.pairs[1].prompt] == ["Why?", "Because.", "And?"]
    by_id = {row["message_id"]: {**row, "replies": []} for row in flat}
    for row in flat[1:]:
        by_id[row["parent_id"]]["replies"].append(by_id[row["message_id"]])
    tree = {"message_tree_id": "q", "tree_state": "ready_for_export", "prompt": by_id["q"]}
    assert told(read(tmp_path, tree)) == expected
    lost = read(tmp_path, flat[0], {**flat[1], "parent_id": "gone"})
    assert len(lost.ledger.bad_rows) == 2
    assert "is no message of the tree" in str(lost.ledger.bad_rows[0])


@pytest.mark.parametrize("time", [1_700_000_000_000, "1700000000000", "noon", True, [1]])
def test_a_time_that_is_none_is_the_rows_error(time: object, tmp_path: Path) -> None:
    found = read(tmp_path, {**VOTE, "timestamp": time}, VOTE)
    assert [bad.field for bad in found.ledger.bad_rows] == ["timestamp"]


def test_a_format_may_be_named_and_an_odd_column_is_refused(tmp_path: Path) -> None:
    with pytest.raises(TuningError, match="column mood holds 'good', which nothing of format 55k"):
        read(tmp_path, {**FLAGS, "mood": "good"})
    path = tmp_path / "one.json"
    path.write_text(json.dumps([FLAGS]))
    assert read_preferences([str(path)]).ledger.rows_read == 1
