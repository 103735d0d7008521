"""Chat templates: which one a run uses, where its answers end, and rows of ids with a label mask.

Training and serving must see the same ids: a prompt is always the saved template with
`add_generation_prompt=True`, tokenized by itself. Knows tokenizers; knows no model.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

from tuning.data.formats import Message
from tuning.data.rendering import REMEDY, RenderError, TemplateError, Tools, render

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
PROBE = (
    {"role": "user", "content": "the question of a probe"},
    {"role": "assistant", "content": "the answer of a probe"},
)


@dataclass(frozen=True)
class Span:
    """One tokenized training text: its ids, and the slices of ids that are trained."""

    ids: list[int]
    trained: tuple[tuple[int, int], ...]


def read_template(file: str) -> str:
    """The Jinja text of a file; TemplateError when there is none to read."""
    try:
        path = Path(file).expanduser()
        if path.exists() and not path.is_file():
            raise ValueError("it is no regular file")  # a device may have no end
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, ValueError) as error:  # not there, not UTF-8, or no name of a file
        raise TemplateError(
            f"template.file: {file!r} cannot be read ({error}); give a Jinja file in UTF-8"
        ) from error
    if not text.strip():
        raise TemplateError(f"template.file: {file!r} is empty; give a Jinja file")
    return text


def ensure_template(
    tokenizer: Any, where: str, vocabulary: int | None = None, own: str | None = None
) -> str:
    """Make `tokenizer` ready for chat; says whose template it has: `file`, `base` or `default`.

    `own` is the text of a template that replaces the tokenizer's. A missing pad token, or one
    beyond the model's `vocabulary`, becomes the EOS (padded positions are never labels). The EOS
    becomes the token with which the template ends an answer.
    """
    if tokenizer.eos_token is None:
        raise TemplateError(
            f"{where}: the tokenizer has no EOS token, so no answer could end; set eos_token in "
            "its tokenizer_config.json"
        )
    beyond = vocabulary is not None and (tokenizer.pad_token_id or 0) >= vocabulary
    if tokenizer.pad_token is None or beyond:
        tokenizer.pad_token = tokenizer.eos_token
    origin = "file" if own is not None else "base" if tokenizer.chat_template else "default"
    if origin != "base":
        tokenizer.chat_template = own or DEFAULT_TEMPLATE
    end = _end_of_turn(tokenizer)
    if end != tokenizer.eos_token_id or end not in tokenizer.all_special_ids:
        # Some tokenizers have the token, but do not call it special, and would write it out.
        tokenizer.add_special_tokens({"eos_token": tokenizer.convert_ids_to_tokens(end)})
    return origin


def turn_ends(tokenizer: Any, base_stops: Sequence[int]) -> tuple[int, ...]:
    """Ids that end an answer of the tuned model: the EOS, and those of the base that are special.

    A base may name an id that this tokenizer uses for ordinary text; to stop there cuts answers.
    """
    special = set(tokenizer.all_special_ids) | {
        token for token, added in tokenizer.added_tokens_decoder.items() if added.special
    }
    return tuple(sorted({tokenizer.eos_token_id, *(special & set(base_stops))}))


def render_prompts(
    tokenizer: Any, conversations: Sequence[Sequence[Message]], day: date | None = None
) -> list[str]:
    """Text that serving sends to the model for each conversation, up to where it answers."""
    return render(tokenizer, conversations, prompt=True, day=day)


def tokenize(tokenizer: Any, texts: Sequence[str]) -> list[list[int]]:
    """Ids of rendered texts; a template writes its own special tokens, so none are added."""
    if not texts:
        return []
    return [list(ids) for ids in tokenizer(list(texts), add_special_tokens=False)["input_ids"]]


def _end_of_turn(tokenizer: Any) -> int:
    """Id of the special token that the template writes behind the text of an answer.

    An added token that is not called special will do where there is none, but for white space,
    which some tokenizers add as well and which stands within answers.
    """
    (prompt,) = render(tokenizer, [PROBE[:1]], prompt=True)
    (whole,) = render(tokenizer, [PROBE], prompt=False)
    if not whole.startswith(prompt):
        raise TemplateError(
            "chat template: the rendered answer does not follow the generation prompt "
            f"{prompt[-40:]!r}; use a template whose answers start with its generation prompt"
        )
    _, found, tail = whole[len(prompt) :].rpartition(PROBE[1]["content"])
    if not found:
        raise TemplateError(f"chat template: loses the text of an answer; {REMEDY}")
    added = tokenizer.added_tokens_decoder
    special = set(tokenizer.all_special_ids) | {id_ for id_ in added if added[id_].special}
    ids = tokenize(tokenizer, [tail])[0]
    ends = [token for token in ids if token in special]
    ends += [token for token in ids if token in added and str(added[token]).strip()]
    if not ends:
        raise TemplateError(
            "chat template: an answer ends with no special token, so the model could not learn "
            f"to stop; end each assistant turn with {tokenizer.eos_token!r}"
        )
    return ends[0]


def render_training(
    tokenizer: Any,
    conversations: Sequence[Sequence[Message]],
    *,
    untrained: Sequence[frozenset[int]] = (),
    tools: Sequence[Tools] = (),
    day: date | None = None,
) -> list[list[Span]]:
    """Training spans of each conversation, trained on every assistant turn up to its stop token.

    `untrained` are, for each conversation, the positions of turns that are context only; what
    follows the last trained turn is left out. `tools` are the functions each may call.

    A conversation gives one span when the ids of every prompt are a prefix of the ids of the
    whole, as they are for most templates; else one span for each turn, so that the model is
    always trained behind exactly the ids that serving will send. RenderError when the template
    refuses one of them or leaves out some of its text.
    """
    turns = [
        (row, cut)
        for row, messages in enumerate(conversations)
        for cut, message in enumerate(messages)
        if message["role"] == "assistant" and not (untrained and cut in untrained[row])
    ]
    known = [tools[row] for row, _ in turns] if tools else ()
    asked = [conversations[row][:cut] for row, cut in turns]
    prompts = render(tokenizer, asked, prompt=True, day=day, tools=known)
    answered = [conversations[row][: cut + 1] for row, cut in turns]
    wholes = render(tokenizer, answered, prompt=False, day=day, tools=known)
    completions = []
    for (row, cut), prompt, whole in zip(turns, prompts, wholes, strict=True):
        if not whole.startswith(prompt):
            raise RenderError(f"writes message {cut + 1} elsewhere than behind its prompt")
        completions.append(whole[len(prompt) :])
        _check_texts(conversations[row][: cut + 1], prompt, completions[-1])
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


def _check_texts(messages: Sequence[Message], prompt: str, completion: str) -> None:
    """Refuse a turn whose answer, or what it answers, is not all there, white space aside."""
    last = len(messages) - 1
    before = [at for at in range(last) if messages[at]["role"] == "assistant"]
    for at in range(before[-1] + 1 if before else 0, last + 1):
        text = messages[at]["content"].strip()
        where = completion if at == last else prompt
        # A tool's text may be written as a JSON string.
        if messages[at]["role"] == "tool" or text in where:
            continue
        if "".join(text.split()) not in "".join(where.split()):
            raise RenderError(f"leaves out some of the text of message {at + 1}")


def _span(prompt: list[int], answer: list[int], stop: int) -> Span:
    """Prompt and answer joined; what the template writes behind the stop token is not trained."""
    ends = [position for position, token in enumerate(answer) if token == stop]
    if not ends:
        raise RenderError("ends an answer without its stop token")
    return Span(prompt + answer, ((len(prompt), len(prompt) + ends[-1] + 1),))
