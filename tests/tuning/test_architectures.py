"""What each method does on architectures other than Llama: as PEFT, or refused in one sentence."""

from __future__ import annotations

import copy
import json
import re
import warnings
from pathlib import Path
from typing import Any

import architectures
import numpy as np
import pytest
import torch
from peft import LoraConfig, get_peft_model, get_peft_model_state_dict
from safetensors.torch import load_file, save_file
from tiny_models import SKIPPED, kinds, make_tiny
from tuning_fixtures import make_tokenizer, rows, write_rows

from tuning.config import LoraOptions, PrefixOptions, TuningConfig
from tuning.data.encode import TokenRow
from tuning.hardware import EAGER_LENGTH
from tuning.methods.adapters import build_model
from tuning.methods.requirements import MethodError
from tuning.models.generate import greedy_answers
from tuning.models.peft_adapters import put_on
from tuning.models.resolve import BaseError
from tuning.quiet import known_warnings_hidden

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing.*:FutureWarning"),
    pytest.mark.filterwarnings("ignore:Position ids are not supported:UserWarning"),
]
VOCABULARY = 120
# Cells of the table that are gone through whole in each run of the tests; the tool does the rest.
CELLS = (
    ("gemma2", "full"),
    ("gpt_neo", "lora"),
    ("mixtral", "lora"),
    ("mixtral", "ia3"),
    ("gemma3", "lora"),
    ("phi", "prefix"),
    ("bloom", "dora"),
    ("falcon", "prefix"),
    ("gpt_oss", "ia3"),
    ("mamba", "lora"),
)


@pytest.mark.parametrize(("kind", "method"), CELLS)
def test_a_cell_of_the_table_holds(kind: str, method: str, tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PEFT warns of its own patterns for experts
        found = architectures.try_method(architectures.make_place(kind, tmp_path), method)
    assert not [outcome for outcome in found.values() if outcome.startswith("fault")]
    recorded = architectures.read_found()[kind]["cells"][method]
    assert {step: outcome == "good" for step, outcome in found.items()} == {
        step: outcome == "good" for step, outcome in recorded.items()
    }


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["gemma2", "gpt_neo"])
def test_long_rows_are_tuned_where_there_is_no_fused_attention(kind: str, tmp_path: Path) -> None:
    """Rows that are longer than those for which plain attention is asked for."""
    place = architectures.make_place(kind, tmp_path)
    longer = rows(8)
    for row in longer:
        row["messages"][0]["content"] += " red" * EAGER_LENGTH
    write_rows(place.data, longer)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = architectures.try_method(place, "lora")
    assert {step for step, outcome in found.items() if outcome != "good"} <= {"serve"}


def test_the_page_is_written_from_what_was_found() -> None:
    """Every architecture is in the table, skipped with a reason, or named as not tried."""
    found = architectures.read_found()
    assert architectures.PAGE.read_text(encoding="utf-8") == architectures.page(found)
    assert set(found) | set(SKIPPED) <= set(kinds())
    assert not set(found) & set(SKIPPED)
    assert all(set(entry["cells"]) == set(architectures.METHODS) for entry in found.values())
    assert all(reason.strip() for reason in SKIPPED.values())


def build(kind: str, method: str, **settings: Any) -> Any:
    """The model that a run of this method would train."""
    return adapt(make_tiny(kind, VOCABULARY, **settings).eval(), method)


def adapt(model: Any, method: str) -> Any:
    """That of a base in memory."""
    encoded = [
        TokenRow(ids, ids, number)
        for number, ids in enumerate(
            np.random.default_rng(0).integers(3, VOCABULARY, (4, 16)).astype(np.int32)
        )
    ]
    config = TuningConfig(
        base="b",
        data=("d",),
        name="v",
        method="lora" if method == "dora" else method,
        lora=LoraOptions(rank=2, dora=method == "dora"),
        prefix=PrefixOptions(virtual_tokens=3),
    )
    with known_warnings_hidden():
        return build_model(config, model, encoded)


@pytest.mark.parametrize(
    ("kind", "method", "message"),
    [
        ("mamba", "prefix", "MambaForCausalLM does not keep keys and values .* use --method lora"),
        ("jamba", "prefix", "JambaForCausalLM does not keep keys and values .* use --method lora"),
        ("deepseek_v3", "prefix", "DeepseekV3ForCausalLM .*; use --method lora"),
        ("openai-gpt", "prefix", "does not keep keys and values .* use --method lora"),
        (
            "mamba",
            "ia3",
            "has no layers for keys and values that it could .* use --method lora",
        ),
        ("deepseek_v3", "ia3", "has no layers for keys and values .* use --method lora"),
        ("gemma4_text", "prompt", "Gemma4ForCausalLM fails on a short row .*; use --method lora"),
        ("gemma4_text", "prefix", "layers' keys and values differ .*; set prefix.init to random"),
        ("mixtral", "dora", "leave lora.dora out, or name some of the model's layers: k_proj, o_p"),
        ("qwen3_moe", "dora", "leave lora.dora out, or name some of the model's layers: k_proj"),
    ],
)
def test_a_method_that_does_not_hold_is_refused(kind: str, method: str, message: str) -> None:
    """In one line, which names what does hold."""
    with pytest.raises(MethodError, match=message) as caught:
        build(kind, method)
    assert "\n" not in str(caught.value)
    assert "peft_config" not in str(caught.value)
    assert build(kind, "lora") is not None


def test_an_adapter_that_peft_would_not_load_again_is_refused(tmp_path: Path) -> None:
    """PEFT renames Laguna's shared experts, which have their new name already, and skips them."""
    message = "method lora: Laguna.* would leave out 6 tuned tensors .*shared_experts.* --method f"
    with pytest.raises(MethodError, match=message):
        build("laguna", "lora")
    base = make_tiny("laguna", VOCABULARY)
    config = LoraConfig(r=2, target_modules=["down_proj", "q_proj"], task_type="CAUSAL_LM")
    get_peft_model(copy.deepcopy(base), config).save_pretrained(tmp_path)
    with pytest.raises(BaseError, match=r"read 2 of its \d+ tensors"):
        put_on(base, tmp_path)


@pytest.mark.parametrize("kind", ["llama", "mixtral"])
def test_an_adapter_is_put_on_as_its_file_says(kind: str, tmp_path: Path) -> None:
    base = make_tiny(kind, VOCABULARY)
    tuned = build(kind, "lora")
    tuned.save_pretrained(tmp_path)
    file = tmp_path / "adapter_model.safetensors"
    saved = {name: part + 1 for name, part in load_file(file).items()}
    save_file(saved, file, {"format": "pt"})
    with known_warnings_hidden():
        read = get_peft_model_state_dict(put_on(copy.deepcopy(base), tmp_path))
    assert all(torch.equal(read[name], part) for name, part in saved.items())
    gone = saved.popitem()[0]
    save_file(saved, file, {"format": "pt"})
    with (
        known_warnings_hidden(),
        pytest.raises(BaseError, match=re.escape(gone.removesuffix(".weight"))),
    ):
        put_on(base, tmp_path)


@pytest.mark.parametrize(("kind", "window"), [("mistral", 2), ("gemma2", 3)])
def test_a_prefix_that_fills_the_attention_window_is_refused(kind: str, window: int) -> None:
    """The cache keeps one position less than the window, and a row needs all virtual tokens."""
    message = (
        rf"virtual_tokens: 3 fill the attention window of {window} tokens.*at most {window - 1}"
    )
    with pytest.raises(MethodError, match=message):
        build(kind, "prefix", sliding_window=window)
    assert build(kind, "prefix", sliding_window=8) is not None


@pytest.mark.parametrize("method", ["full", "lora", "prefix"])
@pytest.mark.parametrize(
    ("kind", "settings", "message"),
    [
        ("bert", {"is_decoder": False}, "earlier tokens see later ones.* is_decoder true"),
        ("electra", {"is_decoder": False}, "earlier tokens see later ones.* is_decoder true"),
        ("xlm", {}, "lets earlier tokens see later ones"),
        ("roberta", {}, "would not answer token by token as it was trained"),
    ],
)
def test_a_base_that_no_method_can_teach_is_refused(
    kind: str, settings: dict[str, Any], method: str, message: str
) -> None:
    with pytest.raises(MethodError, match=f"base: .*{message}.*; give a base of another"):
        build(kind, method, **settings)


@pytest.mark.parametrize("kind", ["cohere_compass_text", "gpt2"])
def test_a_prefix_starts_where_a_base_that_answers_would_put_it(kind: str) -> None:
    """A base that trains may keep nothing in its cache, or drop a part of it out at random."""
    model = adapt(make_tiny(kind, VOCABULARY).train(), "prefix")
    wanted = [part for part in build(kind, "prefix").parameters() if part.requires_grad]
    given = [part for part in model.parameters() if part.requires_grad]
    assert model.training
    assert len(wanted) == 1
    assert torch.equal(given[0], wanted[0])


@pytest.mark.parametrize(
    ("at_once", "error", "message"),
    [
        (
            1,
            KeyError("experts"),
            r"base: LlamaForCausalLM fails on a short row \('experts'\); give",
        ),
        (1, AssertionError(), r"base: LlamaForCausalLM fails on a short row \(AssertionError\); g"),
        (
            2,
            AttributeError("no layers"),
            r"prefix.init: Llama.* cannot start from rows \(no layers",
        ),
        (2, StopIteration(), r"\(StopIteration\); set prefix.init to random, or use --method lora"),
    ],
)
def test_whatever_an_architecture_raises_is_one_sentence(
    at_once: int, error: Exception, message: str
) -> None:
    model = make_tiny("llama", VOCABULARY)
    model.lm_head.register_forward_pre_hook(_failing(at_once, error))
    with pytest.raises(MethodError, match=message) as caught:
        adapt(model, "prefix")
    assert "\n" not in str(caught.value)


def test_memory_that_is_out_is_not_blamed_on_the_architecture() -> None:
    for at_once in (1, 2):
        model = make_tiny("llama", VOCABULARY)
        model.lm_head.register_forward_pre_hook(_failing(at_once, MemoryError()))
        with pytest.raises(MemoryError):
            adapt(model, "prefix")


def _failing(at_once: int, error: Exception) -> Any:
    """A layer that fails on at least so many rows at once."""

    def fail(layer: Any, inputs: Any) -> None:
        if len(inputs[0]) >= at_once:
            raise error

    return fail


@pytest.mark.parametrize("kind", ["bert", "falcon", "mpt", "xglm", "gpt_bigcode", "trocr"])
def test_prefixes_have_the_size_of_the_keys_that_are_cached(kind: str) -> None:
    """Also where PEFT asks for settings that there are none of."""
    model = build(kind, "prefix")
    base = model.get_base_model().eval()
    cache = base(input_ids=torch.tensor([[3, 4, 5]]), use_cache=True).past_key_values
    cache = getattr(cache, "self_attention_cache", cache)
    width = sum(p.shape[1] * p.shape[3] for one in cache.layers for p in (one.keys, one.values))
    (weight,) = (part for part in model.parameters() if part.requires_grad)
    assert weight.shape == (3, width)


@pytest.mark.parametrize(
    ("kind", "names"),
    [
        ("olmo2", {"k_proj", "v_proj", "down_proj"}),
        ("phi3", {"qkv_proj", "down_proj"}),
        ("qwen3_moe", {"k_proj", "v_proj"}),
        ("electra", {"key", "value"}),
    ],
)
def test_ia3_finds_its_layers_where_peft_knows_none(kind: str, names: set[str]) -> None:
    model = build(kind, "ia3")
    adapted = {name.split(".ia3_l")[0] for name, _ in model.named_parameters() if "ia3_l" in name}
    assert {name.rpartition(".")[2] for name in adapted} == names


def test_adapters_leave_out_eyes_and_routers() -> None:
    for kind, out in (("gemma3", "vision_tower"), ("llama4_text", "router"), ("mamba", "out_proj")):
        model = build(kind, "lora")
        adapted = [name for name, _ in model.named_parameters() if "lora_A" in name]
        assert adapted, kind
        assert not [name for name in adapted if out in name], kind


def test_a_try_changes_neither_weights_nor_random_numbers() -> None:
    model = make_tiny("llama", VOCABULARY)
    before = {name: part.clone() for name, part in model.state_dict().items()}
    torch.manual_seed(3)
    wanted = torch.rand(2)
    torch.manual_seed(3)
    from tuning.methods.fitness import check_base

    check_base(model, range(3, 15))
    assert torch.equal(torch.rand(2), wanted)
    assert model.training
    assert all(part.grad is None for part in model.parameters())
    assert all(torch.equal(part, before[name]) for name, part in model.state_dict().items())


@pytest.mark.parametrize("kind", ["llama", "rwkv", "bert", "gpt2", "git"])
def test_batches_answer_as_single_prompts_do(kind: str) -> None:
    """Padding is kept from architectures that read it as text, at once or from their cache."""
    tokenizer = make_tokenizer()
    tokenizer.pad_token = tokenizer.eos_token
    model = make_tiny(kind, len(tokenizer)).eval()
    with torch.no_grad():
        for part in model.parameters():
            if part.dim() > 1:
                part.mul_(6)
    prompts = ["red", "red blue green cat", "Say red then blue number 7.", "one two"]
    together = greedy_answers(model, tokenizer, prompts, max_new_tokens=5)
    alone = [greedy_answers(model, tokenizer, [one], max_new_tokens=5)[0] for one in prompts]
    assert together == alone


def test_what_was_found_names_its_versions() -> None:
    for entry in json.loads(architectures.FOUND.read_text(encoding="utf-8")).values():
        assert entry["transformers"]
        assert entry["peft"]
