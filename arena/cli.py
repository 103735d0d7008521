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

from arena.commands.deploy import deploy_app
from arena.commands.doctor import doctor_app
from arena.commands.loop import loop_app
from arena.commands.models import models_app, starter_app
from arena.commands.options import (
    DEFAULT_HOME,
    AllowedHost,
    AllowedOrigin,
    BackendUrls,
    EngineChoice,
    Home,
    Host,
    Json,
    Proxy,
    RootPath,
    VllmOptions,
    VllmProgram,
    is_default,
)
from arena.commands.reward import reward_app
from arena.commands.serve import serve_app
from arena.commands.sets import sets_app
from arena.commands.users import users_app
from arena.commands.votes import votes_app
from arena.config.version import program_version
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
app.add_typer(models_app, name="models")
app.add_typer(reward_app, name="reward")
app.add_typer(starter_app, name="starter")
app.add_typer(sets_app, name="sets")
app.add_typer(users_app, name="users")
app.add_typer(deploy_app)  # no name: its command is one of `arena`
app.add_typer(doctor_app)  # no name: its command is one of `arena`
app.add_typer(loop_app)  # no name: its command is one of `arena`
app.add_typer(serve_app)  # no name: its command is one of `arena`
app.add_typer(votes_app)  # no name: its commands are commands of `arena`


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


def _print_version(asked: bool) -> None:
    if asked:
        print(f"arena {program_version()}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Print the version and exit."
        ),
    ] = False,
) -> None:
    """Options of the command itself."""


@app.command("up")
def up(
    base: Annotated[
        str, typer.Option("--base", help="Base model: starter, a folder, a GGUF file or a hub id.")
    ] = "starter",
    model: Annotated[
        list[str] | None,
        typer.Option("--model", help="Another folder, GGUF file or hub id to serve (repeat)."),
    ] = None,
    home: Home = DEFAULT_HOME,
    port: Annotated[int, typer.Option("--port", help="Port of the page.")] = 7860,
    serve_port: Annotated[int, typer.Option("--serve-port", help="Port of the models.")] = 8080,
    host: Host = "127.0.0.1",
    allowed_host: AllowedHost = None,
    root_path: RootPath = "",
    proxy: Proxy = None,
    allowed_origin: AllowedOrigin = None,
    dtype: Annotated[
        str, typer.Option("--dtype", help="auto, float32, bfloat16 or float16.")
    ] = "auto",
    device: Annotated[str, typer.Option("--device", help="auto, cpu or cuda.")] = "auto",
    backend: BackendUrls = None,
    smollm2: Annotated[
        bool, typer.Option(help="Let SmolLM2 join beside the starter, if it is installed.")
    ] = True,
    engine: EngineChoice = "own",
    vllm: VllmProgram = "vllm",
    vllm_options: VllmOptions = "",
) -> None:
    """Serve the base and all variants, and open the page: everything on one machine."""
    from arena.children import ModelServer
    from arena.config.page_config import PageConfig, PublicAddress
    from arena.up import run_up

    server = ModelServer(
        base=base,
        models=tuple(model or ()),
        home=str(home),
        port=serve_port,
        dtype=dtype,
        device=device,
        engine=engine,
        vllm=vllm,
        vllm_options=vllm_options,
    )
    public = PublicAddress(root_path, tuple(proxy or ()), tuple(allowed_origin or ()))
    urls, names = (server.url, *(backend or ())), tuple(allowed_host or ())
    page = PageConfig(urls, home, host, port, names, public)
    run_up(page, server, smollm2=smollm2 and base == "starter")


@app.command("ui")
def ui(
    backend: BackendUrls = None,
    home: Home = DEFAULT_HOME,
    port: Annotated[int, typer.Option("--port", help="Port of the page.")] = 7860,
    host: Host = "127.0.0.1",
    allowed_host: AllowedHost = None,
    root_path: RootPath = "",
    proxy: Proxy = None,
    allowed_origin: AllowedOrigin = None,
) -> None:
    """Open the page alone, against servers that run elsewhere."""
    from arena.config.page_config import PageConfig, PublicAddress
    from arena.up import run_ui

    urls = tuple(backend or ("http://127.0.0.1:8080",))
    public = PublicAddress(root_path, tuple(proxy or ()), tuple(allowed_origin or ()))
    run_ui(PageConfig(urls, home, host, port, tuple(allowed_host or ()), public))


@app.command("tune")
def tune_variant(
    context: typer.Context,
    base: Annotated[
        str | None,
        typer.Option("--base", help="starter, a variant, a folder, GGUF file or hub id."),
    ] = None,
    data: Annotated[
        list[str] | None,
        typer.Option("--data", help="starter, votes, file, folder, hub id, mixture.yaml (repeat)."),
    ] = None,
    method: Annotated[
        str | None, typer.Option("--method", help="full, lora, qlora, prefix, prompt or ia3.")
    ] = None,
    objective: Annotated[
        str | None, typer.Option("--objective", help="sft, reward, dpo, kto or rl.")
    ] = None,
    report_to: Annotated[
        list[str] | None,
        typer.Option("--report-to", help="trackio, wandb or tensorboard (repeat)."),
    ] = None,
    name: Annotated[str | None, typer.Option("--name", help="Name of the variant.")] = None,
    config: Annotated[
        Path | None, typer.Option("--config", help="YAML file with the same keys as --set.")
    ] = None,
    epochs: Annotated[float | None, typer.Option("--epochs", help="Passes over the rows.")] = None,
    max_steps: Annotated[
        int | None, typer.Option("--max-steps", help="Optimizer steps at most.")
    ] = None,
    max_minutes: Annotated[
        float | None, typer.Option("--max-minutes", help="Wall time at most.")
    ] = None,
    learning_rate: Annotated[
        float | None, typer.Option("--learning-rate", help="Peak learning rate.")
    ] = None,
    batch_size: Annotated[
        int | None, typer.Option("--batch-size", help="Rows of one step on one process.")
    ] = None,
    max_length: Annotated[
        int | None, typer.Option("--max-length", help="Longest row in tokens.")
    ] = None,
    packing: Annotated[
        bool | None, typer.Option("--packing/--no-packing", help="Join short rows exactly.")
    ] = None,
    seed: Annotated[int | None, typer.Option("--seed", help="Seed of order and weights.")] = None,
    strict: Annotated[
        bool | None, typer.Option("--strict", help="Stop at the first bad row.")
    ] = None,
    assignments: Annotated[
        list[str] | None,
        typer.Option("--set", help="Any other setting as key=value, such as lora.rank=8."),
    ] = None,
    overwrite: Annotated[
        bool | None, typer.Option("--overwrite", help="Replace a variant of that name.")
    ] = None,
    restart: Annotated[
        bool | None, typer.Option("--restart", help="Forget an unfinished run of that name.")
    ] = None,
    preview: Annotated[
        int | None,
        typer.Option("--preview", help="Show so many rows as they would be trained.", min=1),
    ] = None,
    reproduce: Annotated[
        str | None,
        typer.Option("--reproduce", help="Repeat this variant's run and compare the weights."),
    ] = None,
    launch_file: Annotated[
        Path | None,
        typer.Option("--launch", help="Run in several processes by this file of accelerate's."),
    ] = None,
    settings_out: Annotated[
        bool, typer.Option("--settings", help="List every setting with its default.")
    ] = False,
    home: Home = DEFAULT_HOME,
    json_out: Json = False,
) -> None:
    """Make an instruction-tuned variant of a base model."""
    if launch_file is not None:
        from arena.commands.launch import launch

        launch(launch_file)
    from arena.commands.vote_data import as_files
    from tuning.commands.settings import run_settings
    from tuning.commands.tune import run_preview, run_reproduce, run_tune
    from tuning.config_files import add_assignments

    if settings_out:
        run_settings(json_out=json_out)
        return
    if reproduce is not None:
        run_reproduce(reproduce, home, _given_beside(context), json_out=json_out)
        return

    from_default = is_default(context, "home")  # then --config may say
    given = {
        "base": base,
        "data": tuple(data or ()),
        "method": method,
        "objective": objective,
        "name": name,
        "training.epochs": epochs,
        "training.max_steps": max_steps,
        "training.max_minutes": max_minutes,
        "training.learning_rate": learning_rate,
        "training.batch_size": batch_size,
        "training.max_length": max_length,
        "training.packing": packing,
        "data_options.strict": strict,
        "checks.report_to": tuple(report_to or ()),
        "seed": seed,
        "overwrite": overwrite,
        "restart": restart,
        "home": None if from_default else home,
    }
    flags = {key: value for key, value in given.items() if value not in (None, ())}
    settings = add_assignments(flags, assignments or ())
    if preview is not None:
        run_preview(config, settings, as_files, preview, home, json_out=json_out)
        return
    run_tune(config, settings, as_files, home, json_out=json_out)


def _given_beside(context: typer.Context) -> list[str]:
    """The options on the command line that say what run to make."""
    return [
        option.opts[0]
        for option in context.command.params
        if option.name not in ("reproduce", "home", "json_out")
        and (source := context.get_parameter_source(option.name or ""))
        and source.name == "COMMANDLINE"
    ]


@app.command("eval")
def eval_variants(
    names: Annotated[
        list[str], typer.Argument(help="Variants, packaged models, folders or hub ids.")
    ],
    suite: Annotated[
        str, typer.Option("--suite", help="starter, constraints, a JSONL file or a mixture.yaml.")
    ] = "starter",
    limit: Annotated[
        int | None, typer.Option("--limit", help="Only so many prompts, evenly spread.", min=1)
    ] = None,
    base: Annotated[
        str | None, typer.Option("--base", help="Base of an adapter that does not name its own.")
    ] = None,
    max_new_tokens: Annotated[
        int, typer.Option("--max-new-tokens", help="Longest answer in tokens.", min=1)
    ] = 96,
    forgetting: Annotated[
        bool,
        typer.Option("--forgetting/--no-forgetting", help="Perplexity of plain held-out text."),
    ] = True,
    write: Annotated[
        bool, typer.Option("--write", help="Also write into a packaged model's variant.json.")
    ] = False,
    answers: Annotated[
        Path | None, typer.Option("--answers", help="Write every answer to this JSONL file.")
    ] = None,
    plot: Annotated[
        Path | None, typer.Option("--plot", help="Draw the accuracies to this PNG file.")
    ] = None,
    markdown: Annotated[
        bool, typer.Option("--markdown", help="Print the table as Markdown, for a README.")
    ] = False,
    home: Home = DEFAULT_HOME,
    json_out: Json = False,
) -> None:
    """Score variants on an instruction suite whose answers are verified in code."""
    from tuning.commands.tune import run_eval

    run_eval(
        names,
        home,
        suite=suite,
        limit=limit,
        base=base,
        max_new_tokens=max_new_tokens,
        forgetting=forgetting,
        write=write,
        answers=answers,
        plot=plot,
        markdown=markdown,
        json_out=json_out,
    )


@app.command("mcp")
def mcp(
    url: Annotated[
        str, typer.Option("--url", help="Address of the running page.")
    ] = "http://127.0.0.1:7860",
    user: Annotated[
        str | None,
        typer.Option("--user", help="Who signs in; the password is in ARENA_PASSWORD."),
    ] = None,
    home: Home = DEFAULT_HOME,
) -> None:
    """Offer a running arena to programs by the Model Context Protocol, over stdio."""
    from arena.commands.mcp_server import run_mcp

    run_mcp(url, home, user)


if __name__ == "__main__":
    main()
