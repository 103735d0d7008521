"""A chat template that arena.toml names: read from a variant folder or a Jinja file, not yet run.

Knows the files that `save_pretrained` writes; knows no server and no Jinja.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from arena.errors import ArenaError

MOST_BYTES = 1 << 20
SPECIAL = ("bos_token", "eos_token", "pad_token", "unk_token")


class NamedTemplateError(ArenaError):
    """There is no usable chat template where one was named; or it cannot be rendered."""


@dataclass(frozen=True)
class ChatTemplate:
    """The text of a template and the special tokens that it may name."""

    source: str
    tokens: tuple[tuple[str, str], ...] = ()

    @property
    def bos_token(self) -> str:
        """What a tokenizer puts before a text by itself; "" where the template names none."""
        return dict(self.tokens).get("bos_token", "")


def read_chat_template(path: Path) -> ChatTemplate:
    """The template of a variant folder or of a Jinja file. Raises NamedTemplateError."""
    if not path.is_dir():
        return ChatTemplate(_text(path))
    settings = _settings(path / "tokenizer_config.json")
    tokens = tuple((name, text) for name in SPECIAL if (text := _token(settings.get(name))))
    beside = path / "chat_template.jinja"
    source = _text(beside) if beside.is_file() else settings.get("chat_template")
    if not isinstance(source, str) or not source:
        raise NamedTemplateError(f"template {str(path)!r} has no chat template; name a Jinja file")
    return ChatTemplate(source, tokens)


def _settings(path: Path) -> Mapping[str, Any]:
    if not path.is_file():
        return {}
    try:
        settings = json.loads(_text(path))
    except (ValueError, RecursionError) as error:
        raise NamedTemplateError(f"template {str(path)!r} is no JSON; correct it") from error
    return settings if isinstance(settings, dict) else {}


def _token(value: Any) -> str:
    """A special token as tokenizers write it: a text, or an object with its content."""
    content = value.get("content") if isinstance(value, dict) else value
    return content if isinstance(content, str) else ""


def _text(path: Path) -> str:
    try:
        if not path.is_file():
            raise NamedTemplateError(
                f"template {str(path)!r} is no file; name a variant folder or a Jinja file"
            )
        if path.stat().st_size > MOST_BYTES:
            raise NamedTemplateError(
                f"template {str(path)!r} is larger than 1 MB; name a smaller one"
            )
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise NamedTemplateError(
            f"template {str(path)!r} cannot be read as text; correct it"
        ) from error
