"""Tuning end to end on a tiny real base: every method, its folder, its learning, its refusals."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from tuning_fixtures import make_base, rows, write_rows

from tuning import TuningConfig, tune
from tuning.config import CheckOptions, DataOptions, LoraOptions, PrefixOptions, TrainingOptions
from tuning.errors import TuningError
from tuning.evaluation.evaluate import answer_items
from tuning.evaluation.suites import SuiteItem
from tuning.models.loading import load_variant
from tuning.variant import Variant, VariantError, read_variant
from tuning.variant.plots import read_history
from tuning.variant.verify import read_tensors, verify_variant

# PEFT's own talk, which the package hides too (tuning.quiet).
pytestmark = [
    pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing.*:FutureWarning"),
    pytest.mark.filterwarnings("ignore:Position ids are not supported:UserWarning"),
    pytest.mark.filterwarnings("ignore:The PEFT config's `base_model_name_or_path`:UserWarning"),
]
METHODS = ["full", "lora", "prefix", "prompt", "ia3"]

ANY_CHECK = {"kind": "exact", "answers": ["x"]}  # a suite's line has one


def config_for(base: Path, data: Path, home: Path, **changes: Any) -> TuningConfig:
    """A run of a few steps in fp32."""
    training = TrainingOptions(
        max_steps=changes.pop("max_steps", 4),
        batch_size=8,
        learning_rate=changes.pop("learning_rate", 1e-2),
        precision=changes.pop("precision", "fp32"),
        packing=changes.pop("packing", False),
        max_minutes=changes.pop("max_minutes", None),
        epochs=100,
    )
    settings: dict[str, Any] = {
        "name": "v",
        "method": "full",
        "data_options": DataOptions(heldout=0.1),
        **changes,
    }
    return TuningConfig(base=str(base), data=(str(data),), home=home, training=training, **settings)


@pytest.fixture(scope="module")
def taught(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home with one variant `taught`: the tiny base after enough full tuning to follow."""
    home = tmp_path_factory.mktemp("home")
    base = make_base(home / "base")
    data = write_rows(home / "rows.jsonl", rows())
    tune(config_for(base, data, home, name="taught", max_steps=250, precision="auto"))
    return home


@pytest.mark.slow
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("kind", ["llama", "gpt2", "qwen2"])
def test_every_method_makes_a_whole_variant(
    tmp_path: Path, tiny_data: Path, method: str, kind: str
) -> None:
    base = make_base(tmp_path / "base", kind)
    prefix = PrefixOptions(virtual_tokens=5)
    made = tune(config_for(base, tiny_data, tmp_path, method=method, prefix=prefix))
    assert made.kind == method
    assert verify_variant(made.folder, base).name == "v"
    assert made.base is not None
    assert (made.folder / made.base.id).resolve() == base
    assert made.run["steps"] == 4
    assert made.run["config"]["training"]["batch_size"] == 8
    assert made.run["ledger"]["rows"] == {
        "read": 48,
        "trained": 44,
        "heldout": 4,
        "bad": 0,
        "dropped": {},
        "truncated": 0,
    }
    assert set(made.metrics) == {"train_loss", "eval_loss"}
    history = read_history(made.folder)
    assert [item["step"] for item in history if "loss" in item] == [1, 2, 3, 4]
    assert len([item for item in history if "samples" in item][-1]["samples"]) == 3
    assert (made.folder / "loss.png").read_bytes().startswith(b"\x89PNG")
    assert not list((tmp_path / "models").glob(".*"))


@pytest.mark.slow
@pytest.mark.parametrize("method", ["lora", "prefix", "prompt", "ia3"])
def test_peft_loads_the_adapter_unchanged(
    tiny_base: Path, tiny_data: Path, tmp_path: Path, method: str
) -> None:
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, AutoTokenizer

    made = tune(config_for(tiny_base, tiny_data, tmp_path, method=method))
    model = PeftModel.from_pretrained(
        AutoModelForCausalLM.from_pretrained(tiny_base), made.folder
    ).eval()
    tokenizer = AutoTokenizer.from_pretrained(made.folder)
    ids = tokenizer.apply_chat_template(
        [{"role": "user", "content": "Say red."}],
        add_generation_prompt=True,
        return_tensors="pt",
        return_dict=True,
    )
    output = model.generate(**ids, max_new_tokens=5, do_sample=False)
    assert output.shape[1] > 0
    settings = json.loads((made.folder / "adapter_config.json").read_text())
    assert settings["base_model_name_or_path"] == made.base.id if made.base else False


def test_it_learns_and_learns_to_stop(taught: Path) -> None:
    variant = read_variant(taught / "models" / "taught")
    assert variant.metrics["train_loss"] < 1.0
    loaded = load_variant("taught", taught)
    items = [
        SuiteItem(
            id=str(i),
            family="echo",
            prompt=row["messages"][0]["content"],
            check=ANY_CHECK,
        )
        for i, row in enumerate(rows(12))
    ]
    answers = answer_items(loaded, items, 40)
    assert all(len(answer.split()) <= 4 for answer in answers), answers
    expected = [row["messages"][1]["content"] for row in rows(12)]
    assert sum(a == b for a, b in zip(answers, expected, strict=True)) >= 6, answers


@pytest.mark.slow
@pytest.mark.parametrize("method", ["lora", "full"])
def test_a_variant_is_tuned_from_a_variant(taught: Path, tiny_data: Path, method: str) -> None:
    made = tune(
        TuningConfig(
            base="taught",
            data=(str(tiny_data),),
            name=f"second-{method}",
            method=method,
            home=taught,
            training=TrainingOptions(max_steps=3, batch_size=8, precision="fp32"),
        )
    )
    parent = read_variant(taught / "models" / "taught")
    assert made.parent == "taught"
    assert made.base is not None
    assert (made.base.id, made.base.sha256) == ("taught", parent.weights_sha256)
    wanted = parent.folder if method == "lora" else None
    assert load_variant(made.name, taught).base_folder == wanted
    verify_variant(made.folder, parent.folder)


@pytest.mark.slow
def test_an_adapter_as_base_is_refused_with_the_remedy(
    tiny_base: Path, tiny_data: Path, tmp_path: Path
) -> None:
    made = tune(config_for(tiny_base, tiny_data, tmp_path, method="lora", max_steps=1))
    with pytest.raises(TuningError, match=r"a lora adapter.* with `arena models merge v`"):
        tune(config_for(made.folder, tiny_data, tmp_path, name="w"))
    assert [path.name for path in (tmp_path / "models").iterdir()] == ["v"]


@pytest.mark.slow
def test_prefix_parameters_follow_the_formula(
    tiny_base: Path, tiny_data: Path, tmp_path: Path
) -> None:
    """Virtual tokens x 2 x layers x key-value heads x head size."""
    made = tune(
        config_for(
            tiny_base,
            tiny_data,
            tmp_path,
            method="prefix",
            prefix=PrefixOptions(virtual_tokens=7),
        )
    )
    assert made.run["parameters"]["trained"] == 7 * 2 * 2 * 2 * 8
    tensors = read_tensors(made.folder)
    assert {name: tuple(t.shape) for name, t in tensors.items()} == {
        "prompt_embeddings": (7, 2 * 2 * 2 * 8)
    }


@pytest.mark.slow
def test_a_projected_prefix_follows_its_formula_and_is_saved_without_the_net(
    tiny_base: Path, tiny_data: Path, tmp_path: Path
) -> None:
    """Trained are P x T, and a net of T to E to 2LT; saved are P x 2LT."""
    options = PrefixOptions(virtual_tokens=7, projection=True)
    made = tune(config_for(tiny_base, tiny_data, tmp_path, method="prefix", prefix=options))
    encoder = json.loads((made.folder / "adapter_config.json").read_text())["encoder_hidden_size"]
    tokens, width, layers = 7, 2 * 8, 2
    assert made.run["parameters"]["trained"] == (
        tokens * width
        + (width * encoder + encoder)
        + (encoder * 2 * layers * width + 2 * layers * width)
    )
    (saved,) = read_tensors(made.folder).values()
    assert saved.shape == (7, 2 * layers * width)
    verify_variant(made.folder, tiny_base)
    loaded = load_variant("v", tmp_path)
    answers = answer_items(
        loaded,
        [SuiteItem(id="1", family="f", prompt="Say red.", check=ANY_CHECK)],
        4,
    )
    assert len(answers) == 1


@pytest.mark.slow
def test_a_base_with_a_template_of_its_own_keeps_it(tmp_path: Path, tiny_data: Path) -> None:
    base = make_base(tmp_path / "base")
    own = (
        "{% for m in messages %}{{ '[' + m.role + ']' + m.content + eos_token }}{% endfor %}"
        "{% if add_generation_prompt %}{{ '[assistant]' }}{% endif %}"
    )
    (base / "chat_template.jinja").write_text(own)
    made = tune(config_for(base, tiny_data, tmp_path, method="lora", max_steps=1))
    assert made.run["template"] == "base"
    assert (made.folder / "chat_template.jinja").read_text() == own


def test_prefix_starts_as_a_worked_example(taught: Path) -> None:
    """Before any step the prefix acts as its tokens would in the context."""
    import numpy as np

    from tuning.methods.adapters import build_model
    from tuning.methods.virtual_tokens import _context, _set_virtual_tokens
    from tuning.models.loading import load_model
    from tuning.training.inputs import prepare

    config = config_for(
        taught / "models" / "taught",
        taught / "rows.jsonl",
        taught,
        method="prefix",
        prefix=PrefixOptions(virtual_tokens=9),
        name="p",
    )
    prepared = prepare(config)
    base = load_model(prepared.folder, dtype=torch.float32, attention="eager")
    plain = load_model(prepared.folder, dtype=torch.float32, attention="eager").eval()
    model = build_model(config, base, prepared.rows).eval()
    context = _context(prepared.rows, 9, np.random.default_rng(0))
    _set_virtual_tokens(model, context, "prefix")
    ids = torch.from_numpy(prepared.rows[0].ids.astype(np.int64))[None]
    with torch.no_grad():
        with_prefix = model(input_ids=ids).logits
        in_context = plain(input_ids=torch.cat([context, ids], dim=1)).logits[:, 9:]
    assert (with_prefix - in_context).abs().max() < 1e-4


@pytest.mark.parametrize("method", METHODS)
def test_label_loss_equals_the_full_loss(
    tiny_base: Path, tiny_data: Path, tmp_path: Path, method: str
) -> None:
    """Scoring label positions only changes no loss, for any method."""
    from tuning.data.batching import Collator
    from tuning.fused.loss import label_loss
    from tuning.methods.adapters import build_model
    from tuning.models.loading import load_model
    from tuning.training.inputs import prepare

    config = config_for(tiny_base, tiny_data, tmp_path, method=method)
    prepared = prepare(config)
    torch.manual_seed(0)
    base = load_model(prepared.folder, dtype=torch.float32, attention="eager")
    model = build_model(config, base, prepared.rows).eval()
    batch = Collator(pad_id=1)([[row] for row in prepared.rows[:6]])
    with torch.no_grad():
        mask = (
            torch.arange(batch["input_ids"].shape[1])[None]
            < torch.tensor([len(row) for row in prepared.rows[:6]])[:, None]
        ).long()
        full = model(input_ids=batch["input_ids"], attention_mask=mask, labels=batch["labels"])
        total, items = label_loss(model, batch, virtual_tokens=32 if method == "prompt" else 0)
    assert float(total / items) == pytest.approx(float(full.loss), rel=1e-5)


@pytest.mark.slow
def test_accumulation_equals_one_large_batch(
    tiny_base: Path, tiny_data: Path, tmp_path: Path
) -> None:
    large = tune(config_for(tiny_base, tiny_data, tmp_path, name="large", max_steps=3))
    training = TrainingOptions(
        max_steps=3, batch_size=2, accumulation=4, learning_rate=1e-2, precision="fp32", epochs=100
    )
    small = replace(config_for(tiny_base, tiny_data, tmp_path, name="small"), training=training)
    made = tune(small)
    left, right = read_tensors(large.folder), read_tensors(made.folder)
    assert all((left[name] - right[name]).abs().max() < 1e-5 for name in left)


@pytest.mark.slow
def test_the_same_run_twice_gives_the_same_weights(
    tiny_base: Path, tiny_data: Path, tmp_path: Path
) -> None:
    lora = LoraOptions(rank=4, dropout=0.1)
    first, second = (
        tune(config_for(tiny_base, tiny_data, tmp_path, method="lora", lora=lora, name=name))
        for name in ("a", "b")
    )
    assert first.weights_sha256 == second.weights_sha256


@pytest.mark.slow
def test_the_clock_ends_a_run(tiny_base: Path, tiny_data: Path, tmp_path: Path) -> None:
    made = tune(config_for(tiny_base, tiny_data, tmp_path, max_steps=100_000, max_minutes=0.08))
    assert 0 < made.run["steps"] < 5_000
    assert made.run["seconds"] < 60
    history = read_history(made.folder)
    steps = [item for item in history if "loss" in item]
    assert steps[-1]["progress"] == 1
    assert steps[-1]["learning_rate"] < max(item["learning_rate"] for item in steps)


@pytest.mark.slow
@pytest.mark.parametrize("method", ["full", "lora"])
def test_early_stopping_takes_the_weights_of_the_best_evaluation(
    method: str, tiny_base: Path, tiny_data: Path, tmp_path: Path
) -> None:
    """The same as of a run that ends there; more checkpoints than are kept lie between."""

    def run(home: Path, steps: int, checks: CheckOptions) -> Variant:
        config = config_for(
            tiny_base, tiny_data, home, method=method, max_steps=steps, learning_rate=0.02
        )
        training = replace(config.training, schedule="constant", warmup=0.0)
        return tune(replace(config, training=training, checks=checks))

    made = run(tmp_path, 200, CheckOptions(eval_every=1, patience=4, samples=0, save_steps=1))
    losses = [item["eval_loss"] for item in read_history(made.folder) if "eval_loss" in item]
    best = losses.index(min(losses)) + 1
    assert made.run["stopped_early"] is True
    assert (made.run["steps"], made.run["weights_of_step"]) == (best + 4, best)
    assert made.metrics["eval_loss"] == pytest.approx(min(losses), abs=1e-6)
    found = read_tensors(made.folder)
    for steps, are_equal in ((best, True), (best + 4, False)):
        other = read_tensors(run(tmp_path / str(steps), steps, CheckOptions(samples=0)).folder)
        assert found.keys() == other.keys()
        assert all(torch.equal(found[name], other[name]) for name in found) is are_equal, steps


@pytest.mark.slow
def test_packed_run_trains(tiny_base: Path, tiny_data: Path, tmp_path: Path) -> None:
    made = tune(config_for(tiny_base, tiny_data, tmp_path, method="lora", packing=True))
    assert math.isfinite(made.metrics["train_loss"])


@pytest.mark.slow
def test_bf16_base_stays_bf16_when_full(tmp_path: Path, tiny_data: Path) -> None:
    base = make_base(tmp_path / "base", dtype=torch.bfloat16)
    made = tune(config_for(base, tiny_data, tmp_path, precision="bf16"))
    assert {tensor.dtype for tensor in read_tensors(made.folder).values()} == {torch.bfloat16}
    verify_variant(made.folder, base)


@pytest.mark.parametrize("name", ["layers.0.mlp.up_proj", "embed_tokens"])
def test_a_base_with_one_nan_is_refused_by_its_name(
    tmp_path: Path, tiny_data: Path, name: str
) -> None:
    base = make_base(tmp_path / "base")
    from safetensors.torch import load_file, save_file

    weights = load_file(base / "model.safetensors")
    weights[f"model.{name}.weight"][-1, -1] = float("nan")
    save_file(weights, base / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(TuningError, match=rf"base: model\.{name}\.weight holds NaN or infinite"):
        tune(config_for(base, tiny_data, tmp_path))
    assert list((tmp_path / "models").iterdir()) == []


@pytest.mark.slow
def test_a_gradient_that_is_no_number_stops_before_the_step(
    tmp_path: Path, tiny_data: Path
) -> None:
    """Logits of 1e30 give a finite loss whose gradient's norm is beyond fp32."""
    base = make_base(tmp_path / "base")
    from safetensors.torch import load_file, save_file

    weights = load_file(base / "model.safetensors")
    weights["model.norm.weight"] = weights["model.norm.weight"] * 1e30
    save_file(weights, base / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(TuningError, match=r"gradient is (inf|nan) at step 1 \(rows .*jsonl:\d+"):
        tune(config_for(base, tiny_data, tmp_path))
    assert list((tmp_path / "models").iterdir()) == []


@pytest.mark.slow
def test_a_run_that_blows_up_names_the_last_good_checkpoint(
    tiny_base: Path, tiny_data: Path, tmp_path: Path
) -> None:
    config = config_for(
        tiny_base, tiny_data, tmp_path, learning_rate=1e37, checks=CheckOptions(save_steps=1)
    )
    with pytest.raises(TuningError, match=r"at step 2 .*the last good one is .*step-000000001"):
        tune(config)
    assert not config.folder.exists()


@pytest.mark.slow
def test_neftune_noise_is_repeatable_and_stays_out_of_the_weights(
    tiny_base: Path, tiny_data: Path, tmp_path: Path
) -> None:
    from transformers import AutoModelForCausalLM

    plain = config_for(tiny_base, tiny_data, tmp_path, max_steps=2)
    noisy = replace(plain.training, neftune=5.0)
    made = [
        tune(replace(plain, name=name, training=training))
        for name, training in (("plain", plain.training), ("a", noisy), ("b", noisy))
    ]
    assert made[1].weights_sha256 == made[2].weights_sha256 != made[0].weights_sha256
    model = AutoModelForCausalLM.from_pretrained(made[1].folder)
    ids = torch.arange(10)[None]
    assert torch.equal(model.train()(input_ids=ids).logits, model.eval()(input_ids=ids).logits)
    low_rank = config_for(tiny_base, tiny_data, tmp_path, method="lora", name="l", max_steps=2)
    verify_variant(tune(replace(low_rank, training=noisy)).folder, tiny_base)


@pytest.mark.slow
def test_every_bad_row_is_listed_and_samples_are_shown(tiny_base: Path, tmp_path: Path) -> None:
    import io

    from rich.console import Console

    bad = [{"messages": [{"role": "user", "content": f"{index}"}]} for index in range(12)]
    data = write_rows(tmp_path / "rows.jsonl", [*rows(24), *bad])
    shown = io.StringIO()
    made = tune(
        config_for(tiny_base, data, tmp_path, method="lora", packing=True),
        console=Console(file=shown, width=200),
    )
    lines = (made.folder / "bad_rows.jsonl").read_text().splitlines()
    assert [json.loads(line)["line"] for line in lines] == list(range(25, 37))
    assert "left out 2 more; bad_rows.jsonl of the variant lists all" in shown.getvalue()
    assert shown.getvalue().count("' -> ") >= 2
    ledger = made.run["ledger"]
    assert ledger["rows"]["bad"] == 12
    assert ledger["packed"]["rows"] > ledger["sequences"]
    assert f"{ledger['packed']['tokens']:,} tokens of" in shown.getvalue()
    assert read_variant(made.folder).files["bad_rows.jsonl"]


def test_qlora_is_refused_with_a_reason_where_it_cannot_run(tmp_path: Path) -> None:
    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    with pytest.raises(
        TuningError, match=r"method qlora: .* needs a CUDA GPU .* use --method lora"
    ):
        tune(TuningConfig(base="b", data=("d",), name="v", method="qlora", home=tmp_path))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"base": "nowhere"}, "base 'nowhere': no variant"),
        ({"data": ("nowhere.jsonl",)}, "no such file or folder"),
        ({"home": Path("/proc/nowhere")}, "home /proc/nowhere: cannot be written"),
        ({"method": "lora", "lora": LoraOptions(target_modules=("foo",))}, "unknown module 'foo'"),
        ({"training": TrainingOptions(max_length=1000)}, "more than the 256 positions"),
        ({"checks": CheckOptions(patience=2)}, "patience: 2 evaluations, but no row is held out"),
    ],
)
def test_mistakes_leave_nothing_behind(
    tiny_base: Path, tiny_data: Path, tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    settings: dict[str, Any] = {
        "base": str(tiny_base),
        "data": (str(tiny_data),),
        "name": "v",
        "home": tmp_path,
        **changes,
    }
    with pytest.raises(TuningError, match=message) as caught:
        tune(TuningConfig(**settings))
    assert "\n" not in str(caught.value)
    models = tmp_path / "models"
    assert not models.exists() or list(models.iterdir()) == []


@pytest.mark.slow
def test_a_taken_name_is_refused_and_overwrite_replaces(
    tiny_base: Path, tiny_data: Path, tmp_path: Path
) -> None:
    first = tune(config_for(tiny_base, tiny_data, tmp_path, max_steps=1))
    with pytest.raises(TuningError, match=r"name 'v': .* exists"):
        tune(config_for(tiny_base, tiny_data, tmp_path))
    second = tune(config_for(tiny_base, tiny_data, tmp_path, overwrite=True))
    assert second.weights_sha256 != first.weights_sha256


def test_base_without_safetensors_and_with_wrong_vocabulary(
    tmp_path: Path, tiny_data: Path
) -> None:
    base = make_base(tmp_path / "base")
    torch.save({}, base / "pytorch_model.bin")
    (base / "model.safetensors").rename(tmp_path / "kept")
    with pytest.raises(TuningError, match="only pickle weights"):
        tune(config_for(base, tiny_data, tmp_path))
    (tmp_path / "kept").rename(base / "model.safetensors")
    from tuning_fixtures import make_model

    make_model("llama", 100).save_pretrained(base)
    with pytest.raises(TuningError, match="vocabulary: the tokenizer gives id"):
        tune(config_for(base, tiny_data, tmp_path))


@pytest.mark.slow
def test_deep_verification_names_what_is_wrong(
    tiny_base: Path, tiny_data: Path, tmp_path: Path
) -> None:
    from safetensors.torch import load_file, save_file

    from tuning.variant.manifest import seal_variant

    made = tune(config_for(tiny_base, tiny_data, tmp_path, method="lora"))
    path = made.folder / "adapter_model.safetensors"
    good = load_file(path)
    name = next(key for key in good if "lora_B" in key)

    def tampered(**changes: torch.Tensor) -> None:
        save_file({**good, **changes}, path, metadata={"format": "pt"})
        seal_variant(made.folder, name="v", kind="lora", base=made.base)

    tampered(**{name: torch.full_like(good[name], float("inf"))})
    with pytest.raises(VariantError, match=r"lora_B.* holds NaN or infinity"):
        verify_variant(made.folder)
    tampered(**{key: torch.zeros_like(value) for key, value in good.items() if "lora_B" in key})
    with pytest.raises(VariantError, match="changes nothing of its base"):
        verify_variant(made.folder)
    tampered(**{name: torch.ones(5, 5)})
    with pytest.raises(VariantError, match=r"fits no layer|no lora_B of its rank"):
        verify_variant(made.folder, tiny_base)
    tampered(other=torch.ones(1))
    with pytest.raises(VariantError, match="unexpected tensor other"):
        verify_variant(made.folder)
    other = make_base(tmp_path / "other", "qwen2")
    save_file(good, path, metadata={"format": "pt"})
    seal_variant(made.folder, name="v", kind="lora", base=made.base)
    with pytest.raises(VariantError, match="was made from weights"):
        verify_variant(made.folder, other)
