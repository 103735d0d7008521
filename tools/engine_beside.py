"""Tries `--engine vllm` with the real vLLM: who answers, by which weights, in step with the folder.

What tests show with a stand-in for vLLM's process is shown here with vLLM. Knows the routes of
`arena serve`; a fault is an AssertionError.
"""

from __future__ import annotations

import json
import os
import shlex
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx2
import psutil
from engine_servers import FOLDER, VLLM_SMALL, VLLM_SPACE, Engine, own_server, up
from engine_trials import CLIENT, PROMPTS, SCHEMA, TOKENS, chat, converse, text_of

from tuning.variant import weights_sha256

PROGRAM = FOLDER / "vllm" / "bin" / "vllm"
WORDS = ("--engine", "vllm", "--vllm", str(PROGRAM), f"--vllm-options={shlex.join(VLLM_SMALL)}")


def until(what: Callable[[], bool], why: str, seconds: float = 1800) -> None:
    """Wait for it."""
    limit = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < limit, why
        time.sleep(1)


def asked(server: Engine, model: str, **more: Any) -> httpx2.Response:
    """The reply of the server to a chat."""
    body = {"model": model, "messages": [{"role": "user", "content": PROMPTS[0]}], **more}
    body = {"max_tokens": TOKENS, "temperature": 0, **body}
    return CLIENT.post(f"{server.url}/v1/chat/completions", json=body)


def is_vllms(reply: httpx2.Response) -> bool:
    """Whether vLLM wrote it: ours has no such field."""
    return "kv_transfer_params" in reply.json()


def beside(weights: Path, folder: Path, ours: Engine, tell: Callable[[str], None]) -> None:
    """All that `arena serve --engine vllm` promises, in turn; `tell` hears what held."""
    models = folder / "home" / "models"
    models.mkdir(parents=True)
    with own_server(folder, *WORDS, **VLLM_SPACE) as server:
        until(lambda: is_vllms(asked(server, "starter-lora")), server.log.read_text()[-2000:])
        _who_answers(server, weights, ours)
        tell("who answers, by which weights")
        _in_step(server, weights, models)
        tell("a variant comes and goes")
        _started_again(server)
        tell("vLLM is killed: our own engine answers, and it is started again")
        parent = _parent(server)
        children = _of_vllm(parent)
        assert children, "no process of vLLM was found"
        os.kill(parent.pid, signal.SIGKILL)
        until(lambda: not any(one.is_running() for one in children), "vLLM is left over", 120)
        tell("the server is killed: nothing of vLLM is left")


def beside_the_page(folder: Path) -> str:
    """`arena up --engine vllm`: a battle between vLLM's variant and our own engine's."""
    (folder / "home").mkdir(parents=True)
    with up(folder, *WORDS, **VLLM_SPACE) as (page_url, server):
        until(lambda: is_vllms(asked(server, "starter-lora")), server.log.read_text()[-2000:])
        seen = converse(page_url, ["starter-lora", "starter-prefix"])
        for side in seen["sides"]:
            assert side["state"] == "done", side
            assert side["weights_sha256"], side
    return "passed"


def _who_answers(server: Engine, weights: Path, ours: Engine) -> None:
    for name in ("starter-lora", "starter-prefix", "starter-full"):
        is_there = name == "starter-lora"
        reply = asked(server, name)
        sha = weights_sha256(weights / name)
        assert reply.status_code == 200, reply.text
        assert reply.headers["x-weights-sha256"] == sha, name
        assert is_vllms(reply) is is_there, name
        mine = text_of(chat(ours, name, PROMPTS[0]))
        assert text_of(reply.json()["choices"][0]).strip() == mine.strip(), name
    told = asked(server, "starter-lora").json()
    sha = weights_sha256(weights / "starter-lora")
    assert (told["model"], told["weights_sha256"]) == ("starter-lora", sha)
    body = {"model": "starter", "prompt": "Iron is", "max_tokens": 9, "temperature": 0}
    base = CLIENT.post(f"{server.url}/v1/completions", json=body)
    assert is_vllms(base), base.text
    assert base.headers["x-weights-sha256"] == weights_sha256(weights / "starter")
    streamed = asked(server, "starter-lora", stream=True).text
    events = [line[6:] for line in streamed.splitlines() if line.startswith("data: {")]
    assert {json.loads(one)["weights_sha256"] for one in events} == {sha}
    wanted = {"type": "json_schema", "json_schema": {"name": "city", "schema": SCHEMA}}
    schema = asked(server, "starter-lora", response_format=wanted, max_tokens=100)
    assert set(json.loads(text_of(schema.json()["choices"][0]))) == {"is_large", "hills"}
    assert not is_vllms(schema)


def _in_step(server: Engine, weights: Path, models: Path) -> None:
    shutil.copytree(weights / "starter-lora", models / ".later")
    (models / ".later").rename(models / "later")

    def answers() -> bool:
        reply = asked(server, "later")
        return reply.status_code == 200 and is_vllms(reply)

    until(answers, f"vLLM was not given the new variant: {server.log.read_text()[-2000:]}")
    shutil.rmtree(models / "later")
    until(lambda: asked(server, "later").status_code == 404, "a variant stays that is gone")


def _started_again(server: Engine) -> None:
    for one in _of_vllm(_parent(server)):
        if one.is_running():
            one.kill()
    reply = asked(server, "starter-lora")
    assert reply.status_code == 200, reply.text
    assert not is_vllms(reply), "a killed vLLM answers"
    until(lambda: is_vllms(asked(server, "starter-lora")), "vLLM was not started again")


def _parent(server: Engine) -> psutil.Process:
    """The process that listens on the server's port."""
    port = str(server.url.rpartition(":")[2])
    for process in psutil.process_iter(["cmdline"]):
        words = process.info["cmdline"] or []
        if "serve" in words and "--port" in words and words[words.index("--port") + 1] == port:
            return process
    raise AssertionError("the server's process was not found")


def _of_vllm(parent: psutil.Process) -> list[psutil.Process]:
    """vLLM's processes: all below the one that guards them."""
    return [
        one
        for guard in parent.children(recursive=True)
        if "serving.elsewhere.guard" in guard.cmdline()
        for one in guard.children(recursive=True)
    ]
