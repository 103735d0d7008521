"""What a server says of a refusal is shown, cleaned and short; a blind voter learns no name."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest
from hostile_server import EVENTS, Act, HostileServer, events, lists, says
from hypothesis import given
from hypothesis import strategies as st

from arena.backends.failures import SAID_CHARS, said_in
from arena.backends.http import install_http_client
from arena.backends.pool import BackendPool
from arena.battles.service import BattleService
from arena.battles.view import BattleAccess, BattleView
from arena.config.page_config import PageConfig
from arena.i18n import words
from arena.page.html.panes import pane_html
from arena.storage.store import Store
from arena.web.api import view_json

ANSWER = {"index": 0, "delta": {"content": "Paris"}, "finish_reason": "stop"}
CHUNK = {"object": "chat.completion.chunk", "id": "", "created": 0, "model": "m"}
GOOD = events({**CHUNK, "choices": [ANSWER]})


def refuses(status: int, body: object) -> Act:
    """Answers every question with this status and JSON body, or these words."""
    text = body if isinstance(body, str) else json.dumps(body)
    return says(f"HTTP/1.1 {status} No\r\ncontent-type: application/json\r\n\r\n{text}".encode())


def battle_over(act: Act, home: Path, *, blind: bool) -> tuple[BattleView, BattleView]:
    """A battle of two models of such a server, when it has ended and as the store has it."""
    routes = {"GET /v1/models": lists("smollm2-lora", "team/other"), "POST": act}

    async def main(url: str) -> tuple[BattleView, BattleView]:
        install_http_client()
        config = PageConfig((url,), home)
        service = BattleService(Store(home / "arena.db"), BackendPool((url,), config.sampling))
        voter = await service.voter("one")
        if blind:
            access = await service.open_blind(voter, "Where?")
        else:
            access = await service.open_named(voter, ["smollm2-lora", "team/other"], "Where?")
        async for _ in service.follow(access):
            pass
        view = await service.view(BattleAccess(voter, access.battle_id))
        await service.close()
        again = BattleService(Store(home / "arena.db"), BackendPool((url,), config.sampling))
        return view, await again.view(BattleAccess(voter, access.battle_id))

    with HostileServer(routes) as server:
        return asyncio.run(main(server.url))


TOO_LONG = "This model's maximum context length is 512 tokens, however you requested 600."
REFUSALS: dict[str, tuple[Act, str]] = {
    "vLLM": (refuses(400, {"error": {"message": TOO_LONG, "type": "BadRequest"}}), TOO_LONG),
    "older vLLM": (refuses(400, {"object": "error", "message": TOO_LONG}), TOO_LONG),
    "TGI": (refuses(422, {"error": TOO_LONG, "error_type": "validation"}), TOO_LONG),
    "FastAPI": (refuses(422, {"detail": [{"msg": TOO_LONG, "loc": ["a"]}]}), TOO_LONG),
    "plain words": (refuses(400, TOO_LONG), TOO_LONG),
    "busy": (refuses(429, {"error": "Model is overloaded"}), "Model is overloaded"),
    "a fault": (refuses(500, {"error": {"message": "CUDA out of memory"}}), "CUDA out of memory"),
    "midway": (
        events({"error": {"message": "CUDA out of memory"}}),
        "CUDA out of memory",
    ),
}


@pytest.mark.parametrize("name", REFUSALS)
def test_voter_reads_what_the_server_said(name: str, tmp_path: Path) -> None:
    act, said = REFUSALS[name]
    view, stored = battle_over(act, tmp_path, blind=True)
    for one in (view, stored):
        assert [side.state for side in one.sides] == ["failed", "failed"]
        assert said in one.sides[0].said
        assert said in view_json(one)["sides"][0]["server_said"]
        assert said.replace("'", "&#x27;") in pane_html(one, 0, words())
        assert "may be too long" not in pane_html(one, 0, words())


NAMING = [
    "The model `smollm2-lora` does not exist.",
    "SMOLLM2-LORA is not loaded",
    "smollm2 has no chat template",
    "served here: team/other",
    "LlamaForCausalLM has no such layer",
]


@pytest.mark.parametrize("said", NAMING)
def test_blind_voter_reads_no_name(said: str, tmp_path: Path) -> None:
    act = refuses(400, {"error": {"message": said}})
    for one in battle_over(act, tmp_path, blind=True):
        for side in one.sides:
            assert (side.error, side.said) == ("The server refused the request.", "")
        shown = pane_html(one, 0, words()) + json.dumps(view_json(one))
        assert said not in shown
        assert "smollm2" not in shown.lower()


def test_who_knows_the_names_reads_all_but_the_place(tmp_path: Path) -> None:
    said = "smollm2-lora is broken, see http://10.0.0.7/x and /srv/models/secret/config.json"
    for one in battle_over(refuses(400, {"error": said}), tmp_path, blind=False):
        assert one.sides[0].said == "smollm2-lora is broken, see … and …"


def test_key_is_never_repeated(tmp_path: Path) -> None:
    act = refuses(401, {"error": {"message": "Incorrect API key provided: sk-abc"}})
    for one in battle_over(act, tmp_path, blind=False):
        assert (one.sides[0].error_kind, one.sides[0].said) == ("no-access", "")


HOSTILE = [
    ("<script>alert(1)</script>", ""),
    ({"error": "<img src=x onerror=alert(1)>"}, "&lt;img src=x onerror=alert(1)&gt;"),
    ({"error": {"message": {"error": ["deep"]}}}, "deep"),
    ({"error": 7}, None),
    ("[" * 60_000, None),
    ({"error": "a\u202eb\x1b[31m\r\nc | it said: d"}, "a b [31m c ¦ it said: d"),
    ({"error": "half \ud800 of one"}, "half of one"),
]


@pytest.mark.parametrize(("body", "shown"), HOSTILE)
def test_words_of_a_hostile_server_are_text(
    body: object, shown: str | None, tmp_path: Path
) -> None:
    for one in battle_over(refuses(400, body), tmp_path, blind=False):
        markup = pane_html(one, 0, words())
        assert "<script" not in markup
        assert "<img" not in markup
        assert len(one.sides[0].said) <= SAID_CHARS
        if shown:
            assert shown in markup


def test_good_answer_says_nothing_of_the_kind(tmp_path: Path) -> None:
    view, stored = battle_over(GOOD, tmp_path, blind=True)
    assert EVENTS.startswith(b"HTTP/1.1 200")
    assert [side.said for side in (*view.sides, *stored.sides)] == [""] * 4


@given(st.one_of(st.text(), st.binary().map(lambda raw: raw.decode("latin-1"))))
def test_any_body_becomes_one_short_printable_line(body: str) -> None:
    for text in (body, json.dumps({"error": body}), json.dumps([body])):
        said = said_in(text)
        assert len(said) <= SAID_CHARS
        assert said.isprintable()
        assert " | " not in said
