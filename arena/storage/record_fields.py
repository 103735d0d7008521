"""What may stand in the fields of a record of `arena.storage.raw`: types, ranges, whole texts."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from operator import itemgetter
from typing import Any

from arena.errors import ArenaError
from arena.values.texts import TextError, check_text

Record = dict[str, Any]
"""A battle as `arena.storage.raw` writes it."""

MAX_WHOLE = LAST_MS = 253_402_300_799_999
"""The end of the year 9999 in milliseconds since 1970: no time and no count of ours is larger."""
TEXT, WHOLE, MARK = (str,), (int,), (bool,)
NONE = type(None)
TEXT_OR_NONE, WHOLE_OR_NONE, NUMBER_OR_NONE = (str, NONE), (int, NONE), (float, int, NONE)


class RecordError(ArenaError):
    """A record that is no battle: a field is missing, of the wrong type or contradicts another."""


class Fields:
    """Some fields of a record and what may stand in them."""

    def __init__(self, what: str, **kinds: tuple[type, ...]) -> None:
        """`what` the fields are of, for errors; the types that each may have."""
        self._what, self._kinds = what, kinds
        self.values = itemgetter(*kinds)  # the values in the order of the fields, unchecked
        self._texts = _places(kinds, str)
        self._numbers = _places(kinds, int)
        self._shapes: set[tuple[type, ...]] = set()  # seen and found right: few there are

    def of(self, record: Record) -> tuple[Any, ...]:
        """The values in the order of the fields. Raises RecordError, TextError or KeyError."""
        values: tuple[Any, ...] = self.values(record)
        shape = tuple(map(type, values))
        if shape not in self._shapes:
            for (name, kinds), kind in zip(self._kinds.items(), shape, strict=True):
                if kind not in kinds:
                    raise RecordError(f"{self._what}: {name} {record[name]!r} is no {_told(kinds)}")
            self._shapes.add(shape)
        for text in self._texts(values):
            if text and ("\0" in text or not text.isascii()):
                self._check_texts(values)
        for number in self._numbers(values):
            if number is not None and not -MAX_WHOLE <= number <= MAX_WHOLE:
                raise RecordError(f"{self._what}: {number} is out of range")
        return values

    def _check_texts(self, values: tuple[Any, ...]) -> None:
        for name, value in zip(self._kinds, values, strict=True):
            if isinstance(value, str):
                check_text(self._what if name == "text" else name, value)


def _places(kinds: Mapping[str, tuple[type, ...]], kind: type) -> Callable[[Any], tuple[Any, ...]]:
    """Takes the values of the fields that may be of a type out of those of all."""
    places = [i for i, known in enumerate(kinds.values()) if kind in known]
    if len(places) < 2:
        return lambda values: tuple(values[place] for place in places)
    return itemgetter(*places)


def _told(kinds: tuple[type, ...]) -> str:
    names = {str: "text", int: "whole number", float: "number", bool: "truth value", NONE: "null"}
    return " or ".join(names[kind] for kind in kinds if kind is not int or float not in kinds)


PARTICIPANT = {
    **dict.fromkeys(("name", "model", "ask_as", "kind"), TEXT),
    **dict.fromkeys(("weights_sha256", "base", "base_sha256"), TEXT_OR_NONE),
    "system_prompt": TEXT,
}
BATTLE: dict[str, tuple[type, ...]] = {
    **{"id": TEXT, "mode": TEXT, "sampler": TEXT, "propensity": NUMBER_OR_NONE},
    **{"language": TEXT_OR_NONE, "set_name": TEXT_OR_NONE, "set_index": WHOLE_OR_NONE},
    **{"source": TEXT, "created_ms": WHOLE, "revealed_ms": WHOLE_OR_NONE},
}
TURN: dict[str, tuple[type, ...]] = {
    **{"context": TEXT, "prompt": TEXT, "shared_side": WHOLE_OR_NONE, "created_ms": WHOLE}
}
ANSWER: dict[str, tuple[type, ...]] = {
    **{"side": WHOLE, "attempt": WHOLE, "superseded": MARK, "identity_leak": MARK},
    **dict.fromkeys(("status", "text", "prompt_sent", "model"), TEXT),
    **{"weights_sha256": TEXT_OR_NONE, "num_prompt_tokens": WHOLE_OR_NONE},
    **{"num_tokens": WHOLE_OR_NONE, "first_token_s": NUMBER_OR_NONE, "total_s": NUMBER_OR_NONE},
    **{"finish_reason": TEXT_OR_NONE, "error": TEXT_OR_NONE},
    **{"started_ms": WHOLE, "finished_ms": WHOLE_OR_NONE},
}
VOTE: dict[str, tuple[type, ...]] = {
    **{"partial": MARK, "blind": MARK, "winner": TEXT_OR_NONE, "strength": TEXT_OR_NONE},
    **{"comment": TEXT, "edited_answer": TEXT, "created_ms": WHOLE, "updated_ms": WHOLE},
}
FLAG: dict[str, tuple[type, ...]] = {
    **{"reason": TEXT, "detail": TEXT, "created_ms": WHOLE, "cleared_ms": WHOLE_OR_NONE}
}
ACT: dict[str, tuple[type, ...]] = {"action": TEXT, "at_ms": WHOLE}
MARKS = ("superseded", "identity_leak", "partial", "blind")
ACTIONS = ("cast", "change", "undo", "skip", "import")


def are_right(values: list[Any], width: int, kinds: Mapping[str, tuple[type, ...]]) -> bool:
    """Whether `Fields.of` would take every row: many at once, and much faster.

    `values`: rows of `width` values one after the other, the fields last.
    """
    for place, (name, known) in enumerate(kinds.items(), width - len(kinds)):
        column = values[place::width]
        found = set(map(type, column))
        if not found.issubset(known):
            return False
        if found & {int, float}:
            numbers = [value for value in column if value is not None] if NONE in found else column
            if not (min(numbers) >= -MAX_WHOLE and max(numbers) <= MAX_WHOLE):
                return False
            if float in found and not math.isfinite(sum(numbers)):
                return False
        if str in found:
            texts = "".join(filter(None, column))
            try:
                check_text(name, texts)
            except TextError:
                return False
    return True
