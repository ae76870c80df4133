"""Python processes for tests that kill them, fill their disk or weigh their memory, without the seconds that each takes to import torch.

They are forked off a server, one for a test process, that has the engine's libraries imported and has done nothing else: no threads, no
tensors. What is in question is a process of its own; a test of what a fresh interpreter imports starts a fresh interpreter.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import sys
import tempfile
from multiprocessing import Pipe
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

if TYPE_CHECKING:
    from collections.abc import Mapping
    from multiprocessing.connection import Connection

PRELOADED = ("av", "peft", "ltx2core.training.pipeline", "ltx2core.training.session")


class ForkedPython:
    """What `python -c code *words` would be, as Popen: stdin and stdout are pipes of text, stderr is what it said there by its end."""

    def __init__(self, code: str, *words: str, env: Mapping[str, str] | None = None) -> None:
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(list(PRELOADED))
        handle, name = tempfile.mkstemp(prefix="stderr-")
        os.close(handle)
        self._errors, self.stderr = Path(name), ""
        given, write = Pipe(duplex=False)
        read, said = Pipe(duplex=False)
        surroundings = dict(os.environ if env is None else env)
        # A daemon, so that one that a failed test leaves ends with the tests.
        self._process = context.Process(target=_run, args=(code, words, surroundings, str(Path.cwd()), given, said, name), daemon=True)
        self._process.start()
        given.close()
        said.close()
        self.stdin, self.stdout = _text(write, "w"), _text(read, "r")
        assert self._process.pid is not None
        self.pid: int = self._process.pid

    @property
    def returncode(self) -> int | None:
        """The exit code, minus the signal that killed it, or None while it runs."""
        return self._process.exitcode

    def kill(self) -> None:
        self._process.kill()

    def wait(self, timeout: float = 240) -> int:
        """Its exit code, its pipes closed. Raises TimeoutError when it has not ended by then."""
        self._process.join(timeout)
        code = self._process.exitcode
        if code is None:
            raise TimeoutError(f"process {self.pid} has not ended in {timeout} s")
        with contextlib.suppress(BrokenPipeError):
            self.stdin.close()
        self.stdout.close()
        if self._errors.exists():
            self.stderr = self._errors.read_text()
            self._errors.unlink()
        return code

    def communicate(self) -> tuple[str, str]:
        """What it says on stdout from now on, and all that it said on stderr; it has ended."""
        self.stdin.close()
        said = self.stdout.read()
        self.wait()
        return said, self.stderr


def _text(end: Connection, mode: str) -> TextIO:
    handle = os.dup(end.fileno())
    end.close()
    return os.fdopen(handle, mode)  # type: ignore[return-value]


def _run(code: str, words: tuple[str, ...], env: dict[str, str], cwd: str, given: Connection, said: Connection, errors: str) -> None:
    """In the new process."""
    os.environ.clear()
    os.environ.update(env)
    os.chdir(cwd)
    handle = os.open(errors, os.O_WRONLY)
    for source, target in ((given.fileno(), 0), (said.fileno(), 1), (handle, 2)):
        os.dup2(source, target)
    for end in (given, said):
        end.close()
    os.close(handle)
    sys.stdin = os.fdopen(0, closefd=False)
    sys.argv = ["-c", *words]
    exec(compile(code, "<the test's code>", "exec"), {"__name__": "__main__"})
