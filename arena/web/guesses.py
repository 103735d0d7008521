"""How many wrong passwords are heard: few for one name, more for one address, right ones always.

Many people may come from one address, as behind a proxy: what one of them gets wrong must not keep
the others out. Knows no HTTP.
"""

from __future__ import annotations

from arena.battles.rate_limit import RateLimiter

OF_NAME = 10
"""Wrong passwords a minute for one name from one address."""

OF_ADDRESS = 100
"""Wrong passwords a minute from one address: each costs some 50 ms of a processor."""


class Guesses:
    """Counts guesses before they are looked at, and gives right ones back."""

    def __init__(self, of_name: int = OF_NAME, of_address: int = OF_ADDRESS) -> None:
        self._names = RateLimiter(of_name, 60.0)
        self._addresses = RateLimiter(of_address, 60.0)

    def allow(self, address: str, name: str) -> bool:
        """Whether this guess may be looked at."""
        if not self._addresses.allow(address):
            return False
        if self._names.allow(_key(address, name)):
            return True
        self._addresses.give_back(address)  # it costs nothing
        return False

    def was_right(self, address: str, name: str) -> None:
        """The guess was none: it does not count."""
        self._addresses.give_back(address)
        self._names.give_back(_key(address, name))


def _key(address: str, name: str) -> str:
    return f"{address}\n{name[:100]}"
