"""Packed runs: refused where the architecture lets rows of a pack read each other."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from tuning_fixtures import make_tokenizer

from tuning import TuningConfig, TuningError, tune
from tuning.config import DataOptions, TrainingOptions
from tuning.data.batching import Plan
from tuning.data.encode import TokenRow
from tuning.training.packing import PackingError, check_packing

pytestmark = pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing.*:FutureWarning")
VOCABULARY = 400
WIDTHS = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 256,
}
GROUPED = {**WIDTHS, "num_key_value_heads": 2}
GPT2 = {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 256}
EXPERTS = {**GROUPED, "num_local_experts": 4, "num_experts_per_tok": 2}
KEEPS_APART: dict[str, dict[str, Any]] = {
    "Llama": GROUPED,
    "Mistral": {**GROUPED, "sliding_window": 6},
    "Qwen3": {**GROUPED, "head_dim": 8},
    "Gemma3Text": {**GROUPED, "head_dim": 8, "sliding_window": 6},
    "Mixtral": EXPERTS,
    "GPT2": GPT2,
    "GPTNeoX": WIDTHS,
    "Phi3": GROUPED,
}
LETS_READ: dict[str, dict[str, Any]] = {
    "OPT": {**WIDTHS, "ffn_dim": 48, "word_embed_proj_dim": 32},
    "Bloom": {"hidden_size": 32, "n_layer": 2, "n_head": 4},
    "Falcon": WIDTHS,
    "GptOss": {**EXPERTS, "head_dim": 8},
    "Mpt": {"d_model": 32, "n_heads": 4, "n_layers": 2, "max_seq_len": 256},
    "BioGpt": WIDTHS,
    "Mamba": {"hidden_size": 32, "num_hidden_layers": 2, "state_size": 4},
}
PLAN = Plan(((0,), (1, 2), (0, 1, 2)), 2)


def model_of(name: str) -> Any:
    """A tiny random model, weights as its config draws them."""
    settings = {**KEEPS_APART, **LETS_READ}[name]
    config = getattr(transformers, f"{name}Config")(
        vocab_size=VOCABULARY, bos_token_id=0, eos_token_id=1, pad_token_id=1, **settings
    )
    torch.manual_seed(0)
    return transformers.AutoModelForCausalLM.from_config(config)


def token_rows(*lengths: int) -> list[TokenRow]:
    """Rows of random ids."""
    generator = np.random.default_rng(0)
    ids = [generator.integers(2, 300, length).astype(np.int32) for length in lengths]
    return [TokenRow(item, item, at) for at, item in enumerate(ids)]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("name", KEEPS_APART)
def test_architectures_that_keep_rows_apart_pass(name: str, dtype: torch.dtype) -> None:
    model = model_of(name).to(dtype).train()
    check_packing(model, token_rows(30, 9, 12), PLAN)
    assert model.training


@pytest.mark.parametrize("name", LETS_READ)
def test_architectures_whose_rows_read_each_other_are_refused(name: str) -> None:
    with pytest.raises(PackingError) as caught:
        check_packing(model_of(name), token_rows(30, 9, 12), PLAN)
    assert str(caught.value).startswith(
        f"training.packing: {name}ForCausalLM does not keep the rows of a pack apart"
    )
    assert str(caught.value).endswith("; set training.packing=false")


@pytest.mark.parametrize("name", ["OPT", "Falcon"])
def test_half_precision_hides_no_leak(name: str) -> None:
    with pytest.raises(PackingError):
        check_packing(model_of(name).to(torch.bfloat16), token_rows(30, 9, 12), PLAN)


def test_a_leak_within_the_rounding_of_half_precision_is_seen_when_a_row_changes() -> None:
    """Bloom's rows, drawn so small, differ from themselves alone by less than a per cent."""
    model = model_of("Bloom").to(torch.bfloat16)
    with pytest.raises(PackingError, match="when another row changes"):
        check_packing(model, token_rows(30, 9, 12), PLAN)


def test_a_plan_without_packs_asks_nothing() -> None:
    check_packing(model_of("OPT"), token_rows(30, 9, 12), Plan(((0,), (1,), (2,)), 2))


def test_a_model_that_takes_no_positions_is_refused() -> None:
    class Bare(torch.nn.Linear):
        device = torch.device("cpu")

        def forward(self, input_ids: Any, use_cache: bool) -> Any:
            return transformers.modeling_outputs.CausalLMOutput(
                logits=torch.nn.functional.one_hot(input_ids, 300)
            )

    with pytest.raises(PackingError, match=r"Bare .*takes no packed rows \(.*position_ids"):
        check_packing(Bare(1, 1), token_rows(30, 9, 12), PLAN)


@pytest.mark.slow
@pytest.mark.parametrize("method", ["lora", "full"])
def test_a_packed_run_on_such_a_base_is_refused_before_it_starts(
    method: str, tiny_data: Path, tmp_path: Path
) -> None:
    base = tmp_path / "base"
    model_of("OPT").save_pretrained(base)
    make_tokenizer().save_pretrained(base)

    def config(packing: bool) -> TuningConfig:
        training = TrainingOptions(
            max_steps=1, batch_size=4, precision="fp32", packing=packing, lean=False
        )
        return TuningConfig(
            base=str(base),
            data=(str(tiny_data),),
            name="v",
            method=method,
            home=tmp_path,
            training=training,
            data_options=DataOptions(heldout=0),
        )

    with pytest.raises(TuningError, match=r"^training\.packing: OPTForCausalLM does not keep"):
        tune(config(True))
    assert list((tmp_path / "models").iterdir()) == []
    assert tune(config(False)).name == "v"
