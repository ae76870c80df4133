"""The terminal under the app, and what happens when it goes away. Owns descriptors 0, 1 and 2, and Textual's driver.

While the app is up, 1 and 2 lead to a log file, so that a library's own output cannot land on the screen; the driver writes to a private
copy of the terminal. When the terminal hangs up (SIGHUP, or the first failed write), output is dropped, 0 leads to the null device,
and the app ends with the result DETACHED: the process, and the training thread in it, live on.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import tempfile
import threading
from typing import TYPE_CHECKING, Any, cast

from textual.drivers.linux_driver import LinuxDriver

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from textual.app import App

DETACHED = "detached"


class Terminal:
    """The process's terminal while the app is up. Made before the app runs; the driver takes it up and gives it back."""

    def __init__(self) -> None:
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


class _Screen:
    """The driver's output file: drops everything once a write has failed, so that nothing ever waits for a dead terminal."""

    def __init__(self, descriptor: int, lost: Callable[[], None]) -> None:
        self._descriptor = descriptor
        self._lost = lost
        self.dead = False

    def write(self, text: str) -> None:
        data = memoryview(text.encode("utf-8", errors="replace"))
        while data and not self.dead:
            try:
                data = data[os.write(self._descriptor, data) :]
            except BlockingIOError:
                continue
            except OSError:
                self.dead = True
                self._lost()

    def flush(self) -> None:
        """Nothing is held back."""

    def fileno(self) -> int:
        return self._descriptor


class HangupDriver(LinuxDriver):
    """Textual's driver with three changes: it draws on a private descriptor, it ends the app when the terminal hangs up, and a
    continue signal after that (the kernel sends one) does not start it again."""

    def __init__(self, app: App[object], *, debug: bool = False, mouse: bool = True, size: tuple[int, int] | None = None) -> None:
        super().__init__(app, debug=debug, mouse=mouse, size=size)
        self._hung_up = False
        self._once = threading.Lock()
        self._terminal: Terminal = cast("Any", app).terminal
        self._screen = _Screen(self._terminal.screen, self.hang_up)
        self._file = cast("Any", self._screen)
        signal.signal(signal.SIGHUP, lambda *_: self.hang_up())
        self._terminal.take()

    def hang_up(self) -> None:
        """End the app, not the process. Called by the signal, a failed write or a failed read; only the first does anything."""
        if not self._once.acquire(blocking=False):
            return
        self._hung_up = True
        self._screen.dead = True
        self._terminal.hang_up()
        with contextlib.suppress(RuntimeError):  # the loop is closed: the app has ended already
            self._loop.call_soon_threadsafe(self._app.exit, DETACHED)

    def close(self) -> None:
        super().close()
        self._terminal.give_back()

    def _sigcont_application(self, *_: object) -> None:
        if not self._hung_up:
            super()._sigcont_application()

    def _run_input_thread(self) -> None:
        try:
            self.run_input_thread()
        except OSError:  # reading a terminal that went away, before its signal came
            self.hang_up()

    def _get_terminal_size(self) -> tuple[int, int]:
        """The size of the private descriptor: 1, where Textual looks, leads to a log."""
        try:
            width, height = os.get_terminal_size(self._terminal.screen)
        except OSError:
            return 80, 24
        return width or 80, height or 24


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
