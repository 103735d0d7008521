"""Options that several commands share; knows no command."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from arena.config.home import WORKSPACE, usual_home

EngineChoice = Annotated[
    str, typer.Option("--engine", help="own, or vllm: that runs beside for base and LoRA.")
]
VllmProgram = Annotated[
    str,
    typer.Option("--vllm", envvar="ARENA_VLLM", help="For --engine vllm: the program to start."),
]
VllmOptions = Annotated[
    str, typer.Option("--vllm-options", help="More options of 'vllm serve', as one text.")
]
DEFAULT_HOME = WORKSPACE


def is_default(context: typer.Context, name: str) -> bool:
    """Whether neither the command line nor the environment gave this option."""
    source = context.get_parameter_source(name)
    return source is not None and source.name == "DEFAULT"


def _home(context: typer.Context, home: Path) -> Path:
    """Home as given, else the usual one; that is said where it is not in the folder one is in."""
    if context.resilient_parsing or not is_default(context, "home"):
        return home
    usual = usual_home()
    if usual != DEFAULT_HOME:
        print(f"arena: home is {usual} (--home names another)", file=sys.stderr)
    return usual


Home = Annotated[
    Path,
    typer.Option(
        "--home",
        envvar="ARENA_HOME",
        help="Folder of models/, arena.db and exports/.",
        callback=_home,
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON for scripts.")]
Host = Annotated[str, typer.Option("--host", help="Address to listen on; 0.0.0.0 for all.")]
AllowedHost = Annotated[
    list[str] | None,
    typer.Option("--allowed-host", help="Name under which the page may be opened (repeat)."),
]
RootPath = Annotated[
    str, typer.Option("--root-path", help="Path under which a proxy has the page, like /arena.")
]
Proxy = Annotated[
    list[str] | None,
    typer.Option("--proxy", help="Address of a proxy whose forwarded headers count (repeat)."),
]
AllowedOrigin = Annotated[
    list[str] | None,
    typer.Option(
        "--allowed-origin",
        help="Address the page is opened at, where a proxy asks by another (repeat).",
    ),
]
BackendUrls = Annotated[
    list[str] | None,
    typer.Option("--backend", help="Address of a TGI or OpenAI-compatible server (repeat)."),
]
