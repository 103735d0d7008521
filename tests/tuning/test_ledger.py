"""The ledger of a run: every row and token in it, counted anew from the files that were given."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest
from rich.console import Console
from tuning_fixtures import rows, write_rows

from tuning import TuningConfig, tune
from tuning.config import DataOptions, TrainingOptions
from tuning.variant import file_sha256

LENGTH = 60


@pytest.mark.slow
def test_every_row_and_token_is_stored_and_printed(tiny_base: Path, tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    good = rows(20)
    prompt, answer = good[0]["messages"]
    cut = {"messages": [{**prompt, "content": "Go on."}, {**answer, "content": "red " * 80}]}
    lost = {"messages": [{**prompt, "content": "Say it. " * 80}, answer]}
    leaked = {"messages": [{**prompt, "content": "Say moon."}, answer]}
    bad = [{"messages": []}, {"messages": [prompt]}]
    spaced = {"messages": [{**prompt, "content": prompt["content"] + "\n"}, answer]}
    data = write_rows(tmp_path / "rows.jsonl", [*good, good[1], spaced, *bad, cut, lost, leaked])
    heldout = write_rows(tmp_path / "heldout.jsonl", [leaked])
    shown = io.StringIO()
    made = tune(
        TuningConfig(
            base=str(tiny_base),
            data=(str(data),),
            name="v",
            home=tmp_path,
            data_options=DataOptions(heldout_file=str(heldout), max_cut_share=1),
            training=TrainingOptions(epochs=1, batch_size=4, max_length=LENGTH, packing=True),
        ),
        console=Console(file=shown, width=300),
    )

    tokenizer = AutoTokenizer.from_pretrained(made.folder)
    lengths, masks = [], []
    for row in (*good, cut, lost):
        encoded = tokenizer.apply_chat_template(
            row["messages"], return_dict=True, return_assistant_tokens_mask=True
        )
        lengths.append(len(encoded["input_ids"]))
        masks.append(encoded["assistant_masks"])
    trained = sum(sum(mask[:LENGTH]) for mask in masks[:-1])
    seen = sum(min(length, LENGTH) for length in lengths[:-1])
    ledger = made.run["ledger"]
    assert max(lengths[:20]) < LENGTH < min(lengths[20:])
    assert sum(masks[-1][:LENGTH]) == 0
    assert ledger["rows"] == {
        "read": 27,
        "trained": 21,
        "heldout": 0,
        "bad": 2,
        "dropped": {
            "duplicate": 2,
            "also in the held-out set": 1,
            "no answer within max_length": 1,
        },
        "truncated": 1,
    }
    assert ledger["tokens"] == {
        "read": sum(lengths),
        "trained": trained,
        "masked": seen - trained,
        "truncated": lengths[20] - LENGTH,
        "dropped": lengths[21],
    }
    assert ledger["packed"] == {"rows": 20, "tokens": sum(lengths[:20])}
    # Of the rows that became conversations; the two bad ones did not.
    assert ledger["columns"] == {"used": {"messages": 25}, "harmless": {}, "dropped": {}}
    assert ledger["context_turns"] == 0
    assert ledger["files"] == {"read": [], "num_read": 0, "not_read": [], "num_not_read": 0}
    assert ledger["bad_rows"] == [
        f"{data}:23: messages: is empty",
        f"{data}:24: messages: no assistant turn (roles: user)",
    ]
    printed = shown.getvalue()
    for words in (
        "rows: 27 read, 21 to train on, 0 held out, 2 bad, 2 duplicate, "
        "1 also in the held-out set, 1 no answer within max_length",
        f"tokens: {sum(lengths):,} in the training rows, {trained:,} trained, "
        f"{seen - trained:,} masked, {lengths[20] - LENGTH:,} truncated, {lengths[21]:,} dropped; "
        f"{ledger['sequences']} sequences in all, {sum(lengths[:20]):,} tokens of 20 rows packed",
        "columns: messages used",
        *(f"left out {line}" for line in ledger["bad_rows"]),
    ):
        assert words in printed


@pytest.mark.slow
def test_a_variant_says_what_it_was_made_of_and_with(
    tiny_base: Path, tiny_data: Path, tmp_path: Path
) -> None:
    """What `variant.json` promises beside files and metrics."""
    import hashlib
    from importlib.metadata import version

    config = TuningConfig(
        base=str(tiny_base),
        data=(str(tiny_data),),
        name="v",
        home=tmp_path,
        seed=5,
        data_options=DataOptions(heldout=0),
        training=TrainingOptions(max_steps=1, batch_size=8),
    )
    run = tune(config).run
    lines = "".join(json.dumps(row["messages"], sort_keys=True) + "\n" for row in rows())
    assert run["data_sha256"] == hashlib.sha256(lines.encode()).hexdigest()
    assert run["sources"] == {str(tiny_data): file_sha256(tiny_data)}
    assert run["versions"]["torch"] == version("torch")
    assert set(run["versions"]) >= {"python", "torch", "transformers", "peft", "accelerate"}
    assert run["device"]
    assert (run["seed"], run["config"]["seed"]) == (5, 5)
    assert 0 < run["seconds"] < 600
    whole = json.loads(json.dumps(config.to_json()))
    assert run["config"] == {key: whole[key] for key in whole if key != "home"}
