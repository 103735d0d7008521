"""A battle as a page may know it at one moment: what is stored, and what is being written.

Knows battles and running answers; knows no page and no server.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import parse_qs, urlencode

from arena.backends.streams import Side
from arena.battles.answer_recorder import stored_side
from arena.storage.rows import StoredBattle
from arena.values.battle import Battle
from arena.values.vote import Vote


@dataclass(frozen=True)
class BattleAccess:
    """Who acts on which battle: the voter's pseudonym, and the battle's secret if they have it."""

    voter: str
    battle_id: str
    token: str | None = None

    @property
    def link(self) -> str:
        """The query of the battle's address, `battle=...&t=...`; who has it may judge."""
        return urlencode({"battle": self.battle_id} | ({"t": self.token} if self.token else {}))

    @classmethod
    def by_link(cls, voter: str, link: str) -> BattleAccess:
        """What this voter may act on by a link, or by the query of an address that has one."""
        query = parse_qs(link)
        battle, token = (query.get(key, [""])[0] for key in ("battle", "t"))
        return cls(voter, battle, token or None)


@dataclass(frozen=True)
class BattleView:
    """All that a page may know of a battle now. `live` replaces the last turn's stored answers.

    `run` names the run of answers, so that a page does not mix up two of them; empty while
    nothing is written.
    """

    battle: Battle
    votes: tuple[Vote, ...]
    live: tuple[Side, ...] | None = None
    run: str = ""
    is_skipped: bool = False

    @property
    def is_revealed(self) -> bool:
        """Names may be shown."""
        return not self.battle.is_blind

    @property
    def vote(self) -> Vote | None:
        """The vote on the last turn, whoever of the link's holders gave it."""
        last = len(self.battle.turns) - 1
        return next((vote for vote in self.votes if vote.turn == last), None)

    @property
    def sides(self) -> tuple[Side, ...]:
        """The last turn's answers, running or stored."""
        if self.live is not None:
            return self.live
        if not self.battle.turns:
            return tuple(Side() for _ in self.battle.participants)
        return stored_sides(self.battle)

    @property
    def is_running(self) -> bool:
        """Some side is still writing."""
        return self.live is not None and not all(side.is_finished for side in self.live)

    @property
    def is_votable(self) -> bool:
        """Every side has an answer that can be judged, and nobody has judged them yet."""
        return self.vote is None and all(side.is_votable for side in self.sides)

    @property
    def is_votable_early(self) -> bool:
        """Some side still writes, but each has begun and none has failed."""
        has_begun = all(side.text.strip() and side.state != "failed" for side in self.sides)
        return self.is_running and self.vote is None and has_begun


def stored_view(stored: StoredBattle) -> BattleView:
    """The view of a battle of which nothing is being written."""
    return BattleView(stored.battle, stored.votes)


def stored_sides(battle: Battle) -> tuple[Side, ...]:
    """The last turn's answers as the store has them."""
    turn = battle.turns[-1]
    return tuple(stored_side(turn.answer(i)) for i in range(battle.num_sides))


def overlaid(
    stored: Sequence[Side], running: Sequence[Side], indices: Sequence[int]
) -> tuple[Side, ...]:
    """The stored answers with those that are being written in their places."""
    sides = list(stored)
    for index, side in zip(indices, running, strict=True):
        sides[index] = side
    return tuple(sides)
