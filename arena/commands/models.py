"""The commands `arena models ...` and `arena starter ...`: names, options and help.

Each body imports the part of tuning it calls, as in `arena.cli`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from arena.commands.options import DEFAULT_HOME, Home, Json

models_app = typer.Typer(
    help="List, add, check, merge, export and remove variant folders.", no_args_is_help=True
)
starter_app = typer.Typer(
    short_help="Pretrain a base like the starter.",
    help="Pretrain a base like the starter (an earlier recipe made the shipped one).",
    no_args_is_help=True,
)


@models_app.command("list")
def list_models(home: Home = DEFAULT_HOME, json_out: Json = False) -> None:
    """Show the packaged models and the variants under home."""
    from tuning.commands.models import run_list

    run_list(home, json_out=json_out)


@models_app.command("add")
def add_model(
    source: Annotated[
        str,
        typer.Argument(help="GGUF file, smollm2, a checkpoint or adapter folder, or a hub id."),
    ],
    name: Annotated[
        str | None, typer.Option("--as", help="Name under home; default the source's own.")
    ] = None,
    home: Home = DEFAULT_HOME,
    json_out: Json = False,
) -> None:
    """Bring a model made elsewhere under home, from where it is served and tuned."""
    from tuning.commands.models import run_add

    run_add(source, home, name, json_out=json_out)


@models_app.command("verify")
def verify_models(
    names: Annotated[list[str], typer.Argument(help="Variants to check.")],
    base: Annotated[str | None, typer.Option("--base", help="Check against this base.")] = None,
    home: Home = DEFAULT_HOME,
    json_out: Json = False,
) -> None:
    """Check hashes, tensors and base of variants."""
    from tuning.commands.models import run_verify

    run_verify(names, home, base, json_out=json_out)


@models_app.command("merge")
def merge_model(
    name: Annotated[str, typer.Argument(help="LoRA, DoRA or IA3 variant.")],
    new_name: Annotated[
        str | None, typer.Option("--as", help="Name of the merged one; default NAME-merged.")
    ] = None,
    base: Annotated[str | None, typer.Option("--base", help="Base, if it is not found.")] = None,
    home: Home = DEFAULT_HOME,
) -> None:
    """Write an adapter and its base as one full checkpoint."""
    from tuning.commands.models import run_merge

    run_merge(name, home, new_name, base)


@models_app.command("plot")
def plot_models(
    names: Annotated[list[str], typer.Argument(help="Variants to compare.")],
    out: Annotated[Path, typer.Option("--out", help="PNG file to write.")] = Path("losses.png"),
    home: Home = DEFAULT_HOME,
) -> None:
    """Draw the loss curves of several variants over each other."""
    from tuning.commands.models import run_plot

    run_plot(names, home, out)


@models_app.command("export")
def export_model(
    name: Annotated[str, typer.Argument(help="Variant or packaged model.")],
    target: Annotated[str, typer.Option("--to", help="gguf, ollama, hub or folder.")],
    out: Annotated[
        str, typer.Option("--out", help="File or folder to write; for the hub ORG/NAME.")
    ],
    file_type: Annotated[
        str, typer.Option("--type", help="Numbers of a GGUF file: f16, bf16, q8_0 or f32.")
    ] = "f16",
    adapter: Annotated[
        bool, typer.Option("--adapter", help="The adapter alone, not merged into its base.")
    ] = False,
    base: Annotated[str | None, typer.Option("--base", help="Base, if it is not found.")] = None,
    home: Home = DEFAULT_HOME,
    yes: Annotated[bool, typer.Option("--yes", help="Send to the hub; else only list.")] = False,
    json_out: Json = False,
) -> None:
    """Write a variant for llama.cpp, Ollama or the hub; merged files are read again."""
    from tuning.commands.models import run_export

    run_export(
        name,
        home,
        target,
        out,
        file_type=file_type,
        adapter=adapter,
        base=base,
        yes=yes,
        json_out=json_out,
    )


@models_app.command("remove")
def remove_model(
    name: Annotated[str, typer.Argument(help="Variant to delete.")],
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    home: Home = DEFAULT_HOME,
) -> None:
    """Delete a variant under home."""
    from tuning.commands.models import run_remove

    run_remove(name, home, yes=yes)


@starter_app.command("pretrain")
def starter_pretrain(
    out: Annotated[Path, typer.Option("--out", help="Folder of the run and its checkpoints.")],
    steps: Annotated[int, typer.Option("--steps", min=0, help="Training steps.")] = 10_000,
    minutes: Annotated[
        float | None, typer.Option("--minutes", help="Train by the clock instead, for so long.")
    ] = None,
    seed: Annotated[int, typer.Option("--seed", help="Seed of the initial weights.")] = 0,
    go_on: Annotated[
        Path | None, typer.Option("--go-on", help="Folder of a finished base to train further.")
    ] = None,
    precision: Annotated[
        str, typer.Option("--precision", help="fp32, bf16, or auto: what suits the machine.")
    ] = "auto",
    json_out: Json = False,
) -> None:
    """Pretrain the starter's base model on its generated corpus; the same command resumes."""
    from tuning.starter.pretraining.build import run_pretrain
    from tuning.starter.pretraining.recipe import pretrain_config

    config = pretrain_config(steps, minutes, seed, go_on, precision)
    run_pretrain(config, out, json_out=json_out)
