"""The command `arena serve`: names, options and help; the body imports what it calls."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from arena.commands.options import DEFAULT_HOME, EngineChoice, Home, VllmOptions, VllmProgram
from arena.errors import ArenaError

serve_app = typer.Typer()
ENGINES = ("own", "vllm")


class EngineError(ArenaError):
    """An engine that models cannot be served by."""


@serve_app.command("serve")
def serve_models(
    base: Annotated[
        str, typer.Option("--base", help="Base model: starter, a folder, a GGUF file or a hub id.")
    ] = "starter",
    model: Annotated[
        list[str] | None,
        typer.Option("--model", help="Another folder, GGUF file or hub id to serve (repeat)."),
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
    allowed_host: Annotated[
        list[str] | None,
        typer.Option("--allowed-host", help="Name that callers may give this server (repeat)."),
    ] = None,
    max_total_tokens: Annotated[
        int, typer.Option("--max-total-tokens", help="Prompt and answer; 0 is what fits.")
    ] = 0,
    max_requests: Annotated[
        int, typer.Option("--max-requests", help="Requests at once before callers get a 429.")
    ] = 128,
    kv_tokens: Annotated[
        int, typer.Option("--kv-tokens", help="Memory for keys and values, in tokens.")
    ] = 65_536,
    limit: Annotated[
        list[str] | None,
        typer.Option("--limit", help="Another bound, as max_best_of=4 (repeat)."),
    ] = None,
    prefill_logprobs: Annotated[
        bool, typer.Option("--prefill-logprobs", help="Tell a prompt's log probabilities if asked.")
    ] = False,
    cors: Annotated[bool, typer.Option("--cors", help="Let pages of any origin ask.")] = False,
    openai: Annotated[
        bool, typer.Option("--openai", help="Answer /v1 in OpenAI's forms to every caller.")
    ] = False,
    log_prompts: Annotated[
        bool, typer.Option("--log-prompts", help="Write prompts and answers into the log.")
    ] = False,
    engine: EngineChoice = "own",
    vllm: VllmProgram = "vllm",
    vllm_options: VllmOptions = "",
) -> None:
    """Host a base model and its variants behind the TGI and OpenAI APIs."""
    from serving.config import ServeConfig, ServingLimits, name_models
    from serving.elsewhere.vllm_process import read_config
    from serving.http.server import serve
    from tuning.models.resolve import resolve_base
    from tuning.smollm2 import smollm2_variants
    from tuning.starter import shipped_models
    from tuning.variant import list_variants
    from tuning.variant.manifest import sweep_abandoned

    check_engine(engine)
    beside = read_config(vllm, vllm_options) if engine == "vllm" else None
    sweep_abandoned(home / "models")
    folder = resolve_base(base, home)
    shipped = shipped_models()
    config = ServeConfig(
        base=folder,
        base_name=folder.name if Path(base).expanduser().exists() else base,
        models=name_models(
            folder,
            packaged=shipped if folder in shipped.values() else {},
            variants=list_variants(home),
            given=[(name, resolve_base(name, home, what="model")) for name in model or ()],
        ),
        joining=tuple(smollm2_variants().items()),
        host=host,
        port=port,
        dtype=dtype,
        device=device,
        home=home,
        api_key=api_key,
        allowed_hosts=tuple(allowed_host or ()),
        cors=cors,
        openai_dialect=openai,
        prefill_logprobs=prefill_logprobs,
        log_prompts=log_prompts,
        limits=ServingLimits.read(
            limit or (),
            max_total_tokens=max_total_tokens,
            max_concurrent_requests=max_requests,
            kv_tokens=kv_tokens,
        ),
    )
    serve(config, lambda url: print(f"Serving at {url}", flush=True), beside)


def check_engine(engine: str) -> None:
    """EngineError for an engine that there is none of."""
    if engine not in ENGINES:
        raise EngineError(f"--engine {engine!r}: is unknown; known are {', '.join(ENGINES)}")
