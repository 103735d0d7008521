"""How often somebody may start to ask: by voter, by address, and slowly while they are new.

A cookie is had for nothing, so what one address may do is limited, too, and so are the voters that
it may bring. Knows no HTTP; an address is only ever kept in memory, for a minute or so.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

from arena.battles.rate_limit import RateLimiter
from arena.config.page_config import PageLimits

NEW_SECONDS = 600.0
"""Voters that the store has known for less are new."""


@dataclass(frozen=True)
class Asker:
    """Who asks: the voter, since when the store knows them, and where from ("" if not told).

    `is_known`: by name, as somebody who signed in: never new.
    """

    voter: str
    since_ms: int
    address: str = ""
    is_known: bool = False

    @property
    def is_new(self) -> bool:
        """Whether the voter came only just now."""
        return not self.is_known and time.time() - self.since_ms / 1000 < NEW_SECONDS


class AskingLimits:
    """Buckets of battles that refill evenly over a minute."""

    def __init__(self, limits: PageLimits) -> None:
        self._voters = RateLimiter(limits.battles_per_minute, 60.0)
        self._new = RateLimiter(min(limits.new_voter_battles, limits.battles_per_minute), 60.0)
        self._addresses = RateLimiter(limits.address_battles_per_minute, 60.0)
        self._arrivals = RateLimiter(limits.new_voters_per_minute, 60.0)
        self._met = RateLimiter(1, NEW_SECONDS)

    def allow(self, asker: Asker) -> bool:
        """Take what one more battle costs; False when that is not left."""
        if not self._voters.allow(asker.voter):
            return False
        if asker.is_new and not self._new.allow(asker.voter):
            return False
        return not asker.address or self._is_let_in(asker)

    def _is_let_in(self, asker: Asker) -> bool:
        """The address' share; who is turned away at the door takes nothing from those inside."""
        is_first = asker.is_new and self._met.allow(asker.voter)
        if is_first and not self._arrivals.allow(asker.address):
            self._met.give_back(asker.voter)
            return False
        return self._addresses.allow(asker.address)
