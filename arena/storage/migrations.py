"""The schema of the store as append-only steps; knows what tables mean, not who uses them.

Every step runs in a transaction together with its record, so a program killed in the
middle finds the old schema and runs the step again. A shipped step is never edited:
a change is a new step.
"""

from __future__ import annotations

from pathlib import Path

from sqlite_utils import Database, Migrations

from arena.errors import ArenaError

steps = Migrations("instruct-arena")


class NewerDatabaseError(ArenaError):
    """The file was written by a newer program than this one."""


class ForeignDatabaseError(ArenaError):
    """The file is a SQLite database of some other program."""


def migrate(db: Database, path: Path) -> None:
    """Bring an open database to the newest schema, all in one transaction.

    Raises NewerDatabaseError or ForeignDatabaseError before anything is written.
    """
    if not _pending(db, path):
        return
    db.execute("BEGIN IMMEDIATE")
    try:
        if _pending(db, path):  # another process may have been first
            steps.apply(db)
        db.commit()
    except BaseException:
        db.rollback()
        raise


def _pending(db: Database, path: Path) -> bool:
    return check_known(db, path) != step_names()


def check_known(db: Database, path: Path) -> set[str]:
    """Names of the applied steps; NewerDatabaseError or ForeignDatabaseError if not ours."""
    applied = {step.name for step in steps.applied(db)}
    if not applied and [name for name in db.table_names() if not name.startswith("_")]:
        raise ForeignDatabaseError(f"{path} is not an arena database; give another --home")
    unknown = sorted(applied - step_names())
    if unknown:
        raise NewerDatabaseError(
            f"{path} was written by a newer version (step {unknown[-1]!r}); update the program"
        )
    return applied


def step_names() -> set[str]:
    """Names of all steps this program knows."""
    empty = Database(memory=True)
    try:
        return {step.name for step in steps.pending(empty)}
    finally:
        empty.close()


@steps()  # type: ignore[untyped-decorator]
def m001_battles_and_votes(db: Database) -> None:
    """Participants, battles, turns, answers, votes with their history, and flags."""
    for statement in M001:
        db.execute(statement)


M001 = (
    # A voter is a random id; the cookie's secret is kept as a hash only, no address at all.
    """CREATE TABLE voters (
        id INTEGER PRIMARY KEY,
        pseudonym TEXT NOT NULL UNIQUE,
        secret_sha256 TEXT UNIQUE,
        role TEXT NOT NULL DEFAULT 'voter' CHECK (role IN ('voter', 'admin')),
        created_ms INTEGER NOT NULL
    ) STRICT""",
    """CREATE TABLE participants (
        id INTEGER PRIMARY KEY,
        fingerprint TEXT NOT NULL UNIQUE,
        name TEXT NOT NULL,
        model TEXT NOT NULL,
        ask_as TEXT NOT NULL CHECK (ask_as IN ('chat', 'completion')),
        kind TEXT NOT NULL,
        weights_sha256 TEXT,
        base TEXT,
        base_sha256 TEXT,
        system_prompt TEXT NOT NULL,
        sampling TEXT NOT NULL CHECK (json_valid(sampling)),
        created_ms INTEGER NOT NULL
    ) STRICT""",
    """CREATE TABLE battles (
        id INTEGER PRIMARY KEY,
        public_id TEXT NOT NULL UNIQUE,
        token_sha256 TEXT NOT NULL,
        owner_id INTEGER REFERENCES voters (id),
        mode TEXT NOT NULL CHECK (mode IN ('blind', 'named')),
        sampler TEXT NOT NULL,
        propensity REAL CHECK (propensity IS NULL OR (propensity > 0 AND propensity <= 1)),
        tags TEXT NOT NULL CHECK (json_valid(tags)),
        language TEXT,
        set_name TEXT,
        set_index INTEGER,
        source TEXT NOT NULL,
        created_ms INTEGER NOT NULL,
        revealed_ms INTEGER
    ) STRICT""",
    "CREATE INDEX battles_owner ON battles (owner_id, id)",
    "CREATE INDEX battles_set ON battles (set_name, set_index) WHERE set_name IS NOT NULL",
    """CREATE TABLE sides (
        battle_id INTEGER NOT NULL REFERENCES battles (id),
        position INTEGER NOT NULL CHECK (position BETWEEN 0 AND 7),
        participant_id INTEGER NOT NULL REFERENCES participants (id),
        PRIMARY KEY (battle_id, position)
    ) STRICT, WITHOUT ROWID""",
    """CREATE TABLE turns (
        id INTEGER PRIMARY KEY,
        battle_id INTEGER NOT NULL REFERENCES battles (id),
        position INTEGER NOT NULL CHECK (position >= 0),
        prompt TEXT NOT NULL,
        history TEXT NOT NULL CHECK (history IN ('own', 'shared')),
        shared_side INTEGER CHECK ((shared_side IS NOT NULL) = (history = 'shared')),
        created_ms INTEGER NOT NULL,
        UNIQUE (battle_id, position)
    ) STRICT""",
    """CREATE TABLE answers (
        id INTEGER PRIMARY KEY,
        turn_id INTEGER NOT NULL REFERENCES turns (id),
        side INTEGER NOT NULL CHECK (side BETWEEN 0 AND 7),
        attempt INTEGER NOT NULL CHECK (attempt >= 1),
        status TEXT NOT NULL CHECK (status IN ('streaming', 'complete', 'stopped', 'failed')),
        text TEXT NOT NULL,
        prompt_sent TEXT NOT NULL,
        model TEXT NOT NULL,
        weights_sha256 TEXT,
        sampling TEXT NOT NULL CHECK (json_valid(sampling)),
        num_prompt_tokens INTEGER,
        num_tokens INTEGER,
        first_token_s REAL,
        total_s REAL,
        finish_reason TEXT,
        error TEXT,
        identity_leak INTEGER NOT NULL DEFAULT 0 CHECK (identity_leak IN (0, 1)),
        superseded INTEGER NOT NULL DEFAULT 0 CHECK (superseded IN (0, 1)),
        started_ms INTEGER NOT NULL,
        finished_ms INTEGER,
        UNIQUE (turn_id, side, attempt)
    ) STRICT""",
    "CREATE UNIQUE INDEX answers_current ON answers (turn_id, side) WHERE superseded = 0",
    "CREATE INDEX answers_streaming ON answers (id) WHERE status = 'streaming'",
    """CREATE TABLE votes (
        id INTEGER PRIMARY KEY,
        turn_id INTEGER NOT NULL REFERENCES turns (id),
        voter_id INTEGER NOT NULL REFERENCES voters (id),
        winner TEXT CHECK (winner IN ('model_a', 'model_b', 'tie', 'both_bad')),
        ranking TEXT CHECK (ranking IS NULL OR json_valid(ranking)),
        strength TEXT CHECK (strength IN ('slightly', 'much')),
        reasons TEXT NOT NULL CHECK (json_valid(reasons)),
        comment TEXT NOT NULL,
        edited_answer TEXT NOT NULL,
        partial INTEGER NOT NULL CHECK (partial IN (0, 1)),
        blind INTEGER NOT NULL CHECK (blind IN (0, 1)),
        created_ms INTEGER NOT NULL,
        updated_ms INTEGER NOT NULL,
        UNIQUE (turn_id, voter_id),
        CHECK ((winner IS NULL) != (ranking IS NULL))
    ) STRICT""",
    "CREATE INDEX votes_voter ON votes (voter_id, created_ms)",
    # What a vote says about each pair of sides, with the very answers that were judged.
    """CREATE TABLE comparisons (
        vote_id INTEGER NOT NULL REFERENCES votes (id) ON DELETE CASCADE,
        left_side INTEGER NOT NULL,
        right_side INTEGER NOT NULL CHECK (right_side > left_side),
        left_id INTEGER NOT NULL REFERENCES participants (id),
        right_id INTEGER NOT NULL REFERENCES participants (id),
        left_answer_id INTEGER NOT NULL REFERENCES answers (id),
        right_answer_id INTEGER NOT NULL REFERENCES answers (id),
        winner TEXT NOT NULL CHECK (winner IN ('model_a', 'model_b', 'tie', 'both_bad')),
        weight REAL NOT NULL CHECK (weight > 0),
        PRIMARY KEY (vote_id, left_side, right_side)
    ) STRICT, WITHOUT ROWID""",
    # Append-only: every cast, change, undo, skip and import, with the vote as it was given.
    """CREATE TABLE vote_history (
        id INTEGER PRIMARY KEY,
        turn_id INTEGER NOT NULL REFERENCES turns (id),
        voter_id INTEGER NOT NULL REFERENCES voters (id),
        action TEXT NOT NULL CHECK (action IN ('cast', 'change', 'undo', 'skip', 'import')),
        body TEXT NOT NULL CHECK (json_valid(body)),
        at_ms INTEGER NOT NULL
    ) STRICT""",
    "CREATE INDEX vote_history_turn ON vote_history (turn_id, voter_id)",
    """CREATE TABLE skips (
        turn_id INTEGER NOT NULL REFERENCES turns (id),
        voter_id INTEGER NOT NULL REFERENCES voters (id),
        created_ms INTEGER NOT NULL,
        PRIMARY KEY (turn_id, voter_id)
    ) STRICT, WITHOUT ROWID""",
    """CREATE TABLE vote_flags (
        vote_id INTEGER NOT NULL REFERENCES votes (id) ON DELETE CASCADE,
        reason TEXT NOT NULL,
        detail TEXT NOT NULL,
        created_ms INTEGER NOT NULL,
        cleared_ms INTEGER,
        PRIMARY KEY (vote_id, reason)
    ) STRICT, WITHOUT ROWID""",
)


@steps()  # type: ignore[untyped-decorator]
def m002_vote_changes(db: Database) -> None:
    """A number for every change of a vote or its flags, so that readers may read what is new."""
    for statement in M002:
        db.execute(statement)


_CHANGED = "BEGIN INSERT INTO vote_changes (vote_id) VALUES ({row}.{column}); END"
M002 = (
    # `stamp` tells this line from the line of that number in another file or a restored copy.
    """CREATE TABLE vote_changes (
        seq INTEGER PRIMARY KEY AUTOINCREMENT,
        vote_id INTEGER NOT NULL,
        stamp INTEGER NOT NULL DEFAULT (random())
    ) STRICT""",
    "INSERT INTO vote_changes (vote_id) VALUES (0)",  # there is always a newest line
    *(
        f"CREATE TRIGGER {table}_{event.lower()} AFTER {event} ON {table} "
        + _CHANGED.format(row="old" if event == "DELETE" else "new", column=column)
        for table, column in (("votes", "id"), ("vote_flags", "vote_id"))
        for event in ("INSERT", "UPDATE", "DELETE")
    ),
)


@steps()  # type: ignore[untyped-decorator]
def m003_answer_tokens(db: Database) -> None:
    """The log-probability of each token of an answer, where its server told them."""
    for statement in M003:
        db.execute(statement)


M003 = (
    """CREATE TABLE answer_tokens (
            answer_id INTEGER PRIMARY KEY REFERENCES answers (id) ON DELETE CASCADE,
            tokens TEXT NOT NULL CHECK (json_valid(tokens))
        ) STRICT""",
)


@steps()  # type: ignore[untyped-decorator]
def m004_search_and_switches(db: Database) -> None:
    """What a voter's own battles say, to search in; and the participants an admin switched off."""
    for statement in M004:
        db.execute(statement)


M004 = (
    # Three letters at a time, so that parts of words and scripts without spaces are found.
    # `rowid` is the battle's; names stand apart, for they are no one's to find before the reveal.
    "CREATE VIRTUAL TABLE battle_texts USING fts5 (said, names, tokenize = 'trigram')",
    """INSERT INTO battle_texts (rowid, said, names)
    SELECT b.id,
           (SELECT group_concat(t.prompt, char(10)) FROM turns t WHERE t.battle_id = b.id)
           || char(10) || coalesce((SELECT group_concat(a.text, char(10)) FROM answers a
                JOIN turns t ON t.id = a.turn_id WHERE t.battle_id = b.id), ''),
           (SELECT group_concat(p.name, char(10)) FROM sides s
              JOIN participants p ON p.id = s.participant_id WHERE s.battle_id = b.id)
      FROM battles b JOIN voters v ON v.id = b.owner_id
     WHERE v.secret_sha256 IS NOT NULL
       AND EXISTS (SELECT 1 FROM turns t WHERE t.battle_id = b.id)""",
    """CREATE TABLE participants_off (
        name TEXT PRIMARY KEY,
        at_ms INTEGER NOT NULL
    ) STRICT, WITHOUT ROWID""",
)


@steps()  # type: ignore[untyped-decorator]
def m005_synthetic_battles(db: Database) -> None:
    """Battles of judges that are programs, few or none: found without looking at all others."""
    for statement in M005:
        db.execute(statement)


M005 = ("CREATE INDEX battles_synthetic ON battles (id) WHERE source = 'synthetic'",)


@steps()  # type: ignore[untyped-decorator]
def m006_writers(db: Database) -> None:
    """Which program writes an answer, so that another one on the same store leaves it alone."""
    for statement in M006:
        db.execute(statement)


M006 = ("ALTER TABLE answers ADD COLUMN writer TEXT",)


@steps()  # type: ignore[untyped-decorator]
def m007_imported_files(db: Database) -> None:
    """Which files were imported, and as what."""
    for statement in M007:
        db.execute(statement)


M007 = (
    """CREATE TABLE imported_files (
        sha256 TEXT NOT NULL,
        format TEXT NOT NULL,
        created_ms INTEGER NOT NULL,
        PRIMARY KEY (sha256, format)
    ) STRICT, WITHOUT ROWID""",
)
