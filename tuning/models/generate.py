"""Answers of a loaded model to rendered prompts, in batches: the greedy ones, or samples as ids.

Knows transformers and PEFT; knows nothing of suites or verifiers.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch

from tuning.models.resolve import BaseError
from tuning.variant.checkpoint import positions_of

BATCH, SAMPLED = 32, 128
# Tokens of padding, and of a row, on which padding is tried.
PADS = 8


@torch.no_grad()
def greedy_answers(
    model: Any,
    tokenizer: Any,
    prompts: Sequence[str],
    *,
    max_new_tokens: int,
    stop_ids: Sequence[int] | None = None,
    special_tokens: bool = False,
    stop_strings: Sequence[str] = (),
    batch_size: int = BATCH,
    on_batch: Callable[[int], None] | None = None,
) -> list[str | None]:
    """The model's greedy continuation of each prompt, up to one of `stop_ids` (else the EOS).

    Special tokens are left out. None where a prompt fills the model's context and leaves no room
    for an answer; one that leaves room for less than `max_new_tokens` is answered alone, as far as
    the context goes.

    `special_tokens` adds the tokenizer's own (as a plain prompt needs; a rendered chat has them).
    Prompts of like length share a left-padded batch; only those of equal length do with prompt
    tuning, whose virtual tokens stand before the padding, and where padding changes an answer.
    """
    ids = [
        list(item)
        for item in tokenizer(list(prompts), add_special_tokens=special_tokens)["input_ids"]
    ]
    _check_vocabulary(model, ids)
    answers: list[str | None] = [None] * len(prompts)
    context = context_of(model)
    room = [
        max_new_tokens if context is None else min(max_new_tokens, context - len(item))
        for item in ids
    ]
    fitting = [at for at in range(len(ids)) if room[at] == max_new_tokens]
    if on_batch is not None and (full := sum(left <= 0 for left in room)):
        on_batch(full)
    wanted = [tokenizer.eos_token_id] if stop_ids is None else stop_ids
    stops = [token for token in wanted if token is not None]
    was_training = model.training
    model.eval()
    try:
        lengths = [len(ids[at]) for at in fitting]
        equal = len(set(lengths)) > 1 and (
            _needs_equal(model) or not _is_blind_to_padding(model, ids[fitting[0]], _pad(tokenizer))
        )
        groups = [[fitting[i] for i in group] for group in _groups(lengths, batch_size, equal)]
        groups += [[at] for at in range(len(ids)) if 0 < room[at] < max_new_tokens]
        for group in groups:
            texts = _generate(
                model, tokenizer, [ids[at] for at in group], room[group[0]], stops, stop_strings
            )
            for at, text in zip(group, texts, strict=True):
                answers[at] = text
            if on_batch is not None:
                on_batch(len(group))
    finally:
        model.train(was_training)
    return answers


def context_of(model: Any) -> int | None:
    """Positions there are for prompt and answer together; None where the model sets no limit."""
    limit = positions_of(model.config.get_text_config())
    if limit is None:
        return None
    virtual = getattr(getattr(model, "active_peft_config", None), "num_virtual_tokens", None)
    return limit - (virtual or 0)


def _check_vocabulary(model: Any, ids: Sequence[Sequence[int]]) -> None:
    size = model.get_input_embeddings().num_embeddings
    largest = max((max(item, default=0) for item in ids), default=0)
    if largest >= size:
        raise BaseError(
            f"vocabulary: the tokenizer gives id {largest}, but the model has {size} embeddings; "
            "give the tokenizer that belongs to the model"
        )


def _needs_equal(model: Any) -> bool:
    config = getattr(model, "active_peft_config", None)
    return config is not None and str(config.peft_type).endswith("PROMPT_TUNING")


def _is_blind_to_padding(model: Any, row: Sequence[int], pad: int) -> bool:
    """Whether a row gets the same logits behind padding, of the next token and, from the cache, of
    the one after: some architectures read its positions, or lose them once they are cached."""
    from transformers import GenerationConfig

    settings = GenerationConfig(
        do_sample=False,
        max_new_tokens=2,
        min_new_tokens=2,
        pad_token_id=pad,
        output_logits=True,
        return_dict_in_generate=True,
    )
    logits = []
    for num_pads in (0, PADS):
        ids = torch.tensor([[pad] * num_pads + list(row)[:PADS]], device=model.device)
        mask = torch.ones_like(ids)
        mask[:, :num_pads] = 0
        made = model.generate(input_ids=ids, attention_mask=mask, generation_config=settings)
        logits.append(torch.stack(made.logits).float())
    allowed = 1e-3 if model.dtype == torch.float32 else 5e-2
    return float((logits[0] - logits[1]).abs().max()) <= allowed * float(logits[0].abs().max())


def _pad(tokenizer: Any) -> int:
    pad = tokenizer.pad_token_id
    return int(pad if pad is not None else tokenizer.eos_token_id)


def _groups(lengths: Sequence[int], batch_size: int, equal: bool) -> list[list[int]]:
    order = sorted(range(len(lengths)), key=lengths.__getitem__)
    groups: list[list[int]] = []
    for at in order:
        fits = groups and len(groups[-1]) < batch_size
        if fits and not (equal and lengths[groups[-1][0]] != lengths[at]):
            groups[-1].append(at)
        else:
            groups.append([at])
    return groups


@torch.no_grad()
def sample_ids(
    model: Any,
    prompts: Sequence[Sequence[int]],
    *,
    count: int,
    max_new_tokens: int,
    temperature: float,
    stop_ids: Sequence[int],
    pad_id: int,
    batch_size: int = SAMPLED,
) -> list[list[list[int]]]:
    """`count` answers to each of `prompts` as ids, up to and with the stop token that ended them.

    Drawn from the whole distribution at `temperature` by torch's random numbers, so that their
    log-probabilities are those of the model; the greedy ones at 0. Prompts have to leave room for
    `max_new_tokens`. Those of like length share a batch, as in `greedy_answers`.
    """
    _check_vocabulary(model, prompts)
    drawing: dict[str, Any] = {"do_sample": False}
    if temperature:
        drawing = {"do_sample": True, "temperature": temperature, "top_k": 0, "top_p": 1.0}
    lengths = [len(ids) for ids in prompts for _ in range(count)]
    answers: list[list[int]] = [[] for _ in lengths]
    was_training = model.training
    model.eval()
    try:
        equal = len(set(lengths)) > 1 and (
            _needs_equal(model) or not _is_blind_to_padding(model, prompts[0], pad_id)
        )
        for group in _groups(lengths, batch_size, equal):
            made = _continue(
                model,
                [prompts[at // count] for at in group],
                pad_id,
                max_new_tokens=max_new_tokens,
                eos_token_id=list(stop_ids) or None,
                **drawing,
            )
            for at, ids in zip(group, made.tolist(), strict=True):
                ends = [place for place, token in enumerate(ids) if token in stop_ids]
                answers[at] = ids[: ends[0] + 1] if ends else ids
    finally:
        model.train(was_training)
    return [answers[start : start + count] for start in range(0, len(answers), count)]


def _generate(
    model: Any,
    tokenizer: Any,
    ids: Sequence[Sequence[int]],
    max_new_tokens: int,
    stop_ids: list[int],
    stop_strings: Sequence[str],
) -> list[str]:
    new = _continue(
        model,
        ids,
        _pad(tokenizer),
        tokenizer=tokenizer if stop_strings else None,
        do_sample=False,
        max_new_tokens=max_new_tokens,
        eos_token_id=stop_ids or None,
        stop_strings=list(stop_strings) or None,
    )
    return list(tokenizer.batch_decode(new, skip_special_tokens=True))


def _continue(
    model: Any,
    ids: Sequence[Sequence[int]],
    pad: int,
    *,
    tokenizer: Any = None,
    **settings: Any,
) -> torch.Tensor:
    """The new ids behind each row of `ids`, padded on the right: (rows, at most the new tokens)."""
    from transformers import GenerationConfig

    width = max(len(item) for item in ids)
    inputs = torch.full((len(ids), width), pad)
    mask = torch.zeros_like(inputs)
    for index, item in enumerate(ids):
        inputs[index, width - len(item) :] = torch.tensor(list(item))
        mask[index, width - len(item) :] = 1
    extra = {} if tokenizer is None else {"tokenizer": tokenizer}
    output: torch.Tensor = model.generate(
        input_ids=inputs.to(model.device),
        attention_mask=mask.to(model.device),
        generation_config=GenerationConfig(pad_token_id=pad, **settings),
        **extra,
    )
    # Prompt tuning passes embeddings in, so its output holds the new tokens alone or all of them
    # depending on the PEFT version; the prompt's ids at the start tell which.
    return output[:, width:] if torch.equal(output[:, :width].cpu(), inputs) else output
