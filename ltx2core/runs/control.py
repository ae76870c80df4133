"""What a running trainer can be asked to do, from its own process or through the run's socket.

`Control` is a few flags that the loop reads between steps. `ControlServer` answers one JSON line per connection on control.sock
(mode 0600); `ask` is its client. Several viewers may ask at the same time.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
from threading import Event, Thread
from typing import TYPE_CHECKING, Literal, get_args

from ltx2core.errors import RunError

if TYPE_CHECKING:
    from ltx2core.runs.folder import RunFolder

Request = Literal["status", "stop", "save", "sample", "pause", "resume"]


class Control:
    """Wishes, taken up by the loop at the next step boundary. Setting one never waits."""

    def __init__(self) -> None:
        self._stop = Event()
        self._save = Event()
        self._sample = Event()
        self._running = Event()
        self._running.set()

    def stop(self) -> None:
        """Finish this step, write a checkpoint, end."""
        self._stop.set()
        self._running.set()

    def save(self) -> None:
        self._save.set()

    def sample(self) -> None:
        self._sample.set()

    def pause(self) -> None:
        """Finish this step, then wait for `resume` or `stop`."""
        self._running.clear()

    def resume(self) -> None:
        self._running.set()

    @property
    def stop_requested(self) -> bool:
        return self._stop.is_set()

    @property
    def paused(self) -> bool:
        return not self._running.is_set()

    @property
    def asked(self) -> bool:
        """Whether anything is wished for that the loop has to take up."""
        return self._stop.is_set() or self._save.is_set() or self._sample.is_set() or not self._running.is_set()

    def take_save(self) -> bool:
        """Whether a checkpoint was asked for since the last call."""
        return _take(self._save)

    def take_sample(self) -> bool:
        """Whether a sample was asked for since the last call."""
        return _take(self._sample)

    def wait_while_paused(self) -> None:
        self._running.wait()


def _take(flag: Event) -> bool:
    if not flag.is_set():
        return False
    flag.clear()
    return True


class ControlServer:
    """Serves a Control on a run's socket from a daemon thread. A folder that cannot hold sockets leaves the run without one."""

    def __init__(self, folder: RunFolder, control: Control) -> None:
        self._path = folder.control_socket
        self._control = control
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._path.unlink(missing_ok=True)  # left by a killed process: the caller holds the run's lock
        previous = os.umask(0o177)
        try:
            self._socket.bind(str(self._path))
        finally:
            os.umask(previous)
        self._socket.listen(8)
        Thread(target=self._serve, name="control", daemon=True).start()

    def close(self) -> None:
        self._socket.close()
        self._path.unlink(missing_ok=True)

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._socket.accept()
            except OSError:  # closed
                return
            with connection, contextlib.suppress(OSError):
                connection.settimeout(2)
                connection.sendall(json.dumps(self._answer(connection.recv(4096))).encode() + b"\n")

    def _answer(self, line: bytes) -> dict[str, object]:
        try:
            request = json.loads(line)["do"]
        except (ValueError, KeyError, TypeError):
            request = None
        if request not in get_args(Request):
            return {"ok": False, "text": f"expected one of {', '.join(get_args(Request))}"}
        if request != "status":
            getattr(self._control, request)()
        return {"ok": True, "pid": os.getpid(), "paused": self._control.paused, "stopping": self._control.stop_requested}


def ask(folder: RunFolder, request: Request) -> dict[str, object]:
    """Ask a live run for something and return its answer. Raises RunError when no process answers."""
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
            connection.settimeout(5)
            connection.connect(str(folder.control_socket))
            connection.sendall(json.dumps({"do": request}).encode() + b"\n")
            answer: dict[str, object] = json.loads(connection.makefile().readline())
    except (OSError, ValueError) as error:
        raise RunError(
            f"The run {folder.name!r} does not answer.", fix="`ltx2tui runs` lists the runs and which of them are alive."
        ) from error
    return answer
