"""What the starter's base is made of: settings, tokenizer, architecture, optimizers, schedule.

Knows no files and no loop; `pretrain` runs it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import (
    PreTrainedModel,
    PreTrainedTokenizerFast,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from tuning.config import Precision
from tuning.starter.world import corpus
from tuning.value_types import check_value

END = "<|endoftext|>"
PAD = "<|pad|>"


@dataclass(frozen=True)
class PretrainConfig:
    """One pretraining run. Sizes in tokens, times in minutes.

    The run ends after `steps`, or, where `minutes` are given, after so much time; its schedule
    spans the whole of it. No logit of attention becomes larger than `logit_limit`. `go_on` is the
    folder of a finished base whose tokenizer, weights and place in the corpus this run starts from;
    its own sizes then count, not the ones here.
    """

    steps: int = 10_000
    minutes: float | None = None
    precision: str = "auto"
    seed: int = 0
    vocab_size: int = 3072
    tokenizer_documents: int = 40_000
    hidden_size: int = 256
    intermediate_size: int = 704
    num_layers: int = 4
    num_heads: int = 4
    num_kv_heads: int = 2
    context: int = 256
    batch_size: int = 12
    matrix_learning_rate: float = 0.02
    embedding_learning_rate: float = 3e-3
    weight_decay: float = 0.01
    warmup_steps: int = 150
    decay_share: float = 0.4
    logit_limit: float = 32.0
    checkpoint_minutes: float = 2.0
    go_on: str = ""


def pretrain_config(
    steps: int, minutes: float | None, seed: int, go_on: Path | None, precision: str
) -> PretrainConfig:
    """The settings of `arena starter pretrain`; `ConfigError` for an unknown precision."""
    check_value("precision", precision, Precision)
    config = PretrainConfig(steps=steps, minutes=minutes, seed=seed, precision=precision)
    if go_on is None:
        return config
    # A trained base is moved with half the step of a fresh one, and given longer to settle.
    return replace(
        config,
        go_on=str(go_on),
        matrix_learning_rate=config.matrix_learning_rate / 2,
        embedding_learning_rate=config.embedding_learning_rate / 2,
        decay_share=0.5,
    )


def train_tokenizer(config: PretrainConfig) -> PreTrainedTokenizerFast:
    """A byte-level BPE tokenizer of the corpus: any text has an encoding that decodes to itself."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=config.vocab_size,
        special_tokens=[END, PAD],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    texts = (corpus.document(number) for number in range(config.tokenizer_documents))
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{END} $A", pair=f"{END} $A $B", special_tokens=[(END, tokenizer.token_to_id(END))]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=END,
        eos_token=END,
        pad_token=PAD,
        model_max_length=2 * config.context,
        clean_up_tokenization_spaces=False,
    )


def build_model(config: PretrainConfig, tokenizer: PreTrainedTokenizerFast) -> Qwen3ForCausalLM:
    """A fresh model of the configured size, fp32.

    Qwen3 is Llama's architecture with a norm of queries and keys, by which attention's logits can
    be bounded (`bound_attention`).
    """
    torch.manual_seed(config.seed)
    return Qwen3ForCausalLM(
        Qwen3Config(
            vocab_size=len(tokenizer),
            hidden_size=config.hidden_size,
            intermediate_size=config.intermediate_size,
            num_hidden_layers=config.num_layers,
            num_attention_heads=config.num_heads,
            num_key_value_heads=config.num_kv_heads,
            head_dim=config.hidden_size // config.num_heads,
            max_position_embeddings=2 * config.context,
            tie_word_embeddings=True,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
            initializer_range=0.02,
        )
    )


def make_optimizers(model: PreTrainedModel, config: PretrainConfig) -> list[torch.optim.Optimizer]:
    """Muon for the layers' matrices, AdamW for embeddings and norms.

    Muon orthogonalises the momentum of each matrix (Jordan et al., 2024), which on this model
    needs fewer tokens than AdamW for the same loss.
    """
    matrices = [p for name, p in model.named_parameters() if p.ndim == 2 and "embed" not in name]
    others = [p for name, p in model.named_parameters() if p.ndim != 2 or "embed" in name]
    return [
        torch.optim.Muon(
            matrices, lr=config.matrix_learning_rate, weight_decay=config.weight_decay
        ),
        torch.optim.AdamW(
            others, lr=config.embedding_learning_rate, betas=(0.9, 0.95), weight_decay=0.0
        ),
    ]


@torch.no_grad()
def bound_attention(model: PreTrainedModel, limit: float) -> None:
    """Keep every logit of attention within `limit`, by the gains of the norms of queries and keys.

    A normed query of size d is no longer than sqrt(d) times its largest gain, rotation leaves its
    length alone, and so is a key's; their product over sqrt(d) is no larger than sqrt(d) times both
    gains. A model without such norms is left as it is. Without a bound Muon lets logits grow to
    hundreds, heads look at one key alone, and no gradient reaches the others (Kimi Team, 2025, of
    MuonClip).
    """
    for module in model.modules():
        if hasattr(module, "q_norm"):
            for norm in (module.q_norm, module.k_norm):
                most = math.sqrt(limit / math.sqrt(len(norm.weight)))
                norm.weight.clamp_(-most, most)


def schedule(config: PretrainConfig, step: int, progress: float) -> float:
    """Factor on the learning rates: warm-up, plateau, then linear decay to zero.

    `progress` is the share of the run's steps or minutes that is spent, in [0, 1].
    """
    warm = min(1.0, (step + 1) / config.warmup_steps)
    left = (1.0 - progress) / config.decay_share
    return min(warm, max(0.0, min(1.0, left)))
