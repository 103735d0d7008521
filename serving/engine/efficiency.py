"""How near the engine comes to what the machine allows: eta and rho of its decode steps.

eta: bytes a step must read, over its time and the measured bandwidth (also called memory bandwidth
utilisation). rho: time of a step with tuned rows over one without. Knows tensors and clocks; does
not know requests.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import torch

from serving.engine.engine import Engine
from serving.engine.stats import StepTimes

REPEATS = 3
MOST_BYTES = 512 * 2**20


def wall(work: Callable[[], object]) -> float:
    """Seconds that a call takes."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def measure_bandwidth(
    engine: Engine, clock: Callable[[Callable[[], object]], float] = wall
) -> float:
    """Bytes per second of reading a buffer as large as the weights; call in the engine's thread.

    `clock` times a call. The fastest of a few kinds of reading counts, since none is allowed to
    make the steps look better than they are.
    """
    size = min(max(engine.weight_bytes, 2**20), MOST_BYTES)
    buffer = torch.ones(size // 8, dtype=torch.int64, device=engine.device)
    numbers = buffer.view(torch.float32)
    reads = (lambda: int(buffer.sum()), lambda: float(torch.dot(numbers, numbers)))
    return size / min(clock(read) for read in reads for _ in range(REPEATS))


def eta(times: StepTimes, bandwidth: float) -> dict[int, float]:
    """By number of rows: bytes that steps had to read per second, over the bandwidth.

    The bytes are the weights, the keys and values of the rows, and the adapters in use.
    """
    found: dict[int, float] = {}
    for rows in sorted(times.plain.keys() | times.tuned.keys()):
        sums = [table[rows] for table in (times.plain, times.tuned) if rows in table]
        seconds = sum(s.seconds for s in sums)
        found[rows] = sum(s.num_bytes for s in sums) / (seconds * bandwidth)
    return found


def rho(times: StepTimes) -> float | None:
    """Mean time of tuned steps over plain ones, over the row counts that were seen both ways."""
    both = times.plain.keys() & times.tuned.keys()
    weights = {rows: min(times.plain[rows].count, times.tuned[rows].count) for rows in both}
    plain = sum(weights[r] * times.plain[r].seconds / times.plain[r].count for r in both)
    tuned = sum(weights[r] * times.tuned[r].seconds / times.tuned[r].count for r in both)
    return tuned / plain if plain else None
