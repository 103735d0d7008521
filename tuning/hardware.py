"""What this machine computes with: device, precision, attention kernel, widths of batches.

Knows processors and torch; knows neither models nor runs.
"""

from __future__ import annotations

import platform
from pathlib import Path

import torch

EAGER_LENGTH = 256


def pick_precision(precision: str) -> str:
    """Resolve `auto`: bf16 on a GPU or CPU that multiplies bf16 faster than fp32, else fp32.

    AVX-512 without AMX has bf16 products too, but at half the speed of its fp32 ones.
    """
    if precision != "auto":
        return precision
    if torch.cuda.is_available():
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp32"
    return "bf16" if torch.cpu._is_amx_tile_supported() else "fp32"


def pick_width_step(precision: str) -> int:
    """Of how many tokens the width of a batch is a multiple, in this precision on this machine.

    oneDNN, which torch leaves bf16 products to on a CPU with AMX, compiles one for each shape and
    keeps up to 1,024 of them: some 200 MiB less in a run over many lengths, at the same speed.
    """
    is_compiled = precision == "bf16" and not torch.cuda.is_available()
    return 32 if is_compiled and torch.cpu._is_amx_tile_supported() else 1


def pick_attention(longest: int) -> str | None:
    """Plain attention for short rows on a CPU, where it beats fused kernels.

    Else None: what transformers picks for the architecture, a fused kernel where it has one.
    """
    return "eager" if longest <= EAGER_LENGTH and not torch.cuda.is_available() else None


def vector_level() -> str:
    """The widest vectors that torch uses on this processor, as it names them: AVX2, AVX512 …"""
    return str(torch.backends.cpu.get_cpu_capability())


def gpu_name() -> str | None:
    """The GPU that torch uses; None without one."""
    return torch.cuda.get_device_name() if torch.cuda.is_available() else None


def describe_device() -> str:
    """The GPU, or the processor where there is none."""
    return gpu_name() or processor_name()


def processor_name() -> str:
    """What the processor calls itself."""
    path = Path("/proc/cpuinfo")
    if path.is_file():
        for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
