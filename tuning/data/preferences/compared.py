"""Rows of published sets with two answers and a verdict between them, as judgements.

human-preference-55k, any table of battles, compar:IA, preferences of HelpSteer 2 and 3. Knows no
file.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from typing import Any

from tuning.data.fields import DataRow, Message, RowError, plain, read_text, says_nothing, shorten
from tuning.data.preferences.judged import Judged, JudgedAnswer
from tuning.data.preferences.messages import (
    assistant,
    check_prompt,
    read_messages,
    shared_start,
    system_of,
    user,
)
from tuning.data.preferences.paired import origin_of
from tuning.data.preferences.pairs import Origin
from tuning.data.preferences.winners import (
    EQUAL,
    NEITHER,
    A,
    B,
    ranks_of_winner,
    read_winner,
)
from tuning.data.sources import RawRow

LAST_MS = 253_402_300_799_999
"""The end of the year 9999; a time beyond it is a slip of units."""
STRONGEST = 3
"""The largest preference of HelpSteer."""
COMPARIA_TURN = ("metadata", "reasoning", "reasoning_content", "duration", "generation_id")


def flags_of(raw: RawRow) -> Iterator[Judged]:
    """A row of human-preference-55k: JSON lists, one text a turn, and a flag for each winner."""
    row = raw.columns
    flags = {
        winner: _flag(row, name)
        for winner, name in (
            (A, "winner_model_a"),
            (B, "winner_model_b"),
            (EQUAL, "winner_tie"),
        )
    }
    if sum(flags.values()) != 1:
        raise RowError("winner_model_a", "exactly one of the three winners must be 1")
    asked = _texts(row, "prompt")
    sides = [_texts(row, f"response_{side}") for side in "ab"]
    if any(len(side) != len(asked) for side in sides):
        raise RowError("response_a", "prompt and responses have different numbers of turns")
    whole = [
        [message for pair in zip(asked, side, strict=True) for message in _turn(*pair)]
        for side in sides
    ]
    winner = next(name for name, flag in flags.items() if flag)
    yield _battle(raw, whole, winner)


def table_of(raw: RawRow) -> Iterator[Judged]:
    """A row of a table of battles: prompt, two responses, two models, and a winner's word."""
    row = raw.columns
    prompt = [*system_of(row, "system"), *read_messages(row, "prompt", "user")]
    sides = [[*prompt, *read_messages(row, f"response_{side}", "assistant")] for side in "ab"]
    yield _battle(raw, sides, read_winner(row.get("winner")))


def comparia_of(raw: RawRow) -> Iterator[Judged]:
    """A vote of compar:IA: two conversations, and the name of the model that was chosen."""
    row = raw.columns
    names = [_word(row, f"model_{side}_name") for side in "ab"]
    chosen = _word(row, "chosen_model_name")
    if _flag(row, "both_equal"):
        winner = EQUAL
    elif chosen is None:
        raise RowError("chosen_model_name", "no model was chosen, and both_equal is not true")
    elif chosen not in names:
        raise RowError("chosen_model_name", f"{shorten(chosen)} is neither of the two models")
    elif names[0] == names[1]:
        raise RowError("chosen_model_name", "both models have this name, so the side is not known")
    else:
        winner = A if chosen == names[0] else B
    sides = []
    for side in "ab":
        system = system_of(row, f"system_prompt_{side}")
        told = _conversation(row, f"conversation_{side}")
        sides.append([*(() if told[:1] and told[0]["role"] == "system" else system), *told])
    yield _battle(raw, sides, winner, names)


def reactions_of(raw: RawRow) -> Iterator[Judged]:
    """A reaction of compar:IA: one answer that somebody liked or did not."""
    row = raw.columns
    liked, disliked = _flag(row, "liked"), _flag(row, "disliked")
    if liked == disliked:
        raise RowError("liked", "the answer is neither liked nor disliked, or both")
    question, answer = read_text(row, "question_content"), read_text(row, "response_content")
    before: Sequence[Message] = ()
    name = "conversation_a" if _word(row, "model_pos") != "b" else "conversation_b"
    if not says_nothing(row.get(name)):
        told = _conversation(row, name)
        found = [
            at
            for at in range(1, len(told))
            if told[at]["content"] == answer and told[at - 1]["content"] == question
        ]
        before = told[: found[0] - 1] if found else ()
    prompt = (*before, user(question))
    judged = JudgedAnswer((assistant(answer),), _word(row, "refers_to_model"), label=liked)
    yield Judged(prompt, (judged,), _origin(raw))


def strengths_of(raw: RawRow) -> Iterator[Judged]:
    """A preference of HelpSteer 2 (`preference_strength`) or 3 (`overall_preference`), -3 to 3.

    Negative for the first response. The strength is a share of 3.
    """
    row = raw.columns
    third = "overall_preference" in row
    name = "overall_preference" if third else "preference_strength"
    value = _number(row, name)
    if abs(value) > STRONGEST:
        raise RowError(name, f"is {value:g}; it goes from -3 to 3")
    prompt = read_messages(row, "context" if third else "prompt", "user")
    ends = ("response1", "response2") if third else ("response_1", "response_2")
    sides = [[*prompt, assistant(read_text(row, end, required=False))] for end in ends]
    winner = EQUAL if value == 0 else A if value < 0 else B
    strength = abs(value) / STRONGEST or None
    yield _battle(raw, sides, winner, strength=strength)


def _battle(
    raw: RawRow,
    sides: Sequence[Sequence[Message]],
    winner: str,
    names: Sequence[str | None] | None = None,
    strength: float | None = None,
) -> Judged:
    """Two conversations and a winner: the last answers are compared, after what both share."""
    row = raw.columns
    if names is None:
        names = [_word(row, f"model_{side}") for side in "ab"]
    first, second = sides
    for side, told in zip("ab", sides, strict=True):
        if not told or told[-1]["role"] != "assistant":
            raise RowError(f"conversation_{side}", "does not end on an answer")
    count = shared_start(first, second)
    befores = [tuple(first[:-1]), tuple(second[:-1])]
    same = befores[0] == befores[1]
    prompt = befores[0] if same else tuple(first[:count])
    check_prompt(befores[0], "prompt")
    return Judged(
        prompt,
        tuple(
            JudgedAnswer(tuple(told[-1:]), name, before=None if same else before)
            for told, name, before in zip(sides, names, befores, strict=True)
        ),
        _origin(raw),
        ranks=ranks_of_winner(winner),
        both_bad=winner == NEITHER,
        strength=strength,
        language=_word(row, "language"),
        created_ms=time_ms(row, "timestamp"),
    )


def _origin(raw: RawRow) -> Origin:
    """With the voter as compar:IA names them."""
    row = raw.columns
    origin = origin_of(raw, row)
    voter = _word(row, "visitor_id") or _word(row, "session_hash")
    return Origin(origin.source, origin.line, origin.row, origin.voter or voter)


def time_ms(row: DataRow, name: str) -> int:
    """Milliseconds since 1970 of a time in ISO 8601, or in seconds; UTC where no zone is named.

    0 where nobody says; RowError for a time that is none, or lies beyond the year 9999.
    """
    value: Any = row.get(name)
    if says_nothing(value):
        return 0
    if isinstance(value, str):
        try:
            value = datetime.fromisoformat(value.strip())
        except ValueError:
            raise RowError(name, f"is {shorten(value)}, no ISO 8601 time") from None
    if isinstance(value, datetime):
        value = (value if value.tzinfo else value.replace(tzinfo=UTC)).timestamp()
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise RowError(name, f"is {shorten(value)}, no time")
    if not 0 <= value * 1000 <= LAST_MS:
        raise RowError(name, f"is {value:g} seconds since 1970; give seconds, not milliseconds")
    return round(value * 1000)


def _conversation(row: DataRow, name: str) -> tuple[Message, ...]:
    """The messages of a column, which CSV holds as JSON."""
    value = row.get(name)
    if isinstance(value, str) and value.lstrip().startswith("["):
        row = {**row, name: _json(value, name)}
    return read_messages(row, name, "user", COMPARIA_TURN)


def _json(text: str, name: str) -> Any:
    try:
        return json.loads(text)
    except ValueError as error:
        raise RowError(name, f"is no JSON ({error})") from error


def _texts(row: DataRow, name: str) -> list[str]:
    """A list of texts, also as JSON; null is an empty answer."""
    value = plain(row.get(name))
    if isinstance(value, str):
        value = _json(value, name) if value.lstrip().startswith("[") else [value]
    if not isinstance(value, list) or not value:
        raise RowError(name, "is no list of texts")
    if not all(text is None or isinstance(text, str) for text in value):
        raise RowError(name, "holds something else than text")
    return [text or "" for text in value]


def _turn(asked: str, answer: str) -> tuple[Message, Message]:
    return user(asked), assistant(answer)


def _flag(row: DataRow, name: str) -> bool:
    value = row.get(name)
    word = str(value).strip().lower()
    if says_nothing(value) or word in ("0", "0.0", "false", "nan"):
        return False
    if word in ("1", "1.0", "true"):
        return True
    raise RowError(name, f"is {shorten(value)}; give 1 or 0")


def _number(row: DataRow, name: str) -> float:
    value: Any = row.get(name)
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = math.nan
    if isinstance(value, bool) or not math.isfinite(number):
        raise RowError(name, f"is {shorten(value)}, no number")
    return number


def _word(row: DataRow, name: str) -> str | None:
    value = row.get(name)
    return value if isinstance(value, str) and value.strip() else None
