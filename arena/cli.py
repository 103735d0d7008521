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


if __name__ == "__main__":
    main()
