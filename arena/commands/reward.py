"""The commands `arena reward ...`: names, options and help.

Each body imports the part of tuning it calls, as in `arena.cli`.
"""

from __future__ import annotations

from typing import Annotated

import typer

from arena.commands.options import DEFAULT_HOME, Home, Json

reward_app = typer.Typer(help="Score answers by a reward model.", no_args_is_help=True)


@reward_app.callback()
def _reward() -> None:
    """Score answers by a reward model."""


@reward_app.command("score")
def score_rows(
    file: Annotated[
        str, typer.Argument(help="Rows of prompt and completion, as texts or message lists.")
    ],
    model: Annotated[str, typer.Option("--model", help="Name or folder of the reward model.")],
    base: Annotated[
        str | None, typer.Option("--base", help="Base of an adapter that does not name its own.")
    ] = None,
    home: Home = DEFAULT_HOME,
    json_out: Json = False,
) -> None:
    """Print the score of each row; the higher the better."""
    from tuning.commands.reward import run_score

    run_score(file, model, home, base, json_out=json_out)
