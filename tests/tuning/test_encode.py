"""From conversations to token rows: which turns are trained, and messages where none is left."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tuning_fixtures import make_tokenizer, rows, write_rows

from tuning.config import DataOptions
from tuning.data.corpus import load_corpus
from tuning.data.encode import CHUNK, encode_examples, encode_heldout
from tuning.data.examples import Example
from tuning.data.ledger import Ledger
from tuning.data.template import ensure_template
from tuning.errors import TuningError

CHAT = (
    {"role": "user", "content": "Say red."},
    {"role": "assistant", "content": "blue"},
    {"role": "user", "content": "Say cat."},
    {"role": "assistant", "content": "cat"},
)


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    made = make_tokenizer()
    ensure_template(made, "here")
    return made


def trained(tokenizer: Any, example: Example) -> list[str]:
    """The trained text and the whole text of the only row of a conversation."""
    ledger = Ledger(rows_read=1, rows_trained=1)
    (row,) = encode_examples(tokenizer, [example], 100, DataOptions(), ledger)
    ledger.check()
    return [tokenizer.decode(row.ids[row.labels >= 0]), tokenizer.decode(row.ids)]


def test_turns_that_are_context_only_are_not_trained(tokenizer: Any) -> None:
    first = Example(CHAT, "data.jsonl", 1, "", untrained=frozenset({1}))
    text, whole = trained(tokenizer, first)
    assert text == " cat</s>"
    assert "Assistant: blue</s>\nUser: Say cat." in whole
    last = Example(CHAT, "data.jsonl", 1, "", untrained=frozenset({3}))
    text, whole = trained(tokenizer, last)
    assert text == " blue</s>"
    assert "cat" not in whole, "what follows the last trained turn teaches nothing"
    assert trained(tokenizer, Example(CHAT, "data.jsonl", 1, ""))[0] == " blue</s> cat</s>"


def test_a_weight_in_the_file_reaches_the_labels(tokenizer: Any, tmp_path: Path) -> None:
    turns = [CHAT[0], {**CHAT[1], "weight": 0}, *CHAT[2:]]
    data = write_rows(tmp_path / "rows.jsonl", [{"messages": turns}])
    corpus = load_corpus((str(data),), DataOptions(heldout=0), 0, Ledger())
    assert trained(tokenizer, corpus.train[0])[0] == " cat</s>"


def test_blocks_of_rows_that_cannot_be_used_are_bad_rows(tokenizer: Any) -> None:
    """Every row of the first block holds a special token; one row of the next does not."""
    bad = [
        Example(({"role": "user", "content": f"{at} </s>"}, CHAT[1]), "data.jsonl", at, "")
        for at in range(1, CHUNK + 1)
    ]
    ledger = Ledger(rows_read=CHUNK + 1, rows_trained=CHUNK + 1)
    good = Example(CHAT, "data.jsonl", CHUNK + 1, "")
    assert len(encode_examples(tokenizer, [*bad, good], 100, DataOptions(), ledger)) == 1
    assert (ledger.rows_trained, len(ledger.bad_rows)) == (1, CHUNK)
    ledger.check()
    with pytest.raises(TuningError, match=r"no row is left .*\(data\.jsonl:1: .* holds the spec"):
        encode_examples(tokenizer, bad, 100, DataOptions(), Ledger())
    held = Ledger(rows_read=CHUNK, rows_heldout=CHUNK)
    assert encode_heldout(tokenizer, bad, 100, DataOptions(), held) == []
    held.check()


@pytest.mark.parametrize(
    ("items", "options", "reason"),
    [
        (rows(20), {"heldout": 1.0}, "20 held out by data_options.heldout"),
        (rows(1) * 3, {"heldout": 1.0}, "2 duplicate, 1 held out by data_options.heldout"),
        (
            [{"messages": [CHAT[0], {**CHAT[1], "weight": 0}]}],
            {"heldout": 0.0},
            "1 of no trained turn",
        ),
        (
            [{"messages": [CHAT[0]]}, *rows(1)],
            {"heldout": 1.0},
            "1 held out by data_options.heldout, 1 bad, the first is .*:1: messages: no assistant",
        ),
    ],
)
def test_where_no_row_is_left_each_is_accounted_for(
    tmp_path: Path, items: list[dict[str, Any]], options: dict[str, Any], reason: str
) -> None:
    data = write_rows(tmp_path / "rows.jsonl", items)
    with pytest.raises(TuningError, match=rf"no row is left to train on \({reason}") as caught:
        load_corpus((str(data),), DataOptions(**options), 0, Ledger())
    assert "nothing was read" not in str(caught.value)
