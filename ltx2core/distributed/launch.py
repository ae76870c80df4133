"""Starts the run's other processes, hears what they say, notices when one ends, and ends them all with the run.

Each is `python -m ltx2core.distributed.follow RANK SIZE`, in a session of its own so that ctrl+c reaches the run alone. Its stdin is a
pipe that only the run's process holds: one line on it is the task, the next says that all are ready to meet, and its end, however that
comes about, ends the process. Its stdout is lines of JSON; what else it and its libraries print goes to the run's output.log.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Protocol

from ltx2core.distributed.kinds import check_one_kind, kind_of
from ltx2core.distributed.places import environment_of, name_of, share_of_cores, too_many
from ltx2core.distributed.ranks import ALONE, RankLost, Ranks, Together
from ltx2core.errors import Ltx2Error, RunError, Stopped
from ltx2core.runs.events import Notice

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    import torch

    from ltx2core.runs.events import Event

_MODULE = "ltx2core.distributed.follow"
_LAST_WORDS_SECONDS = 10.0  # that the one whose end broke an exchange gets to say why
_END_SECONDS = 10.0  # that processes get to end by themselves
_LOOK_SECONDS = 0.2


class Process(Protocol):
    """What is needed of subprocess.Popen."""

    stdin: IO[bytes] | None
    stdout: IO[bytes] | None

    def wait(self) -> int: ...

    def kill(self) -> None: ...


@dataclass(slots=True)
class _Other:
    """One of the others, as the run's process knows it. failure: why it ended; lost: only because another one did."""

    rank: int
    process: Process
    ready: bool = False
    failure: RunError | None = None
    lost: bool = False
    ended: threading.Event = field(default_factory=threading.Event)


class Others:
    """The ranks from 1 on. `start` early, they take seconds to load; `send` the task; `join` them."""

    def __init__(self, size: int, *, emit: Callable[[Event], None], log: Path, should_stop: Callable[[], bool]) -> None:
        """log: the file that takes what they print. should_stop: whether the run is to end while they are waited for."""
        self.size = size
        self._emit, self._log, self._should_stop = emit, log, should_stop
        self._others: list[_Other] = []
        self._told: set[tuple[str, str]] = set()  # what this process has said itself
        self._ranks: Together | None = None
        self._closing = False
        self._surroundings = contextlib.ExitStack()  # of this process, while it trains with others
        self.folder = Path()  # where they meet

    def emit(self, event: Event) -> None:
        """The run's own events: what the others only repeat is not said again."""
        if isinstance(event, Notice):
            self._told.add((event.code, event.text))
        self._emit(event)

    def start(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="ltx2tui-ranks-"))  # mode 0700: only this user meets here
        for rank in range(1, self.size):
            other = _Other(rank, spawn(rank, self.size, log=self._log))
            self._others.append(other)
            threading.Thread(target=self._hear, args=(other,), name=f"rank-{rank}", daemon=True).start()

    def send(self, task: Mapping[str, object]) -> None:
        """Give each its task. One that has ended is noticed by `join`."""
        self._write({**task, "store": str(self.folder / "store")})

    def join(self, device: torch.device) -> Ranks:
        """All of them together, once each has looked at its task. Raises RunError when one has ended, Stopped when asked to."""
        if self.size == 1:
            return ALONE
        from torch._C._distributed_c10d import FileStore

        while not all(other.ready for other in self._others):
            if any(other.ended.is_set() for other in self._others):
                raise RankLost("Another process of this run has ended.")
            if self._should_stop():
                raise Stopped("Stopped before training began.")
            time.sleep(_LOOK_SECONDS)
        self._write({"go": True})
        self._surroundings.enter_context(_fewer_threads(self.size))  # not before: while this process cached, the others slept
        ranks = self._ranks = Together(FileStore(str(self.folder / "store"), self.size), rank=0, size=self.size, device=device)
        ranks.connect_cards()
        return ranks

    def explain(self, error: Exception) -> Exception:
        """Why an exchange failed: what the process that ended first has said. Other errors as they are, unless a process has ended that
        they may come from."""
        if not isinstance(error, RankLost):
            found = self._cause()
            return error if isinstance(error, Ltx2Error) or found is None else found
        deadline = time.monotonic() + _LAST_WORDS_SECONDS
        while (found := self._cause()) is None and time.monotonic() < deadline and not all(each.ended.is_set() for each in self._others):
            time.sleep(0.05)
        return found or self._cause() or error

    def close(self) -> None:
        """End them, if they have not ended by themselves: what this process has to say to them is said."""
        self._closing = True
        self._surroundings.close()
        for other in self._others:
            with contextlib.suppress(OSError):
                assert other.process.stdin is not None
                other.process.stdin.close()
        deadline = time.monotonic() + _END_SECONDS
        for other in self._others:
            if not other.ended.wait(max(0.0, deadline - time.monotonic())):
                other.process.kill()
                other.ended.wait(_END_SECONDS)
        if self._ranks is not None:
            self._ranks.close()
        if self._others:
            shutil.rmtree(self.folder, ignore_errors=True)

    def _write(self, words: Mapping[str, object]) -> None:
        """A line to each that is still there."""
        line = json.dumps(words).encode() + b"\n"
        for other in self._others:
            assert other.process.stdin is not None
            with contextlib.suppress(OSError):
                other.process.stdin.write(line)
                other.process.stdin.flush()

    def _cause(self) -> RunError | None:
        """The first that ended by itself."""
        return next((other.failure for other in self._others if other.failure is not None and not other.lost), None)

    def _hear(self, other: _Other) -> None:
        """In a thread: take what one says until it has ended. Whatever happens, `ended` is set then, which `join` looks at."""
        try:
            words = self._listen(other)
            code = other.process.wait()
            if not self._closing and (code != 0 or words is not None):
                other.lost = bool(words and words.get("lost"))  # first: who looks for the cause may come between
                other.failure = _failure(name_of(other.rank, self.size), code, words)
        finally:
            other.ended.set()
        if other.failure is not None and self._ranks is not None:
            self._ranks.abort()

    def _listen(self, other: _Other) -> dict[str, Any] | None:
        """Hear one out: how it says that it failed, if it does. One whose words cannot be told, for a disk is full, is ended."""
        assert other.process.stdout is not None
        words: dict[str, Any] | None = None
        try:
            with other.process.stdout as lines:
                for said in filter(None, map(_parsed, lines)):
                    other.ready = other.ready or "ready" in said
                    words = said.get("failed", words)
                    if "notice" in said:
                        self._repeat(other, said["notice"])
        except Exception as error:  # noqa: BLE001 - the last frame of the thread
            words = {"text": f"a warning of it could not be told: {error}"}
            other.process.kill()
        return words

    def _repeat(self, other: _Other, said: dict[str, Any]) -> None:
        notice = Notice(**said)
        if (notice.code, notice.text) not in self._told:
            text = f"{name_of(other.rank, self.size)}: {notice.text}"
            self._emit(Notice(code=notice.code, text=text, fix=notice.fix, level=notice.level))


def spawn(rank: int, size: int, *, log: Path) -> Process:
    """The process of a rank."""
    with log.open("ab") as printed:
        return subprocess.Popen(
            [sys.executable, "-m", _MODULE, str(rank), str(size)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=printed,
            env=environment_of(rank, size, variables=os.environ),
            start_new_session=True,
        )


@contextlib.contextmanager
def others_of(size: int, *, emit: Callable[[Event], None], log: Path, should_stop: Callable[[], bool]) -> Iterator[Others]:
    """The others of a run, started; ended with it, and its errors explained by theirs. Nothing is started for a run of one process."""
    others = Others(size, emit=emit, log=log, should_stop=should_stop)
    with contextlib.ExitStack() as stack:
        stack.callback(others.close)
        if size > 1:
            _check_cards(size)
            others.start()
        try:
            yield others
        except Exception as error:
            explained = others.explain(error)
            if explained is error:
                raise
            raise explained from error


def _check_cards(size: int) -> None:
    """Raise RunError where CUDA sees fewer cards than there are processes, whatever the driver's tools have told before, or those that
    the ranks would take are of different kinds. Caching takes hours, and comes after this."""
    import torch

    if not torch.cuda.is_available():
        return
    if (visible := torch.cuda.device_count()) < size:
        raise too_many(size, visible)
    check_one_kind([kind_of(torch.device("cuda", rank)) for rank in range(size)])


@contextlib.contextmanager
def _fewer_threads(size: int) -> Iterator[None]:
    """This process's share of the cores, as the others have theirs from the environment."""
    import torch

    before = torch.get_num_threads()
    if "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(share_of_cores(size))
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _parsed(line: bytes) -> dict[str, Any] | None:
    """What a line says; None for one that was cut or is a library's."""
    try:
        said = json.loads(line)
    except ValueError:
        return None
    return said if isinstance(said, dict) else None


def _failure(name: str, code: int, words: dict[str, Any] | None) -> RunError:
    fix = "Go on from the last checkpoint by `ltx2tui train --resume`; output.log of the run has what that process printed."
    if words is None:
        how = f"was ended by signal {-code}" if code < 0 else f"ended with exit code {code}"
        memory = ": the system may have run out of memory" if code == -9 else ""
        return RunError(f"{name} {how}{memory}.", fix=fix)
    return RunError(f"{name}: {words['text']}", fix=words.get("fix") or fix)
