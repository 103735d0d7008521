"""Asks a server's reward model what it thinks of answers; what it tells is checked.

Knows HTTP and the shape of /score; knows no battle and no page.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from arena.backends.failures import WIRE_ERRORS
from arena.backends.http import http_client, key_of
from arena.backends.wire_values import logprob_of
from arena.errors import ArenaError
from arena.values.battle import ChatMessage

SCORE_SECONDS = 20.0
UNREAD: Literal["unread"] = "unread"
"""In place of the score of an answer that the reward model cannot read."""
ToldScore = float | Literal["unread"]


class ScoresError(ArenaError):
    """A reward model that gave no scores; says which."""


@dataclass(frozen=True)
class RewardServer:
    """A reward model as its server lists it."""

    name: str
    url: str
    key_env: str | None = None


async def ask_scores(
    server: RewardServer, answers: Sequence[tuple[Sequence[ChatMessage], str]]
) -> list[ToldScore]:
    """A score for each (prompt, answer), in order; ScoresError where the server gives none.

    UNREAD for one that the reward model cannot read, as one longer than its context.
    """
    rows = [{"prompt": list(prompt), "completion": answer} for prompt, answer in answers]
    body = {"model": server.name, "rows": rows, "skip_unreadable": True}
    headers = {"authorization": f"Bearer {key_of(server.key_env)}"}
    try:
        async with asyncio.timeout(SCORE_SECONDS), http_client() as client:
            reply = await client.post(f"{server.url}/score", json=body, headers=headers)
        told = reply.json() if reply.status_code == 200 else None
    except (TimeoutError, *WIRE_ERRORS) as error:
        raise _no_scores(server) from error
    scores = _scores(told)
    if len(scores) != len(rows) or None in scores:
        raise _no_scores(server)
    return [score for score in scores if score is not None]


def _no_scores(server: RewardServer) -> ArenaError:
    error = ScoresError(f"The reward model {server.name!r} gave no scores.")
    return error.coded("no_scores", name=server.name)


def _scores(told: Any) -> list[ToldScore | None]:
    data = told.get("data") if isinstance(told, Mapping) else None
    if not isinstance(data, list):
        return []
    return [_score(item) if isinstance(item, Mapping) else None for item in data]


def _score(item: Mapping[str, Any]) -> ToldScore | None:
    if item.get("score") is None and isinstance(item.get("error"), str):
        return UNREAD
    return logprob_of(item.get("score"))
