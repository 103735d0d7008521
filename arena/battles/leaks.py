"""Does an answer say who wrote it? Knows texts and names, nothing else.

A blind vote on an answer that names its model is not blind; such answers are marked, never
changed or dropped.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

FAMILIES = (
    "chatgpt|gpt|claude|gemini|gemma|llama|qwen|mistral|mixtral|deepseek|smollm|phi|falcon|olmo"
    "|granite|command|vicuna|alpaca|bloom|pythia|yi|grok"
)
_SAYS_I = r"(?:i am|i'm|i’m|my name is|je suis|ich bin|soy|我是|我叫)"


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
        before = "" if telling else _SAYS_I + r"\W+(?:\w+\W+){0,3}?"
        if re.search(rf"{before}(?<![\w-]){re.escape(name)}(?![\w-])", text, re.IGNORECASE):
            return True
    family = "|".join(FAMILIES)
    return (
        re.search(rf"{_SAYS_I}\W*(?:\w+\W+){{0,3}}?(?:{family})", text, re.IGNORECASE) is not None
    )
