"""Descriptors 0, 1 and 2 of the process while the app is up, and when the terminal goes away. Loads no UI.

While the app is up, 1 and 2 lead to a log file, so that a library's own output cannot land on the screen; the driver writes to a private
copy of the terminal. When the terminal hangs up, 0 leads to the null device, and the process lives on.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import tempfile
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

DETACHED = "detached"


class Terminal:
    """The process's terminal while the app is up. Made before the app runs; the driver takes it up and gives it back."""

    def __init__(self, attributes: list[Any] | None = None) -> None:
        self.attributes = attributes  # of the terminal, to go back to; None: those it has when the driver starts
        self._screen = os.dup(1)
        self._error = os.dup(2)
        self._gone = False
        self._log: int | None = None

    @property
    def screen(self) -> int:
        """A descriptor of the terminal that nobody else writes to."""
        return self._screen

    def take(self) -> None:
        """Lead 1 and 2 away from the screen: to a file without a name until a run has one."""
        with tempfile.TemporaryFile(prefix="ltx2tui-") as file:
            self._lead_to(os.dup(file.fileno()))

    def log_to(self, path: Path) -> None:
        """Lead 1 and 2 to a run's output.log. Does nothing when it cannot be opened: the run itself will say why."""
        with contextlib.suppress(OSError):
            self._lead_to(os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600))

    def give_back(self) -> None:
        """Lead 1 and 2 to where they led at first, unless the terminal is gone."""
        if self._log is None or self._gone:
            return
        _flush()
        os.dup2(self._screen, 1)
        os.dup2(self._error, 2)
        os.close(self._log)
        self._log = None

    def hang_up(self) -> None:
        """Let go of a terminal that went away: 0, and whatever still leads to it, become the null device. Safe in a signal handler."""
        self._gone = True
        null = os.open(os.devnull, os.O_RDWR)
        for descriptor in (0,) if self._log is not None else (0, 1, 2):
            os.dup2(null, descriptor)
        os.close(null)

    def _lead_to(self, log: int) -> None:
        _flush()
        os.dup2(log, 1)
        os.dup2(log, 2)
        if self._log is not None:
            os.close(self._log)
        self._log = log


def ignore_hang_up(terminal: Terminal | None = None) -> None:
    """From now on a terminal that goes away costs its output and nothing else."""

    def let_go(*_: object) -> None:
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        (terminal or Terminal()).hang_up()

    signal.signal(signal.SIGHUP, let_go)


def _flush() -> None:
    for stream in (sys.__stdout__, sys.__stderr__):
        if stream is not None:
            with contextlib.suppress(OSError, ValueError):
                stream.flush()
