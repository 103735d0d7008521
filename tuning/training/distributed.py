"""What differs when several processes train together; one process is the plain case of it."""

from __future__ import annotations

import os

import torch


def is_main_process() -> bool:
    """True on the one process that writes files (torchrun and accelerate launch set RANK)."""
    return int(os.environ.get("RANK", "0")) == 0


def num_processes() -> int:
    """How many processes train together."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def is_sharded() -> bool:
    """Whether accelerate was told to spread the model itself over the processes."""
    return any(
        os.environ.get(name, "").lower() in ("true", "1", "yes")
        for name in ("ACCELERATE_USE_FSDP", "ACCELERATE_USE_DEEPSPEED")
    )


def wait_for_all() -> None:
    """Let no process go on before the others are here."""
    if _connected():
        torch.distributed.barrier()


def from_main(value: float) -> float:
    """The main process's value, on every process."""
    if not _connected():
        return value
    box = torch.tensor([value], dtype=torch.float64)
    if torch.cuda.is_available():
        box = box.cuda()
    torch.distributed.broadcast(box, 0)
    return float(box)


def largest(value: float) -> float:
    """The largest of all processes' values, on every process."""
    if not _connected():
        return value
    box = torch.tensor([value], dtype=torch.float64)
    if torch.cuda.is_available():
        box = box.cuda()
    torch.distributed.all_reduce(box, torch.distributed.ReduceOp.MAX)
    return float(box)


def _connected() -> bool:
    return torch.distributed.is_available() and torch.distributed.is_initialized()
