"""Chat templates and tokenizers of folders are strangers' programs: they cannot hold the server."""

from __future__ import annotations

import json
import shutil
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
import serving_models as tiny
from hypothesis import given, settings
from hypothesis import strategies as st
from serving_fixtures import tiny_config

from serving.errors import ModelLoadError
from serving.http.server import ServerThread
from serving.models.registry import Registry
from serving.models.rendering import GREETING, ChatTemplateError, TemplateRenderer

pytestmark = pytest.mark.slow
LONG = "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}"
DOUBLING = (
    "{% set ns = namespace(s='ab') %}"
    "{% for i in range(60) %}{% set ns.s = ns.s ~ ns.s %}{% endfor %}"
)
HOSTILE = {
    "nested ranges": (LONG, "it takes too much time"),
    "one call": ("{{ (9 ** 99999999) | string }}", "too much"),
    "doubling": (DOUBLING, "it takes too much memory"),
    "a wide string": ("{{ 'ab' * 2000000000 }}", "it takes too much memory"),
    "a list": ("{{ ([0] * 9999999999) | length }}", "it takes too much memory"),
    "long": ("{{ 'ab' * 5000000 }}", "it writes more than 8,000,000 characters"),
    "recursion": ("{% macro f(n) %}{{ f(n + 1) }}{% endmacro %}{{ f(0) }}", "too much memory"),
    "broken": ("{% for m in messages %}{{ m.content }}", "Unexpected end of template"),
    "attributes": ("{{ ''.__class__.__mro__[1].__subclasses__() }}", "access to attribute"),
}  # fmt: skip
SLOW_FOR_MANY = (
    "{% for m in messages %}{{ m.content }}{% endfor %}"
    "{% if messages | length > 1 %}" + LONG + "{% endif %}"
)


@pytest.fixture(scope="module")
def renderer() -> Iterator[TemplateRenderer]:
    made = TemplateRenderer()
    yield made
    made.close()


@pytest.mark.parametrize("case", HOSTILE)
def test_a_template_beyond_its_bounds_ends_with_the_reason(
    renderer: TemplateRenderer, case: str, tmp_path: Path
) -> None:
    template, reason = HOSTILE[case]
    hostile, good = tiny.make_tokenizer(template), tiny.make_tokenizer(tiny.TEMPLATE)
    with pytest.raises(ModelLoadError, match=reason):
        renderer.check(tmp_path, hostile)
    assert renderer.render(good, GREETING) == "user: Hello\nassistant:"


words = st.text(max_size=20)


@settings(max_examples=40, deadline=None)
@given(
    messages=st.lists(
        st.tuples(st.sampled_from(["user", "assistant", "system"]), words), min_size=1
    ),
    continued=st.booleans(),
)
def test_what_is_rendered_is_what_transformers_renders(
    renderer: TemplateRenderer, messages: list[tuple[str, str]], continued: bool
) -> None:
    template = tiny.TEMPLATE + "{{ bos_token }}{{ messages | tojson }}{{ guideline }}"
    tokenizer = tiny.make_tokenizer(template)
    chat = [{"role": role, "content": text} for role, text in messages]

    def ours() -> str:
        return renderer.render(tokenizer, chat, continued=continued, extra={"guideline": "g"})

    try:
        expected = tokenizer.apply_chat_template(
            chat, tokenize=False, add_generation_prompt=not continued,
            continue_final_message=continued, guideline="g",
        )  # fmt: skip
    except ValueError:
        with pytest.raises(ChatTemplateError):
            ours()
    else:
        assert ours() == expected


def test_a_template_that_takes_for_ever_holds_neither_streams_nor_the_end(
    tiny_home: Path, tmp_path: Path
) -> None:
    """It greets well, and then loops: health answers meanwhile, and the server can stop."""
    folder = tmp_path / "loops"
    shutil.copytree(tiny_home / "lora", folder)
    (folder / "variant.json").unlink()
    (folder / "chat_template.jinja").write_text(SLOW_FOR_MANY)
    models = (("loops", folder), ("lora", tiny_home / "lora"))
    chat = {"model": "loops", "max_tokens": 2}
    two = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}] * 2
    answers: list[httpx.Response] = []
    with ServerThread(tiny_config(tiny_home, models=models)) as server:

        def post() -> None:
            body = {**chat, "messages": two[:3]}
            answers.append(httpx.post(f"{server.url}/v1/chat/completions", json=body, timeout=120))

        caller = threading.Thread(target=post)
        caller.start()
        waits = []
        while caller.is_alive():
            started = time.monotonic()
            assert httpx.get(f"{server.url}/health", timeout=30).status_code == 200
            waits.append(time.monotonic() - started)
            time.sleep(0.02)
        caller.join()
        assert len(waits) > 5  # It was answered while the template ran, not after.
        assert answers[0].status_code == 422
        assert "it takes too much time" in answers[0].json()["error"]
        good = {**chat, "model": "lora", "messages": two[:1]}
        after = httpx.post(f"{server.url}/v1/chat/completions", json=good, timeout=120)
        assert after.status_code == 200
        ended = time.monotonic()
    assert time.monotonic() - ended < 30


def test_tokenizing_has_the_bound_of_a_prompt(tiny_home: Path) -> None:
    with ServerThread(tiny_config(tiny_home)) as server:
        for path, body in (
            ("tokenize", {"inputs": "river " * 300_000}),
            ("chat_tokenize", {"model": "lora", "messages": [
                {"role": "user", "content": "river " * 300_000}]}),
        ):  # fmt: skip
            answer = httpx.post(f"{server.url}/{path}", json=body, timeout=120)
            assert answer.status_code == 422
            assert "must have less than 511 tokens" in answer.json()["error"]
        short = httpx.post(f"{server.url}/tokenize", json={"inputs": "the river"}, timeout=60)
        assert [t["text"] for t in short.json()]


def test_a_tokenizer_whose_expression_backtracks_answers_by_name(
    tiny_home: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "backtracks"
    shutil.copytree(tiny_home / "lora", folder)
    (folder / "variant.json").unlink()
    path = folder / "tokenizer.json"
    content = json.loads(path.read_text())
    split = {"type": "Split", "pattern": {"Regex": r"(?:(?:x+x+)+)+y"}, "behavior": "Isolated"}
    content["pre_tokenizer"] = {
        "type": "Sequence", "pretokenizers": [{**split, "invert": False}, content["pre_tokenizer"]],
    }  # fmt: skip
    path.write_text(json.dumps(content))
    with ServerThread(tiny_config(tiny_home, models=(("backtracks", folder),))) as server:
        registry = server.registry
        assert isinstance(registry, Registry)
        assert "backtracks" in registry.names
        for route, body in (
            ("generate", {"inputs": "x" * 60, "parameters": {"adapter_id": "backtracks"}}),
            ("tokenize", {"inputs": "x" * 60, "parameters": {"adapter_id": "backtracks"}}),
            ("v1/completions", {"prompt": "x" * 60, "model": "backtracks"}),
        ):
            answer = httpx.post(f"{server.url}/{route}", json=body, timeout=120)
            assert answer.status_code == 422, answer.text
            assert "tokenizer cannot read `inputs`" in answer.json()["error"]
