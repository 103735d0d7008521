"""A model without a chat template is found out in advance; one that is named is filled in."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest
from hostile_server import JSON, Act, HostileServer, events, lists, says, trickles, within

import tuning.starter
from arena.backends.client import prompt_sent, stream_answer
from arena.backends.http import install_http_client
from arena.backends.pool import BackendPool
from arena.backends.rendering import rendered
from arena.backends.streams import AnswerEnd, AnswerError
from arena.backends.template_probe import LEARN_SECONDS, MOST_TRIES
from arena.config.arena_toml import ArenaConfigError, read_arena_config
from arena.config.chat_template import ChatTemplate, read_chat_template
from arena.values.battle import AskAs, SamplingSettings

ASKED = [{"role": "user", "content": "What is the capital of France?"}]
VLLM = (
    "As of transformers v4.44, default chat template is no longer allowed, so you must provide a "
    "chat template if the tokenizer does not define one."
)
SAMPLING = SamplingSettings(max_new_tokens=9)
STARTER = Path(tuning.starter.__file__).parent / "weights" / "starter-lora"
END = {"choices": [{"index": 0, "text": " Paris", "finish_reason": "stop"}]}


def refuses(status: int, message: str) -> Act:
    """An error as OpenAI writes it."""
    body = json.dumps({"error": {"message": message, "type": "x"}})
    return says(f"HTTP/1.1 {status} No\r\n\r\n{body}".encode())


INFO = says(JSON + b'{"max_total_tokens": 512}')
OK = says(JSON + b"{}")
LACKS: dict[str, dict[str, Act]] = {
    "vLLM": {"POST /tokenize": refuses(400, VLLM), "POST /v1/chat": refuses(400, VLLM)},
    "no such route": {"POST /v1/chat": refuses(400, VLLM)},
    "TGI": {
        "GET /info": INFO,
        "POST /chat_tokenize": refuses(422, "Template error: template not found"),
    },
    "an error of its own": {"POST /v1/chat": refuses(500, "tokenizer.chat_template is not set")},
}
HAS: dict[str, dict[str, Act]] = {
    "vLLM": {"POST /tokenize": OK},
    "TGI": {"GET /info": INFO, "POST /chat_tokenize": OK},
    "llama.cpp": {"POST /tokenize": says(JSON + b'{"tokens": []}'), "POST /v1/chat": OK},
    "hosted": {"POST /v1/chat": OK},
    "refuses something else": {"POST /v1/chat": refuses(400, "use max_completion_tokens")},
    "no key": {"POST /v1/chat": refuses(401, "no key")},
}


@pytest.mark.parametrize("name", LACKS)
def test_model_without_a_template_is_asked_by_completion(name: str) -> None:
    install_http_client()
    answer = says(
        b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\ndata: "
        + json.dumps(END).encode()
        + b"\n\n"
    )
    routes = {"GET /v1/models": lists("m"), "POST /v1/completions": answer, **LACKS[name]}
    with HostileServer(routes) as server:
        pool = BackendPool([server.url], SAMPLING)

        async def main() -> None:
            (target,) = (await pool.targets()).values()
            assert target.participant.ask_as is AskAs.COMPLETION
            num_asked = len(server.asked)
            if target.wire == "openai":
                parts = [part async for part in stream_answer(target, ASKED)]
                assert isinstance(parts[-1], AnswerEnd)
                num_asked += 1
            await pool.backends(fresh=True)
            assert len(server.asked) == num_asked + 2, "what is known is not asked again"

        asyncio.run(main())


@pytest.mark.parametrize("name", HAS)
def test_model_with_a_template_is_asked_by_chat(name: str) -> None:
    with HostileServer({"GET /v1/models": lists("m"), **HAS[name]}) as server:
        pool = BackendPool([server.url], SAMPLING)
        (target,) = asyncio.run(pool.targets()).values()
    assert target.participant.ask_as is AskAs.CHAT


def test_who_tells_is_not_asked_and_neither_is_a_catalogue() -> None:
    told = lists("m", kind="lora", chat_template=True)
    for listed in (told, lists(*(f"m{i}" for i in range(17)))):
        with HostileServer({"GET /v1/models": listed}) as server:
            asyncio.run(BackendPool([server.url], SAMPLING).targets())
            assert not [line for line in server.asked if line.startswith("POST")]


@pytest.mark.slow
def test_server_that_does_not_tell_is_up_and_asked_a_few_times_only() -> None:
    routes = {"GET /v1/models": lists("m"), "POST": trickles(b"HTTP/1.1 200 OK\r\nx: ", b"a")}
    with HostileServer(routes) as server:
        pool = BackendPool([server.url], SAMPLING)

        async def main() -> None:
            for _ in range(MOST_TRIES + 2):
                (backend,) = await pool.backends(fresh=True)
                assert backend.is_up
            assert len([line for line in server.asked if line.startswith("POST")]) == MOST_TRIES

        with within(MOST_TRIES * (LEARN_SECONDS + 2) + 10):
            asyncio.run(main())


def test_named_template_is_filled_in_as_transformers_does(tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    expected = AutoTokenizer.from_pretrained(STARTER).apply_chat_template(
        [{"role": "system", "content": "Be brief."}, *ASKED],
        tokenize=False,
        add_generation_prompt=True,
    )
    path = tmp_path / "arena.toml"
    (tmp_path / "mine").symlink_to(STARTER)
    routes = {
        "GET /v1/models": lists("starter", "starter-lora"),
        "POST /v1/completions": events(END),
        "POST": refuses(400, VLLM),
    }
    with HostileServer(routes) as server:
        path.write_text(
            f'[[participant]]\nname = "Mine"\nurl = "{server.url}/v1"\nmodel = "starter-lora"\n'
            'template = "mine"\nsystem_prompt = "Be brief."\n'
        )
        pool = BackendPool([], SAMPLING, read_arena_config(path))

        async def main() -> tuple[str, str]:
            install_http_client()
            (target,) = (await pool.targets()).values()
            parts = [part async for part in stream_answer(target, ASKED)]
            assert isinstance(parts[-1], AnswerEnd)
            return await prompt_sent(target, ASKED), (await pool.reach(target.participant)).name

        sent, name = asyncio.run(main())
    assert expected == "<|endoftext|>" + sent, "the server puts the first token before it"
    assert name == "Mine"


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ('template = "nowhere"', "is no file"),
        ('template = "."', "has no chat template"),
        ("template = 5", "is no path"),
        ('template = ""', "is no path"),
        ('template = "big.jinja"', "larger than 1 MB"),
        ('template = "bytes.jinja"', "cannot be read as text"),
        ('template = "/dev/zero"', "is no file"),
        ('template = "good.jinja"\nmode = "chat"', "exclude each other"),
    ],
)
def test_template_that_is_none_is_refused_by_name(line: str, told: str, tmp_path: Path) -> None:
    (tmp_path / "big.jinja").write_bytes(b"x" * (1 << 21))
    (tmp_path / "bytes.jinja").write_bytes(b"\xff\xfe\x00")
    (tmp_path / "good.jinja").write_text("{{ messages }}")
    path = tmp_path / "arena.toml"
    path.write_text(f'[[participant]]\nname = "N"\nurl = "http://host"\n{line}\n')
    with pytest.raises(ArenaConfigError, match=told):
        read_arena_config(path)


WRONG = {
    "not Jinja": "{% if %}",
    "an error of its own": "{{ raise_exception('no system') }}",
    "for ever": "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}",
    "all the memory": "{% set ns = namespace(x='x') %}{% for i in range(60) %}"
    "{% set ns.x = ns.x ~ ns.x %}{% endfor %}{{ ns.x }}",
    "too long": "{% for i in range(90000) %}{{ 'xxxxxxxxxxxxxxx' }}{% endfor %}",
    "out of the sandbox": "{{ ''.__class__.__mro__[1].__subclasses__() }}",
}


@pytest.mark.slow
@pytest.mark.parametrize("name", WRONG)
def test_template_that_misbehaves_fails_its_side_alone(name: str) -> None:
    async def main() -> None:
        with pytest.raises(AnswerError) as caught:
            await rendered(ChatTemplate(WRONG[name]), ASKED)
        assert caught.value.kind == "template"
        assert (
            await rendered(ChatTemplate("{{ messages[0].content }}"), ASKED) == ASKED[0]["content"]
        )

    with within(25):
        asyncio.run(main())


def test_template_of_a_folder_is_read_from_either_place(tmp_path: Path) -> None:
    settings = {"bos_token": {"content": "<s>"}, "chat_template": "{{ bos_token }}old"}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(settings))
    assert read_chat_template(tmp_path) == ChatTemplate(
        "{{ bos_token }}old", (("bos_token", "<s>"),)
    )
    (tmp_path / "chat_template.jinja").write_text("new")
    assert read_chat_template(tmp_path).source == "new"
