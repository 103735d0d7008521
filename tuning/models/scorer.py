"""Reward models in memory: loaded, and asked what they think of an answer.

A score is what the head makes of the hidden state at the token that ends the answer, which is the
last one that is no padding. Knows messages, templates and models; knows no run.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from tuning.data.fields import Message, texts_of
from tuning.data.rendering import TemplateError
from tuning.data.template import render_training
from tuning.errors import TuningError
from tuning.models.loading import find_base, load_reported
from tuning.models.peft_adapters import put_on
from tuning.models.resolve import BaseError, resolve_base
from tuning.variant.checkpoint import positions_of, refuse_missing
from tuning.variant.folder import Variant, read_variant

if TYPE_CHECKING:
    from tuning.fused.model import Lean

HEAD = "score.weight"
BATCH_TOKENS = 8192


class ScoreError(TuningError):
    """An answer that a reward model cannot score; names the row and the remedy."""


def pick_pad(tokenizer: Any, stops: Sequence[int], vocabulary: int) -> int:
    """Id of a token to pad with that ends no answer: a special one, or one to be added.

    With the token that ends an answer as padding, the last one that is no padding would be the
    token before the end, and an answer that was cut off would look like one that ended. BaseError
    where the tokenizer has no other special token, and the model no embedding for a new one.
    """
    ends = {*stops, tokenizer.eos_token_id}
    named = (tokenizer.pad_token_id, tokenizer.unk_token_id, tokenizer.bos_token_id)
    added = [id_ for id_, token in tokenizer.added_tokens_decoder.items() if token.special]
    for token in (*named, *sorted(added)):
        if token is not None and token not in ends and token < vocabulary:
            return int(token)
    if len(tokenizer) >= vocabulary:
        raise BaseError(
            f"base: {tokenizer.eos_token!r}, which ends an answer, is the tokenizer's only special "
            "token, and the model has no embedding for another to pad with; give a base with a "
            "pad token of its own"
        )
    tokenizer.add_special_tokens({"pad_token": "<|pad|>"})
    return int(tokenizer.pad_token_id)


def load_head(
    folder: Path, pad_id: int, *, dtype: torch.dtype, attention: str | None = None
) -> Any:
    """The checkpoint in `folder` with a scalar head: its own, or one of random numbers.

    BaseError where its architecture has no form with a head, or it does not fill the model.
    """
    from transformers import AutoModelForSequenceClassification

    model, loading = load_reported(
        AutoModelForSequenceClassification,
        folder,
        (
            "with a head that scores",
            "one of an architecture that transformers knows for sequence classification",
        ),
        dtype=dtype,
        attention=attention,
        num_labels=1,
        pad_token_id=pad_id,
    )
    loading["missing_keys"] = {key for key in loading["missing_keys"] if not _is_head(key)}
    loading["unexpected_keys"] = {
        key for key in loading["unexpected_keys"] if not key.startswith("lm_head.")
    }
    refuse_missing(folder, loading)
    # Some architectures read the padding from the text's part of the config.
    model.config.get_text_config().pad_token_id = pad_id
    return model


def _is_head(key: str) -> bool:
    return key == HEAD or key.endswith(f".{HEAD}")


def score_ids(model: Any, ids: torch.Tensor, pad_id: int, lean: Lean | None = None) -> torch.Tensor:
    """Scores of shape (rows,) in fp32 of `ids` of shape (rows, width), padded on the right.

    No mask is made: a causal model never looks right of the last token. `lean` is what
    `tuning.fused.model` made of the model.
    """
    keep = torch.zeros_like(ids, dtype=torch.bool)
    places = torch.arange(ids.shape[1], device=ids.device)
    last = ((ids != pad_id) * places).argmax(1)
    keep[torch.arange(len(ids), device=ids.device), last] = True
    with nullcontext() if lean is None else lean.scoring(keep, ids.new_empty(0)):
        scores: torch.Tensor = model(input_ids=ids, use_cache=False).logits
    return scores[:, 0].float()


@dataclass(frozen=True)
class Scorer:
    """A reward model ready to score; `most` is its longest row in tokens."""

    variant: Variant
    model: Any
    tokenizer: Any
    most: int

    @property
    def pad_id(self) -> int:
        """The token that rows are padded with."""
        return int(self.model.config.get_text_config().pad_token_id)

    def scores(self, rows: Sequence[tuple[Sequence[Message], Sequence[Message]]]) -> list[float]:
        """A score for each (prompt, completion) of messages, in order; higher is better.

        ScoreError names the first row that cannot be scored.
        """
        return self.scores_of_ids(
            [self.encode(*row, where=f"row {at}") for at, row in enumerate(rows, 1)]
        )

    def encode(
        self, prompt: Sequence[Message], completion: Sequence[Message], where: str = "row"
    ) -> list[int]:
        """Ids of a prompt and its completion, up to the token that ends it, as in training.

        ScoreError, as of `ids_of`, and for a row that is longer than the model's context.
        """
        ids = self.ids_of(prompt, completion, where)
        if len(ids) > self.most:
            raise ScoreError(
                f"{where}: prompt and completion are {len(ids):,} tokens, of which "
                f"{self.variant.name} reads at most {self.most:,}; shorten them"
            )
        return ids

    def ids_of(
        self, prompt: Sequence[Message], completion: Sequence[Message], where: str
    ) -> list[int]:
        """Ids of a row of any length; ScoreError for what is no row of training."""
        messages = [*prompt, *completion]
        special = {
            str(token) for token in self.tokenizer.added_tokens_decoder.values() if token.special
        }
        texts = [text for message in messages for text in texts_of(message)]
        if found := sorted(token for token in special if any(token in text for text in texts)):
            raise ScoreError(
                f"{where}: holds the special token {found[0]!r}, which would be taken for the real "
                "one; leave it out"
            )
        before = frozenset(range(len(messages) - 1))
        try:
            (span,) = render_training(self.tokenizer, [messages], untrained=[before])[0]
        except TemplateError as error:
            raise ScoreError(f"{where}: {error}") from error
        return span.ids[: span.trained[-1][1]]

    def scores_of_ids(self, rows: Sequence[Sequence[int]]) -> list[float]:
        """A score for each row of ids, which ends with the token that ends the answer."""
        return score_rows(self.model, rows, self.pad_id)


@torch.no_grad()
def score_rows(model: Any, rows: Sequence[Sequence[int]], pad_id: int) -> list[float]:
    """Scores of rows of ids, in order; the model is asked as it is, without dropout."""
    was_training = model.training
    model.eval()
    scores = [0.0] * len(rows)
    for batch in _batches(rows):
        width = max(len(rows[at]) for at in batch)
        ids = torch.full((len(batch), width), pad_id)
        for line, at in enumerate(batch):
            ids[line, : len(rows[at])] = torch.as_tensor(rows[at])
        made = score_ids(model, ids.to(model.device), pad_id)
        for at, score in zip(batch, made.tolist(), strict=True):
            scores[at] = score
    model.train(was_training)
    return scores


def _batches(rows: Sequence[Sequence[int]]) -> list[list[int]]:
    """Positions of rows of like length, of at most `BATCH_TOKENS` with their padding."""
    batches: list[list[int]] = []
    for at in sorted(range(len(rows)), key=lambda at: len(rows[at])):
        if not batches or (len(batches[-1]) + 1) * len(rows[at]) > BATCH_TOKENS:
            batches.append([])
        batches[-1].append(at)
    return batches


def load_scorer(name: str, home: Path, base: str | None = None) -> Scorer:
    """Load the reward model called `name` in fp32; `base` names the base of a foreign adapter."""
    from tuning.models.tokenizers import load_tokenizer

    folder = resolve_base(name, home, what="model")
    variant = read_variant(folder)
    if variant.kind != "reward":
        raise BaseError(
            f"model {name!r}: is of kind {variant.kind}, which writes answers and has no head to "
            "score them; make one with `arena tune --objective reward`"
        )
    tokenizer = load_tokenizer(folder)
    if tokenizer.pad_token_id is None or not tokenizer.chat_template:
        missing = "pad token" if tokenizer.pad_token_id is None else "chat template"
        raise BaseError(
            f"model {name!r}: its tokenizer has no {missing}, so it is not known how it was "
            "trained; save the one it was trained with beside it"
        )
    where = find_base(variant, home, base) if variant.is_adapter else folder
    model = load_head(where, tokenizer.pad_token_id, dtype=torch.float32)
    if variant.is_adapter:
        model = put_on(model, folder)
    text = model.config.get_text_config()
    most = positions_of(text) or 2048
    return Scorer(variant, model.eval(), tokenizer, most)
