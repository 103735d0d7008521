"""What crosses the border of an engine: a request of token ids in, events of token ids out.

Knows no text, no HTTP and no tensors.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

import torch

from serving.engine.sampling import ChosenToken, SamplingParams, TokenSampler
from serving.errors import EngineFailure, OutOfMemoryFailure


class FinishReason(StrEnum):
    """Why a completion ended, in TGI's words."""

    LENGTH = "length"
    EOS_TOKEN = "eos_token"
    STOP_SEQUENCE = "stop_sequence"


@dataclass(frozen=True)
class TokenEvent:
    """One generated token; the last one of a request carries `finish_reason`."""

    choice: ChosenToken
    finish_reason: FinishReason | None = None


@dataclass(frozen=True)
class PrefillEvent:
    """Log probabilities of the prompt's tokens, and the likeliest tokens there, if asked for.

    The first token has none.
    """

    logprobs: tuple[float | None, ...]
    tops: tuple[tuple[tuple[int, float], ...], ...] = ()


@dataclass(frozen=True)
class ScoreEvent:
    """What a head makes of the last token of a row; the only event of a row that is scored."""

    score: float


@dataclass(frozen=True)
class FailureEvent:
    """The request ended without a completion."""

    error: Exception


Event = TokenEvent | PrefillEvent | ScoreEvent | FailureEvent


@dataclass(eq=False)
class EngineRequest:
    """A completion to make. `sink` is called in the engine's thread, once per event.

    `adapter` is the engine's key of a loaded adapter, None for the base; `model` is what failures
    call the two. `mask` rewrites a row of scores in place before warping (a grammar); `accept` is
    told each token chosen. With a `head`, of shape (hidden size,), nothing is written: the row is
    scored at its last token. The engine
    sets the rest: `started_at` (time.monotonic) and `num_reused` tokens of the prefix cache
    when the row first joins, the `number` in the queue, and `resume` when it had to give way.
    """

    prompt: Sequence[int]
    max_new_tokens: int
    sink: Callable[[Event], None]
    sampling: SamplingParams = field(default_factory=SamplingParams)
    adapter: str | None = None
    model: str = "the model"
    eos_ids: frozenset[int] = frozenset()
    num_top: int = 0
    prompt_logprobs: bool = False
    mask: Callable[[torch.Tensor], None] | None = None
    accept: Callable[[int], None] | None = None
    head: torch.Tensor | None = None
    cancelled: threading.Event = field(default_factory=threading.Event)
    started_at: float | None = None
    num_reused: int = 0
    number: int = 0
    resume: TokenSampler | None = None

    def cancel(self) -> None:
        """Ask the engine to drop the request; it leaves before the next step, without an event."""
        self.cancelled.set()


def as_failure(error: Exception) -> EngineFailure:
    """The error a request is answered with; out of memory is told apart."""
    if isinstance(error, EngineFailure):
        return error
    text = f"{type(error).__name__}: {error}"
    if isinstance(error, MemoryError | torch.OutOfMemoryError) or "can't allocate" in str(error):
        return OutOfMemoryFailure(text)
    return EngineFailure(text)
