"""The `arena quarantine` command: votes that look wrong, for the admin to clear or to mark."""

from __future__ import annotations

import json
from pathlib import Path

from arena.commands.export import OptionError, existing_store
from arena.storage.quarantine import evidence
from arena.values.vote import FlaggedVote


def run_quarantine(
    home: Path,
    *,
    clear: int | None,
    flag: int | None,
    reason: str | None,
    limit: int,
    json_out: bool,
) -> None:
    """Clear or mark one vote if asked, then print the votes in quarantine, newest first."""
    if (clear is None) != (flag is None) and reason is None:
        raise OptionError("--reason is missing; say which mark to clear or to set")
    if clear is not None and flag is not None:
        raise OptionError("--clear and --flag are two acts; give one")
    store = existing_store(home)
    if clear is not None and reason is not None:
        store.clear_flag(clear, reason)
    if flag is not None and reason is not None:
        store.flag_vote(flag, reason, evidence("by_hand"))
    found = store.flagged_votes(limit=limit)
    total = store.counts()["flagged"]
    if json_out:
        print(json.dumps({"flagged": total, "votes": [_as_json(vote) for vote in found]}))
        return
    print(f"{total} votes in quarantine")
    for entry in found:
        for name, detail in entry.details:
            vote = entry.vote
            print(f"vote {vote.id}, battle {vote.battle_id}, voter {vote.voter}: {name}, {detail}")


def _as_json(entry: FlaggedVote) -> dict[str, object]:
    vote = entry.vote
    return {
        "vote": vote.id,
        "battle": vote.battle_id,
        "turn": vote.turn,
        "voter": vote.voter,
        "reasons": dict(entry.details),
    }
