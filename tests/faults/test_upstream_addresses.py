"""However a server's address is written, it is the same server; a wrong one is named in full."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from fault_server import FaultServer, Script
from hostile_server import HostileServer, events, lists

from arena.backends.client import stream_answer
from arena.backends.http import install_http_client
from arena.backends.pool import BackendPool, server_lines
from arena.backends.streams import AnswerEnd
from arena.config.arena_toml import read_arena_config
from arena.config.page_config import PageConfig, SettingsError, server_root
from arena.values.battle import SamplingSettings

END = {"choices": [{"index": 0, "delta": {"content": "Paris"}, "finish_reason": "stop"}]}
CHUNK = {"object": "chat.completion.chunk", "id": "", "created": 0, "model": "m", **END}


@pytest.mark.parametrize("ending", ["", "/", "/v1", "/v1/", "/v1//"])
def test_root_and_v1_are_one_server(ending: str) -> None:
    install_http_client()
    with FaultServer({"m": Script()}) as server:
        pool = BackendPool([server.url + ending, server.url], SamplingSettings())

        async def main() -> str:
            targets = await pool.targets()
            assert list(targets) == ["m"], "named twice, it is one"
            asked = [{"role": "user", "content": "Hi"}]
            parts = [part async for part in stream_answer(targets["m"], asked)]
            assert isinstance(parts.pop(), AnswerEnd)
            return "".join(part.text for part in parts if not isinstance(part, AnswerEnd))

        assert asyncio.run(main()) == "The capital of France is Paris."


@pytest.mark.parametrize("path", ["/models/b", "/models/b/", "/models/b/v1", "/models/team%2Fc"])
def test_address_of_one_model_is_that_model_alone(path: str) -> None:
    """Also where its server lists all that it has."""
    install_http_client()
    place = path.removesuffix("/").removesuffix("/v1")
    routes = {
        f"GET {place}/v1/models": lists("a", "b", "team/c"),
        f"POST {place}/v1/chat/completions": events(CHUNK),
    }
    with HostileServer(routes) as server:
        pool = BackendPool([server.url + path], SamplingSettings())

        async def main() -> list[str]:
            (target,) = (await pool.targets()).values()
            parts = stream_answer(target, [{"role": "user", "content": "Hi"}])
            text = "".join([part.text async for part in parts if not isinstance(part, AnswerEnd)])
            return [target.name, text]

        name = "team/c" if "team" in path else "b"
        assert asyncio.run(main()) == [name, "Paris"]


def test_line_of_a_server_names_the_whole_address_that_was_asked() -> None:
    install_http_client()
    with HostileServer({}) as server:
        pool = BackendPool([f"{server.url}/some/where"], SamplingSettings())
        (line,) = server_lines(asyncio.run(pool.backends()))
    assert line == (
        f"{server.url}/some/where is down: {server.url}/some/where/v1/models answered HTTP 404; "
        "it is left out until it answers"
    )


def test_address_in_arena_toml_is_read_the_same_way(tmp_path: Path) -> None:
    path = tmp_path / "arena.toml"
    path.write_text('[[participant]]\nname = "N"\nurl = "https://host.example/openai/v1/"\n')
    (configured,) = read_arena_config(path).participants
    assert configured.url == server_root("https://host.example/openai/v1")
    assert configured.url == "https://host.example/openai"


@pytest.mark.parametrize(
    "url",
    [
        *("http://[", "http://host:port", "http://host:99999", "http://", "ftp://host", "host:80"),
        *("http://host/?key=1", "http://host/#here", "http://ho st/", "http://host/\n"),
        "http://me:secret@host/",
    ],
)
def test_address_that_is_none_is_refused_by_name(url: str) -> None:
    with pytest.raises(SettingsError) as caught:
        PageConfig((url,), Path("home"))
    assert "secret" not in str(caught.value)
