"""The words of the arena as plain values: participants, battles, turns and answers.

Pure standard library. Knows no database, no page and no server. What a turn was asked in
the context of is written here once, for any number of sides from two to eight.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from functools import lru_cache

from arena.errors import ArenaError
from arena.values.texts import canonical_json

SIDES = "abcdefgh"
"""Names of the sides as shown; index 0 is the left pane."""

ChatMessage = dict[str, str]
"""`role` and `content`."""


SYNTHETIC = "synthetic"
"""The source of battles that a program judges; people's ratings and exports leave them out."""


class BattleError(ArenaError):
    """A battle that cannot be made: number of sides, propensity or an empty prompt."""

    code = "battle_refused"


class Mode(StrEnum):
    """Whether the voter knows the names while judging."""

    BLIND = "blind"
    NAMED = "named"


class AskAs(StrEnum):
    """How a participant is asked: through its chat template, or with the plain prompt."""

    CHAT = "chat"
    COMPLETION = "completion"


class HistoryMode(StrEnum):
    """What a later turn continues: each side its own answers, or one side's for all."""

    OWN = "own"
    SHARED = "shared"


class AnswerStatus(StrEnum):
    """Where one answer stands; only `complete` and `stopped` answers can be judged."""

    STREAMING = "streaming"
    COMPLETE = "complete"
    STOPPED = "stopped"
    FAILED = "failed"


PICKING = frozenset({"best_of", "reward"})


@dataclass(frozen=True)
class SamplingSettings:
    """How an answer is drawn; None leaves the choice to the server.

    With `best_of` so many answers are drawn, of which the reward model `reward` picks one.
    """

    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    repetition_penalty: float | None = None
    max_new_tokens: int | None = None
    seed: int | None = None
    stop: tuple[str, ...] = ()
    best_of: int | None = None
    reward: str | None = None


@dataclass(frozen=True)
class Participant:
    """A model together with how it is asked: the lineage of every answer it gives.

    `name` is what the leaderboard shows, `model` the id on the wire. `kind` is the
    variant's kind (`base`, `lora`, …) or empty when a server does not say. The hashes are
    those of contract 1 (variant folder); None when the server does not tell.
    """

    name: str
    model: str
    ask_as: AskAs = AskAs.CHAT
    kind: str = ""
    weights_sha256: str | None = None
    base: str | None = None
    base_sha256: str | None = None
    system_prompt: str = ""
    sampling: SamplingSettings = field(default_factory=SamplingSettings)

    def fingerprint(self) -> str:
        """Hex sha256 over all fields: equal participants share one row of the store."""
        return _fingerprint(self)


@lru_cache(maxsize=1024)
def _fingerprint(participant: Participant) -> str:
    content = asdict(participant)
    # Participants that know no picking keep the fingerprint they had before there was any.
    content["sampling"] = {
        word: value
        for word, value in content["sampling"].items()
        if word not in PICKING or value is not None
    }
    return hashlib.sha256(canonical_json(content).encode()).hexdigest()


@dataclass(frozen=True)
class Answer:
    """One attempt of one side at one turn, as the store holds it.

    `prompt_sent` is the exact text the model was given (for a chat: the JSON of the
    messages unless the server tells the rendered text). Times are seconds from the request.
    """

    id: int
    side: int
    attempt: int
    status: AnswerStatus
    text: str = ""
    prompt_sent: str = ""
    model: str = ""
    weights_sha256: str | None = None
    sampling: SamplingSettings = field(default_factory=SamplingSettings)
    num_prompt_tokens: int | None = None
    num_tokens: int | None = None
    first_token_s: float | None = None
    total_s: float | None = None
    finish_reason: str | None = None
    error: str | None = None
    identity_leak: bool = False
    superseded: bool = False
    started_ms: int = 0
    finished_ms: int | None = None

    @property
    def is_finished(self) -> bool:
        """No more text will come."""
        return self.status is not AnswerStatus.STREAMING


@dataclass(frozen=True)
class AnswerOutcome:
    """How one attempt ended, as its stream reported it; None leaves what was noted at start.

    `seed` is the seed really used. `status` is never `streaming`.
    """

    status: AnswerStatus
    text: str = ""
    prompt_sent: str | None = None
    model: str | None = None
    weights_sha256: str | None = None
    seed: int | None = None
    num_prompt_tokens: int | None = None
    num_tokens: int | None = None
    first_token_s: float | None = None
    total_s: float | None = None
    finish_reason: str | None = None
    error: str | None = None
    identity_leak: bool = False


@dataclass(frozen=True)
class Turn:
    """One prompt with the answers of all sides; `attempts` also holds superseded ones."""

    id: int
    position: int
    prompt: str
    history: HistoryMode
    shared_side: int | None
    attempts: tuple[Answer, ...] = ()
    created_ms: int = 0

    def answer(self, side: int) -> Answer | None:
        """The current (not superseded) answer of a side; None before it was asked."""
        return next((a for a in self.attempts if a.side == side and not a.superseded), None)


@dataclass(frozen=True)
class Battle:
    """One conversation put to two or more participants, sides in the order shown."""

    id: str
    mode: Mode
    participants: tuple[Participant, ...]
    turns: tuple[Turn, ...] = ()
    sampler: str = ""
    propensity: float | None = None
    tags: tuple[str, ...] = ()
    language: str | None = None
    set_name: str | None = None
    set_index: int | None = None
    source: str = "page"
    created_ms: int = 0
    revealed_ms: int | None = None

    @property
    def num_sides(self) -> int:
        """Number of sides, 2 to 8."""
        return len(self.participants)

    @property
    def is_blind(self) -> bool:
        """Names must not be shown: a blind battle that nobody has revealed."""
        return self.mode is Mode.BLIND and self.revealed_ms is None

    def context(self, turn: int, side: int) -> list[ChatMessage]:
        """Messages a side was given at a turn, its prompt last; no system message."""
        return turn_context(self.turns, turn, side)

    def is_diverged(self, turn: int) -> bool:
        """Whether the sides were asked this turn in different contexts."""
        first = self.context(turn, 0)
        return any(self.context(turn, side) != first for side in range(1, self.num_sides))


def turn_context(turns: Sequence[Turn], turn: int, side: int) -> list[ChatMessage]:
    """Messages given to `side` at `turn`: shared turns take over one side's whole past."""
    current = turns[turn]
    messages: list[ChatMessage] = []
    if turn > 0:
        source = side
        if current.history is HistoryMode.SHARED:
            assert current.shared_side is not None
            source = current.shared_side
        answer = turns[turn - 1].answer(source)
        messages = turn_context(turns, turn - 1, source)
        messages.append({"role": "assistant", "content": answer.text if answer else ""})
    messages.append({"role": "user", "content": current.prompt})
    return messages
