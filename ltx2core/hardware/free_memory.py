"""Gives memory that nothing uses any more back to the card and to the system.

PyTorch keeps what it has freed for itself: on the card, and of page-locked memory. The C library keeps small pieces, too. Between phases
all of it is in the way of what comes next: 2.5 GiB of RAM after clips of 121x704x1280 were encoded, on an H200.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
from functools import cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    import torch


def free_memory(device: torch.device) -> None:
    """Drop what dropped modules have left, on a device and in RAM: for between phases, not steps, for it takes a tenth of a second."""
    gc.collect()
    if device.type == "cuda":
        import torch

        torch.cuda.empty_cache()
        _empty_locked()
        trim_heap()  # beside a CPU's own work it is not worth its time


def trim_heap() -> None:
    """Give what the C library has kept of small pieces back to the system, where it can."""
    if (trim := _trim()) is not None:
        trim(0)


def _empty_locked() -> None:
    """Page-locked memory. The function is public in newer versions of PyTorch; one that has neither keeps the memory."""
    import torch

    accelerator = getattr(torch.accelerator, "memory", torch.accelerator)
    empty = getattr(accelerator, "empty_host_cache", None) or getattr(torch._C, "_host_emptyCache", None)
    if empty is not None:
        empty()


@cache
def _trim() -> Callable[[int], int] | None:
    """malloc_trim(3) of glibc; None with another C library."""
    with contextlib.suppress(OSError, AttributeError, TypeError):
        trim = ctypes.CDLL(None).malloc_trim
        trim.argtypes, trim.restype = [ctypes.c_size_t], ctypes.c_int
        return trim
    return None
