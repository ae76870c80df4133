"""Memory in use, once a second, into the journal: a daemon thread beside the training loop that never touches the device's work."""

from __future__ import annotations

from threading import Event, Thread
from typing import TYPE_CHECKING

from ltx2core.hardware import limits
from ltx2core.hardware.nvml import Nvml
from ltx2core.runs.events import MemorySampled

if TYPE_CHECKING:
    from collections.abc import Callable


class Telemetry:
    """Emits a MemorySampled at once and then every `seconds`, until closed. Use as a context manager."""

    def __init__(self, emit: Callable[[MemorySampled], None], *, seconds: float = 1.0, nvml: Nvml | None = None) -> None:
        self._emit = emit
        self._seconds = seconds
        self._nvml = nvml
        self._closed = Event()
        self._thread = Thread(target=self._run, name="telemetry", daemon=True)

    def __enter__(self) -> Telemetry:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Stop, and wait for the sample under way."""
        self._closed.set()
        if self._thread.is_alive():
            self._thread.join(timeout=5)

    def _run(self) -> None:
        nvml = self._nvml or Nvml()
        while not self._closed.is_set():
            self._emit(sample_memory(nvml))
            self._closed.wait(self._seconds)


def sample_memory(nvml: Nvml) -> MemorySampled:
    """What this process uses of the RAM, and everyone of the first card, now."""
    import psutil

    total = psutil.virtual_memory().total
    limit = limits.memory_limit()
    card = nvml.memory()
    return MemorySampled(
        ram_used_bytes=psutil.Process().memory_info().rss,
        ram_total_bytes=min(total, limit) if limit else total,
        vram_used_bytes=card[0] if card else None,
        vram_total_bytes=card[1] if card else None,
        gpu_percent=card[2] if card else None,
    )
