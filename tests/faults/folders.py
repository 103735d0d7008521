"""Malformed variant folders: each spoils an unsealed copy of a good one, in one way.

`LORA`, `PREFIX` and `FULL` say of which; a case that names `variant.json` writes one.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

Spoil = Callable[[Path], None]
ADAPTER, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
MODEL = "model.safetensors"


def write(name: str, content: str | bytes) -> Spoil:
    """A file of that content."""

    def spoil(folder: Path) -> None:
        data = content if isinstance(content, bytes) else content.encode()
        (folder / name).write_bytes(data)

    return spoil


def change(name: str, **settings: Any) -> Spoil:
    """Entries of a JSON file."""

    def spoil(folder: Path) -> None:
        path = folder / name
        content = json.loads(path.read_text()) if path.is_file() else {}
        path.write_text(json.dumps({**content, **settings}))

    return spoil


def remove(name: str) -> Spoil:
    return lambda folder: (folder / name).unlink()


def directory(name: str) -> Spoil:
    def spoil(folder: Path) -> None:
        (folder / name).unlink(missing_ok=True)
        (folder / name).mkdir()

    return spoil


def link(name: str, target: str) -> Spoil:
    """A link in the place of a file."""

    def spoil(folder: Path) -> None:
        (folder / name).unlink(missing_ok=True)
        (folder / name).symlink_to(target)

    return spoil


def link_out(name: str) -> Spoil:
    """The file is beside the folder, and a link in its place."""

    def spoil(folder: Path) -> None:
        outside = folder.parent.parent / f"outside-{folder.name}"
        (folder / name).rename(outside)
        (folder / name).symlink_to(outside)

    return spoil


def pipe(name: str) -> Spoil:
    """A pipe in the place of a file: who opens it waits for ever."""

    def spoil(folder: Path) -> None:
        (folder / name).unlink(missing_ok=True)
        os.mkfifo(folder / name)

    return spoil


def cut(name: str) -> Spoil:
    """Half of the bytes."""

    def spoil(folder: Path) -> None:
        data = (folder / name).read_bytes()
        (folder / name).write_bytes(data[: len(data) // 2])

    return spoil


def seal(**content: Any) -> Spoil:
    """A variant.json that a person wrote by hand."""
    good = {
        "name": "x", "kind": "lora", "base": None, "files": {WEIGHTS: "0" * 64}, "template": None,
        "run": {}, "metrics": {}, "parent": None, "format_version": 1,
    }  # fmt: skip
    return write("variant.json", json.dumps({**good, **content}))


DEEP = "[" * 100_000 + "]" * 100_000
LOOP = "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}"
LORA: dict[str, Spoil] = {
    "adapter config is no JSON": write(ADAPTER, "{"),
    "adapter config is a list": write(ADAPTER, "[]"),
    "adapter config is no UTF-8": write(ADAPTER, b"\xff\xfe{}"),
    "adapter config is deep": write(ADAPTER, DEEP),
    "adapter config is a folder": directory(ADAPTER),
    "adapter config is missing": remove(ADAPTER),
    "adapter config is a pipe": pipe(ADAPTER),
    "peft_type unknown": change(ADAPTER, peft_type="BOFT"),
    "peft_type is a list": change(ADAPTER, peft_type=["LORA"]),
    "peft_type is another": change(ADAPTER, peft_type="PREFIX_TUNING"),
    "alpha is a text": change(ADAPTER, lora_alpha="much"),
    "alpha is a list": change(ADAPTER, lora_alpha=[8]),
    "alpha_pattern is a list": change(ADAPTER, alpha_pattern=["q_proj"]),
    "alpha_pattern looks ahead": change(ADAPTER, alpha_pattern={"(?=q)q_proj": 2}),
    "modules_to_save": change(ADAPTER, modules_to_save=["lm_head"]),
    "bias is trained": change(ADAPTER, bias="all"),
    "base of bytes": change(ADAPTER, base_model_name_or_path="a\0b", lora_alpha=None),
    "base weights were rewritten": change(ADAPTER, init_lora_weights="pissa"),
    "weights are missing": remove(WEIGHTS),
    "weights are empty": write(WEIGHTS, b""),
    "weights are cut": cut(WEIGHTS),
    "weights are a pickle": lambda folder: (
        (folder / WEIGHTS).rename(folder / "adapter_model.bin") and None
    ),
    "weights are a pipe": pipe(WEIGHTS),
    "weights never end": link(WEIGHTS, "/dev/zero"),
    "weights lie outside": link_out(WEIGHTS),
    "weights lead nowhere": link("more.safetensors", "gone"),
    "weights lead in a circle": link("more.safetensors", "more.safetensors"),
    "a secret as template": link("chat_template.jinja", "/etc/passwd"),
    "template does not end": write("chat_template.jinja", "{% for m in messages %}"),
    "template takes for ever": write("chat_template.jinja", LOOP),
    "template is no UTF-8": write("chat_template.jinja", b"\xff\xfe\x00"),
    "template reaches out": write("chat_template.jinja", "{{ ''.__class__.__mro__ }}"),
    "tokenizer config is a list": write("tokenizer_config.json", "[]"),
    "tokenizer config is no JSON": write("tokenizer_config.json", "{"),
    "tokenizer is no JSON": write("tokenizer.json", "{"),
    "tokenizer is a list": write("tokenizer.json", "[]"),
    "tokenizer of no model": write("tokenizer.json", '{"version":"1.0","model":{}}'),
    "tokenizer is a pipe": pipe("tokenizer.json"),
    "an end that is no id": change("generation_config.json", eos_token_id="</s>"),
    "seal is a list": write("variant.json", "[]"),
    "seal is no JSON": write("variant.json", "{"),
    "seal is a text": write("variant.json", '"lora"'),
    "seal is deep": write("variant.json", DEEP),
    "seal is a pipe": pipe("variant.json"),
    "seal of the future": seal(format_version=99),
    "seal without a version": seal(format_version=True),
    "seal of another kind": seal(kind=["lora"]),
    "seal of other weights": seal(),
    "seal of files outside": seal(files={"../x.safetensors": "0" * 64}),
    "seal of no files": seal(files={}),
    "seal of a base that is a text": seal(base="starter"),
}
PREFIX: dict[str, Spoil] = {
    "no layers": change(ADAPTER, num_layers=0),
    "layers of text": change(ADAPTER, num_layers="two"),
    "another width": change(ADAPTER, token_dim=8),
}
FULL: dict[str, Spoil] = {
    "config is no JSON": write("config.json", "{"),
    "config is a list": write("config.json", "[]"),
    "config is missing": remove("config.json"),
    "model_type unknown": change("config.json", model_type="nobody"),
    "model_type is a number": change("config.json", model_type=7),
    "code of its own": change("config.json", auto_map={"AutoConfig": "x.Y"}, model_type="y"),
    "layers without weights": change("config.json", num_hidden_layers=1_000_000),
    "layers of text": change("config.json", num_hidden_layers="many"),
    "positions of text": change("config.json", max_position_embeddings="many"),
    "no positions": change("config.json", max_position_embeddings=-5),
    "another width": change("config.json", hidden_size=64),
    "a width of nothing": change("config.json", hidden_size=0),
    "heads that do not divide": change("config.json", num_attention_heads=5),
    "an activation unknown": change("config.json", hidden_act="none such"),
    "rotary of text": change("config.json", rope_parameters="yes"),
    "quantised": change("config.json", quantization_config={"quant_method": "gptq"}),
    "no tokenizer": remove("tokenizer.json"),
    "weights are cut": cut(MODEL),
    "an index of nothing": write("model.safetensors.index.json", '{"weight_map": {"a": "b"}}'),
}  # fmt: skip
