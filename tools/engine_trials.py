"""What is tried on an engine that runs: battles of the page, parity with ours, words of requests.

A trial returns a short text for the table of docs/engines.md, or raises what went wrong. Knows
OpenAI's routes and the page's API; does not know how an engine is started.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import httpx2
from engine_servers import Engine, page

PROMPTS = (
    "What is the capital of France?", "Is iron a metal?", "Name a color.", "What do bees make?",
    "How many legs does a dog have?", "Where do fish live?", "Is the sun hot?", "Name an animal.",
)  # fmt: skip
SCHEMA = {
    "type": "object",
    "properties": {"is_large": {"type": "boolean"}, "hills": {"enum": [3, 7]}},
    "required": ["is_large", "hills"],
    "additionalProperties": False,
}
TOKENS = 16
SHORT = 32
# A connection each: some engines close one that waits, and that says nothing of what they can do.
ONCE = httpx2.Limits(max_keepalive_connections=0)
CLIENT = httpx2.Client(trust_env=False, timeout=300, limits=ONCE)


def post(engine: Engine, path: str, body: Mapping[str, Any]) -> httpx2.Response:
    """The reply to one request."""
    return CLIENT.post(engine.url + path, json={**engine.plain, **body})


def chat(engine: Engine, model: str, prompt: str, **more: Any) -> Mapping[str, Any]:
    """The first choice of a chat answer, greedy unless told; ValueError with what was refused."""
    asked = {"role": "user", "content": prompt}
    body = {"model": model, "messages": [asked], "max_tokens": TOKENS, "temperature": 0, **more}
    return _choice(post(engine, "/v1/chat/completions", body))


def complete(engine: Engine, model: str, prompt: str) -> str:
    """The greedy continuation of a text."""
    body = {"model": model, "prompt": prompt, "max_tokens": TOKENS, "temperature": 0}
    return str(_choice(post(engine, "/v1/completions", body))["text"])


def chatted(engine: Engine, model: str, prompt: str) -> str:
    """The greedy chat answer's text."""
    return text_of(chat(engine, model, prompt))


def text_of(choice: Mapping[str, Any]) -> str:
    """A chat answer's text."""
    return str(choice["message"]["content"] or "")


def _choice(reply: httpx2.Response) -> Mapping[str, Any]:
    if reply.status_code != 200:
        raise ValueError(f"HTTP {reply.status_code}: {reply.text[:200]}")
    choice: Mapping[str, Any] = reply.json()["choices"][0]
    return choice


# What the engine can do, a column each.


def lora(engine: Engine) -> str:
    """Both answer, and one is not the other."""
    base = [complete(engine, engine.base, prompt) for prompt in PROMPTS[:4]]
    tuned = [complete(engine, engine.lora, prompt) for prompt in PROMPTS[:4]]
    return engine.how if base != tuned else "no: it answers as the base does"


def prefix(engine: Engine, weights: Path) -> str:
    """A prefix variant answers, by its name or after it was loaded."""
    if not engine.prefix:
        return "no: there is no way to name one"
    name = engine.prefix
    if name == "load":
        name = "starter-prefix"
        folder = str(weights / "starter-prefix")
        reply = post(engine, "/v1/load_lora_adapter", {"lora_name": name, "lora_path": folder})
        if reply.status_code != 200:
            return f"no: HTTP {reply.status_code} at loading"
    return "yes" if text_of(chat(engine, name, PROMPTS[0])) else "no: it answers nothing"


def logprobs(engine: Engine) -> str:
    """A chat answer tells each token's log probability, and the likeliest tokens beside it."""
    choice = chat(engine, engine.lora, PROMPTS[0], logprobs=True, top_logprobs=3)
    told = (choice.get("logprobs") or {}).get("content")
    if not told:
        return "no: none are told"
    assert all(one["logprob"] <= 0 for one in told)
    return "yes" if len(told[0]["top_logprobs"]) == 3 else "of the tokens taken"


def grammar(engine: Engine) -> str:
    """An answer is what a JSON schema says, from a model that writes no JSON by itself."""
    wanted = {"type": "json_schema", "json_schema": {"name": "city", "schema": SCHEMA}}
    text = text_of(chat(engine, engine.lora, PROMPTS[0], response_format=wanted, max_tokens=100))
    try:
        found = json.loads(text)
    except ValueError:
        return "no: the answer is no JSON"
    fits = set(found) == {"is_large", "hills"} and found["hills"] in (3, 7)
    return "yes" if fits else "no: JSON, but not that of the schema"


def stop(engine: Engine) -> str:
    """An answer ends before a stop text."""
    whole = text_of(chat(engine, engine.lora, PROMPTS[0]))
    word = whole.split()[2]
    cut = text_of(chat(engine, engine.lora, PROMPTS[0], stop=[word]))
    before = whole[: whole.index(word)]
    if cut.strip() == before.strip():
        return "yes"
    return "yes, and shown" if cut == before + word else "no: the answer goes on"


def seeds(engine: Engine) -> str:
    """The same seed gives the same answer, others give others."""

    def drawn(seed: int) -> str:
        return text_of(chat(engine, engine.lora, PROMPTS[3], temperature=1.5, seed=seed))

    first = [drawn(seed) for seed in range(5)]
    if len(set(first)) == 1:
        return "no: every seed gives the same"
    return "yes" if first == [drawn(seed) for seed in range(5)] else "no: a seed gives two answers"


def features(engine: Engine, weights: Path) -> dict[str, Callable[[], str]]:
    """The trials of what it can do, by column."""
    return {
        "LoRA": lambda: lora(engine),
        "prefix": lambda: prefix(engine, weights),
        "log probabilities": lambda: logprobs(engine),
        "grammar": lambda: grammar(engine),
        "stop": lambda: stop(engine),
        "seeds": lambda: seeds(engine),
    }


# Beside our own server and the page.


def parity(ours: Engine, engine: Engine, *, by_chat: bool) -> str:
    """How many greedy answers of base and variant are those of our own server."""
    told = []
    for name, mine, theirs, ask in (
        ("base", ours.base, engine.base, complete),
        ("LoRA", ours.lora, engine.lora, chatted if by_chat else complete),
    ):
        pairs = [(ask(ours, mine, prompt), ask(engine, theirs, prompt)) for prompt in PROMPTS]
        same = sum(first.strip() == second.strip() for first, second in pairs)
        told.append(f"{name} {same} of {len(pairs)}")
    return ", ".join(told)


def converse(url: str, models: Sequence[str]) -> dict[str, Any]:
    """A battle on the page, voted on where that can be: the battle as its API tells it."""
    opened = CLIENT.post(f"{url}/api/battles", json={"prompt": PROMPTS[0], "models": [*models]})
    assert opened.status_code == 201, opened.text
    told = opened.json()
    at, headers = f"{url}/api/battles/{told['battle']}", {"x-battle-token": told["token"]}
    with CLIENT.stream("GET", f"{at}/events", headers=headers) as events:
        assert "event: end" in list(events.iter_lines())
    seen: dict[str, Any] = CLIENT.get(at, headers=headers).json()
    if seen["votable"]:
        vote = CLIENT.post(f"{at}/votes", json={"winner": "tie"}, headers=headers)
        assert vote.status_code == 201, vote.text
    return seen


def battle(home: Path, models: Sequence[str], *words: str) -> tuple[dict[str, Any], str]:
    """A battle on a page over this home, and the page's log."""
    with page(home, *words) as (url, log):
        return converse(url, models), log.read_text(encoding="utf-8")


def table(engine: Engine, name: str, model: str, **more: str) -> str:
    """A table of arena.toml."""
    words: dict[str, Any] = {"name": name, "url": engine.url, "model": model, **more}
    words["max_new_tokens"] = SHORT
    lines = [f"{key} = {json.dumps(value)}" for key, value in words.items()]
    return "\n".join(["[[participant]]", *lines, ""])


def battle_by_address(engine: Engine, home: Path, *, mode: str) -> str:
    """`arena ui --backend URL`: both sides answer, asked as the probe decided."""
    names = [engine.base, engine.lora]
    seen, log = battle(home, names, "--backend", f"{engine.url}/v1")
    assert f"{engine.lora} ({mode})" in log, log
    return _answered(seen)


def battle_by_file(engine: Engine, home: Path, **lora_words: str) -> str:
    """arena.toml names both: both sides answer."""
    home.mkdir(exist_ok=True)
    tables = [
        table(engine, "Plain", engine.base, mode="completion"),
        table(engine, "Tuned", engine.lora, **lora_words),
    ]
    (home / "arena.toml").write_text("\n".join(tables), encoding="utf-8")
    seen, _ = battle(home, ["Plain", "Tuned"])
    return _answered(seen)


def battle_with_template(engine: Engine, ours: Engine, home: Path, weights: Path) -> str:
    """arena.toml names a template, and a side that must chat without one.

    The first answers as our own server does; of the second the engine's own words are shown.
    """
    home.mkdir(exist_ok=True)
    tables = [
        table(engine, "Tuned", engine.lora, template=str(weights / "starter-lora")),
        table(engine, "Chat", engine.lora, mode="chat"),
    ]
    (home / "arena.toml").write_text("\n".join(tables), encoding="utf-8")
    seen, _ = battle(home, ["Tuned", "Chat"])
    tuned, chatting = seen["sides"]
    same = text_of(chat(ours, ours.lora, PROMPTS[0], max_tokens=SHORT)).strip()
    assert tuned["text"].strip() == same, (tuned, same)
    assert chatting["state"] == "failed", chatting
    assert "chat template" in chatting["server_said"], chatting
    return "answers as ours; without it the engine's reason is shown"


def _answered(seen: Mapping[str, Any]) -> str:
    for side in seen["sides"]:
        assert side["state"] == "done", side
        assert side["text"], side
    return "both answer"
