"""Chat templates: the default one, and rendering conversations to token ids with a label mask.

Training and serving must see the same ids: a prompt is always the saved template with
`add_generation_prompt=True`, tokenized by itself. Knows tokenizers; knows no model.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tuning.data.formats import Message
from tuning.errors import TuningError

DEFAULT_TEMPLATE = (
    "{%- if bos_token %}{{- bos_token }}{%- endif %}"
    "{%- for message in messages %}"
    "{%- if message['role'] == 'assistant' %}"
    "{{- 'Assistant:' }}"
    "{%- generation %}{{- ' ' + message['content'] | trim + eos_token }}{%- endgeneration %}"
    "{{- '\\n' }}"
    "{%- else %}"
    "{{- message['role'] | capitalize + ': ' + message['content'] | trim + '\\n' }}"
    "{%- endif %}"
    "{%- endfor %}"
    "{%- if add_generation_prompt %}{{- 'Assistant:' }}{%- endif %}"
)


class TemplateError(TuningError):
    """A template or tokenizer that cannot mark where an answer starts or stops."""


@dataclass(frozen=True)
class Span:
    """One tokenized training text: its ids, and the slices of ids that are trained."""

    ids: list[int]
    trained: tuple[tuple[int, int], ...]


def ensure_template(tokenizer: Any, where: str, vocabulary: int | None = None) -> bool:
    """Make `tokenizer` ready for chat; True when it was given the default template.

    A template of its own is kept. A missing pad token, or one beyond the model's `vocabulary`,
    becomes the EOS (padded positions are never labels). The EOS becomes the token with which
    the template ends an answer.
    """
    if tokenizer.eos_token is None:
        raise TemplateError(
            f"{where}: the tokenizer has no EOS token, so no answer could end; set eos_token in "
            "its tokenizer_config.json"
        )
    beyond = vocabulary is not None and (tokenizer.pad_token_id or 0) >= vocabulary
    if tokenizer.pad_token is None or beyond:
        tokenizer.pad_token = tokenizer.eos_token
    given = not tokenizer.chat_template
    if given:
        tokenizer.chat_template = DEFAULT_TEMPLATE
    end = _end_of_turn(tokenizer)
    if end != tokenizer.eos_token_id:
        tokenizer.eos_token = tokenizer.convert_ids_to_tokens(end)
    return given


def render_prompts(tokenizer: Any, conversations: Sequence[Sequence[Message]]) -> list[str]:
    """Text that serving sends to the model for each conversation, up to where it answers."""
    if not conversations:
        return []
    rendered = tokenizer.apply_chat_template(
        [list(messages) for messages in conversations], tokenize=False, add_generation_prompt=True
    )
    return list(rendered)


def tokenize(tokenizer: Any, texts: Sequence[str]) -> list[list[int]]:
    """Ids of rendered texts; a template writes its own special tokens, so none are added."""
    if not texts:
        return []
    return [list(ids) for ids in tokenizer(list(texts), add_special_tokens=False)["input_ids"]]


def _end_of_turn(tokenizer: Any) -> int:
    """Id of the special token that ends an answer in the template."""
    probe = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
    prompt = tokenizer.apply_chat_template(probe[:1], tokenize=False, add_generation_prompt=True)
    full = tokenizer.apply_chat_template(probe, tokenize=False)
    if not full.startswith(prompt):
        raise TemplateError(
            "chat template: the rendered answer does not follow the generation prompt "
            f"{prompt[-40:]!r}; use a template whose answers start with its generation prompt"
        )
    special = set(tokenizer.all_special_ids) | set(tokenizer.added_tokens_decoder)
    ends = [token for token in tokenize(tokenizer, [full[len(prompt) :]])[0] if token in special]
    if not ends:
        raise TemplateError(
            "chat template: an answer ends with no special token, so the model could not learn "
            f"to stop; end each assistant turn with {tokenizer.eos_token!r}"
        )
    return ends[-1]


def render_training(
    tokenizer: Any,
    conversations: Sequence[Sequence[Message]],
    *,
    untrained: Sequence[frozenset[int]] = (),
) -> list[list[Span]]:
    """Training spans of each conversation, trained on every assistant turn up to its stop token.

    `untrained` are, for each conversation, the positions of turns that are context only; what
    follows the last trained turn is left out.

    A conversation gives one span when the ids of every prompt are a prefix of the ids of the
    whole, as they are for most templates; else one span for each turn, so that the model is
    always trained behind exactly the ids that serving will send.
    """
    turns = [
        (row, cut)
        for row, messages in enumerate(conversations)
        for cut, message in enumerate(messages)
        if message["role"] == "assistant" and not (untrained and cut in untrained[row])
    ]
    prompts = render_prompts(tokenizer, [conversations[row][:cut] for row, cut in turns])
    wholes = tokenizer.apply_chat_template(
        [list(conversations[row][: cut + 1]) for row, cut in turns], tokenize=False
    )
    completions = []
    for (row, cut), prompt, whole in zip(turns, prompts, wholes, strict=True):
        if not whole.startswith(prompt):
            raise TemplateError(
                f"chat template: the answer of row {row + 1}, message {cut + 1} does not follow "
                "the generation prompt; use a template whose answers start with it"
            )
        completions.append(whole[len(prompt) :])
    prompt_ids = tokenize(tokenizer, prompts)
    completion_ids = tokenize(tokenizer, completions)
    spans: list[list[Span]] = [[] for _ in conversations]
    for (row, _), start, answer in zip(turns, prompt_ids, completion_ids, strict=True):
        span = _span(start, answer, tokenizer.eos_token_id)
        previous = spans[row][-1] if spans[row] else None
        if previous is not None and start[: len(previous.ids)] == previous.ids:
            spans[row][-1] = Span(span.ids, (*previous.trained, *span.trained))
        else:
            spans[row].append(span)
    return spans


def _span(prompt: list[int], answer: list[int], stop: int) -> Span:
    """Prompt and answer joined; what the template writes behind the stop token is not trained."""
    ends = [position for position, token in enumerate(answer) if token == stop]
    if not ends:
        raise TemplateError(
            "chat template: an answer ends without its stop token, so the model could not learn "
            "to stop; end each assistant turn with the EOS token"
        )
    return Span(prompt + answer, ((len(prompt), len(prompt) + ends[-1] + 1),))
