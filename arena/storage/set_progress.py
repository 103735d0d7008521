"""What the store holds of a prompt set: answers given in advance, and who judged how far.

SQL over the tables of battles. An answer in advance is a battle that belongs to nobody; whoever
judges it gets a battle of their own with copies of two of its answers, sides shuffled anew, so that
reveal, vote and link work as in any other battle.
"""

from __future__ import annotations

import secrets
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

from sqlite_utils import Database

from arena.storage import database, identities
from arena.storage.database import SqlRow
from arena.storage.history_queries import index_turn
from arena.storage.rows import battle_from, battle_row
from arena.storage.store import Store, now_ms
from arena.values.battle import Battle, Mode

SOURCE = "set"
REFUSED_TRIES = 2
"""So many battles of a prompt that a model server refused end it: the next would end alike."""
READY = ("complete", "stopped")
PROGRESS_SQL = """
SELECT b.public_id, b.set_index, t.prompt,
       EXISTS (SELECT 1 FROM votes v WHERE v.turn_id = t.id) AS judged,
       EXISTS (SELECT 1 FROM skips s WHERE s.turn_id = t.id) AS skipped,
       (SELECT count(*) FROM answers a WHERE a.turn_id = t.id AND a.superseded = 0
         AND a.status != 'failed') AS num_fit,
       EXISTS (SELECT 1 FROM answers a WHERE a.turn_id = t.id
         AND a.error LIKE 'refused:%') AS refused,
       (SELECT count(*) FROM sides s WHERE s.battle_id = b.id) AS num_sides
  FROM battles b JOIN turns t ON t.battle_id = b.id AND t.position = 0
 WHERE b.set_name = ? AND b.owner_id = ?
 ORDER BY b.id"""
READY_SQL = """
SELECT b.*, t.prompt FROM battles b JOIN turns t ON t.battle_id = b.id AND t.position = 0
 WHERE b.set_name = :name AND b.owner_id IS NULL AND b.source = 'set'
   AND (:index IS NULL OR b.set_index = :index)
   AND (SELECT count(*) FROM answers a WHERE a.turn_id = t.id AND a.superseded = 0
         AND a.status IN ('complete', 'stopped'))
     = (SELECT count(*) FROM sides s WHERE s.battle_id = b.id)
 ORDER BY b.id"""


@dataclass(frozen=True)
class SetProgress:
    """How far one voter is with a set, by index of its prompts.

    `passed` are prompts that cannot be asked, or that models refused in several battles.
    `open` maps an index to a battle that waits for a judgement; `tries` counts the battles of an
    index that could not be judged.
    """

    total: int
    judged: frozenset[int] = frozenset()
    skipped: frozenset[int] = frozenset()
    passed: frozenset[int] = frozenset()
    open: Mapping[int, str] = field(default_factory=dict)
    tries: Mapping[int, int] = field(default_factory=dict)

    @property
    def num_done(self) -> int:
        """Prompts that need no more of this voter."""
        return len(self.judged | self.skipped | self.passed)

    @property
    def next_index(self) -> int | None:
        """The first prompt that is left, those last whose battles failed; None at the end."""
        left = set(range(self.total)) - self.judged - self.skipped - self.passed
        return min(left, key=lambda i: (self.tries.get(i, 0), i), default=None)


def progress(
    store: Store, voter: str, name: str, prompts: Sequence[str], passed: Collection[int] = ()
) -> SetProgress:
    """Where a voter stands; a prompt that was changed in the file counts as not judged.

    `passed`: prompts that cannot be asked; those judged or skipped before are not among them.
    """
    judged, skipped = set(), set()
    tries, refusals = Counter[int](), Counter[int]()
    waiting: dict[int, str] = {}
    with database.reading(store.path, store.config) as db:
        for row in db.query(PROGRESS_SQL, [name, identities.voter_row(db, voter)]):
            index = row["set_index"]
            if not _matches(row, prompts):
                continue
            if row["judged"]:
                judged.add(index)
            elif row["skipped"]:
                skipped.add(index)
            elif row["num_fit"] == row["num_sides"]:
                waiting[index] = row["public_id"]
            else:
                tries[index] += 1
                refusals[index] += row["refused"]
    refused = {index for index, count in refusals.items() if count >= REFUSED_TRIES}
    return SetProgress(
        len(prompts),
        frozenset(judged),
        frozenset(skipped - judged),
        frozenset((refused | {*passed}) - judged - skipped - waiting.keys()),
        waiting,
        dict(tries),
    )


def in_advance(store: Store, name: str, prompts: Sequence[str], index: int) -> Battle | None:
    """The newest battle of a prompt in which every side has answered in advance."""
    with database.reading(store.path, store.config) as db:
        rows = list(db.query(READY_SQL, {"name": name, "index": index}))
        fit = [row for row in rows if _matches(row, prompts)]
        return battle_from(db, fit[-1]) if fit else None


def answered(
    store: Store, name: str, prompts: Sequence[str], participants: Collection[str]
) -> set[int]:
    """Indices that these participants, and maybe others, have answered in advance."""
    with database.reading(store.path, store.config) as db:
        rows = list(db.query(READY_SQL, {"name": name, "index": None}))
        return {
            row["set_index"]
            for row in rows
            if _matches(row, prompts)
            and set(participants) <= {p.name for p in battle_from(db, row).participants}
        }


def _matches(row: SqlRow, prompts: Sequence[str]) -> bool:
    index = row["set_index"]
    return index is not None and index < len(prompts) and row["prompt"] == prompts[index]


def take_over(
    store: Store,
    battle: Battle,
    sides: tuple[int, int],
    voter: str,
    *,
    sampler: str,
    propensity: float,
) -> tuple[str, str]:
    """A blind battle of the voter's own with two answers given in advance; its id and secret."""
    token = secrets.token_urlsafe(24)

    def body(db: Database) -> tuple[str, str]:
        prepared, now = battle_row(db, battle.id), now_ms()
        row = {
            "public_id": secrets.token_hex(8),
            "token_sha256": identities.sha256(token),
            "owner_id": identities.voter_row(db, voter),
            "mode": Mode.BLIND,
            "sampler": sampler,
            "propensity": propensity,
            "tags": prepared["tags"],
            "language": prepared["language"],
            "set_name": prepared["set_name"],
            "set_index": prepared["set_index"],
            "source": SOURCE,
            "created_ms": now,
        }
        pk = db["battles"].insert(row, pk="id").last_pk
        turn = next(
            db.query("SELECT * FROM turns WHERE battle_id = ? AND position = 0", [prepared["id"]])
        )
        turn_pk = db["turns"].insert({**turn, "id": None, "battle_id": pk}, pk="id").last_pk
        for position, side in enumerate(sides):
            _copy_side(db, (prepared["id"], turn["id"], side), (pk, turn_pk, position))
        index_turn(db, turn_pk)
        return row["public_id"], token

    return store.write(body)


def _copy_side(db: Database, source: tuple[int, int, int], target: tuple[int, int, int]) -> None:
    """One side with its current answer; both triples are battle, turn and position."""
    (battle, turn, side), (new_battle, new_turn, position) = source, target
    person = next(
        db.query(
            "SELECT participant_id FROM sides WHERE battle_id = ? AND position = ?", [battle, side]
        )
    )
    db["sides"].insert({**person, "battle_id": new_battle, "position": position})
    answer = next(
        db.query(
            "SELECT * FROM answers WHERE turn_id = ? AND side = ? AND superseded = 0", [turn, side]
        )
    )
    assert answer["status"] in READY
    columns = {"id": None, "turn_id": new_turn, "side": position, "attempt": 1}
    db["answers"].insert({**answer, **columns})
