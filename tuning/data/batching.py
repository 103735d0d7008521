"""Decides which rows meet in which step, and lays them out as tensors.

The whole order of a run is planned before it starts, from the lengths and the seed alone, so
that a resumed run, a reproduced one and one on several processes see the same rows at the same
step. Knows lengths and ids; knows no model.
"""

from __future__ import annotations

import bisect
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from tuning.data.encode import IGNORED, TokenRow
from tuning.data.ledger import Ledger

MEGABATCH = 24
Pack = tuple[int, ...]


@dataclass(frozen=True)
class Plan:
    """The sequences of a run in their order; each is the positions of one or more rows."""

    sequences: tuple[Pack, ...]
    batch: int
    """Sequences of one optimizer step, over all processes and accumulated batches."""

    @property
    def num_steps(self) -> int:
        """Optimizer steps in the plan."""
        return -(-len(self.sequences) // self.batch)

    def count(self, ledger: Ledger, lengths: Sequence[int]) -> None:
        """Write into `ledger` how many sequences the run has, and what in them is packed."""
        packed = [pack for pack in self.sequences if len(pack) > 1]
        ledger.sequences = len(self.sequences)
        ledger.rows_packed = sum(map(len, packed))
        ledger.tokens_packed = sum(lengths[row] for pack in packed for row in pack)


def plan_run(
    lengths: Sequence[int],
    order: Sequence[int],
    *,
    epochs: float,
    max_steps: int | None,
    batch: int,
    seed: int,
    pack_length: int | None = None,
) -> Plan:
    """Plan `epochs` passes over `order` (positions into `lengths`), at most `max_steps` steps.

    Rows of like length share a batch, so that little is padded, and batches come in random
    order. With `pack_length` rows are first joined into packs, anew for every epoch.
    """
    wanted: list[Pack] = []
    carried: list[Pack] = []
    whole, part = int(epochs), epochs - int(epochs)
    for epoch in range(whole + (part > 0)):
        generator = np.random.default_rng([seed, epoch])
        rows = [order[i] for i in generator.permutation(len(order))]
        if epoch == whole:
            rows = rows[: max(1, round(part * len(rows)))]
        packs: list[Pack] = [(row,) for row in rows]
        if pack_length is not None:
            packs = pack_rows(rows, lengths, pack_length)
            packs = [packs[i] for i in generator.permutation(len(packs))]
        batches, carried = _batches([*carried, *packs], lengths, batch, generator)
        wanted.extend(pack for group in batches for pack in group)
        if max_steps is not None and len(wanted) >= max_steps * batch:
            return Plan(tuple(wanted[: max_steps * batch]), batch)
    wanted.extend(carried)
    return Plan(tuple(wanted), batch)


def _batches(
    packs: list[Pack], lengths: Sequence[int], batch: int, generator: np.random.Generator
) -> tuple[list[list[Pack]], list[Pack]]:
    """Full batches of like lengths in random order, and the rest, which the next epoch takes."""
    full = len(packs) - len(packs) % batch
    batches: list[list[Pack]] = []
    for start in range(0, full, MEGABATCH * batch):
        group = packs[start : min(start + MEGABATCH * batch, full)]
        group.sort(key=lambda pack: sum(lengths[row] for row in pack))
        batches.extend(group[i : i + batch] for i in range(0, len(group), batch))
    return [batches[i] for i in generator.permutation(len(batches))], packs[full:]


def pack_rows(rows: Sequence[int], lengths: Sequence[int], limit: int) -> list[Pack]:
    """Join rows into packs of at most `limit` tokens, longest first into the tightest space.

    Every row is in exactly one pack; a row longer than `limit` is an error of the caller.
    """
    packs: list[list[int]] = []
    spaces: list[tuple[int, int]] = []
    for row in sorted(rows, key=lambda row: -lengths[row]):
        assert lengths[row] <= limit, (lengths[row], limit)
        found = bisect.bisect_left(spaces, (lengths[row], -1))
        if found == len(spaces):
            packs.append([row])
            space, pack = limit - lengths[row], len(packs) - 1
        else:
            space, pack = spaces.pop(found)
            packs[pack].append(row)
            space -= lengths[row]
        if space:
            bisect.insort(spaces, (space, pack))
    return [tuple(pack) for pack in packs]


class PlannedRows(torch.utils.data.Dataset[list[TokenRow]]):
    """The sequences of a plan as a data set; an item is the rows that share one sequence."""

    def __init__(self, rows: Sequence[TokenRow], plan: Plan) -> None:
        self.rows = rows
        self.plan = plan

    def __len__(self) -> int:
        return len(self.plan.sequences)

    def __getitem__(self, index: int) -> list[TokenRow]:
        return [self.rows[row] for row in self.plan.sequences[index]]


@dataclass(frozen=True)
class Collator:
    """Pads on the right. No attention mask is made: a causal model never looks right of a label.

    With `packed`, `position_ids` start again at each row, by which transformers keeps rows apart;
    padding is a row of its own there. The width is a multiple of `step`, or of half of it
    where rows are short, but at most `most`.
    """

    pad_id: int
    packed: bool = False
    step: int = 1
    most: int = 0

    def __call__(self, items: Sequence[Sequence[TokenRow]]) -> dict[str, torch.Tensor]:
        """Tensors `input_ids`, `labels` of shape (batch, width); `examples` of shape (batch,)."""
        longest = max(sum(len(row) for row in item) for item in items)
        step = self.step if longest > 2 * self.step else max(1, self.step // 2)
        width = max(longest, min(-(-longest // step) * step, self.most))
        ids = np.full((len(items), width), self.pad_id, dtype=np.int64)
        labels = np.full((len(items), width), IGNORED, dtype=np.int64)
        positions = np.zeros((len(items), width), dtype=np.int64)
        for index, item in enumerate(items):
            at = 0
            for row in item:
                end = at + len(row)
                ids[index, at:end] = row.ids
                labels[index, at + 1 : end] = row.labels[1:]
                positions[index, at:end] = np.arange(len(row))
                at = end
            positions[index, at:] = np.arange(width - at)
        batch = {
            "input_ids": torch.from_numpy(ids),
            "labels": torch.from_numpy(labels),
            "examples": torch.tensor([item[0].example for item in items]),
        }
        if self.packed:
            batch["position_ids"] = torch.from_numpy(positions)
        return batch
