"""The commands about votes: names, options and help; each body imports what it calls."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from arena.commands.options import DEFAULT_HOME, Home, Json

votes_app = typer.Typer()


@votes_app.command("export")
def export_votes(
    out: Annotated[
        Path | None, typer.Option("--out", help="Folder to write; default <home>/exports/<format>.")
    ] = None,
    format_name: Annotated[
        str,
        typer.Option(
            "--format",
            help="trl, kto, votes, lmsys, 55k, 100k, 140k, openwebui, comparator, csv or raw.",
        ),
    ] = "trl",
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
            "--include",
            help="Keep flagged, identity_leak, partial, diverged or synthetic votes (repeat).",
        ),
    ] = None,
    blind_only: Annotated[
        bool, typer.Option("--blind-only", help="Only votes given before the names were shown.")
    ] = False,
    test_fraction: Annotated[
        float, typer.Option("--test-fraction", help="Share of the prompts for a test split.")
    ] = 0.0,
    seed: Annotated[int, typer.Option("--seed", help="Which prompts go to the test split.")] = 0,
    dedupe: Annotated[bool, typer.Option("--dedupe", help="Write equal rows once.")] = False,
    redact: Annotated[
        bool, typer.Option("--redact", help="Replace e-mail addresses, telephone numbers, keys.")
    ] = False,
    license_name: Annotated[str, typer.Option("--license", help="License for the card.")] = "",
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace an earlier export in that folder.")
    ] = False,
    push: Annotated[
        str | None,
        typer.Option(
            "--push",
            metavar="ORG/NAME",
            help="Also send it to the hub, privately (needs HF_TOKEN).",
        ),
    ] = None,
    home: Home = DEFAULT_HOME,
    json_out: Json = False,
) -> None:
    """Write the votes as a dataset that trainers read."""
    from arena.commands.export import ExportRequest, run_export

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
            dedupe=dedupe,
            redact=redact,
            license=license_name,
            overwrite=overwrite,
            push=push,
        ),
        json_out=json_out,
    )


@votes_app.command()
def leaderboard(
    ties: Annotated[str, typer.Option("--ties", help="half, davidson or drop.")] = "half",
    both_bad: Annotated[str, typer.Option("--both-bad", help="tie or drop.")] = "tie",
    ridge: Annotated[float, typer.Option("--ridge", help="Penalty on strengths.")] = 0.1,
    named: Annotated[bool, typer.Option("--named", help="Also votes given by name.")] = False,
    flagged: Annotated[bool, typer.Option("--flagged", help="Also votes in quarantine.")] = False,
    synthetic: Annotated[
        bool, typer.Option("--synthetic", help="Also votes of `arena judge`.")
    ] = False,
    propensity: Annotated[
        bool, typer.Option("--propensity", help="Weigh votes by one over the pair's propensity.")
    ] = False,
    style: Annotated[
        bool, typer.Option("--style", help="Tell the effect of length and markup from strength.")
    ] = False,
    reason: Annotated[str | None, typer.Option("--reason", help="Votes with this reason.")] = None,
    tag: Annotated[str | None, typer.Option("--tag", help="Battles with this tag.")] = None,
    since: Annotated[str | None, typer.Option("--since", help="From this date (ISO 8601).")] = None,
    until: Annotated[str | None, typer.Option("--until", help="Before this date.")] = None,
    bootstrap: Annotated[
        int, typer.Option("--bootstrap", help="Intervals from so many resamples; 0: sandwich.")
    ] = 0,
    plot: Annotated[
        Path | None, typer.Option("--plot", help="Draw the intervals (.png, .svg, .pdf).")
    ] = None,
    plot_matrix: Annotated[
        Path | None, typer.Option("--plot-matrix", help="Draw who wins against whom.")
    ] = None,
    plot_history: Annotated[
        Path | None, typer.Option("--plot-history", help="Draw the ratings over time.")
    ] = None,
    home: Home = DEFAULT_HOME,
    json_out: Json = False,
) -> None:
    """Rate the models from the votes, with intervals and what they cannot support."""
    from arena.commands.leaderboard import LeaderboardRequest, PlotFiles, run_leaderboard

    request = LeaderboardRequest(
        home=home,
        ties=ties,
        both_bad=both_bad,
        ridge=ridge,
        named=named,
        flagged=flagged,
        propensity=propensity,
        style=style,
        reason=reason,
        tag=tag,
        since=since,
        until=until,
        bootstrap=bootstrap,
        synthetic=synthetic,
    )
    plots = PlotFiles(plot, plot_matrix, plot_history)
    run_leaderboard(request, json_out=json_out, plots=plots)


@votes_app.command("import")
def import_votes(
    file: Annotated[
        Path, typer.Argument(help="A .jsonl, .json, .csv or .parquet file, or an export.")
    ],
    format_name: Annotated[
        str,
        typer.Option(
            "--format",
            help="raw, lmsys, 140k, openwebui, trl, 55k, battles, comparia, helpsteer, nectar, …; "
            "docs/preference-learning.md lists all.",
        ),
    ] = "raw",
    skip_bad: Annotated[
        bool, typer.Option("--skip-bad", help="Leave bad rows out instead of refusing the file.")
    ] = False,
    home: Home = DEFAULT_HOME,
    json_out: Json = False,
) -> None:
    """Add battles that were voted on elsewhere."""
    from arena.commands.imports import run_import

    run_import(home, file, format_name, skip_bad=skip_bad, json_out=json_out)


@votes_app.command("judge")
def judge_votes(
    url: Annotated[str, typer.Option("--url", help="The page to vote on.")] = (
        "http://127.0.0.1:7860"
    ),
    suite: Annotated[
        str,
        typer.Option(
            "--suite", help="starter, starter-training, constraints, a JSONL file or a mixture."
        ),
    ] = "starter",
    count: Annotated[int, typer.Option("--count", help="Battles to judge.")] = 100,
    noise: Annotated[float, typer.Option("--noise", help="Share of votes turned round.")] = 0.1,
    position_bias: Annotated[
        float, typer.Option("--position-bias", help="Share of votes for the left side.")
    ] = 0.0,
    length_bias: Annotated[
        float, typer.Option("--length-bias", help="Share of votes for the longer answer.")
    ] = 0.0,
    repeat: Annotated[
        float, typer.Option("--repeat", help="Share of battles that a second voter judges too.")
    ] = 0.1,
    voters: Annotated[int, typer.Option("--voters", help="Voters to be.")] = 20,
    parallel: Annotated[int, typer.Option("--parallel", help="Battles at once.")] = 4,
    model: Annotated[
        list[str] | None, typer.Option("--model", help="Only this pair, by name (give two).")
    ] = None,
    seed: Annotated[int, typer.Option("--seed", help="Of noise and biases.")] = 0,
    json_out: Json = False,
) -> None:
    """Vote on a running page by a suite's verifiers, with chosen faults; marked synthetic."""
    from arena.commands.judge import JudgeRequest, run_judge

    request = JudgeRequest(
        url=url,
        suite=suite,
        count=count,
        noise=noise,
        position=position_bias,
        length=length_bias,
        repeat=repeat,
        voters=voters,
        parallel=parallel,
        models=tuple(model or ()),
        seed=seed,
    )
    run_judge(request, json_out=json_out)


@votes_app.command("quarantine")
def quarantine_votes(
    clear: Annotated[
        int | None, typer.Option("--clear", help="Vote whose mark of --reason is cleared.")
    ] = None,
    flag: Annotated[
        int | None, typer.Option("--flag", help="Vote to mark with --reason by hand.")
    ] = None,
    reason: Annotated[
        str | None, typer.Option("--reason", help="The mark, like rate or same_side.")
    ] = None,
    limit: Annotated[int, typer.Option("--limit", help="Show at most so many.")] = 100,
    home: Home = DEFAULT_HOME,
    json_out: Json = False,
) -> None:
    """Show the votes that look wrong and why; clear or set a mark."""
    from arena.commands.quarantine import run_quarantine

    run_quarantine(home, clear=clear, flag=flag, reason=reason, limit=limit, json_out=json_out)


@votes_app.command("backup")
def backup_votes(
    out: Annotated[Path, typer.Option("--out", help="File to write.")],
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the file.")] = False,
    home: Home = DEFAULT_HOME,
) -> None:
    """Copy the store while it is in use."""
    from arena.commands.export import existing_store
    from arena.storage.backup import backup

    print(f"wrote {backup(existing_store(home), out, overwrite=overwrite)}")


@votes_app.command("restore")
def restore_votes(
    file: Annotated[Path, typer.Argument(help="A file that arena backup wrote.")],
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace a store that is there; it is kept aside.")
    ] = False,
    home: Home = DEFAULT_HOME,
) -> None:
    """Put a copy of the store back."""
    from arena.storage.backup import restore

    kept = restore(file, home / "arena.db", overwrite=overwrite)
    print(f"restored {home / 'arena.db'}" + (f"; the old one is {kept}" if kept else ""))
