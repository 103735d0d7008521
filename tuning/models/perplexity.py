"""How likely a model finds plain texts; knows no suite and no instruction."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from tuning.errors import TuningError
from tuning.models.generate import context_of

LONGEST = 1024  # tokens read of a document where the model sets no limit


class LikelihoodError(TuningError):
    """A model that gives no numbers, or texts that hold nothing to predict."""


@torch.no_grad()
def document_loss(model: Any, tokenizer: Any, documents: Sequence[str]) -> float:
    """Mean nats per token of plain documents, each read from its start as far as the model reads.

    Its exponential is the perplexity. The model has to be in evaluation mode.
    """
    total, count = 0.0, 0
    limit = context_of(model) or LONGEST
    for document in documents:
        ids = tokenizer(document, return_tensors="pt")["input_ids"][:, :limit].to(model.device)
        if ids.shape[1] < 2:
            continue
        logits = model(input_ids=ids, use_cache=False).logits
        scores = logits[0, -ids.shape[1] :][:-1].float()
        total += float(torch.nn.functional.cross_entropy(scores, ids[0, 1:], reduction="sum"))
        count += ids.shape[1] - 1
    if not count or not abs(total) < float("inf"):
        raise LikelihoodError(
            f"plain text: its loss is {total} over {count} tokens; verify the model and its texts"
        )
    return total / count
