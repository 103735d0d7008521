"""Tiny real checkpoints and data files for tests of tuning: random weights, real tokenizer."""

from __future__ import annotations

import json
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch

WORDS = ["red", "blue", "green", "cat", "dog", "bird", "sun", "moon", "sea", "tree", "one", "two"]


def rows(count: int = 48) -> list[dict[str, Any]]:
    """Echo instructions: short, distinct, learnable by a tiny model."""
    made = []
    for index in range(count):
        first, second = WORDS[index % 12], WORDS[(index * 5 + index // 12) % 12]
        made.append(
            {
                "messages": [
                    {"role": "user", "content": f"Say {first} then {second} number {index}."},
                    {"role": "assistant", "content": f"{first} {second}"},
                ]
            }
        )
    return made


def write_rows(path: Path, items: list[dict[str, Any]]) -> Path:
    """Write items as JSON Lines."""
    path.write_text("".join(json.dumps(item) + "\n" for item in items), encoding="utf-8")
    return path


def judged(check: dict[str, Any], answer: str) -> bool:
    """Whether `answer` passes the check that is written as in a suite file."""
    from tuning.evaluation.verifiers import parse_check

    return parse_check(check).passes(answer)


@contextmanager
def files_at_most(size: int) -> Iterator[None]:
    """The kernel refuses files over `size` bytes here, as it refuses writes to a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def make_tokenizer(bos: bool = True) -> Any:
    """A byte-level BPE tokenizer trained on the rows above, as a transformers tokenizer."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    special = ["<s>", "</s>"] if bos else ["</s>"]
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=special,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    texts = [message["content"] for row in rows() for message in row["messages"]]
    tokenizer.train_from_iterator([*texts, "User: Assistant: System: "], trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token="</s>", bos_token="<s>" if bos else None
    )


# As Gemma 3's, which puts the system text into the first question.
GEMMA_TEMPLATE = (
    "{{ bos_token }}"
    "{%- if messages[0]['role'] == 'system' -%}"
    "{%- set first = messages[0]['content'] + '\n\n' -%}{%- set rest = messages[1:] -%}"
    "{%- else -%}{%- set first = '' -%}{%- set rest = messages -%}{%- endif -%}"
    "{%- for message in rest -%}"
    "{%- if (message['role'] == 'user') != (loop.index0 % 2 == 0) -%}"
    "{{ raise_exception('Conversation roles must alternate user/assistant/user/assistant/...') }}"
    "{%- endif -%}"
    "{%- set role = 'model' if message['role'] == 'assistant' else message['role'] -%}"
    "{{ '<start_of_turn>' + role + '\n' + (first if loop.first else '') }}"
    "{{ message['content'] | trim }}{{ '<end_of_turn>\n' }}"
    "{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{ '<start_of_turn>model\n' }}{%- endif -%}"
)


def make_gemma_tokenizer() -> Any:
    """Like Gemma 3's: line feeds are added tokens that are not special, and so is a tag."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    special = ["<pad>", "<eos>", "<bos>", "<start_of_turn>", "<end_of_turn>"]
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=360,
        special_tokens=special,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator([" ".join(WORDS), "user model Say in three lines"], trainer)
    plain = ["\n", "\n\n", "\n\n\n", "<table>"]
    tokenizer.add_tokens([AddedToken(text, normalized=False, special=False) for text in plain])
    made = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<bos>", eos_token="<eos>", pad_token="<pad>"
    )
    made.chat_template = GEMMA_TEMPLATE
    return made


def make_model(kind: str, vocabulary: int) -> Any:
    """A random model of one architecture, small enough for a step in milliseconds."""
    from transformers import (
        GPT2Config,
        GPT2LMHeadModel,
        LlamaConfig,
        LlamaForCausalLM,
        Qwen2Config,
        Qwen2ForCausalLM,
        Qwen3Config,
        Qwen3ForCausalLM,
    )

    torch.manual_seed(0)
    shape: dict[str, Any] = {
        "vocab_size": vocabulary,
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 256,
        "tie_word_embeddings": True,
        "bos_token_id": 0,
        "eos_token_id": 1,
    }
    if kind == "llama":
        return LlamaForCausalLM(LlamaConfig(**shape))
    if kind == "qwen2":
        return Qwen2ForCausalLM(Qwen2Config(**shape))
    if kind == "qwen3":
        model = Qwen3ForCausalLM(Qwen3Config(**shape, head_dim=8))
        for name, gains in model.named_parameters():
            if name.endswith(("q_norm.weight", "k_norm.weight")):
                torch.nn.init.uniform_(gains, 0.5, 3.0)
        return model
    assert kind == "gpt2", kind
    return GPT2LMHeadModel(
        GPT2Config(
            vocab_size=vocabulary,
            n_embd=32,
            n_layer=2,
            n_head=4,
            n_positions=256,
            bos_token_id=0,
            eos_token_id=1,
        )
    )


def make_base(folder: Path, kind: str = "llama", dtype: torch.dtype = torch.float32) -> Path:
    """Save a tiny base checkpoint with its tokenizer, no chat template."""
    tokenizer = make_tokenizer()
    model = make_model(kind, len(tokenizer)).to(dtype)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def tiny_base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny random Llama base; session-wide, so never write into it."""
    return make_base(tmp_path_factory.mktemp("base") / "tiny")


@pytest.fixture
def tiny_data(tmp_path: Path) -> Path:
    """48 echo instructions as JSON Lines."""
    return write_rows(tmp_path / "rows.jsonl", rows())
