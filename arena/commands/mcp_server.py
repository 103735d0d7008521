"""The `arena mcp` command: a running arena as tools of the Model Context Protocol, over stdio.

Knows the page's JSON API and the official SDK; whatever a tool says is what the page answers.
"""

from __future__ import annotations

import asyncio
import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import httpx2
import typer
from mcp.server import MCPServer
from mcp.server.mcpserver.exceptions import ToolError
from pydantic import Field

from arena.errors import ArenaError
from arena.values.texts import check_text

KEY_FILE = "admin.key"
PASSWORD = "ARENA_PASSWORD"
REPLY_SECONDS = 330.0  # the page's own commands may take five minutes
ANSWER_SECONDS = 600.0
PAUSE_S = 0.25
LONGEST_WATCH_S = 600
ENDED = ("done", "failed", "stopped", "cut_off")
ABOUT = (
    "A running instruct-arena: language models, base and tuned, that answer side by side and are "
    "rated by people's votes. Tuning runs take minutes: start one, then watch it."
)


class McpError(ArenaError):
    """The command cannot begin; the message says what to give."""


@dataclass(frozen=True)
class ArenaApi:
    """The JSON API of one page."""

    url: str
    headers: dict[str, str]
    login: tuple[str, str] | None = None

    async def ask(self, method: str, path: str, body: Any = None, **headers: str) -> Any:
        """The page's answer. Raises ToolError with the page's own words."""
        try:
            async with httpx2.AsyncClient(
                base_url=self.url,
                headers=self.headers,
                auth=self.login,
                timeout=REPLY_SECONDS,
                trust_env=False,
            ) as client:
                reply = await client.request(method, f"/api/{path}", json=body, headers=headers)
        except (httpx2.HTTPError, httpx2.InvalidURL) as error:
            raise ToolError(
                f"no answer from {self.url} ({type(error).__name__}); start the page with "
                "'arena up', or give its address with --url"
            ) from error
        try:
            told = reply.json() if reply.content else {}
        except ValueError as error:
            raise ToolError(f"{self.url} is no arena: /api/{path} answered no JSON") from error
        if reply.is_error:
            said = told.get("error") if isinstance(told, dict) else None
            raise ToolError(str(said or f"/api/{path} answered {reply.status_code}"))
        return told


def api_of(url: str, home: Path, user: str | None) -> ArenaApi:
    """How to reach the page: as a user, else with the admin's key of `home` where it has one.

    Raises McpError.
    """
    if user is not None:
        password = os.environ.get(PASSWORD)
        if not password:
            raise McpError(f"--user {user!r}: set the password in {PASSWORD}")
        return ArenaApi(url.rstrip("/"), {}, (user, password))
    try:
        key = (home / KEY_FILE).read_text(encoding="ascii").strip()
    except FileNotFoundError:
        return ArenaApi(url.rstrip("/"), {})  # a voter may ask and read
    except (OSError, UnicodeError) as error:
        raise McpError(f"{home / KEY_FILE}: cannot be read ({error})") from error
    return ArenaApi(url.rstrip("/"), {"authorization": f"Bearer {key}"})


def mcp_server(api: ArenaApi) -> MCPServer:
    """The tools over one page."""
    server: MCPServer = MCPServer("instruct-arena", instructions=ABOUT)
    _add_answers(server, api)
    _add_tuning(server, api)
    _add_results(server, api)
    return server


def _add_answers(server: MCPServer, api: ArenaApi) -> None:
    @server.tool()
    async def list_models() -> dict[str, Any]:
        """Names of the models that can be asked, with their kind and the base they were made of."""
        found: dict[str, Any] = await api.ask("GET", "models")
        return found

    @server.tool()
    async def ask_models(
        prompt: str, models: Annotated[list[str], Field(min_length=2, max_length=8)]
    ) -> dict[str, Any]:
        """Put one prompt to two to eight models by name and wait for all of their answers."""
        opened = await api.ask("POST", "battles", {"prompt": prompt, "models": models})
        token = {"x-battle-token": opened["token"]}
        limit = time.monotonic() + ANSWER_SECONDS
        while True:
            view = await api.ask("GET", f"battles/{opened['battle']}", **token)
            if not view["running"]:
                break
            if time.monotonic() > limit:
                raise ToolError(f"no end of the answers within {ANSWER_SECONDS:.0f} s")
            await asyncio.sleep(PAUSE_S)
        keys = ("model", "text", "error", "num_tokens", "total_s")
        answers = [{key: side.get(key) for key in keys} for side in view["sides"]]
        link = f"{api.url}/?battle={opened['battle']}&t={opened['token']}"
        return {"answers": answers, "page": link}


def _add_tuning(server: MCPServer, api: ArenaApi) -> None:
    @server.tool()
    async def start_tuning(
        base: str,
        data: list[str],
        name: str,
        method: Literal["lora", "full", "qlora", "prefix", "prompt", "ia3"] = "lora",
        objective: Literal["sft", "reward", "dpo", "kto", "rl"] = "sft",
        minutes: float | None = None,
        settings: dict[str, str | int | float | bool] | None = None,
    ) -> dict[str, Any]:
        """Put a tuning run into the queue; the variant that it makes is called `name`.

        `data`: starter, votes, files of the arena's data folder, or hub ids. `settings`: any other
        setting of `arena tune` by its full key, as training.epochs.
        """
        made: dict[str, Any] = {**(settings or {}), "base": base, "data": data, "method": method}
        made["objective"] = objective
        if minutes is not None:
            made["training.max_minutes"] = minutes
        run: dict[str, Any] = await api.ask("POST", "tune/runs", {"name": name, "settings": made})
        return _figures(run)

    @server.tool()
    async def list_tunings() -> dict[str, Any]:
        """Every tuning run there is, with its state and newest figures."""
        runs = (await api.ask("GET", "tune/runs"))["runs"]
        return {"runs": [_figures(run) for run in runs]}

    @server.tool()
    async def watch_tuning(
        name: str, wait_seconds: Annotated[int, Field(ge=0, le=LONGEST_WATCH_S)] = 30
    ) -> dict[str, Any]:
        """The state of a run, its losses and sample answers; waits until it ends or time is up."""
        limit = time.monotonic() + wait_seconds
        while True:
            run = await api.ask("GET", f"tune/runs/{_part(name)}")
            if run["state"] in ENDED or time.monotonic() >= limit:
                break
            await asyncio.sleep(1)
        curves = ("heldout_losses", "samples")
        return {**_figures(run), **{key: run[key] for key in curves}}

    @server.tool()
    async def stop_tuning(name: str) -> dict[str, Any]:
        """Let a run save and end after its step; it can go on later."""
        return _figures(await api.ask("POST", f"tune/runs/{_part(name)}/stop"))

    @server.tool()
    async def export_variant(
        name: str, to: Literal["gguf", "ollama", "folder"] = "gguf"
    ) -> dict[str, Any]:
        """Write a finished variant for another program; ask again until its state is done."""
        path = f"tune/runs/{_part(name)}"
        jobs = (await api.ask("GET", f"{path}/after"))["jobs"]
        last = jobs.get("export", {})
        is_asked = last.get("state") == "done" and last["result"].get("to") == to
        if not is_asked and last.get("state") != "running":
            jobs = (await api.ask("POST", f"{path}/export", {"to": to}))["jobs"]
        found: dict[str, Any] = jobs["export"]
        return found


def _add_results(server: MCPServer, api: ArenaApi) -> None:
    @server.tool()
    async def read_leaderboard() -> dict[str, Any]:
        """Ratings by people's blind votes, each with its 95 % interval and its record."""
        found: dict[str, Any] = await api.ask("GET", "leaderboard")
        return found

    @server.tool()
    async def export_votes(format: str = "trl", redact: bool = False) -> dict[str, Any]:  # noqa: A002
        """Write the votes as a dataset below the arena's exports folder (trl, kto, csv …)."""
        asked = {"format": format, "redact": redact}
        found: dict[str, Any] = await api.ask("POST", "exports", asked)
        return found


def _part(name: str) -> str:
    """A name as one part of an address; ToolError for what can be none."""
    if not name or "/" in name or "?" in name or "#" in name or name in (".", ".."):
        raise ToolError(f"run {name!r} is unknown; list_tunings tells the names")
    return name


def _figures(run: dict[str, Any]) -> dict[str, Any]:
    left_out = ("losses", "learning_rates", "heldout_losses", "samples", "command", "changed_ms")
    return {key: value for key, value in run.items() if key not in left_out}


def run_mcp(url: str, home: Path, user: str | None) -> None:
    """Serve the tools on stdin and stdout until stdin ends. Raises McpError."""
    check_text("url", url)
    if not url.startswith(("http://", "https://")):
        raise McpError(f"--url {url!r}: give the page's address, like http://127.0.0.1:7860")
    try:
        mcp_server(api_of(url, home, user)).run()
    except KeyboardInterrupt:
        raise typer.Exit from None
