"""A voter's own battles, newest first, and the full-text search in them. SQL over the store.

Prompts and answers are searched in all of them; the names of participants only where they may be
shown, so that a search tells nothing about a battle that is not judged.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sqlite_utils import Database

from arena.values.battle import Mode

MOST_WORDS = 16
INDEXED = 3
"""Letters that the index knows words by; shorter words are looked for in the texts themselves."""

HISTORY_SQL = """
SELECT b.public_id, b.mode, b.revealed_ms, b.created_ms, b.set_name,
       (SELECT t.prompt FROM turns t WHERE t.battle_id = b.id AND t.position = 0) AS prompt,
       (SELECT count(*) FROM turns t WHERE t.battle_id = b.id) AS num_turns,
       EXISTS (SELECT 1 FROM votes v JOIN turns t ON t.id = v.turn_id
                WHERE t.battle_id = b.id) AS judged,
       EXISTS (SELECT 1 FROM skips s JOIN turns t ON t.id = s.turn_id
                WHERE t.battle_id = b.id) AS skipped,
       (SELECT group_concat(p.name, char(10)) FROM (SELECT p.name FROM sides s
          JOIN participants p ON p.id = s.participant_id
         WHERE s.battle_id = b.id ORDER BY s.position) p) AS names
  FROM battles b
 WHERE b.owner_id = (SELECT id FROM voters WHERE pseudonym = :voter)"""
MAY_NAME = "(b.mode = 'named' OR b.revealed_ms IS NOT NULL)"


@dataclass(frozen=True)
class Past:
    """One line of a voter's history; `names` is empty while they must not be shown."""

    battle_id: str
    prompt: str
    names: tuple[str, ...]
    num_turns: int
    is_judged: bool
    is_skipped: bool
    set_name: str | None
    created_ms: int


def history(db: Database, voter: str, wanted: str, limit: int) -> list[Past]:
    """The voter's battles in which every word of `wanted` occurs, newest first.

    A word is found anywhere in a word, whatever its case; signs have no special meaning.
    """
    sql, values = [HISTORY_SQL], {"voter": voter, "limit": limit}
    words = wanted.casefold().split()[:MOST_WORDS]
    known = " AND ".join(_quoted(word) for word in words if len(word) >= INDEXED)
    if known:
        sql.append(
            "AND (b.id IN (SELECT rowid FROM battle_texts WHERE battle_texts MATCH :said)"
            f" OR {MAY_NAME} AND"
            " b.id IN (SELECT rowid FROM battle_texts WHERE battle_texts MATCH :anywhere))"
        )
        values |= {"said": f"said : ({known})", "anywhere": known}
    for number, word in enumerate(word for word in words if len(word) < INDEXED):
        sql.append(
            "AND EXISTS (SELECT 1 FROM battle_texts x WHERE x.rowid = b.id"
            f" AND (instr(lower(x.said), :short{number})"
            f" OR {MAY_NAME} AND instr(lower(x.names), :short{number})))"
        )
        values[f"short{number}"] = word
    sql.append("ORDER BY b.id DESC LIMIT :limit")
    return [_past(row) for row in list(db.query(" ".join(sql), values))]


def _quoted(word: str) -> str:
    doubled = word.replace('"', '""')
    return f'"{doubled}"'


def _past(row: Mapping[str, Any]) -> Past:
    is_blind = row["mode"] == Mode.BLIND and row["revealed_ms"] is None
    return Past(
        battle_id=row["public_id"],
        prompt=row["prompt"] or "",
        names=() if is_blind else tuple((row["names"] or "").split("\n")),
        num_turns=row["num_turns"],
        is_judged=bool(row["judged"]),
        is_skipped=bool(row["skipped"]),
        set_name=row["set_name"],
        created_ms=row["created_ms"],
    )


def index_turn(db: Database, turn_id: int) -> None:
    """Note what the battle of a turn says by now, if it has an owner to search in it."""
    battles = list(
        db.query(
            "SELECT b.id FROM turns t JOIN battles b ON b.id = t.battle_id"
            " WHERE t.id = ? AND b.owner_id IS NOT NULL",
            [turn_id],
        )
    )
    for row in battles:
        parts = db.query(
            "SELECT prompt AS text FROM turns WHERE battle_id = :id UNION ALL"
            " SELECT a.text FROM answers a JOIN turns t ON t.id = a.turn_id"
            " WHERE t.battle_id = :id",
            row,
        )
        names = db.query(
            "SELECT p.name FROM sides s JOIN participants p ON p.id = s.participant_id"
            " WHERE s.battle_id = :id",
            row,
        )
        said = "\n".join(part["text"] for part in parts)
        db.execute("DELETE FROM battle_texts WHERE rowid = :id", row)
        db.execute(
            "INSERT INTO battle_texts (rowid, said, names) VALUES (?, ?, ?)",
            [row["id"], said, "\n".join(name["name"] for name in names)],
        )
