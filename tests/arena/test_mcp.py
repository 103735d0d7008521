"""`arena mcp`: the SDK's own client over stdio, against a real page on loopback."""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path
from typing import Any

import pytest
from fault_server import FaultServer, Script
from mcp import Client
from mcp.client.stdio import StdioServerParameters, stdio_client
from page_server import PageServer
from store_fixtures import Hand
from tuning_fixtures import make_base, rows, write_rows

from arena.commands.mcp_server import McpError, api_of, mcp_server
from arena.values.vote import Judgement, Winner
from arena.web.authentication import Authenticator

ROOT = Path(__file__).parents[2]


async def told(client: Any, tool: str, **given: Any) -> Any:
    """What a tool answers; its words where it refuses."""
    result = await client.call_tool(tool, given)
    text = "".join(part.text for part in result.content)
    return text if result.is_error else result.structured_content or json.loads(text)


@pytest.mark.slow
def test_a_program_asks_tunes_reads_and_exports(tmp_path: Path) -> None:
    make_base(tmp_path / "models" / "tiny")
    data = str(write_rows(tmp_path / "rows.jsonl", rows(16)))
    serving = FaultServer({"one": Script(["yes"]), "two": Script(["no"])})
    with serving as models, PageServer(tmp_path, models.url) as page:
        assert Authenticator(tmp_path).key
        Hand(page.store).vote(judgement=Judgement(Winner.MODEL_A))
        words = ["-m", "arena.cli", "mcp", "--url", page.url, "--home", str(tmp_path)]
        server = StdioServerParameters(command=sys.executable, args=words, cwd=ROOT)

        async def use() -> None:
            async with Client(stdio_client(server)) as client:
                names = {tool.name for tool in (await client.list_tools()).tools}
                wanted = {"list_models", "ask_models", "start_tuning", "watch_tuning"}
                assert wanted | {"read_leaderboard", "export_votes", "export_variant"} <= names
                listed = (await told(client, "list_models"))["models"]
                assert [one["name"] for one in listed] == ["one", "two"]
                asked = await told(client, "ask_models", prompt="So?", models=["one", "two"])
                assert [(one["model"], one["text"]) for one in asked["answers"]] == [
                    ("one", "yes"),
                    ("two", "no"),
                ]
                refused = await told(client, "ask_models", prompt="So?", models=["one", "three"])
                assert "participant 'three' is not served" in refused
                board = await told(client, "read_leaderboard")
                assert board["num_votes"] == 1
                assert board["ratings"][0]["rank"] == 1
                made = await told(client, "export_votes", format="votes")
                assert made["rows"] == {"train": 1}
                settings = {"training.max_steps": 2, "data_options.heldout": 0.2}
                given = {"base": "tiny", "data": [data], "name": "v", "settings": settings}
                assert (await told(client, "start_tuning", **given))["name"] == "v"
                run = await told(client, "watch_tuning", name="v", wait_seconds=300)
                assert (run["state"], run["step"]) == ("done", 2), run
                assert run["heldout_losses"]
                assert "is unknown" in await told(client, "watch_tuning", name="../v")

        asyncio.run(asyncio.wait_for(use(), 500))
    assert (tmp_path / "models" / "v" / "variant.json").is_file()


def test_a_voter_reads_and_a_page_that_is_gone_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a key of the home: what everybody may, and no more."""

    async def use(url: str) -> list[Any]:
        async with Client(mcp_server(api_of(url, tmp_path / "no home", None))) as client:
            return [await told(client, tool) for tool in ("list_models", "list_tunings")]

    with FaultServer({"one": Script()}) as models, PageServer(tmp_path, models.url) as page:
        listed, refused = asyncio.run(use(page.url))
        assert listed["models"][0]["name"] == "one"
        assert "admins" in refused
        (told_of_models, _) = asyncio.run(use(f"{models.url}/"))
        assert "is no arena" in told_of_models or "answered 404" in told_of_models
    gone, _ = asyncio.run(use(page.url))
    assert "start the page with 'arena up'" in gone
    monkeypatch.delenv("ARENA_PASSWORD", raising=False)
    with pytest.raises(McpError, match="ARENA_PASSWORD"):
        api_of(page.url, tmp_path, "ann")
