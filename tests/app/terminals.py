"""A program on a real pseudo-terminal, with a screen to look at (pyte)."""

from __future__ import annotations

import errno
import fcntl
import os
import pty
import select
import signal
import struct
import sys
import termios
import time
from typing import TYPE_CHECKING

import pyte

if TYPE_CHECKING:
    from pathlib import Path


class Screen:
    """Starts a program as the leader of its own session with this terminal as its own, and reads what it draws."""

    def __init__(
        self, *command: str, columns: int = 80, rows: int = 24, cwd: Path | None = None, env: dict[str, str] | None = None
    ) -> None:
        self.screen = pyte.Screen(columns, rows)
        self.screen.write_process_input = self.type  # answers, as terminals do, where the cursor is: programs wait a second for it
        self._stream = pyte.ByteStream(self.screen)
        self.raw = b""
        self.pid, self.terminal = pty.fork()
        if self.pid == 0:
            try:
                if cwd is not None:
                    os.chdir(cwd)
                os.execvpe(command[0], command, {**os.environ, "TERM": "xterm-256color", "COLORTERM": "truecolor", **(env or {})})
            finally:
                os._exit(127)
        self.resize(columns, rows)

    def resize(self, columns: int, rows: int) -> None:
        fcntl.ioctl(self.terminal, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
        self.screen.resize(rows, columns)

    def type(self, keys: str) -> None:
        os.write(self.terminal, keys.encode())

    def read(self, seconds: float = 0.05, *, draw: bool = True) -> bool:
        """Take what came, and draw it; False when the other side is closed."""
        if not select.select([self.terminal], [], [], seconds)[0]:
            return True
        try:
            data = os.read(self.terminal, 65_536)
        except OSError as error:
            if error.errno == errno.EIO:
                return False
            raise
        if not data:
            return False
        if not draw:
            return True
        self.raw += data
        # pyte 0.8 takes private CSI sequences such as kitty's `\x1b[>1u` for text
        for unknown in (b"\x1b[>25u", b"\x1b[<u", b"\x1b[?2026$p", b"\x1b[?2048$p", b"\x1b[?2026h", b"\x1b[?2026l"):
            data = data.replace(unknown, b"")
        self._stream.feed(data)
        return True

    @property
    def text(self) -> str:
        return "\n".join(self.screen.display)

    def wait_for(self, *wanted: str, seconds: float = 30) -> str:
        """The screen as soon as it shows all of `wanted`."""
        deadline = time.monotonic() + seconds
        while not all(text in self.text for text in wanted):
            if time.monotonic() > deadline or not self.read():
                raise AssertionError(f"{wanted} not seen in:\n{self.text}\n{self.raw[-600:]!r}")
        return self.text

    def hang_up(self) -> None:
        """Close the terminal: the kernel sends SIGHUP, and then SIGCONT."""
        os.close(self.terminal)

    def end(self, seconds: float = 30) -> int:
        """Wait for the program; its exit code, or minus the signal that killed it."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            try:
                self.read(0.02)
            except OSError:
                time.sleep(0.02)
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                return os.waitstatus_to_exitcode(status)
        os.kill(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)
        raise AssertionError(f"the program did not end:\n{self.text}")


def python(*arguments: str) -> tuple[str, ...]:
    return (sys.executable, "-W", "error", *arguments)
