"""Variant folders: sealing, reading, and every kind of tampering refused by name."""

from __future__ import annotations

import fcntl
import hashlib
import json
import subprocess
import sys
from pathlib import Path

import pytest
from forked import run_script

from tuning.variant import (
    VARIANT_FILE,
    Base,
    VariantError,
    list_variants,
    read_variant,
    weights_sha256,
)
from tuning.variant.manifest import publish, seal_variant, store_metrics, sweep_abandoned


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A sealed adapter folder; its weights are any bytes, since only hashes are read here."""
    path = tmp_path / "models" / "mine"
    path.mkdir(parents=True)
    (path / "adapter_model.safetensors").write_bytes(b"weights")
    (path / "adapter_config.json").write_text('{"peft_type": "LORA"}')
    (path / "chat_template.jinja").write_text("{{ messages }}")
    (path / "README.md").write_text("card")
    seal_variant(
        path,
        name="mine",
        kind="lora",
        base=Base(id="starter", revision=None, sha256="ab"),
        run={"seed": 1},
        parent="starter",
    )
    return path


def test_sealed_folder_reads_back(folder: Path) -> None:
    variant = read_variant(folder)
    assert (variant.name, variant.kind, variant.parent) == ("mine", "lora", "starter")
    assert variant.base == Base(id="starter", revision=None, sha256="ab")
    assert variant.template == hashlib.sha256(b"{{ messages }}").hexdigest()
    assert variant.weights_sha256 == weights_sha256(folder)
    assert set(variant.files) == {
        "adapter_model.safetensors",
        "adapter_config.json",
        "chat_template.jinja",
    }


@pytest.mark.parametrize(("umask", "mode"), [(0o022, 0o644), (0o027, 0o640), (0o077, 0o600)])
def test_whoever_may_read_one_file_may_read_the_weights(
    tmp_path: Path, umask: int, mode: int
) -> None:
    """In a process of its own, since a umask is of the process; safetensors writes 0600."""
    script = (
        "import os, sys, torch; from pathlib import Path; from safetensors.torch import save_file; "
        "from tuning.variant.manifest import seal_variant; os.umask(int(sys.argv[2])); "
        "folder = Path(sys.argv[1]); (folder / 'config.json').write_text('{}'); "
        "save_file({'a': torch.ones(1)}, folder / 'model.safetensors'); "
        "seal_variant(folder, name='v', kind='full')"
    )
    done = run_script(script, tmp_path, str(umask))
    assert done.status == 0, done.stderr
    assert {path.name: path.stat().st_mode & 0o777 for path in tmp_path.iterdir()} == dict.fromkeys(
        ["config.json", "model.safetensors", "variant.json"], mode
    )


def test_fingerprint_is_what_coreutils_print(tmp_path: Path) -> None:
    for name, content in {"b.safetensors": b"1", "a.safetensors": b"2", "c.json": b"3"}.items():
        (tmp_path / name).write_bytes(content)
    command = "sha256sum *.safetensors | LC_ALL=C sort | sha256sum"
    printed = subprocess.run(
        ["bash", "-c", command], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert weights_sha256(tmp_path) == printed.stdout.split()[0]


def test_card_may_be_edited(folder: Path) -> None:
    (folder / "README.md").write_text("my words")
    assert read_variant(folder).name == "mine"


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("adapter_model.safetensors", b"other", "content differs"),
        ("chat_template.jinja", b"other", "content differs"),
        ("adapter_model.bin", b"x", "pickle weights are refused"),
        ("extra.safetensors", b"x", "not listed"),
        ("tokenizer.json", b"{}", "not listed"),
    ],
)
def test_tampering_is_refused(folder: Path, name: str, content: bytes, message: str) -> None:
    (folder / name).write_bytes(content)
    with pytest.raises(VariantError, match=message) as caught:
        read_variant(folder)
    assert str(folder / name) in str(caught.value)
    assert "\n" not in str(caught.value)
    read_variant(folder, verify=False)


def test_missing_file_is_refused(folder: Path) -> None:
    (folder / "adapter_config.json").unlink()
    with pytest.raises(VariantError, match=r"adapter_config\.json: file is missing"):
        read_variant(folder)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("kind", "soft", "unknown kind 'soft'"),
        ("format_version", 99, "newer than 1"),
        ("format_version", "1", "no version"),
        ("files", {}, "no .*safetensors"),
        ("files", {"../../etc/x.safetensors": "0"}, "no plain file name"),
        ("base", "starter", "no object"),
        ("run", None, "run is None"),
        ("name", 3, "name is 3"),
    ],
)
def test_malformed_content_is_named(folder: Path, key: str, value: object, message: str) -> None:
    path = folder / VARIANT_FILE
    content = json.loads(path.read_text())
    content[key] = value
    path.write_text(json.dumps(content))
    with pytest.raises(VariantError, match=message):
        read_variant(folder)


def test_broken_json_is_named(folder: Path) -> None:
    (folder / VARIANT_FILE).write_text("{")
    with pytest.raises(VariantError, match="cannot be read as JSON"):
        read_variant(folder)


def test_foreign_folders_are_described(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"architectures": ["LlamaForCausalLM"]}')
    with pytest.raises(VariantError, match="no weights"):
        read_variant(tmp_path)
    (tmp_path / "model.bin").write_bytes(b"x")
    with pytest.raises(VariantError, match="only pickle weights"):
        read_variant(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"x")
    described = read_variant(tmp_path)
    assert (described.kind, described.base, described.run) == ("base", None, {})
    (tmp_path / "chat_template.jinja").write_text("x")
    assert read_variant(tmp_path).kind == "base", "whatever was done to it elsewhere"
    (tmp_path / "adapter_config.json").write_text('{"peft_type": "LORA", "use_dora": true}')
    assert read_variant(tmp_path).kind == "dora"
    (tmp_path / "adapter_config.json").write_text('{"peft_type": "ADALORA"}')
    with pytest.raises(VariantError, match="'ADALORA' is not supported"):
        read_variant(tmp_path)


def test_list_skips_unfinished(folder: Path) -> None:
    home = folder.parent.parent
    (folder.parent / ".other.tmp").mkdir()
    (folder.parent / "file").write_text("")
    assert list_variants(home) == [folder]
    assert list_variants(home / "nowhere") == []


def test_metrics_are_merged_and_seal_holds(folder: Path) -> None:
    store_metrics(folder, {"eval": {"accuracy": 0.5}})
    store_metrics(folder, {"perplexity": 3.0})
    variant = read_variant(folder)
    assert variant.metrics == {"eval": {"accuracy": 0.5}, "perplexity": 3.0}
    assert not list(folder.glob(".*"))


def test_publish_renames_whole_folder(folder: Path, tmp_path: Path) -> None:
    publish(folder, tmp_path / "moved")
    assert not folder.exists()
    assert read_variant(tmp_path / "moved").name == "mine"


def test_only_what_killed_conversions_left_is_swept(tmp_path: Path) -> None:
    """A running one holds its lock; work that takes none, and folders called otherwise, stay."""
    for name in ("dead", "alive"):
        (tmp_path / f".{name}.lock").touch()
    for name in (".dead.abcd_123.tmp", ".alive.abcd_123.tmp", ".tuned.abcd_123.tmp", ".dead.tmp"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "part").write_text("half")
    before = {path.name for path in tmp_path.iterdir()}
    with (tmp_path / ".alive.lock").open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        sweep_abandoned(tmp_path)
    assert before - {path.name for path in tmp_path.iterdir()} == {".dead.abcd_123.tmp"}
    sweep_abandoned(tmp_path / "none")


def test_no_torch_at_import() -> None:
    code = "import sys, tuning, tuning.variant.manifest; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
