"""Opens battles and asks turns: all that is noted before the first word, in one transaction.

A burst of voters is cheap here: one way to the disk for a battle, its turn and its answers. Knows
rows inside a transaction that the store has opened; knows no server and no page.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from sqlite_utils import Database

from arena.storage import answer_writes, identities
from arena.storage.database import insert
from arena.storage.rows import battle_from, battle_row, sampling_json
from arena.values.battle import SIDES, Battle, BattleError, Mode, Participant, SamplingSettings
from arena.values.texts import canonical_json


@dataclass(frozen=True)
class BattleDraft:
    """A battle that is to be made; `participants` in the order shown, 2 to 8.

    `propensity` is the probability with which `sampler` draws this pair, whatever the sides
    (0 < p <= 1). A battle without a voter belongs to nobody and is open to every voter, as a
    prompt set answered in advance.
    """

    participants: Sequence[Participant]
    voter: str | None
    mode: Mode
    sampler: str = ""
    propensity: float | None = None
    tags: Sequence[str] = ()
    language: str | None = None
    set_name: str | None = None
    set_index: int | None = None
    source: str = "page"
    battle_id: str = field(default_factory=lambda: secrets.token_hex(8))
    token: str = field(default_factory=lambda: secrets.token_urlsafe(24))

    def __post_init__(self) -> None:
        num_sides = len(self.participants)
        if not 2 <= num_sides <= len(SIDES):
            raise BattleError(f"a battle has 2 to {len(SIDES)} sides, not {num_sides}")
        if self.propensity is not None and not 0 < self.propensity <= 1:
            raise BattleError(f"propensity {self.propensity} is no probability; give 0 < p <= 1")


@dataclass(frozen=True)
class Asked:
    """How one side is asked; the exact text it was sent is noted when its answer ends."""

    model: str
    sampling: SamplingSettings


@dataclass(frozen=True)
class Opened:
    """A battle as it was asked, without its new answers, and the row of each of these."""

    battle: Battle
    answer_ids: Mapping[int, int]


def create(db: Database, new: BattleDraft, now: int) -> None:
    """Note a battle and its sides; nothing is asked yet."""
    row = {
        "public_id": new.battle_id,
        "token_sha256": identities.sha256(new.token),
        "owner_id": None if new.voter is None else identities.voter_row(db, new.voter),
        "mode": new.mode,
        "sampler": new.sampler,
        "propensity": new.propensity,
        "tags": canonical_json(list(new.tags)),
        "language": new.language,
        "set_name": new.set_name,
        "set_index": new.set_index,
        "source": new.source,
        "created_ms": now,
    }
    battle = insert(db, "battles", row)
    for position, participant in enumerate(new.participants):
        known = identities.participant_row(db, participant, now)
        insert(db, "sides", {"battle_id": battle, "position": position, "participant_id": known})


def ask(
    db: Database,
    battle_id: str,
    prompt: str,
    shared_side: int | None,
    asked: Sequence[Asked],
    now: int,
    writer: str,
) -> Opened:
    """Append a turn and note that every side is asked; see `answer_writes.add_turn`.

    `writer`: the name of the program that writes the answers, see `answering`.
    """
    row = battle_row(db, battle_id)
    turn = answer_writes.add_turn(db, row, prompt, shared_side, now)
    return _started(db, row, turn, dict(enumerate(asked)), now, writer)


def ask_again(
    db: Database, battle_id: str, asked: Mapping[int, Asked], now: int, writer: str
) -> Opened:
    """Note that these sides are asked the last turn again; see `answer_writes`."""
    row = battle_row(db, battle_id)
    turn = len(battle_from(db, row).turns) - 1
    return _started(db, row, turn, asked, now, writer)


def _started(
    db: Database,
    row: Mapping[str, Any],
    turn: int,
    asked: Mapping[int, Asked],
    now: int,
    writer: str,
) -> Opened:
    battle = battle_from(db, row)
    ids = {
        side: answer_writes.start_answer(
            db,
            battle,
            turn,
            side,
            {
                "prompt_sent": "",
                "sampling": sampling_json(how.sampling),
                "model": how.model,
                "writer": writer,
            },
            now,
        )
        for side, how in asked.items()
    }
    return Opened(battle, ids)
