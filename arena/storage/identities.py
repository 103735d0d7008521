"""Voters and participants in the store: who they are, and who may touch a battle.

A voter is a random pseudonym; of the secret in their cookie only a hash is kept.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from dataclasses import asdict

from sqlite_utils import Database

from arena.storage.database import SqlRow, insert
from arena.storage.rows import battle_row, sampling_json
from arena.values.battle import Participant
from arena.values.refusals import WrongTokenError


def ensure_voter(db: Database, secret: str, now: int) -> str:
    """The pseudonym that belongs to a secret; made at the first call."""
    digest, known = sha256(secret), find_voter(db, secret)
    if known is not None:
        return known
    pseudonym = secrets.token_hex(8)
    insert(db, "voters", {"pseudonym": pseudonym, "secret_sha256": digest, "created_ms": now})
    return pseudonym


def find_voter(db: Database, secret: str) -> str | None:
    """The pseudonym that belongs to a secret; None for one this store never met."""
    sql = "SELECT pseudonym FROM voters WHERE secret_sha256 = ?"
    return next((str(row["pseudonym"]) for row in db.query(sql, [sha256(secret)])), None)


def voter_since(db: Database, pseudonym: str) -> int:
    """When a voter was first met, in milliseconds."""
    sql = "SELECT created_ms FROM voters WHERE pseudonym = ?"
    return next((int(row["created_ms"]) for row in db.query(sql, [pseudonym])), 0)


def participant_row(db: Database, participant: Participant, now: int) -> int:
    """The row id of a participant; made when it is new."""
    fingerprint = participant.fingerprint()
    found = list(db.query("SELECT id FROM participants WHERE fingerprint = ?", [fingerprint]))
    if found:
        return int(found[0]["id"])
    row = asdict(participant) | {
        "sampling": sampling_json(participant.sampling),
        "fingerprint": fingerprint,
        "created_ms": now,
    }
    return insert(db, "participants", row)


def sha256(secret: str) -> str:
    """Hex sha256 of a secret; only this is stored."""
    return hashlib.sha256(secret.encode()).hexdigest()


def voter_row(db: Database, pseudonym: str) -> int:
    """The row id of a voter; WrongTokenError for one this store never met."""
    rows = list(db.query("SELECT id FROM voters WHERE pseudonym = ?", [pseudonym]))
    if not rows:
        raise WrongTokenError(f"voter {pseudonym!r} is unknown; reload the page")
    return int(rows[0]["id"])


def authorised(db: Database, battle_id: str, token: str | None, voter: str | None) -> SqlRow:
    """The battle's row for who holds its token or owns it, or for anybody if nobody does."""
    row = battle_row(db, battle_id)
    if token is not None and hmac.compare_digest(sha256(token), row["token_sha256"]):
        return row
    if voter and row["owner_id"] in (None, voter_row(db, voter)):
        return row
    raise WrongTokenError(f"battle {battle_id!r} is not yours; open it by its own link")
