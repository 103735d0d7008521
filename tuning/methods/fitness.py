"""Tries a model on one short row before it is trained: does the method hold on its architecture?

What an architecture does with adapters, virtual tokens and its cache is asked of the model itself,
not of a list of names. Knows models in memory; knows neither data files nor runs.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch

from tuning.errors import TuningError, is_out_of_memory
from tuning.methods.requirements import MethodError
from tuning.models.peft_adapters import lost_when_loaded

PROBE = 12
# Of the largest logit: how far answers token by token may be from the whole row at once.
ROUNDING = {torch.float32: 1e-3, torch.bfloat16: 5e-2, torch.float16: 1e-2}


def check_base(model: Any, ids: Sequence[int]) -> None:
    """MethodError when no method can teach this model to continue text.

    Tried on `ids`, a few real tokens: earlier ones must not see later ones, and an answer written
    token by token must be that of the whole row. All of its weights must be numbers.
    """
    for name, part in model.named_parameters():
        if not bool(torch.isfinite(part).all()):
            raise MethodError(
                f"base: {name} holds NaN or infinite numbers, which would be in every answer; "
                "give a checkpoint without"
            )
    _try(model, ids, "base", "give a base of another architecture", is_adapted=False)


def check_fit(model: Any, method: str, ids: Sequence[int]) -> None:
    """MethodError when `method` does not hold on the architecture of its base, which does.

    The loss must reach what is trained, and answers be as they were trained, as of `check_base`.
    """
    remedy = "use --method full" if method == "lora" else "use --method lora"
    _try(model, ids, f"method {method}", remedy, is_adapted=True)
    doing = "cannot be loaded again"
    with refusal_named(model, f"method {method}", doing, remedy):
        lost = lost_when_loaded(model) if hasattr(model, "active_peft_config") else []
    if lost:
        raise MethodError(
            f"method {method}: {_architecture(model)} {doing}: PEFT would leave out {len(lost)} "
            f"tuned tensors ({lost[0]}); {remedy}"
        )


@contextmanager
def refusal_named(model: Any, what: str, doing: str, remedy: str) -> Iterator[None]:
    """MethodError in one sentence for whatever the code of an architecture raises in the block.

    It may fail in any way of its own; memory that is out, and what is an error of ours already,
    passes as it is.
    """
    try:
        yield
    except TuningError:
        raise
    except Exception as error:
        if is_out_of_memory(error):
            raise
        said = " ".join(str(error).split())[:200].rstrip(".") or type(error).__name__
        raise MethodError(f"{what}: {_architecture(model)} {doing} ({said}); {remedy}") from error


def _try(model: Any, ids: Sequence[int], what: str, remedy: str, *, is_adapted: bool) -> None:
    row = torch.tensor([list(ids)[:PROBE]], device=model.device)
    was_training = model.training
    model.eval()
    named = refusal_named(model, what, "fails on a short row", remedy)
    with named, torch.random.fork_rng(devices=[]):
        try:
            if not _is_number(model, row):
                return  # of the settings, not of the architecture; the first step names it
            reason = _gradient_fault(model, row, is_adapted) or _generation_fault(model, row)
        finally:
            model.train(was_training)
    if reason is not None:
        raise MethodError(f"{what}: {_architecture(model)} {reason}; {remedy}")


@torch.no_grad()
def _is_number(model: Any, row: torch.Tensor) -> bool:
    return not model(input_ids=row, use_cache=False).logits.isnan().any()


def _architecture(model: Any) -> str:
    return type(model.get_base_model() if hasattr(model, "get_base_model") else model).__name__


@torch.enable_grad()
def _gradient_fault(model: Any, row: torch.Tensor, is_adapted: bool) -> str | None:
    """Nothing flows from later tokens to earlier ones, and something to what is trained."""
    seen: list[torch.Tensor] = []

    def watch(module: Any, inputs: Any, output: torch.Tensor) -> torch.Tensor:
        seen.append(output.detach().requires_grad_())
        return seen[-1].clone()  # some architectures change it in place

    hook = model.get_input_embeddings().register_forward_hook(watch)
    try:
        logits = model(input_ids=row, use_cache=False).logits[:, -row.shape[1] :]
    finally:
        hook.remove()
    middle = row.shape[1] // 2
    # Of a whole base the gradients would take as much memory as the base.
    trained = [part for part in model.parameters() if part.requires_grad] if is_adapted else []
    if not bool(torch.isfinite(logits).all()):
        return "gives NaN or infinite logits on a short row"
    score = torch.log_softmax(logits[:, middle].float(), -1)[..., :2].sum()
    *of_trained, of_tokens = torch.autograd.grad(score, [*trained, seen[-1]], allow_unused=True)
    # What precedes the row in prompt tuning is not among the embeddings of its tokens.
    if of_tokens is not None and of_tokens[:, -row.shape[1] :][:, middle + 1 :].any():
        return (
            "lets earlier tokens see later ones, so it cannot learn to continue text (BERT and "
            "its kin can with is_decoder true in config.json)"
        )
    if is_adapted and not any(grad is not None and grad.any() for grad in of_trained):
        return "does not pass the loss on to what is trained"
    return None


@torch.no_grad()
def _generation_fault(model: Any, row: torch.Tensor) -> str | None:
    """The next two tokens, written with the cache, are those that the whole row gives."""
    from transformers import GenerationConfig

    settings = GenerationConfig(
        do_sample=False,
        max_new_tokens=2,
        min_new_tokens=2,
        pad_token_id=int(row[0, 0]),
        output_logits=True,
        return_dict_in_generate=True,
    )
    made = model.generate(
        input_ids=row, attention_mask=torch.ones_like(row), generation_config=settings
    )
    first = made.sequences[:, -2:-1].to(row.device)
    whole = model(input_ids=torch.cat([row, first], 1), use_cache=False).logits[:, -2:].float()
    steps = torch.stack(made.logits, 1).float()
    largest = float(whole.abs().max())
    allowed = ROUNDING.get(model.dtype, max(ROUNDING.values())) * largest
    if not float((steps - whole).abs().max()) <= allowed:
        return "would not answer token by token as it was trained on rows"
    return None
