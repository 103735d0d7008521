"""Options that several commands share; knows no command."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

Home = Annotated[
    Path,
    typer.Option("--home", envvar="ARENA_HOME", help="Folder of models/, arena.db and exports/."),
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
DEFAULT_HOME = Path("workspace")
