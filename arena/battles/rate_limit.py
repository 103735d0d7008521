"""How often one key may do something; knows neither who it is nor what is done."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable


class RateLimiter:
    """A bucket of tokens per key that refills evenly; remembers a bounded number of keys."""

    def __init__(
        self,
        amount: int,
        seconds: float,
        max_keys: int = 50_000,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.amount = amount
        self.per_second = amount / seconds
        self.max_keys = max_keys
        self._clock = clock
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def allow(self, key: str) -> bool:
        """Take one token of a key; False when none is left."""
        now = self._clock()
        tokens, then = self._buckets.pop(key, (float(self.amount), now))
        tokens = min(float(self.amount), tokens + (now - then) * self.per_second)
        allowed = tokens >= 1
        self._buckets[key] = (tokens - 1 if allowed else tokens, now)
        if len(self._buckets) > self.max_keys:
            self._buckets.popitem(last=False)
        return allowed

    def give_back(self, key: str) -> None:
        """Put back a token that was taken for nothing."""
        if key in self._buckets:
            tokens, then = self._buckets[key]
            self._buckets[key] = (min(float(self.amount), tokens + 1), then)
