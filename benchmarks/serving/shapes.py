"""Random models and adapters of known shapes, for the serving benchmarks; measures nothing."""

from __future__ import annotations

import warnings
from pathlib import Path

import peft
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import AutoModelForCausalLM, LlamaConfig, PreTrainedModel, PreTrainedTokenizerFast

SHAPES = {
    "starter": {
        "vocab_size": 1420, "hidden_size": 256, "intermediate_size": 688, "num_hidden_layers": 6,
        "num_attention_heads": 4, "num_key_value_heads": 4,
    },
    "smollm2-135m": {
        "vocab_size": 49152, "hidden_size": 576, "intermediate_size": 1536,
        "num_hidden_layers": 30, "num_attention_heads": 9, "num_key_value_heads": 3,
    },
    "llama-1b": {
        "vocab_size": 32000, "hidden_size": 2048, "intermediate_size": 5632,
        "num_hidden_layers": 22, "num_attention_heads": 32, "num_key_value_heads": 4,
    },
}  # fmt: skip
ALL_LINEAR = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
RANK = 8
TEMPLATE = "{% for m in messages %}{{ m.content }}{% endfor %}"


def new_model(shape: str, dtype: torch.dtype) -> PreTrainedModel:
    """A random Llama."""
    torch.manual_seed(0)
    config = LlamaConfig(
        **SHAPES[shape], max_position_embeddings=1024, tie_word_embeddings=True,
        bos_token_id=None, eos_token_id=None,  # Every answer is as long as was asked for.
    )  # fmt: skip
    return AutoModelForCausalLM.from_config(config).to(dtype)


def save_base(shape: str, dtype: torch.dtype, folder: Path) -> Path:
    """A checkpoint folder with a tokenizer of one token a letter."""
    new_model(shape, dtype).save_pretrained(folder)
    save_tokenizer(shape, folder)
    return folder


def save_tokenizer(shape: str, folder: Path) -> None:
    """A tokenizer that reads a token a letter, and writes one piece of ASCII text a token."""
    letters = [chr(code) for code in range(33, 127)]
    words = ["Ġ", "Ċ", *letters]
    words += [f"Ġw{i}" for i in range(len(words), int(SHAPES[shape]["vocab_size"]))]
    inner = Tokenizer(models.BPE(vocab={word: i for i, word in enumerate(words)}, merges=[]))
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=inner, pad_token=words[-1])
    tokenizer.chat_template = TEMPLATE
    tokenizer.save_pretrained(folder)


def save_lora(base: Path, folder: Path, seed: int, modules: list[str] = ALL_LINEAR) -> Path:
    """A random LoRA folder over the base in `base`."""
    model = AutoModelForCausalLM.from_pretrained(base)
    torch.manual_seed(seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PEFT asks a deprecated property of transformers.
        tuned = peft.get_peft_model(
            model, peft.LoraConfig(r=RANK, target_modules=modules, task_type="CAUSAL_LM")
        )
        for key, value in tuned.named_parameters():
            if "lora_B" in key:
                value.data.normal_(std=0.02)
        tuned.save_pretrained(folder)
    return folder


def save_merged(base: Path, adapter: Path, folder: Path) -> Path:
    """The base with the adapter merged in, as a checkpoint of its own."""
    model = AutoModelForCausalLM.from_pretrained(base)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        merged = peft.PeftModel.from_pretrained(model, str(adapter)).merge_and_unload()
    merged.save_pretrained(folder)
    for path in base.glob("tokenizer*"):
        (folder / path.name).write_bytes(path.read_bytes())
    for path in base.glob("chat_template*"):
        (folder / path.name).write_bytes(path.read_bytes())
    return folder
