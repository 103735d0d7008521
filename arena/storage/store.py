"""The store of battles and votes: every act of the page as one durable transaction.

`Store(path)` opens or makes the SQLite file; each method opens its own connection, so
a `Store` may be shared by threads (call it through `asyncio.to_thread` from a page).
When a method returns, what it wrote is on disk. Knows no page, no client and no export.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

from sqlite_utils import Database

from arena.storage import (
    answer_writes,
    battle_writes,
    database,
    history_queries,
    identities,
    vote_writes,
)
from arena.storage.answering import AnsweringProgram, is_alive
from arena.storage.battle_writes import Asked, BattleDraft, Opened
from arena.storage.database import DatabaseConfig, StoreBusyError, StoreError
from arena.storage.group_commit import GroupCommit
from arena.storage.history_queries import Past
from arena.storage.migrations import migrate
from arena.storage.quarantine import QuarantineRules
from arena.storage.rows import StoredBattle, battle_row, stored_from
from arena.storage.vote_writes import Decide
from arena.values.battle import (
    Answer,
    AnswerOutcome,
)
from arena.values.vote import FlaggedVote, Judgement

T = TypeVar("T")


class Store:
    """All battles, answers and votes of one home folder."""

    def __init__(
        self,
        path: Path,
        config: DatabaseConfig | None = None,
        rules: QuarantineRules | None = None,
    ) -> None:
        """Open `path` (made if missing), bring its schema up to date.

        Raises StoreError (not writable, damaged), NewerDatabaseError, ForeignDatabaseError.
        """
        self.path = path
        self.config = config or DatabaseConfig()
        self.rules = rules or QuarantineRules()
        self.write_fault: StoreError | None = None  # of the last write, until one works
        self._group = GroupCommit(path, self.config)
        self._writers = path.with_name(f".{path.name}-writers")
        self._writer: AnsweringProgram | None = None
        self._writer_lock = threading.Lock()
        database.open_or_create(path, self.config, lambda db: migrate(db, path))

    @classmethod
    def at_home(cls, home: Path) -> Store:
        """The store of a home folder: `<home>/arena.db`."""
        return cls(home / "arena.db")

    def write(self, body: Callable[[Database], T]) -> T:
        """Run `body` in a transaction; it is on disk when this returns. For storage modules."""
        try:
            result = self._group.write(body)
        except StoreBusyError:
            raise
        except StoreError as error:
            self.write_fault = error
            raise
        self.write_fault = None
        return result

    # -- voters ---------------------------------------------------------------------------

    def ensure_voter(self, secret: str) -> str:
        """The pseudonym that belongs to a cookie's secret; made at the first call."""
        return self.write(lambda db: identities.ensure_voter(db, secret, now_ms()))

    def find_voter(self, secret: str) -> str | None:
        """The pseudonym that belongs to a secret, if the store has met it."""
        with database.reading(self.path, self.config) as db:
            return identities.find_voter(db, secret)

    def voter_since(self, voter: str) -> int:
        """When a voter was first met, in milliseconds since 1970, UTC."""
        with database.reading(self.path, self.config) as db:
            return identities.voter_since(db, voter)

    # -- battles --------------------------------------------------------------------------

    def open_battle(self, new: BattleDraft, prompt: str, asked: Sequence[Asked]) -> Opened:
        """Make a battle and ask its first turn of all sides, as one transaction.

        Raises TextError, BattleError, WrongTokenError (a voter this store never met).
        """

        def body(db: Database) -> Opened:
            now = now_ms()
            battle_writes.create(db, new, now)
            return battle_writes.ask(db, new.battle_id, prompt, None, asked, now, writer)

        writer = self._writer_name()
        return self.write(body)

    def load_battle(
        self, battle_id: str, *, token: str | None = None, voter: str | None = None
    ) -> StoredBattle:
        """A battle with all turns and votes, by its secret link or for its owner.

        Raises UnknownBattleError, WrongTokenError.
        """
        with database.reading(self.path, self.config) as db:
            return stored_from(db, identities.authorised(db, battle_id, token, voter))

    def history(self, voter: str, wanted: str = "", *, limit: int = 200) -> list[Past]:
        """A voter's own battles that hold every word wanted, newest first, as lines of a list."""
        with database.reading(self.path, self.config) as db:
            return history_queries.history(db, voter, wanted, limit)

    # -- turns and answers ----------------------------------------------------------------

    def ask(
        self, battle_id: str, prompt: str, asked: Sequence[Asked], *, shared_side: int | None = None
    ) -> Opened:
        """Append a turn and ask every side, as one transaction; see `answer_writes.add_turn`."""
        writer = self._writer_name()
        return self.write(
            lambda db: battle_writes.ask(
                db, battle_id, prompt, shared_side, asked, now_ms(), writer
            )
        )

    def ask_again(self, battle_id: str, asked: Mapping[int, Asked]) -> Opened:
        """Ask these sides again at the last turn, as one transaction; see `answer_writes`."""
        writer = self._writer_name()
        return self.write(
            lambda db: battle_writes.ask_again(db, battle_id, asked, now_ms(), writer)
        )

    def finish_answer(
        self, answer_id: int, outcome: AnswerOutcome, tokens: Sequence[tuple[str, float]] = ()
    ) -> Answer:
        """Store how an answer ended and return it. An answer that has ended stays as it is.

        Characters that no export can carry are replaced by U+FFFD. `tokens`: each with its
        log-probability, kept beside the answer.
        """
        return self.write(lambda db: answer_writes.finish(db, answer_id, outcome, tokens, now_ms()))

    def keep_texts(self, texts: Mapping[int, str]) -> None:
        """Store what these answers say so far, by their ids; one that has ended stays as it is."""
        self.write(lambda db: answer_writes.keep_texts(db, texts))

    def load_tokens(self, answer_id: int) -> list[tuple[str, float]]:
        """The tokens of an answer with their log-probabilities; [] if its server told none."""
        with database.reading(self.path, self.config) as db:
            return answer_writes.tokens_of(db, answer_id)

    def close_orphans(self, *, also_own: bool = True) -> int:
        """Answers that a dead program was writing become failed; their number.

        Those of other living programs stay. At its start a program has none itself; later it
        leaves its own out, too.
        """
        with database.reading(self.path, self.config) as db:
            names = answer_writes.writers(db)
        own = None if self._writer is None else self._writer.name
        dead = [
            name
            for name in names
            if (also_own if name == own else not (name and is_alive(self._writers, name)))
        ]
        if not dead:
            return 0
        return self.write(lambda db: answer_writes.close_orphans(db, dead, now_ms()))

    def close(self) -> None:
        """No answer is being written by this store any more."""
        with self._writer_lock:
            if self._writer is not None:
                self._writer.close()
                self._writer = None

    def _writer_name(self) -> str:
        """The name under which this store writes answers."""
        with self._writer_lock:
            if self._writer is None:
                self._writer = AnsweringProgram(self._writers)
            return self._writer.name

    # -- votes ----------------------------------------------------------------------------

    def cast_vote(
        self,
        battle_id: str,
        judgement: Judgement | Decide,
        *,
        voter: str,
        token: str | None = None,
        partial: bool = False,
        change: bool = False,
    ) -> StoredBattle:
        """Store a judgement of the last turn and reveal the names, as one transaction.

        Returns the battle as it was committed: what is shown is what is stored. The same
        judgement again changes nothing. Another one raises AlreadyVotedError unless `change`; so
        does a turn that another voter has judged, unless programs judge it. `partial` allows a
        vote while a side is still writing and marks it. Raises UnknownBattleError,
        WrongTokenError, SideFailedError, UnfinishedError, JudgementError, TextError, and what a
        `judgement` that decides raises.
        """

        def body(db: Database) -> StoredBattle:
            battle, now = identities.authorised(db, battle_id, token, voter), now_ms()
            vote_writes.cast(
                db,
                battle,
                voter,
                judgement,
                partial=partial,
                change=change,
                now=now,
                rules=self.rules,
            )
            vote_writes.reveal(db, battle, now)
            return stored_from(db, battle_row(db, battle_id))

        return self.write(body)

    def undo_vote(self, battle_id: str, *, voter: str, token: str | None = None) -> StoredBattle:
        """Take one's vote on the last turn back; it stays in the history. Raises NotVotedError."""

        def body(db: Database) -> StoredBattle:
            battle = identities.authorised(db, battle_id, token, voter)
            vote_writes.undo(db, battle, voter, now_ms())
            return stored_from(db, battle)

        return self.write(body)

    def skip_turn(self, battle_id: str, *, voter: str, token: str | None = None) -> StoredBattle:
        """Note that the voter would rather not judge the last turn, and reveal the names.

        Not a vote. As one transaction; returns the battle as it was committed.
        """

        def body(db: Database) -> StoredBattle:
            battle, now = identities.authorised(db, battle_id, token, voter), now_ms()
            vote_writes.skip(db, battle, voter, now)
            vote_writes.reveal(db, battle, now)
            return stored_from(db, battle_row(db, battle_id))

        return self.write(body)

    def flag_vote(self, vote_id: int, reason: str, detail: str = "") -> None:
        """Put a vote in quarantine by hand."""
        self.write(lambda db: vote_writes.flag(db, vote_id, reason, detail, now_ms()))

    def clear_flag(self, vote_id: int, reason: str) -> None:
        """Take a vote out of quarantine for one reason; the mark stays on record as cleared."""
        self.write(lambda db: vote_writes.clear_flag(db, vote_id, reason, now_ms()))

    def flagged_votes(self, *, limit: int = 100) -> list[FlaggedVote]:
        """Votes in quarantine with reason and detail, newest first, for the admin."""
        with database.reading(self.path, self.config) as db:
            return vote_writes.flagged(db, limit)

    def counts(self) -> dict[str, int]:
        """Number of battles, turns, votes, skips, voters, flagged votes, failed answers."""
        queries = {
            "battles": "SELECT count(*) AS n FROM battles",
            "turns": "SELECT count(*) AS n FROM turns",
            "votes": "SELECT count(*) AS n FROM votes",
            "skips": "SELECT count(*) AS n FROM skips",
            "voters": "SELECT count(*) AS n FROM voters",
            "flagged": "SELECT count(DISTINCT vote_id) AS n FROM vote_flags"
            " WHERE cleared_ms IS NULL",
            "failed_answers": "SELECT count(*) AS n FROM answers WHERE status = 'failed'",
        }
        with database.reading(self.path, self.config) as db:
            return {name: next(iter(db.query(sql)))["n"] for name, sql in queries.items()}


def now_ms() -> int:
    """Milliseconds since 1970, UTC."""
    return time.time_ns() // 1_000_000
