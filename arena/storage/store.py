"""The store of battles and votes: every act of the page as one durable transaction.

`Store(path)` opens or makes the SQLite file; each method opens its own connection, so
a `Store` may be shared by threads (call it through `asyncio.to_thread` from a page).
When a method returns, what it wrote is on disk. Knows no page, no client and no export.
"""

from __future__ import annotations

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
from arena.storage.battle_writes import Asked, BattleDraft, Opened
from arena.storage.database import DatabaseConfig
from arena.storage.group_commit import GroupCommit
from arena.storage.history_queries import Past
from arena.storage.migrations import migrate
from arena.storage.quarantine import QuarantineRules
from arena.storage.rows import VOTE_SQL, battle_from, battle_row, sampling_json, vote_from
from arena.values.battle import (
    Answer,
    AnswerOutcome,
    Battle,
    Mode,
    Participant,
    SamplingSettings,
)
from arena.values.texts import clean_text
from arena.values.vote import FlaggedVote, Judgement, Vote

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
        self._group = GroupCommit(path, self.config)
        database.prepare(path, self.config, lambda db: migrate(db, path))

    @classmethod
    def at_home(cls, home: Path) -> Store:
        """The store of a home folder: `<home>/arena.db`."""
        return cls(home / "arena.db")

    def write(self, body: Callable[[Database], T]) -> T:
        """Run `body` in a transaction; it is on disk when this returns. For storage modules."""
        return self._group.write(body)

    # -- voters ---------------------------------------------------------------------------

    def ensure_voter(self, secret: str) -> str:
        """The pseudonym that belongs to a cookie's secret; made at the first call."""
        return self.write(lambda db: identities.ensure_voter(db, secret, now_ms()))

    # -- battles --------------------------------------------------------------------------

    def create_battle(
        self,
        participants: Sequence[Participant],
        *,
        voter: str | None,
        mode: Mode,
        sampler: str = "",
        propensity: float | None = None,
        tags: Sequence[str] = (),
        language: str | None = None,
        set_name: str | None = None,
        set_index: int | None = None,
        source: str = "page",
    ) -> tuple[str, str]:
        """Make a battle before anything is asked; returns its id and its secret token.

        `participants` in the order shown (2 to 8). `propensity` is the probability with
        which `sampler` draws this pair, whatever the sides (0 < p <= 1). Battles without a
        voter belong to nobody and are open to every voter (a prompt set answered in advance).
        """
        new = BattleDraft(
            participants,
            voter,
            mode,
            sampler,
            propensity,
            tags,
            language,
            set_name,
            set_index,
            source,
        )
        self.write(lambda db: battle_writes.create(db, new, now_ms()))
        return new.battle_id, new.token

    def open_battle(self, new: BattleDraft, prompt: str, asked: Sequence[Asked]) -> Opened:
        """Make a battle and ask its first turn of all sides, as one transaction.

        Raises TextError, BattleError, WrongTokenError (a voter this store never met).
        """

        def body(db: Database) -> Opened:
            now = now_ms()
            battle_writes.create(db, new, now)
            return battle_writes.ask(db, new.battle_id, prompt, None, asked, now)

        return self.write(body)

    def load_battle(
        self, battle_id: str, *, token: str | None = None, voter: str | None = None
    ) -> Battle:
        """A battle with all turns, by its secret link or for its owner (after a reload).

        Raises UnknownBattleError, WrongTokenError.
        """
        with database.reading(self.path, self.config) as db:
            return battle_from(db, identities.authorised(db, battle_id, token, voter))

    def reveal(self, battle_id: str, *, token: str | None = None, voter: str | None = None) -> None:
        """Note that the names were shown: later votes on this battle are not blind."""

        def body(db: Database) -> None:
            row = identities.authorised(db, battle_id, token, voter)
            db.execute(
                "UPDATE battles SET revealed_ms = coalesce(revealed_ms, ?) WHERE id = ?",
                [now_ms(), row["id"]],
            )

        self.write(body)

    def list_battles(
        self, voter: str, *, limit: int = 50, before: str | None = None
    ) -> list[Battle]:
        """A voter's own battles, newest first; `before` is the last id of the page before."""
        with database.reading(self.path, self.config) as db:
            rows = db.query(
                "SELECT b.* FROM battles b WHERE b.owner_id = ? AND (? IS NULL OR b.id <"
                " (SELECT id FROM battles WHERE public_id = ?)) ORDER BY b.id DESC LIMIT ?",
                [identities.voter_row(db, voter), before, before, limit],
            )
            return [battle_from(db, row) for row in list(rows)]

    def history(self, voter: str, wanted: str = "", *, limit: int = 200) -> list[Past]:
        """A voter's own battles that hold every word wanted, newest first, as lines of a list."""
        with database.reading(self.path, self.config) as db:
            return history_queries.history(db, voter, wanted, limit)

    # -- turns and answers ----------------------------------------------------------------

    def add_turn(self, battle_id: str, prompt: str, *, shared_side: int | None = None) -> int:
        """Append a turn and return its position; `shared_side`: whose past all continue.

        Without `shared_side` each side continues its own answers. Raises TextError,
        BattleError, UnknownBattleError; UnfinishedError while an answer is being written.
        """
        return self.write(
            lambda db: answer_writes.add_turn(
                db, battle_row(db, battle_id), prompt, shared_side, now_ms()
            )
        )

    def ask(
        self, battle_id: str, prompt: str, asked: Sequence[Asked], *, shared_side: int | None = None
    ) -> Opened:
        """`add_turn` and `start_answer` of every side, as one transaction."""
        return self.write(
            lambda db: battle_writes.ask(db, battle_id, prompt, shared_side, asked, now_ms())
        )

    def ask_again(self, battle_id: str, asked: Mapping[int, Asked]) -> Opened:
        """`start_answer` of these sides at the last turn, as one transaction."""
        return self.write(lambda db: battle_writes.ask_again(db, battle_id, asked, now_ms()))

    def start_answer(
        self,
        battle_id: str,
        turn: int,
        side: int,
        *,
        prompt_sent: str,
        sampling: SamplingSettings,
        model: str = "",
    ) -> int:
        """Note that a side is being asked; returns the answer's id. Earlier attempts of the
        side at this turn are kept as superseded. AlreadyVotedError once the turn has a vote.
        """
        return self.write(
            lambda db: answer_writes.start(
                db,
                battle_from(db, battle_row(db, battle_id)),
                turn,
                side,
                {
                    "prompt_sent": clean_text(prompt_sent),
                    "sampling": sampling_json(sampling),
                    "model": model,
                },
                now_ms(),
            )
        )

    def finish_answer(
        self, answer_id: int, outcome: AnswerOutcome, tokens: Sequence[tuple[str, float]] = ()
    ) -> Answer:
        """Store how an answer ended and return it. An answer that has ended stays as it is.

        Characters that no export can carry are replaced by U+FFFD. `tokens`: each with its
        log-probability, kept beside the answer.
        """
        return self.write(lambda db: answer_writes.finish(db, answer_id, outcome, tokens, now_ms()))

    def load_tokens(self, answer_id: int) -> list[tuple[str, float]]:
        """The tokens of an answer with their log-probabilities; [] if its server told none."""
        with database.reading(self.path, self.config) as db:
            return answer_writes.tokens_of(db, answer_id)

    def save_progress(self, answer_id: int, text: str) -> None:
        """Keep the text so far of an answer that is still being written (for a reload)."""
        self.write(lambda db: answer_writes.save_progress(db, answer_id, text))

    def close_orphans(self) -> int:
        """At start: answers that a dead program was writing become failed; their number."""
        return self.write(lambda db: answer_writes.close_orphans(db, now_ms()))

    # -- votes ----------------------------------------------------------------------------

    def cast_vote(
        self,
        battle_id: str,
        judgement: Judgement,
        *,
        voter: str,
        turn: int = 0,
        token: str | None = None,
        partial: bool = False,
        change: bool = False,
    ) -> Vote:
        """Store a judgement and return it; only then may names be shown.

        The same judgement again returns the same vote. Another one raises AlreadyVotedError
        unless `change`. `partial` allows a vote while a side is still writing and marks it.
        Raises UnknownBattleError, WrongTokenError, SideFailedError, UnfinishedError,
        JudgementError, TextError.
        """

        def body(db: Database) -> Vote:
            return vote_writes.cast(
                db,
                identities.authorised(db, battle_id, token, voter),
                turn,
                identities.voter_row(db, voter),
                judgement,
                partial=partial,
                change=change,
                now=now_ms(),
                rules=self.rules,
            )

        return self.write(body)

    def undo_vote(
        self, battle_id: str, *, voter: str, turn: int = 0, token: str | None = None
    ) -> None:
        """Take one's vote on a turn back; it stays in the history. Raises NotVotedError."""

        def body(db: Database) -> None:
            battle = identities.authorised(db, battle_id, token, voter)
            vote_writes.undo(db, battle, turn, identities.voter_row(db, voter), now_ms())

        self.write(body)

    def skip_turn(
        self, battle_id: str, *, voter: str, turn: int = 0, token: str | None = None
    ) -> None:
        """Note that the voter would rather not judge this turn. Not a vote."""

        def body(db: Database) -> None:
            battle = identities.authorised(db, battle_id, token, voter)
            vote_writes.skip(db, battle, turn, identities.voter_row(db, voter), now_ms())

        self.write(body)

    def votes_of(self, battle_id: str, *, voter: str | None = None) -> list[Vote]:
        """The votes on a battle by turn, of all voters or of one."""
        with database.reading(self.path, self.config) as db:
            rows = db.query(
                VOTE_SQL + " WHERE b.public_id = ? AND (? IS NULL OR p.pseudonym = ?)"
                " ORDER BY t.position, v.id",
                [battle_id, voter, voter],
            )
            return [vote_from(row) for row in list(rows)]

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
