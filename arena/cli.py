"""The `arena` command: names, options and help; each body imports the part it calls.

Knows all three packages but imports none of them at the top, so that `arena --help`
answers without loading torch or gradio.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from arena.errors import ArenaError
from serving.errors import ServingError
from tuning.errors import TuningError

app = typer.Typer(
    name="arena",
    help="Tune a base language model, serve it beside its variants, compare, vote, export.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # plain help: quick, the same in a terminal, a pipe and docs/cli.md
)
models_app = typer.Typer(
    help="List, check, merge and remove variant folders.", no_args_is_help=True
)
starter_app = typer.Typer(help="Rebuild the embedded starter model.", no_args_is_help=True)
app.add_typer(models_app, name="models")
app.add_typer(starter_app, name="starter")

Home = Annotated[
    Path,
    typer.Option("--home", envvar="ARENA_HOME", help="Folder of models/, arena.db and exports/."),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON for scripts.")]
DEFAULT_HOME = Path("workspace")


def main() -> None:
    """Run the command; a user's mistake is one line on stderr and exit status 1 or 2.

    2 is for a command line that makes no sense, 1 for one that cannot be carried out.
    """
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    os.environ.setdefault("DO_NOT_TRACK", "1")
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    try:
        sys.exit(app(prog_name="arena", standalone_mode=False))
    except (ArenaError, ServingError, TuningError) as error:
        print(f"arena: {error}", file=sys.stderr)
        sys.exit(1)
    except typer.exceptions.TyperException as error:
        message = error.format_message()
        if "\n" not in message:  # else it is the help text of a command that was given nothing
            context = getattr(error, "ctx", None)
            path = context.command_path if context else "arena"
            message = f"arena: {message.rstrip('.')}; see '{path} --help'"
        print(message, file=sys.stderr)
        sys.exit(error.exit_code)
    except typer.Abort:
        print("arena: stopped", file=sys.stderr)
        sys.exit(130)


@app.command("export")
def export_votes(
    out: Annotated[
        Path | None, typer.Option("--out", help="Folder to write; default <home>/exports/<format>.")
    ] = None,
    format_name: Annotated[str, typer.Option("--format", help="Dataset format.")] = "trl",
    model: Annotated[
        list[str] | None, typer.Option("--model", help="Only pairs of these models (repeat).")
    ] = None,
    tag: Annotated[
        list[str] | None,
        typer.Option("--tag", help="Only battles with such a tag (repeat)."),
    ] = None,
    since: Annotated[str | None, typer.Option("--since", help="From this date (ISO 8601).")] = None,
    until: Annotated[str | None, typer.Option("--until", help="Before this date.")] = None,
    include: Annotated[
        list[str] | None,
        typer.Option(
            "--include", help="Keep flagged, identity_leak, partial or diverged votes (repeat)."
        ),
    ] = None,
    blind_only: Annotated[
        bool, typer.Option("--blind-only", help="Only votes given before the names were shown.")
    ] = False,
    test_fraction: Annotated[
        float, typer.Option("--test-fraction", help="Share of the prompts for a test split.")
    ] = 0.0,
    seed: Annotated[int, typer.Option("--seed", help="Which prompts go to the test split.")] = 0,
    license_name: Annotated[str, typer.Option("--license", help="License for the card.")] = "",
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace an earlier export in that folder.")
    ] = False,
    home: Home = DEFAULT_HOME,
    json_out: Json = False,
) -> None:
    """Write the votes as a dataset that trainers read."""
    from arena.exporting import ExportRequest, run_export

    run_export(
        ExportRequest(
            home=home,
            out=out,
            format=format_name,
            models=tuple(model or ()),
            tags=tuple(tag or ()),
            since=since,
            until=until,
            include=tuple(include or ()),
            blind_only=blind_only,
            test_fraction=test_fraction,
            seed=seed,
            license=license_name,
            overwrite=overwrite,
        ),
        json_out=json_out,
    )


Backend = Annotated[
    list[str] | None,
    typer.Option("--backend", help="Address of a TGI or OpenAI-compatible server (repeat)."),
]
Host = Annotated[str, typer.Option("--host", help="Address to listen on; 0.0.0.0 for all.")]
AllowedHost = Annotated[
    list[str] | None,
    typer.Option("--allowed-host", help="Name under which the page may be opened (repeat)."),
]


@app.command("up")
def up(
    base: Annotated[
        str, typer.Option("--base", help="Base model: starter, a folder or a hub id.")
    ] = "starter",
    model: Annotated[
        list[str] | None,
        typer.Option("--model", help="Another folder or hub id to serve (repeat)."),
    ] = None,
    home: Home = DEFAULT_HOME,
    port: Annotated[int, typer.Option("--port", help="Port of the page.")] = 7860,
    serve_port: Annotated[int, typer.Option("--serve-port", help="Port of the models.")] = 8080,
    host: Host = "127.0.0.1",
    allowed_host: AllowedHost = None,
    dtype: Annotated[
        str, typer.Option("--dtype", help="auto, float32, bfloat16 or float16.")
    ] = "auto",
    device: Annotated[str, typer.Option("--device", help="auto, cpu or cuda.")] = "auto",
    backend: Backend = None,
) -> None:
    """Serve the base and all variants, and open the page: everything on one machine."""
    from arena.settings import PageConfig
    from arena.up import ModelServer, run_up

    server = ModelServer(
        base, tuple(model or ()), str(home), "127.0.0.1", serve_port, dtype, device
    )
    page = PageConfig(
        (server.url, *(backend or ())), home, host, port, allowed_hosts=tuple(allowed_host or ())
    )
    run_up(page, server)


@app.command("ui")
def ui(
    backend: Backend = None,
    home: Home = DEFAULT_HOME,
    port: Annotated[int, typer.Option("--port", help="Port of the page.")] = 7860,
    host: Host = "127.0.0.1",
    allowed_host: AllowedHost = None,
) -> None:
    """Open the page alone, against servers that run elsewhere."""
    from arena.settings import PageConfig
    from arena.up import run_ui

    urls = tuple(backend or ("http://127.0.0.1:8080",))
    run_ui(PageConfig(urls, home, host, port, allowed_hosts=tuple(allowed_host or ())))


@app.command("serve")
def serve_models(
    base: Annotated[
        str, typer.Option("--base", help="Base model: starter, a folder or a hub id.")
    ] = "starter",
    model: Annotated[
        list[str] | None,
        typer.Option("--model", help="Another folder or hub id to serve (repeat)."),
    ] = None,
    home: Home = DEFAULT_HOME,
    host: Annotated[str, typer.Option("--host", help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option("--port", help="Port to listen on; 0 is any free.")] = 8080,
    dtype: Annotated[
        str, typer.Option("--dtype", help="auto, float32, bfloat16 or float16.")
    ] = "auto",
    device: Annotated[str, typer.Option("--device", help="auto, cpu or cuda.")] = "auto",
    api_key: Annotated[
        str | None,
        typer.Option("--api-key", envvar="ARENA_API_KEY", help="Key every caller must send."),
    ] = None,
) -> None:
    """Host a base model and its variants behind the TGI and OpenAI APIs."""
    from serving.app import serve
    from serving.config import ServeConfig, name_models
    from tuning.base import resolve_base
    from tuning.starter import shipped_models
    from tuning.variant import list_variants

    folder = resolve_base(base, home)
    shipped = shipped_models()
    config = ServeConfig(
        base=folder,
        base_name=Path(base).name if Path(base).is_dir() else base,
        models=name_models(
            folder,
            packaged=shipped if folder in shipped.values() else {},
            variants=list_variants(home),
            given=[(name, resolve_base(name, home)) for name in model or ()],
        ),
        host=host,
        port=port,
        dtype=dtype,
        device=device,
        home=home,
        api_key=api_key,
    )
    serve(config, on_ready=lambda url: print(f"Serving at {url}", flush=True))


if __name__ == "__main__":
    main()
