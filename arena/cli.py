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


if __name__ == "__main__":
    main()
