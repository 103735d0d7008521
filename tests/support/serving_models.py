"""Tiny real checkpoints and adapters for the serving tests, random but wide-awake.

Weights are drawn wide so that greedy text varies with the prompt and no two logits are near a
tie. `generate` is the outside truth: transformers and PEFT, one request at a time.
"""

from __future__ import annotations

import contextlib
import functools
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import peft
import torch
import transformers
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedModel, PreTrainedTokenizerFast

VOCAB = 400
TEMPLATE = (
    "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}"
    "{% if add_generation_prompt %}assistant:{% endif %}"
)
COMMON = {"vocab_size": VOCAB, "bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 1}
WIDE = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
    "initializer_range": 0.4,
    "tie_word_embeddings": False,
}
GPT2 = {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 512, "initializer_range": 0.4}
NEOX = {**WIDE, "rotary_pct": 0.25}
NEOX.pop("num_key_value_heads")
OPT = {
    "hidden_size": 32,
    "word_embed_proj_dim": 32,
    "ffn_dim": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 512,
    "init_std": 0.4,
}
GEMMA = {**WIDE, "head_dim": 8}
CONFIGS: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("LlamaConfig", WIDE),
    "gpt2": ("GPT2Config", GPT2),
    "qwen2": ("Qwen2Config", WIDE),
    "qwen3": ("Qwen3Config", {**WIDE, "head_dim": 8}),
    "mistral": ("MistralConfig", {**WIDE, "sliding_window": 6}),
    "gpt_neox": ("GPTNeoXConfig", NEOX),
    "gemma": ("GemmaConfig", GEMMA),
    "gemma2": ("Gemma2Config", {**GEMMA, "sliding_window": 6, "query_pre_attn_scalar": 8}),
    "opt": ("OPTConfig", OPT),
}
ALL_LINEAR = {
    "gpt2": ["c_attn", "c_proj", "c_fc"],
    "gpt_neox": ["query_key_value", "dense", "dense_h_to_4h", "dense_4h_to_h"],
    "opt": ["q_proj", "k_proj", "v_proj", "out_proj", "fc1", "fc2"],
}
LLAMA_LINEAR = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


@contextlib.contextmanager
def peft_warnings() -> Iterator[None]:
    """PEFT asks a deprecated property of transformers, and warns of ids it drops itself."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*is_gradient_checkpointing.*")
        warnings.filterwarnings("ignore", message="Position ids are not supported")
        warnings.filterwarnings("ignore", message=".*fan_in_fan_out.*")
        yield


def make_model(architecture: str, seed: int = 0) -> PreTrainedModel:
    """A random model in memory, fp32, eager attention."""
    name, settings = CONFIGS[architecture]
    config = getattr(transformers, name)(**COMMON, **settings)
    config._attn_implementation = "eager"
    torch.manual_seed(seed)
    return transformers.AutoModelForCausalLM.from_config(config).float().eval()


def save_checkpoint(
    architecture: str, folder: Path, *, seed: int = 0, template: str | None = None
) -> Path:
    """A checkpoint folder with tokenizer."""
    make_model(architecture, seed).save_pretrained(folder)
    save_tokenizer(folder, template)
    return folder


def save_tokenizer(folder: Path, template: str | None = None) -> None:
    """The byte-level tokenizer of all tiny checkpoints, with or without a chat template."""
    make_tokenizer(template).save_pretrained(folder)


@functools.cache
def make_tokenizer(template: str | None = None) -> PreTrainedTokenizerFast:
    """Byte-level BPE trained on a few lines: any text encodes, merges split characters."""
    inner = Tokenizer(models.BPE())
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    text = ["the river sings under the stone bridge, and the lantern sleeps", "ünï 漢字 🙂 🙂"] * 4
    inner.train_from_iterator(
        text,
        trainers.BpeTrainer(
            vocab_size=VOCAB,
            special_tokens=["<s>", "</s>"],
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        ),
    )
    # Fill up to the model's vocabulary, so that every token id has a text.
    inner.add_tokens([f" w{i}" for i in range(inner.get_vocab_size(), VOCAB)])
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=inner, bos_token="<s>", eos_token="</s>", pad_token="</s>"
    )
    tokenizer.chat_template = template
    return tokenizer


def save_adapter(
    architecture: str, base: Path, folder: Path, kind: str, *, seed: int = 1, **settings: Any
) -> Path:
    """A PEFT adapter folder of the given kind with random, strong weights."""
    model = transformers.AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    linear = ALL_LINEAR.get(architecture, LLAMA_LINEAR)
    config: peft.PeftConfig
    if kind in ("lora", "dora"):
        defaults = {"r": 4, "lora_alpha": 8, "target_modules": linear}
        config = peft.LoraConfig(
            task_type="CAUSAL_LM",
            use_dora=kind == "dora",
            fan_in_fan_out=architecture == "gpt2",
            **{**defaults, **settings},
        )
    elif kind == "ia3":
        forward = settings.get("feedforward", [linear[-1]])
        config = peft.IA3Config(
            task_type="CAUSAL_LM",
            target_modules=list({*linear[:2], *forward}),
            feedforward_modules=forward,
            fan_in_fan_out=architecture == "gpt2",
        )
    elif kind == "prefix":
        config = peft.PrefixTuningConfig(
            task_type="CAUSAL_LM", num_virtual_tokens=settings.get("num_virtual_tokens", 5)
        )
    else:
        config = peft.PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=4)
    torch.manual_seed(seed)
    with peft_warnings():
        tuned = peft.get_peft_model(model, config)
    with torch.no_grad():
        for name, parameter in tuned.named_parameters():
            if not parameter.requires_grad:
                continue
            if kind == "ia3" or "magnitude" in name:
                parameter.mul_(torch.rand_like(parameter) + 0.5)
            else:
                parameter.copy_(torch.randn_like(parameter) * (1.0 if "embedding" in name else 0.2))
    with peft_warnings():
        tuned.save_pretrained(folder)
    return folder


@functools.lru_cache(maxsize=64)
def reference_model(base: Path, adapter: Path | None) -> Any:
    """The model as transformers and PEFT load it, eager attention, fp32."""
    model = transformers.AutoModelForCausalLM.from_pretrained(
        base, dtype=torch.float32, attn_implementation="eager"
    ).eval()
    if adapter is None:
        return model
    with peft_warnings():
        return peft.PeftModel.from_pretrained(model, str(adapter)).eval()


@functools.cache
def generate(
    base: Path, adapter: Path | None, prompt: tuple[int, ...], count: int
) -> tuple[int, ...]:
    """Greedy tokens of transformers' generate for one prompt alone."""
    model = reference_model(base, adapter)
    ids = torch.tensor([prompt])
    with peft_warnings(), torch.inference_mode():
        out = model.generate(
            input_ids=ids,
            attention_mask=torch.ones_like(ids),
            max_new_tokens=count,
            do_sample=False,
            pad_token_id=1,
        )
    return tuple(out[0, len(prompt) :].tolist())


def penalised(model: Any, prompt: tuple[int, ...], count: int, **settings: Any) -> list[int]:
    """Greedy tokens of generate with more of its settings."""
    ids = torch.tensor([prompt])
    with torch.inference_mode():
        out = model.generate(
            input_ids=ids, attention_mask=torch.ones_like(ids), max_new_tokens=count,
            do_sample=False, pad_token_id=1, **settings,
        )  # fmt: skip
    return list(out[0, len(prompt) :].tolist())


def prompts(count: int, seed: int = 0, longest: int = 24) -> list[tuple[int, ...]]:
    """Random prompts of various lengths, without special tokens."""
    generator = torch.Generator().manual_seed(seed)
    found = []
    for _ in range(count):
        length = int(torch.randint(1, longest, (1,), generator=generator))
        found.append(tuple(torch.randint(2, VOCAB, (length,), generator=generator).tolist()))
    return found


def long_prompt(length: int, seed: int = 0) -> tuple[int, ...]:
    """A random prompt of exactly this length."""
    generator = torch.Generator().manual_seed(seed)
    return tuple(torch.randint(2, VOCAB, (length,), generator=generator).tolist())


def texts(ids: Sequence[int]) -> str:
    """What the tiny tokenizer makes of ids."""
    return str(make_tokenizer().decode(list(ids), skip_special_tokens=True))
