"""One clean conversation with its place, and the hash of many; knows neither files nor tokens."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tuning.data.fields import Message
from tuning.data.mixture.drawing import Drawn
from tuning.data.mixture.rows import MixtureRow


@dataclass(frozen=True)
class Example:
    """One clean conversation, the place it came from, and its group for the held-out split."""

    messages: tuple[Message, ...]
    source: str
    line: int
    group: str
    tools: tuple[dict[str, Any], ...] = ()
    """Functions that the assistant may call, for the chat template."""
    untrained: frozenset[int] = frozenset()
    """Positions of the assistant's turns that are context only."""
    row: MixtureRow | None = None
    """The columns of a mixture's row, whose messages are made after the held-out split."""
    drawn: Drawn | None = None
    """What made the messages of a mixture's row."""

    @property
    def place(self) -> str:
        """`file:line`, as errors name it."""
        return f"{self.source}:{self.line}"


def examples_sha256(examples: Sequence[Example]) -> str:
    """Fingerprint of the conversations in their order: sha256 of their canonical JSON lines."""
    digest = hashlib.sha256()
    for example in examples:
        digest.update(canonical_text(example.messages, example).encode() + b"\n")
    return digest.hexdigest()


def canonical_text(messages: Sequence[Message], example: Example) -> str:
    """One line of JSON that is the same for the same lesson; plain messages are a list alone."""
    content: Any = list(messages)
    if example.tools or example.untrained:
        content = {
            "messages": content,
            "tools": example.tools,
            "untrained": sorted(example.untrained),
        }
    return json.dumps(content, ensure_ascii=False, sort_keys=True)
