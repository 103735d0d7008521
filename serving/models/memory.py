"""How much memory is free for a model on a device: the machine's, the container's, or the GPU's.

Linux lets a process ask for more than there is and ends it later; so the server has to know before
it loads weights or sets its budget. Knows devices and system files; does not know models.
"""

from __future__ import annotations

from pathlib import Path

import torch

MEMINFO = Path("/proc/meminfo")
CGROUP = Path("/sys/fs/cgroup")


def free_bytes(device: torch.device, meminfo: Path = MEMINFO, cgroup: Path = CGROUP) -> int | None:
    """Bytes that can still be taken on `device`; None where the system does not tell."""
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        return int(free)
    found = [n for n in (_available(meminfo), _left_in_group(cgroup)) if n is not None]
    return min(found, default=None)


def free_in_machine() -> int | None:
    """Bytes free beside any GPU; None where the system does not tell."""
    return free_bytes(torch.device("cpu"))


def _available(meminfo: Path) -> int | None:
    """Linux' own estimate of what can be taken without swapping."""
    if not meminfo.is_file():
        return None
    for line in meminfo.read_text().splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) * 1024
    return None


def _left_in_group(cgroup: Path) -> int | None:
    """What a container's limit leaves (cgroup v2); pages of files it read do not count."""
    limit, used, stat = (cgroup / f"memory.{name}" for name in ("max", "current", "stat"))
    if not (limit.is_file() and used.is_file() and stat.is_file()):
        return None
    most = limit.read_text().strip()
    if most == "max":
        return None
    counts = dict(line.split() for line in stat.read_text().splitlines())
    return int(most) - int(used.read_text()) + int(counts.get("inactive_file", 0))
