"""The commands about prompt sets: names, options and help; each body imports what it calls."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from arena.commands.options import DEFAULT_HOME, Home, Json

sets_app = typer.Typer(help="Prompt sets to be judged one after another.", no_args_is_help=True)

SetFile = Annotated[Path, typer.Argument(help="A .txt or .jsonl file with a prompt a line.")]


@sets_app.command("add")
def add_prompt_set(
    file: SetFile,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an older one.")] = False,
    home: Home = DEFAULT_HOME,
) -> None:
    """Put a prompt file into <home>/sets/, where the page finds it."""
    from arena.battles.prompt_sets import add_set

    added = add_set(home, file, overwrite=overwrite)
    print(f"{added.name}: {len(added.prompts)} prompts")


@sets_app.command("list")
def list_prompt_sets(home: Home = DEFAULT_HOME, json_out: Json = False) -> None:
    """Show the sets, and how many prompts are answered in advance."""
    import json

    from arena.battles.set_answers import overview

    rows = overview(home)
    if json_out:
        print(json.dumps({"sets": rows}))
        return
    for row in rows:
        told = f"{row['num_prompts']} prompts, {row['num_answered']} answered in advance"
        print(f"{row['name']}: {told}")


@sets_app.command("answer")
def answer_prompt_set(
    name: Annotated[str, typer.Argument(help="A set's name, or a prompt file to add first.")],
    backend: Annotated[
        list[str] | None,
        typer.Option("--backend", help="Address of a TGI or OpenAI-compatible server (repeat)."),
    ] = None,
    participant: Annotated[
        list[str] | None,
        typer.Option("--participant", help="Who answers (repeat); all if left out, 8 at most."),
    ] = None,
    parallel: Annotated[
        int, typer.Option("--parallel", help="Prompts asked at once.", min=1, max=64)
    ] = 4,
    home: Home = DEFAULT_HOME,
    json_out: Json = False,
) -> None:
    """Answer a set in advance, so that judging it waits for no model; can be run again to go on."""
    import json
    from dataclasses import asdict

    from arena.battles.prompt_sets import add_set, load_set
    from arena.battles.set_answers import answer_set

    chosen = add_set(home, Path(name)) if Path(name).is_file() else load_set(home, name)
    urls = backend or ["http://127.0.0.1:8080"]
    done = answer_set(home, chosen, urls, participant or (), parallel)
    if json_out:
        print(json.dumps(asdict(done)))
    else:
        ready = done.before + done.answered
        print(f"{done.name}: {ready} of {done.total} prompts are answered, {done.failed} failed")
    if done.failed:
        raise typer.Exit(1)
