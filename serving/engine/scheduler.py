"""Which requests run and which wait: rows join, leave, and give way when memory is short.

Memory is asked for as rows grow, not for the longest answer they might write. When the budget
has no more, the youngest row goes back to the head of the queue and is read again later, with the
tokens it has written, so that the oldest always comes to its end. Knows slots, adapters and
lengths; runs no model and chooses no token.
"""

from __future__ import annotations

import time
from collections import deque

from serving.adapters.manager import AdapterManager, LoadedAdapter
from serving.attention.pool import KVPool
from serving.attention.prefix_cache import PrefixCache
from serving.config import EngineLimits
from serving.engine.batch import Row
from serving.engine.request import EngineRequest, FailureEvent, as_failure
from serving.engine.sampling import TokenSampler
from serving.engine.stats import EngineStats
from serving.errors import EngineFailure

# Tokens a new row must find room for beyond its prompt: else it would have to go at once.
HEADROOM = 32


class Scheduler:
    """The rows of one engine and its queue. Only `submit` may be called beside the engine."""

    def __init__(
        self,
        limits: EngineLimits,
        pool: KVPool,
        adapters: AdapterManager,
        cache: PrefixCache,
        stats: EngineStats,
    ) -> None:
        self.rows: list[Row] = []
        self.waiting: deque[EngineRequest] = deque()
        self._limits = limits
        self._pool = pool
        self._adapters = adapters
        self._cache = cache
        self._stats = stats
        self._number = 0
        self.num_before = 0
        self.num_joined = 0

    def submit(self, request: EngineRequest) -> None:
        """Queue a request."""
        self._number += 1
        request.number = self._number
        self.waiting.append(request)

    def drop_cancelled(self) -> None:
        """Take out the rows and the waiting requests whose callers left."""
        for row in [row for row in self.rows if row.request.cancelled.is_set()]:
            self._stats.rows_cancelled += 1
            self.remove(row)
        if any(request.cancelled.is_set() for request in self.waiting):
            kept = [r for r in self.waiting if not r.cancelled.is_set()]
            self._stats.rows_cancelled += len(self.waiting) - len(kept)
            self.waiting = deque(kept)

    def admit(self) -> None:
        """Let waiting requests join while there is room, in order.

        `num_joined` says how many did, `num_before` how many rows there were.
        """
        self.num_before, self.num_joined = len(self.rows), 0
        while self.waiting and len(self.rows) < self._limits.max_rows:
            request = self.waiting[0]
            if request.adapter not in self._adapters:
                self.waiting.popleft()
                request.sink(FailureEvent(EngineFailure("the adapter was unloaded meanwhile")))
                continue
            loaded = self._adapters.get(request.adapter)
            need = num_known(request, loaded) + min(HEADROOM, num_left(request))
            capacity = max([need, *(row.length + len(row.pending) for row in self.rows)])
            if not self._pool.fits(len(self.rows) + 1, capacity):
                if self.rows:
                    return  # It waits for memory; rows that finish give it back.
                self.waiting.popleft()
                text = f"{need} tokens do not fit the memory for {self._pool.max_tokens}"
                request.sink(FailureEvent(EngineFailure(text)))
                continue
            self.waiting.popleft()
            try:
                self._pool.reserve(len(self.rows) + 1, capacity)
                self._join(request, loaded)
                self.num_joined += 1
            except (RuntimeError, MemoryError) as error:
                self._stats.rows_failed += 1
                request.sink(FailureEvent(as_failure(error)))

    def make_room(self) -> None:
        """Give every row the place its next token needs; the youngest give way for the others."""
        while self.rows:
            need = max(row.length + len(row.pending) for row in self.rows)
            if self._pool.fits(len(self.rows), need):
                try:
                    self._pool.reserve(len(self.rows), need)
                    return
                except (RuntimeError, MemoryError) as error:
                    if len(self.rows) == 1:
                        self.fail(self.rows[0], error)
                        return
            self._preempt(max(self.rows, key=lambda row: row.request.number))

    def fail(self, row: Row, error: Exception) -> None:
        """Answer one row with an error."""
        self._stats.rows_failed += 1
        self.remove(row)
        row.request.sink(FailureEvent(as_failure(error)))

    def fail_all(self, error: Exception) -> None:
        """End every request, running or waiting, with `error`, and give all memory back."""
        for row in self.rows:
            self._release(row)
            row.request.sink(FailureEvent(error))
        self.rows.clear()
        while self.waiting:
            self.waiting.popleft().sink(FailureEvent(error))
        self._pool.clear()

    def remove(self, row: Row) -> None:
        """Take a row out and move the last slot into its place, so that slots stay compact.

        What is left behind is wiped: rows that attend together read each other's lengths, and
        there not even a weight of 0 takes NaN or infinity away.
        """
        self._release(row)
        last = self.rows[-1]
        self._pool.wipe(row.slot, row.length + len(row.pending))
        if last is not row:
            left = last.slot
            self._pool.move(left, row.slot, last.length)
            self._pool.wipe(left, last.length + len(last.pending))
            last.slot = row.slot
            self.rows[row.slot] = last
        self.rows.pop()

    def remember(self, row: Row) -> None:
        """Keep the keys and values of a prompt that just ran for prompts that begin alike."""
        request = row.request
        if self._cache.wants(request.adapter, request.prompt):
            virtual = row.length - len(request.prompt)
            try:
                layers = self._pool.read(row.slot, row.length)
            except (RuntimeError, MemoryError):
                self._cache.forget(set())  # The row needs no copy; memory is what is needed now.
                return
            if not all(bool(part.isfinite().all()) for pair in layers for part in pair):
                return  # This row's own scores hold; whoever took its beginning might get NaN.
            self._cache.store(
                request.adapter, request.prompt, [(k[virtual:], v[virtual:]) for k, v in layers]
            )

    def running_adapters(self) -> set[str]:
        """Keys of the adapters that rows, running or waiting, use."""
        waiting = {request.adapter for request in self.waiting if request.adapter is not None}
        return {key for key in waiting if key in self._adapters} | self._adapters.running

    def _join(self, request: EngineRequest, loaded: LoadedAdapter | None) -> None:
        """Make a row of a request: virtual tokens and a remembered beginning go in at once."""
        slot, known = len(self.rows), 0
        virtual = loaded.num_virtual if loaded is not None else 0
        if loaded is not None and loaded.prefix is not None:
            self._pool.write_prefix(slot, loaded.prefix.layers)
        sampler = request.resume or TokenSampler(request.sampling, request.prompt, request.mask)
        tokens = [*request.prompt, *sampler.generated]
        if not request.prompt_logprobs:
            known, layers = self._cache.find(request.adapter, tokens)
            if known:
                self._pool.write_prefix(slot, layers, virtual)
        if request.started_at is None:
            request.started_at = time.monotonic()
            request.num_reused = known
        self.rows.append(Row(request, sampler, slot, virtual + known, tokens[known:]))
        if loaded is not None:
            loaded.num_running += 1

    def _preempt(self, row: Row) -> None:
        self._stats.rows_preempted += 1
        row.request.resume = row.sampler
        self.remove(row)
        self.waiting.appendleft(row.request)

    def _release(self, row: Row) -> None:
        loaded = self._adapters.get(row.request.adapter)
        if loaded is not None:
            loaded.num_running -= 1


def num_known(request: EngineRequest, loaded: LoadedAdapter | None) -> int:
    """Places that a request fills before it writes anything new."""
    written = len(request.resume.generated) if request.resume is not None else 0
    return (loaded.num_virtual if loaded is not None else 0) + len(request.prompt) + written


def num_left(request: EngineRequest) -> int:
    """Tokens that a request may still write."""
    written = len(request.resume.generated) if request.resume is not None else 0
    return request.max_new_tokens - written
