"""Attention that does more than keys and scores: refused at load, never left out."""

from __future__ import annotations

import pytest
import torch
import transformers

from serving.attention.packed import install, learn_shapes, packed_attention
from serving.errors import ModelLoadError

SMALL = {
    "vocab_size": 64,
    "hidden_size": 32,
    "intermediate_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "head_dim": 16,
}


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("DogeConfig", "DogeAttention: attention with a mask of the model's own"),
        ("GptOssConfig", "GptOssAttention: attention with s_aux"),
    ],
)
def test_a_model_whose_attention_has_more_terms_is_refused(name: str, says: str) -> None:
    model = transformers.AutoModelForCausalLM.from_config(getattr(transformers, name)(**SMALL))
    with pytest.raises(ModelLoadError, match=says):
        learn_shapes(model.eval(), install(model))


def test_a_mask_is_refused_also_when_it_comes_later() -> None:
    one = torch.zeros(1, 1, 1, 16)
    with pytest.raises(ModelLoadError, match="Linear: attention with a mask"):
        packed_attention(torch.nn.Linear(1, 1), one, one, one, torch.zeros(1, 1, 1, 1))
