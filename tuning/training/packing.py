"""Tries, before a packed run, whether the model keeps rows of one sequence apart.

transformers tells rows apart by positions that start again, which some architectures do not look
at: their rows then read each other, and nothing says so. Knows logits; knows no architecture.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from tuning.data.batching import Plan
from tuning.data.encode import TokenRow
from tuning.errors import TuningError, is_out_of_memory

# Largest difference of logits, relative to the largest, that rounding can make.
ROUNDING = 1e-4
ROUNDING_OF_HALF = 5e-2
# With another row of the same length before it a row goes through the very same sums, so that
# here half precision leaves hardly more of a difference than fp32 does.
ROUNDING_OF_CHANGE = 1e-3


class PackingError(TuningError):
    """A model whose packed rows reach each other."""


def check_packing(model: Any, rows: Sequence[TokenRow], plan: Plan) -> None:
    """Compare two rows of the shortest pack of the plan, packed and alone; nothing if none is.

    PackingError when the second row's logits are other ones behind the first row, or change with
    it, by more than rounding.
    """
    packs = [pack for pack in set(plan.sequences) if len(pack) > 1]
    if not packs:
        return
    pack = min(packs, key=lambda pack: (sum(len(rows[row]) for row in pack), pack))
    first, second = rows[pack[0]].ids, rows[pack[1]].ids
    was_training = model.training
    model.eval()
    try:
        alone = _last_logits(model, second)
        behind = _last_logits(model, first, second)
        changed = _last_logits(model, first[::-1], second)
    except Exception as error:  # an architecture may fail in any way of its own
        if is_out_of_memory(error):
            raise
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise _refusal(model, f"takes no packed rows ({reason})") from error
    finally:
        model.train(was_training)
    half = next(model.parameters()).dtype != torch.float32
    largest = float(alone.abs().max())
    own = float((behind - alone).abs().max()) / largest
    moved = float((behind - changed).abs().max()) / largest
    if not own <= (ROUNDING_OF_HALF if half else ROUNDING):
        raise _refusal(model, f"gives a packed row logits that differ by {own:.2g} of the largest")
    if not moved <= (ROUNDING_OF_CHANGE if half else ROUNDING):
        raise _refusal(model, f"moves them by {moved:.2g} of the largest when another row changes")


@torch.no_grad()
def _last_logits(model: Any, *rows: NDArray[np.int32]) -> torch.Tensor:
    """Logits of shape (length of the last row, vocabulary) with all rows in one sequence."""
    ids = torch.from_numpy(np.concatenate(rows).astype(np.int64))[None].to(model.device)
    extra = {}
    if len(rows) > 1:
        positions = np.concatenate([np.arange(len(row)) for row in rows])
        extra["position_ids"] = torch.from_numpy(positions)[None].to(model.device)
    logits: torch.Tensor = model(input_ids=ids, use_cache=False, **extra).logits
    return logits[0, -len(rows[-1]) :].float()


def _refusal(model: Any, what: str) -> PackingError:
    base = model.get_base_model() if hasattr(model, "get_base_model") else model
    return PackingError(
        f"training.packing: {type(base).__name__} does not keep the rows of a pack apart: it "
        f"{what}; set training.packing=false"
    )
