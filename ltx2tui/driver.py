"""Textual's driver, taught to outlive its terminal: a hang-up (SIGHUP, or the first failed read or write) ends the app with the result
DETACHED, and never the process with the training thread in it.
"""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from typing import TYPE_CHECKING, Any, cast

from textual.drivers.linux_driver import LinuxDriver

from ltx2tui.descriptors import DETACHED, Terminal

if TYPE_CHECKING:
    from collections.abc import Callable

    from textual.app import App


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

    def start_application_mode(self) -> None:
        super().start_application_mode()  # type: ignore[no-untyped-call]
        if self._terminal.attributes is not None:  # those of before the first picture, which turned the echo off
            self.attrs_before = self._terminal.attributes

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
