"""Does an answer say who wrote it? Knows texts and names, nothing else.

A blind vote on an answer that names its model is not blind; such answers are marked, never
changed or dropped.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from urllib.parse import urlsplit

# Names that are ordinary words as well count with a number or a letter behind them only.
FAMILIES = (
    *("chatgpt", "gpt", "claude", "gemini", "gemma", "llama", "qwen", "mistral", "mixtral"),
    *("deepseek", "smollm", "olmo", "vicuna", "alpaca", "pythia", "grok", r"command[ -]?r"),
    *(r"phi[ -]?\d", r"falcon[ -]?\d", r"granite[ -]?\d", r"bloomz?[ -]?\d", r"yi[ -]?\d"),
)
_SAYS_I = (
    r"(?:(?<![^\W_])(?:i am|i'm|i’m|my name is|je suis|ich bin|soy)(?![^\W_])|我是|我叫)"
    r"(?:\W+(?:\w+\W+){0,3}?)?"
)
_SAYS_MODEL = r"language model[^.!?\n]{0,60}?(?<!\w)"
_FAMILY = re.compile(
    rf"(?:{_SAYS_I}|{_SAYS_MODEL})(?:{'|'.join(FAMILIES)})(?![a-z])", re.IGNORECASE
)


def telling_words(names: Iterable[str], addresses: Iterable[str]) -> frozenset[str]:
    """What a server's words may not hold before the reveal: names, their parts, who makes models.

    Too much rather than too little: what is held back costs a voter one line.
    """
    words = {
        "chatgpt", "gpt-", "claude", "gemini", "gemma", "llama", "qwen", "mistral", "mixtral",
        "deepseek", "smollm", "olmo", "vicuna", "alpaca", "pythia", "grok", "falcon", "granite",
    }  # fmt: skip
    for name in names:
        last = name.rsplit("/", 1)[-1]
        beginning = re.match(r"[^\W\d_]*", last)
        words |= {name, last}
        if beginning is not None and len(beginning[0]) > 3:
            words.add(beginning[0])
    for address in addresses:
        host = urlsplit(address).hostname or ""
        words |= {host, urlsplit(address).netloc}
    return frozenset(word for word in words if len(word) > 1)


def names_itself(text: str, names: Iterable[str]) -> bool:
    """Whether the text gives away one of `names`, or introduces itself as a known model.

    A name that is an ordinary word ("starter") counts only where the answer introduces itself
    by it; a name with a digit, a dash or a slash in it counts anywhere.
    """
    full = set(names)
    for name in full | {name.rsplit("/", 1)[-1] for name in full}:
        if len(name) < 3:
            continue
        telling = re.search(r"[\d/_-]", name) is not None
        before = "" if telling else _SAYS_I
        if re.search(rf"{before}(?<![\w-]){re.escape(name)}(?![\w-])", text, re.IGNORECASE):
            return True
    return _FAMILY.search(text) is not None
