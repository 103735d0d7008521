"""Which models of a server have a chat template: asked once each, beside battles.

A server that answers chats answers 400 for a model without a template. That is found out before
anybody waits for an answer: by the route that renders a prompt where the server has one, else by a
chat of one token. Knows the wire; knows no battle.
"""

from __future__ import annotations

import asyncio
import re
from collections import Counter
from dataclasses import replace
from typing import Any

import httpx2

from arena.backends.client import Target
from arena.backends.failures import WIRE_ERRORS
from arena.backends.http import http_client
from arena.backends.probing import Backend
from arena.values.battle import AskAs

LEARN_SECONDS = 5.0
MOST_ASKED = 16
"""A server with more models is a catalogue of hosted ones; those have templates, and each costs."""
MOST_TRIES = 3
GREETING = [{"role": "user", "content": "Hi"}]
_NO_TEMPLATE = re.compile(r"chat[ _-]?template|template[ _]error|template not found", re.IGNORECASE)
_REFUSED = (400, 422, 500)
"""Some engines call it a bad request, some an error of their own."""


class TemplateMemory:
    """What is known of one server's models, until it goes down: it may come back with others."""

    def __init__(self) -> None:
        self._has_template: dict[str, bool] = {}
        self._num_tries: Counter[str] = Counter()

    def applied(self, backend: Backend) -> Backend:
        """The server with each model asked as it can be."""
        return replace(backend, targets=tuple(self._applied(one) for one in backend.targets))

    def _applied(self, target: Target) -> Target:
        if not target.is_mode_open or self._has_template.get(target.participant.model, True):
            return target
        participant = replace(target.participant, ask_as=AskAs.COMPLETION)
        return replace(target, participant=participant)

    async def learn(self, backend: Backend) -> None:
        """Ask for the models of which nothing is known yet; forget all of a server that is down."""
        if not backend.is_up:
            self._has_template.clear()
            self._num_tries.clear()
            return
        unknown = [target for target in backend.targets if self._is_unknown(target)]
        if not unknown or len(backend.targets) > MOST_ASKED:
            return
        for target in unknown:
            self._num_tries[target.participant.model] += 1
        asking = [asyncio.ensure_future(self._ask(target)) for target in unknown]
        try:
            await asyncio.wait(asking, timeout=LEARN_SECONDS)
        finally:
            for task in asking:
                task.cancel()
            await asyncio.gather(*asking, return_exceptions=True)

    def _is_unknown(self, target: Target) -> bool:
        model = target.participant.model
        is_asked = model in self._has_template or self._num_tries[model] >= MOST_TRIES
        return target.is_mode_open and not is_asked

    async def _ask(self, target: Target) -> None:
        try:
            found = await has_template(target)
        except WIRE_ERRORS:
            return  # it is asked again with the next probe
        if found is not None:
            self._has_template[target.participant.model] = found


async def has_template(target: Target) -> bool | None:
    """Whether this model can be asked by chat; None where its server does not tell now.

    Raises what reading from a server raises.
    """
    chat = {"model": target.participant.model, "messages": GREETING}
    render = "/chat_tokenize" if target.wire == "tgi" else "/tokenize"  # the latter is vLLM's
    async with http_client() as client:
        client.headers.update({"authorization": f"Bearer {target.key}"})
        status, told = await _post(client, f"{target.url}{render}", chat)
        if status == 200:
            return True
        if status in _REFUSED and _NO_TEMPLATE.search(told):
            return False
        status, told = await _post(
            client, f"{target.url}/v1/chat/completions", {**chat, "max_tokens": 1}
        )
    if status in _REFUSED and _NO_TEMPLATE.search(told):
        return False
    return None if status == 429 or status >= 500 else True


async def _post(client: httpx2.AsyncClient, url: str, body: dict[str, Any]) -> tuple[int, str]:
    """The status, and what a refusal says; of a success nothing is read."""
    async with client.stream("POST", url, json=body) as reply:
        return reply.status_code, reply.text if reply.status_code >= 400 else ""
