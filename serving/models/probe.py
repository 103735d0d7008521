"""Holds what an engine computes against transformers and PEFT with the same weights, at load.

A short row is read and a few tokens are written by the engine's own steps, along a fixed path;
one plain forward over the same tokens must give the same scores. So an architecture, or an adapter
at a place, that the engine would get wrong is refused by name before anybody is answered by it.
Knows engines and plain models; does not know names on the wire or requests.
"""

from __future__ import annotations

import copy
import queue
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel

from serving.adapters.fused_linear import SharedLinear
from serving.adapters.lora import AdaptedLinear
from serving.adapters.peft_reader import Adapter, exact_settings
from serving.attention.packed import STATE
from serving.engine.engine import Engine
from serving.engine.request import EngineRequest, Event, FailureEvent, TokenEvent
from serving.engine.worker import Worker
from serving.errors import ModelLoadError

NUM_READ, NUM_WRITTEN = 7, 4
PATIENCE_SECONDS = 120.0
# Of the spread of the scores. A wrong answer is off by about all of it; rounding in half
# precision, over many layers, by some hundredths, and where experts are chosen by more.
MOST_FULL, MOST_HALF = 1e-3, 0.2


@dataclass(frozen=True)
class ProbePath:
    """Tokens that are read, and tokens that are then written whatever their scores."""

    read: tuple[int, ...]
    written: tuple[int, ...]

    @property
    def ids(self) -> list[int]:
        """All tokens whose successors are scored."""
        return [*self.read, *self.written[:-1]]


def probe_path(config: Any, room: int) -> ProbePath:
    """Ordinary tokens of a model's vocabulary; fewer where `room` is less. Not its special ones."""
    text = config.get_text_config()
    size = int(text.vocab_size)
    named = [getattr(text, f"{kind}_token_id", None) for kind in ("pad", "bos", "eos")]
    special = {one for ids in named for one in (ids if isinstance(ids, list) else [ids])}
    # Special tokens and, in models that see, images are at the ends of vocabularies.
    ids = [size // 10 + i * 7919 % max(size // 2 - size // 10, 1) for i in range(64)]
    ordinary = [token for token in ids if token not in special] or [0]
    number = max(1, min(NUM_READ, room - NUM_WRITTEN))
    written = max(1, min(NUM_WRITTEN, room - number))
    path = [ordinary[i % len(ordinary)] for i in range(number + written)]
    return ProbePath(tuple(path[:number]), tuple(path[number:]))


def plain_scores(model: Any, path: ProbePath, device: torch.device) -> torch.Tensor:
    """Scores [written, vocab] of one forward of a model as transformers or PEFT has it."""
    ids = torch.tensor([path.ids], device=device)
    with warnings.catch_warnings(), torch.inference_mode():
        warnings.simplefilter("ignore")  # What PEFT says of arguments it leaves out itself.
        output = model(input_ids=ids, attention_mask=torch.ones_like(ids), use_cache=False)
    return output.logits[0, -len(path.written) :].float()  # type: ignore[no-any-return]


def plain_adapted_scores(
    engine: Engine, adapter: Adapter, folder: Path, path: ProbePath
) -> torch.Tensor:
    """Scores of the adapter from `folder` by PEFT, over the weights that the engine holds."""
    import peft

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        settings = peft.PeftConfig.from_peft_type(**exact_settings(folder, adapter))
        tuned = peft.PeftModel.from_pretrained(
            plain_twin(engine), str(folder), config=settings, low_cpu_mem_usage=True
        ).eval()
    return plain_scores(tuned, path, engine.device)


def plain_twin(engine: Engine) -> PreTrainedModel:
    """The engine's model as transformers makes it, over the same tensors: no copy of a weight."""
    model = engine.model
    shared: list[Any] = [*model.parameters(), *model.buffers()]
    for module in model.modules():
        shared += [getattr(module, name, None) for name in (STATE, "group", "target")]
    memo = {id(item): item for item in shared if item is not None}
    twin: PreTrainedModel = copy.deepcopy(model, memo)
    for parent in list(twin.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, AdaptedLinear):
                setattr(parent, name, child.base)
            elif isinstance(child, SharedLinear):
                setattr(parent, name, child.linear)
        if hasattr(parent, STATE):
            delattr(parent, STATE)
    twin.set_attn_implementation("eager")
    return twin


class _Recorder:
    """Notes the scores of each step, and has the path's token chosen."""

    def __init__(self, path: ProbePath) -> None:
        self._path = path
        self.scores: list[torch.Tensor] = []

    def mask(self, scores: torch.Tensor) -> None:
        """Of one row, in place."""
        token = self._path.written[len(self.scores)]
        self.scores.append(scores.clone())
        scores.fill_(float("-inf"))
        scores[token] = 0.0


def engine_scores(
    engine: Engine, path: ProbePath, adapter: str | None = None, worker: Worker | None = None
) -> torch.Tensor:
    """Scores [written, vocab] by the engine's steps; beside other rows if a `worker` runs it.

    EngineFailure when a step fails, as for scores that are not finite.
    """
    recorder, events = _Recorder(path), queue.SimpleQueue[Event]()
    request = EngineRequest(
        path.read, len(path.written), events.put, adapter=adapter, mask=recorder.mask
    )
    if worker is not None:
        worker.submit(engine, request)
    else:
        engine.submit(request)
        while engine.has_work:
            engine.step()
    while True:
        event = events.get(timeout=PATIENCE_SECONDS)
        if isinstance(event, FailureEvent):
            raise event.error
        if isinstance(event, TokenEvent) and event.finish_reason is not None:
            return torch.stack(recorder.scores)


def attempt(name: str, whose: str, score: Callable[[], torch.Tensor]) -> torch.Tensor:
    """What `score` gives; ModelLoadError naming `name` where it fails or is not finite."""
    try:
        scores = score()
    except queue.Empty:
        raise ModelLoadError(f"{name}: {whose} gave no score of a short row in time") from None
    except ModelLoadError:
        raise
    except Exception as error:  # whatever an architecture's code raises
        line = " ".join(str(error).split())[:300]
        raise ModelLoadError(
            f"{name}: {whose} cannot run a short row of it ({type(error).__name__}: {line})"
        ) from error
    if not bool(scores.amax(dim=-1).isfinite().all()):
        raise ModelLoadError(
            f"{name}: {whose} gave scores that are not finite; its weights are too large for this "
            "number format, or broken"
        )
    return scores


def compare(name: str, expected: torch.Tensor, found: torch.Tensor, dtype: torch.dtype) -> None:
    """ModelLoadError naming `name` where scores [rows, vocab] are not the expected ones."""
    rows = distances(expected, found)
    is_full = dtype == torch.float32
    most, error = (MOST_FULL, rows.max()) if is_full else (MOST_HALF, rows.median())
    if not float(error) <= most:
        raise ModelLoadError(
            f"{name}: the engine's scores are not those of transformers with the same weights "
            f"(off by {float(error):.2g} of their spread, {most:g} are allowed in {dtype}); it "
            "cannot be served, and an adapter can be merged into its base"
        )


def distances(expected: torch.Tensor, found: torch.Tensor) -> torch.Tensor:
    """The largest difference in each row of [rows, vocab], in parts of the row's spread.

    Tokens that are never to come, which some models score with the least number, do not count.
    """
    least = torch.finfo(torch.float16).min
    rows = []
    for a, b in zip(expected, found.to(expected), strict=True):
        seen = (a > least) | (b > least)
        spread = a[seen].max() - a[seen].min()
        rows.append((a - b)[seen].abs().max() / spread.clamp(min=1e-6))
    return torch.stack(rows)
