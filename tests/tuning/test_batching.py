"""The plan of a run, packing and padding: nothing lost, nothing seen across rows."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tuning_fixtures import make_model

from tuning.data.batching import Collator, PlannedRows, pack_rows, plan_run
from tuning.data.encode import IGNORED, TokenRow
from tuning.fused.loss import label_loss

LENGTHS = st.lists(st.integers(2, 40), min_size=1, max_size=80)


def token_row(length: int, seed: int, start: int = 1) -> TokenRow:
    """Random ids; labels from `start` on."""
    ids = np.random.default_rng(seed).integers(2, 300, length).astype(np.int32)
    labels = ids.copy()
    labels[:start] = IGNORED
    return TokenRow(ids, labels, seed)


@given(lengths=LENGTHS, seed=st.integers(0, 5))
def test_packs_hold_every_row_once(lengths: list[int], seed: int) -> None:
    rows = list(np.random.default_rng(seed).permutation(len(lengths)))
    packs = pack_rows(rows, lengths, 40)
    assert sorted(row for pack in packs for row in pack) == sorted(rows)
    assert all(sum(lengths[row] for row in pack) <= 40 for pack in packs)


@given(lengths=LENGTHS, epochs=st.sampled_from([1.0, 2.0, 3.5]), packed=st.booleans())
def test_plan_sees_every_row_once_an_epoch(lengths: list[int], epochs: float, packed: bool) -> None:
    order = range(len(lengths))
    plan = plan_run(
        lengths,
        order,
        epochs=epochs,
        max_steps=None,
        batch=4,
        seed=0,
        pack_length=40 if packed else None,
    )
    seen = [row for pack in plan.sequences for row in pack]
    counts = [seen.count(row) for row in order]
    assert min(counts) >= int(epochs)
    assert max(counts) <= int(epochs) + (epochs > int(epochs))
    assert sum(counts) == int(epochs) * len(lengths) + (
        max(1, round((epochs % 1) * len(lengths))) if epochs % 1 else 0
    )


def test_plan_is_repeatable_and_bounded() -> None:
    settings: dict[str, Any] = {"epochs": 3, "batch": 4, "seed": 1}
    lengths = [5 + i % 7 for i in range(50)]
    first = plan_run(lengths, range(50), max_steps=None, **settings)
    assert first == plan_run(lengths, range(50), max_steps=None, **settings)
    assert first.num_steps == 38
    short = plan_run(lengths, range(50), max_steps=5, **settings)
    assert short.sequences == first.sequences[:20]
    assert short.num_steps == 5


def test_like_lengths_share_a_batch() -> None:
    lengths = list(np.random.default_rng(0).integers(5, 100, 400))
    plan = plan_run(lengths, range(400), epochs=1, max_steps=None, batch=8, seed=0)
    padded = 0
    for start in range(0, 400, 8):
        batch = [lengths[pack[0]] for pack in plan.sequences[start : start + 8]]
        padded += max(batch) * 8
    assert sum(lengths) / padded > 0.93


@pytest.mark.parametrize("kind", ["llama", "gpt2", "qwen2"])
@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_packed_rows_do_not_see_each_other(kind: str, attention: str) -> None:
    """Each row's logits in a pack equal its logits alone."""
    model = make_model(kind, 300).eval()
    model.set_attn_implementation(attention)
    rows = [token_row(length, seed) for seed, length in enumerate((7, 12, 5, 9))]
    batch = Collator(pad_id=1, packed=True)([rows[:3], rows[3:]])
    with torch.no_grad():
        packed = model(
            input_ids=batch["input_ids"], position_ids=batch["position_ids"], use_cache=False
        ).logits
        at = 0
        for index, row in enumerate(rows):
            line, start = (0, at) if index < 3 else (1, 0)
            alone = model(input_ids=torch.from_numpy(row.ids.astype(np.int64))[None]).logits[0]
            difference = (packed[line, start : start + len(row)] - alone).abs().max()
            assert difference < 1e-5, (index, difference)
            at += len(row)


@pytest.mark.parametrize("kind", ["llama", "gpt2", "qwen2"])
def test_loss_of_padded_packed_and_single_rows_agree(kind: str) -> None:
    """The loss over label positions equals transformers' own loss of each row alone."""
    model = make_model(kind, 300).eval()
    rows = [token_row(length, seed, start=3) for seed, length in enumerate((7, 12, 5, 9))]
    expected, count = 0.0, 0
    with torch.no_grad():
        for row in rows:
            ids = torch.from_numpy(row.ids.astype(np.int64))[None]
            labels = torch.from_numpy(row.labels.astype(np.int64))[None]
            expected += float(model(input_ids=ids, labels=labels).loss) * row.num_trained
            count += row.num_trained
        padded, items = label_loss(model, Collator(pad_id=1)([[row] for row in rows]))
        packed, again = label_loss(model, Collator(pad_id=1, packed=True)([rows[:2], rows[2:]]))
        wide = Collator(pad_id=1, packed=True, step=32, most=64)([rows[:2], rows[2:]])
        widened, as_many = label_loss(model, wide)
    assert int(items) == int(again) == int(as_many) == count
    assert wide["input_ids"].shape == (2, 32)
    assert float(padded) == pytest.approx(expected, rel=1e-5)
    assert float(packed) == pytest.approx(expected, rel=1e-5)
    assert float(widened) == pytest.approx(expected, rel=1e-5)


def test_padding_carries_no_label_even_when_pad_is_eos() -> None:
    row = token_row(5, 0)
    row.labels[-1] = row.ids[-1] = 1
    batch = Collator(pad_id=1)([[row], [token_row(9, 1)]])
    assert batch["labels"][0].tolist()[4:] == [1, -100, -100, -100, -100]
    assert batch["input_ids"][0].tolist()[4:] == [1, 1, 1, 1, 1]


@pytest.mark.parametrize(
    ("longest", "step", "most", "width"),
    [
        *((9, 1, 64, 9), (9, 32, 99, 16), (16, 32, 99, 16), (17, 32, 99, 32), (17, 32, 20, 20)),
        *((64, 32, 99, 64), (65, 32, 99, 96), (97, 32, 99, 99)),
    ],
)
def test_width_is_a_multiple_that_the_model_has_positions_for(
    longest: int, step: int, most: int, width: int
) -> None:
    rows = [[token_row(longest, 0)], [token_row(4, 1)]]
    batch = Collator(pad_id=1, step=step, most=most)(rows)
    assert batch["input_ids"].shape == batch["labels"].shape == (2, width)
    assert int((batch["labels"] != -100).sum()) == int(
        (Collator(pad_id=1)(rows)["labels"] != -100).sum()
    )


def test_planned_rows_give_packs() -> None:
    rows = [token_row(4, seed) for seed in range(6)]
    plan = plan_run([4] * 6, range(6), epochs=1, max_steps=None, batch=2, seed=0, pack_length=8)
    data = PlannedRows(rows, plan)
    assert len(data) == 3
    assert sorted(row.example for index in range(3) for row in data[index]) == list(range(6))
