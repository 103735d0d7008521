"""Writes docs/engines.md from docs/engines.json: what engines were found to do. Knows no engine."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from engine_servers import ROOT

FOUND = ROOT / "docs" / "engines.json"
PAGE = ROOT / "docs" / "engines.md"
HEAD = """# Engines

What `make engines` found when it last ran: the starter and its variants on engines that others
wrote, in fp32 on one processor. [scale.md](scale.md) says how to bring variants up there.

"""
ABLE = ("version", "LoRA", "prefix", "log probabilities", "grammar", "stop", "seeds")
ASKED = ("answers", "page", "arena.toml", "clients")
ABLE_TEXT = """## What each can do

"LoRA" and "prefix" say how a variant is named there. The others are what an answer showed: log
probabilities of its tokens and of the likeliest beside them; JSON by a schema from a model that
writes none by itself; an end before a stop text; the same answer by the same seed, and another by
others.

"""
ASKED_TEXT = """## Beside our own server, under the page, by clients

"Answers" counts greedy answers of 16 tokens that are ours letter by letter: of the base by
completion, of the LoRA variant by chat (by completion, where there is no template). "Page" is a
battle through `arena ui --backend`, "arena.toml" one with participants of that file, both voted on.
"Clients" are those of [clients.md](clients.md) that speak OpenAI's words. `vllm serve` is started
by hand, without a chat template: the page finds that out and asks by completion; by `template`
the variant answers as our own server has it answer, and a side told to chat shows what vLLM said.
`arena deploy vllm` is what that command writes. llama-cpp-python's server penalises repetition
unless told otherwise; for the count it is. `transformers serve` lists no folders, so the page must
have them from `arena.toml`.

"""
BESIDE_TEXT = """## vLLM beside our own engine

With the real vLLM. "Who answers": LoRA and base are vLLM's, prefix and full checkpoint are our own
engine's, grammars too; each answer has the hash of its weights and is, greedy, the text that our
own engine alone writes. On the page, a battle between vLLM's variant and one of our own engine.

"""
FILES_TEXT = """## Files of `arena deploy`

What each project's own parser or schema made of them.

"""


def record(kind: str, name: str, told: Any) -> None:
    """Keep one more result, and show all that are kept."""
    print(f"{name}: {told}", flush=True)
    found = json.loads(FOUND.read_text(encoding="utf-8")) if FOUND.is_file() else {}
    found.setdefault(kind, {})[name] = told
    kept = json.dumps(found, indent=1, ensure_ascii=False)
    FOUND.write_text(kept + "\n", encoding="utf-8")
    PAGE.write_text(shown(found), encoding="utf-8")


def shown(found: Mapping[str, Any]) -> str:
    """The page of what was found."""
    engines = found.get("engines", {})
    text = HEAD
    if engines:
        able = {name: row for name, row in engines.items() if "LoRA" in row}
        text += ABLE_TEXT + _table("engine", ABLE, able) + ASKED_TEXT
        text += _table("engine", ASKED, engines)
    for key, words, column in (("beside", BESIDE_TEXT, "result"), ("files", FILES_TEXT, "result")):
        rows = {name: {column: told} for name, told in found.get(key, {}).items()}
        if rows:
            text += words + _table("command" if key == "beside" else "engine", (column,), rows)
    return text.rstrip("\n") + "\n"


def _table(head: str, columns: tuple[str, ...], rows: Mapping[str, Mapping[str, str]]) -> str:
    lines = [f"| {head} | {' | '.join(columns)} |", f"|---{'|---' * len(columns)}|"]
    for name, row in rows.items():
        cells = [row.get(column, "").replace("|", "\\|") for column in columns]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n\n"
