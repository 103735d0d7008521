"""The `arena loop` command: names, options and help; the work is tuning's.

Votes become files of rows here, as for `arena tune`.
"""

from __future__ import annotations

from typing import Annotated

import typer

from arena.commands.options import DEFAULT_HOME, Home, Json

loop_app = typer.Typer()


@loop_app.command("loop")
def loop(
    base: Annotated[
        str, typer.Option("--base", help="The model to improve: one that follows instructions.")
    ],
    name: Annotated[
        str, typer.Option("--name", help="Name of the loop, with which its models' names begin.")
    ],
    data: Annotated[
        list[str] | None,
        typer.Option("--data", help="votes, synthetic-votes, or any preference set (repeat)."),
    ] = None,
    policy: Annotated[
        list[str] | None,
        typer.Option("--policy", help="dpo, kto or rl (repeat); the first decides the verdict."),
    ] = None,
    suite: Annotated[
        str | None,
        typer.Option("--suite", help="Checks of answers: auto, none, or as of `arena eval`."),
    ] = None,
    heldout: Annotated[
        float | None, typer.Option("--heldout", help="Share of the prompts not learned from.")
    ] = None,
    prompts: Annotated[
        int | None, typer.Option("--prompts", help="Only so many prompts of the suite.")
    ] = None,
    samples: Annotated[
        int | None, typer.Option("--samples", help="Answers among which the reward model picks.")
    ] = None,
    sampled_prompts: Annotated[
        int | None, typer.Option("--sampled-prompts", help="Prompts that are answered so often.")
    ] = None,
    max_new_tokens: Annotated[
        int | None, typer.Option("--max-new-tokens", help="Longest answer in tokens.")
    ] = None,
    seed: Annotated[int | None, typer.Option("--seed", help="Of all that is drawn.")] = None,
    assignments: Annotated[
        list[str] | None,
        typer.Option("--set", help="A setting of its runs, as reward.epochs=1, policy.beta=0.2."),
    ] = None,
    skip: Annotated[
        list[str] | None,
        typer.Option(
            "--skip", help="Leave out reward, curve, best-of, policy, shuffled, inverted or eval."
        ),
    ] = None,
    restart: Annotated[
        bool, typer.Option("--restart", help="Forget what a loop of that name found and made.")
    ] = False,
    home: Home = DEFAULT_HOME,
    json_out: Json = False,
) -> None:
    """Turn votes into a reward model and a better variant, with controls and a report."""
    from arena.commands.vote_data import as_files
    from tuning.commands.loop import run_loop_command

    options = {
        "base": base,
        "name": name,
        "home": home,
        "data": tuple(data or ("votes",)),
        "policies": tuple(policy or ()),
        "suite": suite,
        "heldout": heldout,
        "prompts": prompts,
        "samples": samples,
        "sampled_prompts": sampled_prompts,
        "max_new_tokens": max_new_tokens,
        "seed": seed,
        "assignments": tuple(assignments or ()),
    }
    given = {key: value for key, value in options.items() if value not in (None, ())}
    run_loop_command(given, as_files, skip=tuple(skip or ()), restart=restart, json_out=json_out)
