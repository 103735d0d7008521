"""The commands `arena reward ...`: names, options and help.

Each body imports the part of tuning it calls, as in `arena.cli`.
"""

from __future__ import annotations

from pathlib import Path
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


@reward_app.command("bench")
def score_bench(
    file: Annotated[str, typer.Argument(help="A file of RewardBench 2 or of RM-Bench.")],
    model: Annotated[str, typer.Option("--model", help="Name or folder of the reward model.")],
    base: Annotated[
        str | None, typer.Option("--base", help="Base of an adapter that does not name its own.")
    ] = None,
    home: Home = DEFAULT_HOME,
    json_out: Json = False,
) -> None:
    """Score the answers of a public bench, and say what its own rules make of the scores."""
    from tuning.commands.reward import run_bench

    run_bench(file, model, home, base, json_out=json_out)


@reward_app.command("best-of")
def best_of(
    name: Annotated[str, typer.Argument(help="The model that answers.")],
    reward: Annotated[str, typer.Option("--reward", help="The reward model that picks.")],
    suite: Annotated[
        str, typer.Option("--suite", help="starter, constraints, a JSONL file or a mixture.yaml.")
    ] = "starter",
    samples: Annotated[
        int, typer.Option("--samples", help="Answers to each prompt; the curve ends there.", min=1)
    ] = 16,
    limit: Annotated[
        int | None, typer.Option("--limit", help="Only so many prompts, evenly spread.", min=1)
    ] = None,
    temperature: Annotated[
        float, typer.Option("--temperature", help="Of the samples.", min=0.01, max=100)
    ] = 1.0,
    max_new_tokens: Annotated[
        int, typer.Option("--max-new-tokens", help="Longest answer in tokens.", min=1)
    ] = 96,
    seed: Annotated[int, typer.Option("--seed", help="Of the samples.", min=0)] = 0,
    plot: Annotated[
        Path | None, typer.Option("--plot", help="Draw the curve to this PNG file.")
    ] = None,
    home: Home = DEFAULT_HOME,
    json_out: Json = False,
) -> None:
    """Let a reward model pick the best of n answers, and verify what that gains."""
    from tuning.commands.best_of_n import run_best_of

    run_best_of(
        name,
        reward,
        home,
        suite=suite,
        samples=samples,
        limit=limit,
        temperature=temperature,
        max_new_tokens=max_new_tokens,
        seed=seed,
        plot=plot,
        json_out=json_out,
    )
