"""A store of many judged battles, made by SQL alone, for benchmarks that only read it."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

from arena.storage.store import Store

STATEMENTS = (
    """INSERT INTO voters (id, pseudonym, created_ms)
       SELECT DISTINCT voter, 'voter ' || voter, 0 FROM made""",
    """INSERT INTO battles (id, public_id, token_sha256, mode, sampler, tags, source, created_ms)
       SELECT id, printf('%016x', id * 7919), '', 'blind', '', '[]', 'page',
              1700000000000 + id * 1000 FROM made""",
    "INSERT INTO sides SELECT id, 0, l FROM made UNION ALL SELECT id, 1, r FROM made",
    """INSERT INTO turns (id, battle_id, position, prompt, history, created_ms)
       SELECT id, id, 0, 'Question ' || id || ' about everyday things?', 'own',
              1700000000000 + id * 1000 FROM made""",
    """INSERT INTO answers (id, turn_id, side, attempt, status, text, prompt_sent, model, sampling,
                            started_ms)
       SELECT 2 * id + side, id, side, 1, 'complete',
              replace(hex(zeroblob(8)), '00', 'Answer ' || id || ' of side ' || side || '. '),
              'sent', 'm', '{"seed":7,"temperature":0.5}', 1700000000000 + id * 1000
         FROM made CROSS JOIN (SELECT 0 AS side UNION ALL SELECT 1)""",
    """INSERT INTO votes (id, turn_id, voter_id, winner, reasons, comment, edited_answer, partial,
                          blind, created_ms, updated_ms)
       SELECT id, id, voter, winner, '[]', '', '', 0, 1, 1700000000000 + id * 1000, 0 FROM made""",
    """INSERT INTO comparisons
       SELECT id, 0, 1, l, r, 2 * id, 2 * id + 1, winner, 1.0 FROM made""",
)


def fill(
    path: Path, names: list[str], left: list[int], right: list[int], winner: list[str]
) -> Store:
    """A new store with one vote per row, of 5,000 voters; `left`, `right` index `names`."""
    store = Store(path)
    with closing(sqlite3.connect(path)) as conn:
        conn.execute("PRAGMA synchronous = OFF")
        conn.execute("CREATE TEMP TABLE made (id INTEGER PRIMARY KEY, l, r, winner, voter)")
        conn.executemany(
            "INSERT INTO made VALUES (?, ?, ?, ?, ?)",
            (
                (i + 1, a + 1, b + 1, word, i % 5_000 + 1)
                for i, (a, b, word) in enumerate(zip(left, right, winner, strict=True))
            ),
        )
        conn.executemany(
            "INSERT INTO participants (id, fingerprint, name, model, ask_as, kind, system_prompt,"
            " sampling, created_ms) VALUES (?, ?, ?, ?, 'chat', '', '', '{}', 0)",
            [(i + 1, name, name, name) for i, name in enumerate(names)],
        )
        for statement in STATEMENTS:
            conn.execute(statement)
        conn.commit()
    return store
