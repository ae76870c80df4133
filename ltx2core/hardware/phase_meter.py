"""What each phase of a run took: its seconds and the most memory it held, from counters that are set back where a phase begins.

A second-by-second sample misses a peak that lasts for milliseconds; the allocator's and the kernel's own counters do not. Host memory is
this process's and that of the processes it has beside it (helper_memory.py).
"""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from ltx2core.hardware.helper_memory import HELPERS, peak_of
from ltx2core.runs.events import PhaseMeasured, PhaseStarted

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import ModuleType

    from ltx2core.runs.events import Event, Phase

_CLEAR = Path("/proc/self/clear_refs")
_AS_MUCH = 16 << 20  # bytes: the kernel counts pages of each thread in portions, and other threads take some at any time


class PhaseMeter:
    """Passes events on, and after each phase adds a PhaseMeasured. Call it where `emit` would be called."""

    def __init__(self, emit: Callable[[Event], None]) -> None:
        self._emit = emit
        self._phase: Phase | None = None
        self._begin = 0.0
        self._host_before: int | None = None  # the host's peak of earlier phases, where it could not be set back

    def __call__(self, event: Event) -> None:
        if isinstance(event, PhaseStarted):
            self.close()
            self._phase, self._begin = event.phase, time.perf_counter()
            HELPERS.take()
            self._host_before = None if _forget_peaks() else peak_of("self")
        self._emit(event)

    def close(self) -> None:
        """End the phase under way, if there is one."""
        if self._phase is None:
            return
        allocated, reserved = _device_peaks()
        host = peak_of("self")
        if host is not None and self._host_before is not None and host <= self._host_before + _AS_MUCH:
            host = None  # an earlier phase held as much: what this one held is not known
        helpers = HELPERS.take()
        host = None if host is None else host + helpers
        self._emit(
            PhaseMeasured(
                phase=self._phase,
                seconds=time.perf_counter() - self._begin,
                ram_peak_bytes=host,
                vram_peak_bytes=allocated,
                vram_reserved_bytes=reserved,
            )
        )
        self._phase = None


def _forget_peaks() -> bool:
    """Set the counters back to what is held now; whether the host's could be: not everywhere is that file there, or may be written."""
    if (cuda := _cuda()) is not None:
        cuda.reset_peak_memory_stats()
    try:
        _CLEAR.write_text("5")  # sets VmHWM (proc(5), Linux 4.0)
    except OSError:
        return False
    return True


def _device_peaks() -> tuple[int | None, int | None]:
    """The most bytes that PyTorch's allocator gave out, and held, on the current device."""
    cuda = _cuda()
    return (None, None) if cuda is None else (cuda.max_memory_allocated(), cuda.max_memory_reserved())


def _cuda() -> ModuleType | None:
    """torch.cuda; None while nothing has used a GPU, for asking must neither load torch nor wake a card."""
    torch = sys.modules.get("torch")
    if torch is None or not torch.cuda.is_initialized():
        return None
    cuda: ModuleType = torch.cuda
    return cuda
