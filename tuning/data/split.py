"""Which rows are left out as repeats, which are held out, and how often each is seen.

Knows conversations and the ledger; knows neither files nor tokens.
"""

from __future__ import annotations

import hashlib
import math
import random
import re
from collections.abc import Sequence

from tuning.config import DataOptions
from tuning.data.examples import Example, canonical_text
from tuning.data.fields import Message
from tuning.data.ledger import Ledger

MAX_HELDOUT_ROWS = 256


def prompt_key(messages: Sequence[Message]) -> str:
    """What makes two prompts the same: their words, punctuation aside."""
    return " | ".join(
        plain_words(message["content"]) for message in messages if message["role"] != "assistant"
    )


def _asked(example: Example) -> list[str]:
    """The key of what is asked, for a mixture's row in the words of every trained template."""
    if example.row is not None:
        return [plain_words(question) for question in example.row.questions]
    return [prompt_key(example.messages)]


def plain_words(text: str) -> str:
    """Words and numbers of `text`; case and signs stay: PARIS is not paris, 3 - 2 not 3 + 2."""
    return " ".join(re.findall(r"\w+|[^\w\s.,!?'\"]", text))


def drop_repeats(
    examples: list[list[Example]], options: DataOptions, ledger: Ledger
) -> list[list[Example]]:
    if not options.deduplicate:
        return examples
    from tuning.data.duplicates import NearDuplicates

    seen: set[str] = set()
    near = NearDuplicates(options.near_duplicates) if options.near_duplicates < 1 else None

    def reason(example: Example) -> str | None:
        trimmed = [
            {**message, "content": message["content"].strip()} for message in example.messages
        ]
        exact = canonical_text(trimmed, example)
        if exact in seen:
            return "duplicate"
        seen.add(exact)
        words = " | ".join(
            f"{message['role']} {plain_words(message['content'])}" for message in example.messages
        )
        if near is not None and near.seen_before(words):
            return "near duplicate"
        return None

    kept: list[list[Example]] = []
    for rows in examples:
        kept.append([])
        for example in rows:
            why = reason(example)
            if why is None:
                kept[-1].append(example)
            else:
                ledger.rows_dropped[why] += 1
    return kept


def drop_leaks(
    examples: list[list[Example]], heldout: Sequence[Example], ledger: Ledger
) -> list[list[Example]]:
    """Leave out training rows whose prompt is held out: of an own file, or of another group."""
    forbidden = {key for example in heldout for key in _asked(example)}
    kept = [
        [example for example in rows if forbidden.isdisjoint(_asked(example))] for rows in examples
    ]
    leaked = sum(map(len, examples)) - sum(map(len, kept))
    if leaked:
        ledger.rows_dropped["also in the held-out set"] += leaked
    return kept


def split_off(
    examples: list[list[Example]], share: float, seed: int
) -> tuple[list[list[Example]], list[Example]]:
    """Hold out whole groups, chosen by a hash of group and seed: none is on both sides."""
    groups = {example.group for rows in examples for example in rows}
    wanted = min(int(len(groups) * share), MAX_HELDOUT_ROWS)
    ranked = sorted(
        groups,
        key=lambda group: hashlib.sha256(
            f"{seed} {group}".encode("utf-8", "surrogatepass")
        ).digest(),
    )
    chosen: set[str] = set()
    sizes: dict[str, int] = {}
    for rows in examples:
        for example in rows:
            sizes[example.group] = sizes.get(example.group, 0) + 1
    total, budget = 0, min(int(sum(sizes.values()) * share), MAX_HELDOUT_ROWS)
    for group in ranked:
        if len(chosen) >= wanted:
            break
        if total + sizes[group] <= budget:
            chosen.add(group)
            total += sizes[group]
    heldout = [example for rows in examples for example in rows if example.group in chosen]
    kept = [[example for example in rows if example.group not in chosen] for rows in examples]
    return kept, heldout


def why_none_heldout(examples: list[list[Example]], options: DataOptions) -> str:
    """Why the share held nothing out, and what to set."""
    groups = len({example.group for rows in examples for example in rows})
    what = "prompts" if options.group_by is None else f"groups of {options.group_by}"
    share = f"{options.heldout * 100:g} % of {groups:,} {what}"
    why = "is less than one" if int(groups * options.heldout) < 1 else "take more of the rows"
    return f"no row held out: {share} {why}; raise data_options.heldout"


def weighed_order(sizes: Sequence[int], weights: Sequence[float], seed: int) -> tuple[int, ...]:
    """Repeat each source's rows by its weight; a fraction takes a seeded sample of them."""
    order: list[int] = []
    start = 0
    for index, size in enumerate(sizes):
        weight = weights[index] if weights else 1.0
        whole = math.floor(weight)
        order.extend(list(range(start, start + size)) * whole)
        part = round((weight - whole) * size)
        picked = random.Random(f"{seed} {index}").sample(range(size), part)
        order.extend(start + position for position in sorted(picked))
        start += size
    return tuple(order)
