"""What the converters share: rows of other programs as records of `arena.storage.raw`.

What a row does not say stays empty: no model, text or winner is guessed. A row that makes
no battle raises RecordError with the reason. Reads no files.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from arena.storage.raw import VERSION
from arena.storage.record_fields import LAST_MS, Record, RecordError
from arena.values.battle import SIDES, AnswerStatus, AskAs, HistoryMode, Mode
from arena.values.vote import Winner

SourceRow = Mapping[str, Any]
SourceMessage = Mapping[str, Any]

# Times become texts, so that the same row has the same hash from any type of file.
_ROW_JSON = json.JSONEncoder(ensure_ascii=False, sort_keys=True, separators=(",", ":"), default=str)
_BLIND, _NAMED, _OWN = str(Mode.BLIND), str(Mode.NAMED), str(HistoryMode.OWN)
_CHAT, _COMPLETE = str(AskAs.CHAT), str(AnswerStatus.COMPLETE)


def battle_record(
    source: str,
    row: SourceRow,
    *,
    models: Sequence[str],
    conversations: Sequence[Sequence[SourceMessage]],
    vote: Record,
    voter: Any,
    blind: bool,
    language: str | None,
    created_ms: int,
) -> Record:
    """A battle of k conversations with one vote on the last turn; its id is the row's hash."""
    digest = hashlib.sha256(f"{source}\n{_ROW_JSON.encode(row)}".encode()).hexdigest()[:16]
    prompts, answers = _rounds(conversations)
    turns = [
        {
            "prompt": prompt,
            "context": _OWN,
            "shared_side": None,
            "created_ms": created_ms,
            "answers": [_answer(side, text, created_ms) for side, text in enumerate(texts)],
            "votes": [],
            "skips": [],
            "history": [],
        }
        for prompt, texts in zip(prompts, answers, strict=True)
    ]
    told = _vote(vote, digest if voter is None else voter, blind=blind, created_ms=created_ms)
    turns[-1]["votes"] = [told]
    return {
        "version": VERSION,
        "id": digest,
        "owner": None,
        "tags": [],
        "mode": _BLIND if blind else _NAMED,
        "sampler": "",
        "propensity": None,
        "language": language,
        "set_name": None,
        "set_index": None,
        "source": source,
        "created_ms": created_ms,
        "revealed_ms": None,
        "participants": [_participant(name) for name in models],
        "turns": turns,
    }


WINNERS: dict[str, tuple[str, ...]] = {
    Winner.MODEL_A: (
        *("model_a", "a", "left", "leftvote", "left_vote", "left_better"),
        *("model a", "assistant_a"),
    ),
    Winner.MODEL_B: (
        *("model_b", "b", "right", "rightvote", "right_vote", "right_better"),
        *("model b", "assistant_b"),
    ),
    Winner.TIE: (
        *("tie", "tievote", "tie_vote", "-", "equal", "both_equal", "draw", "same"),
        *("tie (bothgood)", "tie (both good)", "bothgood", "both_good", "both good"),
    ),
    Winner.BOTH_BAD: (
        *("tie (bothbad)", "tie (both bad)", "bothbad", "both_bad", "both bad"),
        *("bothbad_vote", "neither"),
    ),
}
"""Each winner and the words for it in small letters, the same as in tuning's readers."""

_OF_WORD = {word: str(winner) for winner, words in WINNERS.items() for word in words}


def winner_of(text: Any) -> str:
    """The winner of a word, by the table; others are refused."""
    if not isinstance(text, str):
        raise RecordError(f"winner {text!r} is unknown; use one of {', '.join(WINNERS)}")
    found = _OF_WORD.get(text) or _OF_WORD.get(" ".join(text.split()).lower())
    if found is None:
        raise RecordError(f"winner {text!r} is unknown; use one of {', '.join(WINNERS)}")
    return found


def _participant(name: Any) -> Record:
    if not isinstance(name, str) or not name.strip():
        raise RecordError(f"model {name!r} is no name")
    return {
        "name": name,
        "model": name,
        "ask_as": _CHAT,
        "kind": "",
        "weights_sha256": None,
        "base": None,
        "base_sha256": None,
        "system_prompt": "",
        "sampling": {},
    }


def _answer(side: int, text: str, created_ms: int) -> Record:
    return {
        "side": side,
        "attempt": 1,
        "status": _COMPLETE,
        "text": text,
        "prompt_sent": "",
        "model": "",
        "weights_sha256": None,
        "num_prompt_tokens": None,
        "num_tokens": None,
        "first_token_s": None,
        "total_s": None,
        "finish_reason": None,
        "error": None,
        "started_ms": created_ms,
        "finished_ms": created_ms,
        "sampling": {},
        "identity_leak": False,
        "superseded": False,
    }


def _vote(vote: Record, voter: Any, *, blind: bool, created_ms: int) -> Record:
    return {
        "voter": voter,
        "winner": None,
        "ranking": None,
        "strength": None,
        "reasons": [],
        "comment": "",
        "edited_answer": "",
        "partial": False,
        "blind": blind,
        "created_ms": created_ms,
        "updated_ms": created_ms,
        "flags": [],
        **vote,
    }


def _rounds(conversations: Sequence[Sequence[SourceMessage]]) -> tuple[list[str], list[list[str]]]:
    """Prompts, and per turn the answers of all sides; the sides must have the same prompts."""
    prompts: list[str] | None = None
    answers: list[list[str]] = []
    for side, conversation in enumerate(conversations):
        roles = [message["role"] for message in conversation]
        if not roles or roles != ["user", "assistant"] * (len(roles) // 2):
            raise RecordError(f"conversation {SIDES[side]} is not user and assistant in turns")
        texts = [plain_text(message["content"]) for message in conversation]
        if set(map(type, texts)) != {str}:
            raise RecordError(f"conversation {SIDES[side]} holds something else than text")
        if prompts is None:
            prompts, answers = texts[::2], [[text] for text in texts[1::2]]
        elif texts[::2] != prompts:
            raise RecordError(f"conversation {SIDES[side]} has other prompts than a")
        else:
            for turn, text in zip(answers, texts[1::2], strict=True):
                turn.append(text)
    assert prompts is not None
    return prompts, answers


def plain_text(content: Any) -> Any:
    """A text, or the text of a list of parts; RecordError for a part that is none."""
    if not isinstance(content, Sequence) or isinstance(content, str):
        return content
    texts: list[str] = []
    for part in content:
        if not isinstance(part, Mapping) or part.get("type", "text") != "text" or part.get("image"):
            raise RecordError("the conversation holds an image; only text can be imported")
        if not isinstance(text := part.get("text"), str):
            raise RecordError("a part of a message is no text")
        texts.append(text)
    return "".join(texts)


def milliseconds(time: Any) -> int:
    """Milliseconds since 1970 of an ISO 8601 time, UTC where it names no zone.

    A RecordError for what is none.
    """
    if isinstance(time, str):
        time = datetime.fromisoformat(time)
    if not isinstance(time, datetime):
        raise RecordError(f"time {time!r} is no ISO 8601 time")
    if time.tzinfo is None:
        time = time.replace(tzinfo=UTC)
    return of_seconds(time.timestamp())


def of_seconds(seconds: Any) -> int:
    """Milliseconds of seconds since 1970; a RecordError for what lies beyond the year 9999.

    Such a number is most often milliseconds, taken for seconds.
    """
    value = float(seconds) * 1000
    if not 0 <= value <= LAST_MS:
        raise RecordError(
            f"time {seconds!r} is not in seconds since 1970; divide milliseconds by 1000"
        )
    return round(value)
