"""Whether memory has room for what is about to be loaded: asked before, since a process that the kernel kills can explain nothing."""

from __future__ import annotations

import torch

from ltx2core.errors import DoesNotFit
from ltx2core.hardware.device_memory import free_device_memory
from ltx2core.hardware.limits import available_memory

GIB = 2**30


def check_room(what: str, needed_bytes: int, device: torch.device | str) -> None:
    """Raise DoesNotFit, with both amounts, when the device has less free than `what` needs."""
    device = torch.device(device)
    if device.type == "cuda":
        free = free_device_memory(device)
        place, fix = f"GPU {device.index or 0}", "End other programs that use it; clips without sound need 30 % less."
    else:
        free, place, fix = available_memory(), "this machine", "End other programs, or use a machine with more RAM."
    if needed_bytes > free:
        raise DoesNotFit(f"{what} needs {needed_bytes / GIB:.1f} GiB of memory, and {place} has {free / GIB:.1f} GiB free.", fix=fix)
