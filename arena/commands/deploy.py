"""`arena deploy`: base and variants as files for an engine that scales, and what is left out.

Resolves names, copies models and writes the folder whole; the engines' words are in `serving`.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from arena.commands.options import DEFAULT_HOME, Home, Json
from arena.errors import ArenaError

if TYPE_CHECKING:
    from serving.deploy.bundle import Bundle

deploy_app = typer.Typer()
TARGETS = ("vllm", "sglang", "ray", "kserve", "ollama")


class DeployError(ArenaError):
    """A deployment that cannot be written as asked."""


@deploy_app.command("deploy")
def deploy(
    target: Annotated[str, typer.Argument(help="vllm, sglang, ray, kserve or ollama.")],
    names: Annotated[
        list[str] | None,
        typer.Argument(help="Variants, folders or hub ids; default all of the base under home."),
    ] = None,
    out: Annotated[Path, typer.Option("--out", help="Folder to write.")] = Path("deploy"),
    base: Annotated[
        str, typer.Option("--base", help="Base model: starter, a folder, a GGUF file or a hub id.")
    ] = "starter",
    uri: Annotated[
        str | None,
        typer.Option("--uri", help="For ray and kserve: where the folder of --out will lie."),
    ] = None,
    file_type: Annotated[
        str, typer.Option("--type", help="For ollama: numbers of the files, as models export.")
    ] = "q8_0",
    home: Home = DEFAULT_HOME,
    json_out: Json = False,
) -> None:
    """Write what brings base and variants up on vLLM, SGLang, Ray Serve, KServe or Ollama."""
    from tuning.commands.edge import told

    if target not in TARGETS:
        raise DeployError(f"target {target!r}: is unknown; known are {', '.join(TARGETS)}")
    if out.exists() or out.is_symlink():
        raise DeployError(f"--out {out}: exists; choose another, or remove it first")
    if uri is not None and target not in ("ray", "kserve"):
        raise DeployError(f"--uri {uri!r}: {target} takes the folder itself; leave it out")
    given = _models(base, names or [], home)
    done = told(_write)(target, given, out, uri, file_type, home)
    if json_out:
        print(json.dumps(done, ensure_ascii=False))
        return
    print(f"wrote {out} for {target}: {', '.join(one['name'] for one in done['models'])}")
    for name, why in done["left_out"].items():
        print(f"left out: {name} {why}")
    print(f"{done['needs']}\nnext: cd {out} && {done['command']}")


def _models(base: str, names: list[str], home: Path) -> list[tuple[str, Path]]:
    """Names and folders, the base first; without names all that `arena serve` would serve."""
    from serving.config import name_models
    from tuning.models.resolve import resolve_base
    from tuning.starter import shipped_models
    from tuning.variant import list_variants

    folder = resolve_base(base, home)
    label = folder.name if Path(base).expanduser().exists() else base
    shipped = shipped_models()
    found = name_models(
        folder,
        packaged=shipped if folder in shipped.values() and not names else {},
        variants=[] if names else list_variants(home),
        given=[(name, resolve_base(name, home, what="model")) for name in names],
    )
    return [(label, folder), *(one for one in found if one[0] != label)]


def _write(
    target: str,
    models: list[tuple[str, Path]],
    out: Path,
    uri: str | None,
    file_type: str,
    home: Path,
) -> dict[str, Any]:
    """Write the folder whole or not at all; what is in it, as `--json` prints it."""
    from serving.deploy.bundle import copy_models
    from serving.deploy.kserve import kserve_bundle
    from serving.deploy.page import PARTICIPANTS, participants, readme
    from serving.deploy.placement import place
    from serving.deploy.ray_serve import ray_bundle
    from serving.deploy.scripts import sglang_bundle, vllm_bundle
    from tuning.variant.manifest import whole_folder

    with whole_folder(out) as folder:
        if target == "ollama":
            bundle, left_out = _for_ollama(models, folder, file_type, home)
        else:
            placement = place(models[0], models[1:])
            left_out = placement.left_out
            if target in ("ray", "kserve"):
                bundle = (ray_bundle if target == "ray" else kserve_bundle)(placement, uri)
            else:
                bundle = (vllm_bundle if target == "vllm" else sglang_bundle)(placement)
            copy_models(placement, folder)
        texts = {
            **bundle.files,
            PARTICIPANTS: participants(bundle.models),
            "README.md": readme(target, bundle, left_out),
        }
        for name, text in texts.items():
            (folder / name).write_text(text, encoding="utf-8")
            if name in bundle.executable:
                (folder / name).chmod(0o755)
    return {
        "target": target,
        "out": str(out),
        "command": bundle.command,
        "needs": bundle.needs,
        "files": sorted(texts),
        "models": [vars(one) for one in bundle.models],
        "left_out": left_out,
    }


def _for_ollama(
    models: list[tuple[str, Path]], folder: Path, file_type: str, home: Path
) -> tuple[Bundle, dict[str, str]]:
    """A folder with GGUF file and Modelfile for each model, merged, and the script for all."""
    from serving.deploy.ollama import ollama_bundle, ollama_name
    from serving.errors import ServingError
    from tuning.errors import TuningError
    from tuning.models.export.export import export_variant
    from tuning.models.export.gguf_file import FILE_TYPES
    from tuning.quiet import quiet_libraries
    from tuning.variant import read_variant

    if file_type not in FILE_TYPES:
        raise DeployError(f"--type {file_type!r}: is unknown; known are {', '.join(FILE_TYPES)}")
    quiet_libraries()
    base, done, left_out = str(models[0][1]), {}, {}
    there: dict[str, str] = {}  # whose Ollama's names are
    for name, source in models:
        try:
            called = ollama_name(name)
            if called in there:
                left_out[name] = f"has the name of {there[called]} there; rename one of the folders"
                continue
            variant = read_variant(source)
            own = base if variant.is_adapter else None
            export_variant(
                str(source), home, "ollama", folder / name, file_type=file_type, base=own
            )
        except (TuningError, ServingError) as error:
            left_out[name] = str(error)
        else:
            done[name], there[called] = variant, name
    if not done:
        raise DeployError(f"no model is left for ollama: {'; '.join(left_out.values())}")
    return ollama_bundle(done), left_out
