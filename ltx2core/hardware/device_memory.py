"""How much of a card's memory this process may take, and how much of that is free.

A cap is held by PyTorch's allocator, so that what goes beyond is an error, which the engine answers with a smaller layout. It is set where
the config asks for one, and where the driver would otherwise lend system memory: a step takes minutes then, and nobody is told.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

GIB = 2**30
CONTEXT_BYTES = 6 * GIB // 10  # of CUDA itself and its libraries, outside PyTorch's allocator; measured on an H100
_SPARE_BYTES = GIB // 4  # what a desktop that shares the card may take more, later


@dataclass(frozen=True, slots=True, kw_only=True)
class Cap:
    """What PyTorch's allocator may hold at most, and a sentence that says why."""

    held_bytes: int
    because: str


def spilling_driver(*, system: str = sys.platform, version: Path = Path("/proc/version")) -> str | None:
    """The system whose driver lends a card system memory when its own has run out: Windows, or Linux on Windows; None for others."""
    if system == "win32":
        return "Windows"
    try:
        return "WSL" if "microsoft" in version.read_text(encoding="utf-8", errors="replace").lower() else None
    except OSError:
        return None


def choose_cap(*, limit_gib: float | None, total_bytes: int, free_bytes: int, spills: str | None, beside_bytes: int = 0) -> Cap | None:
    """The cap that a limit and a system ask for; None for none. free_bytes: of the card, now that CUDA is up. beside_bytes: what others
    than PyTorch's allocator will take, CUDA's context apart."""
    caps = []
    if limit_gib is not None and limit_gib * GIB < total_bytes:
        held = max(0, int(limit_gib * GIB) - CONTEXT_BYTES - beside_bytes)
        caps.append(
            Cap(held_bytes=held, because=f"This process takes at most {limit_gib:g} GiB of GPU memory, as gpu_memory_limit_gib says.")
        )
    if spills is not None:
        held = max(0, free_bytes - _SPARE_BYTES)
        text = (
            f"This process takes at most {held / GIB:.1f} GiB of GPU memory: beyond what is free, {spills} would lend it RAM, far slower."
        )
        caps.append(Cap(held_bytes=held, because=text))
    return min(caps, key=lambda cap: cap.held_bytes, default=None)


def limit_device(device: torch.device, limit_gib: float | None, *, spills: str | None, beside_bytes: int = 0) -> str | None:
    """Cap what this process takes of a card, if that is asked for or needed; a sentence that says what was done, None for nothing.

    beside_bytes: what NCCL will take, where there are other GPUs.
    Without a limit a cap of before is lifted: a process may train twice.
    """
    import torch

    if device.type != "cuda":
        return None if limit_gib is None else "gpu_memory_limit_gib has no effect: there is no GPU."
    free, total = torch.cuda.mem_get_info(device)
    held = torch.cuda.memory_reserved(device)
    cap = choose_cap(limit_gib=limit_gib, total_bytes=total, free_bytes=free + held, spills=spills, beside_bytes=beside_bytes)
    torch.cuda.set_per_process_memory_fraction(1.0 if cap is None else min(1.0, cap.held_bytes / total), _numbered(device))
    if cap is None and limit_gib is not None:
        return f"gpu_memory_limit_gib = {limit_gib:g} has no effect: the GPU has {total / GIB:.1f} GiB."
    return None if cap is None else cap.because


def free_device_memory(device: torch.device) -> int:
    """Bytes of a card that this process may still take: under its cap, and with what PyTorch holds and does not use."""
    import torch

    free, total = torch.cuda.mem_get_info(device)
    reserved, used = torch.cuda.memory_reserved(device), torch.cuda.memory_allocated(device)
    cap = int(torch.cuda.get_per_process_memory_fraction(_numbered(device)) * total)
    return max(0, min(int(free) + reserved, cap) - used)


def _numbered(device: torch.device) -> torch.device:
    """The device with its number: PyTorch takes "cuda" as the current one everywhere but where it caps memory."""
    import torch

    return device if device.index is not None else torch.device(device.type, torch.cuda.current_device())
