"""How near the engine comes to what the machine allows: eta and rho of its decode steps.

eta: bytes a step must read, over its time and the measured bandwidth. rho: time of a step with
tuned rows over one without. Knows tensors and clocks; does not know requests.
"""

from __future__ import annotations

import time

import torch

from serving.accounts import StepTimes
from serving.engine import Engine

REPEATS = 3
MOST_BYTES = 512 * 2**20


def weight_bytes(engine: Engine) -> int:
    """Bytes of the weights that every step reads; a tied or untied input embedding is looked up."""
    total: int = sum(p.numel() * p.element_size() for p in engine.model.parameters())
    table = engine.model.get_input_embeddings().weight
    head = engine.model.get_output_embeddings()
    is_tied = head is not None and head.weight is table
    return total if is_tied else total - int(table.numel()) * int(table.element_size())


def measure_bandwidth(engine: Engine) -> float:
    """Bytes per second of reading a buffer as large as the weights; call in the engine's thread."""
    size = min(max(weight_bytes(engine), 2**20), MOST_BYTES)
    buffer = torch.ones(size // 8, dtype=torch.int64, device=engine.device)
    best = float("inf")
    for _ in range(REPEATS):
        start = time.perf_counter()
        int(buffer.sum())
        best = min(best, time.perf_counter() - start)
    return size / best


def eta(engine: Engine, bandwidth: float) -> float | None:
    """Weights read per second over the bandwidth, at the fewest rows seen; None before a step."""
    table = engine.stats.times.plain or engine.stats.times.tuned
    if not table:
        return None
    count, seconds = table[min(table)]
    return weight_bytes(engine) * count / (seconds * bandwidth)


def rho(times: StepTimes) -> float | None:
    """Mean time of tuned steps over plain ones, over the row counts that were seen both ways."""
    both = times.plain.keys() & times.tuned.keys()
    weights = {rows: min(times.plain[rows][0], times.tuned[rows][0]) for rows in both}
    plain = sum(weights[r] * times.plain[r][1] / times.plain[r][0] for r in both)
    tuned = sum(weights[r] * times.tuned[r][1] / times.tuned[r][0] for r in both)
    return tuned / plain if plain else None
