"""Host memory of the processes that a run has beside its own, such as those that decode clips: what they hold counts as the run's.

The kernel's own peak counter of each is read before it ends. They are added up as if all had been at their peaks at once.
"""

from __future__ import annotations

import threading
from pathlib import Path


def peak_of(pid: int | str) -> int | None:
    """The most host memory that a process has held, in bytes; None where the kernel does not count it, or the process is gone."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return None
    peak = next((line.split()[1] for line in lines if line.startswith("VmHWM:")), None)
    return int(peak) * 1024 if peak is not None else None


class Helpers:
    """The most that processes which worked together have held, since it was last asked for."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._most = 0

    def held(self, together: int) -> None:
        """So many bytes were held by processes of one time."""
        with self._lock:
            self._most = max(self._most, together)

    def take(self) -> int:
        """Bytes; from 0 again afterwards."""
        with self._lock:
            most, self._most = self._most, 0
        return most


HELPERS = Helpers()
"""Of this process."""
