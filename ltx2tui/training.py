"""One training run in a plain thread of this process, and what a screen may know of a run: here, or in another process.

The thread is not a daemon and not a Textual worker: the app may end while it goes on. It writes the journal; it never calls the app.
"""

from __future__ import annotations

import threading
import time
import traceback
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, Protocol

from ltx2core.errors import Ltx2Error
from ltx2core.runs.control import Control, Request, ask
from ltx2core.runs.events import RunFailed
from ltx2core.runs.folder import RunFolder
from ltx2core.runs.journal import Entry, Tail

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from ltx2core.config.load import LoadedConfig

Outcome = Literal["finished", "stopped", "failed"]
EXIT_CODES: dict[Outcome | None, int] = {"finished": 0, "failed": 1, "stopped": 130, None: 1}


class Session(Protocol):
    """What this package needs of ltx2core.training.session.TrainingSession."""

    @property
    def outcome(self) -> Outcome | None: ...

    def run(self) -> object: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Launch:
    """A run to start. `prepare` gives its config, in the training thread: it may take long, and may raise Ltx2Error."""

    root: Path
    name: str
    prepare: Callable[[], LoadedConfig]
    resume: bool = False
    when_finished: Callable[[RunFolder], list[str]] | None = None  # lines to show after a run that finished


class OpenSession(Protocol):
    """How a session is made; tests pass their own."""

    def __call__(self, loaded: LoadedConfig, *, root: Path, name: str, resume: bool, control: Control) -> Session: ...


def engine_session(loaded: LoadedConfig, *, root: Path, name: str, resume: bool, control: Control) -> Session:
    """The real thing. Loads torch."""
    from ltx2core.training.session import TrainingSession

    return TrainingSession(loaded, root=root, name=name, resume=resume, control=control)


@dataclass(slots=True)
class Training:
    """A run of this process. `outcome` and `failure` are set before the thread ends."""

    launch: Launch
    open_session: OpenSession = engine_session
    control: Control = field(default_factory=Control)
    outcome: Outcome | None = None
    failure: RunFailed | None = None  # of what went wrong before the run had a journal to say it in
    conclusion: tuple[str, ...] = ()
    started_at: float = 0.0  # seconds since the epoch
    resumes: bool | None = None  # whether it goes on with an earlier session's work; None until the config is known
    _thread: threading.Thread | None = None

    @property
    def folder(self) -> RunFolder:
        return RunFolder(self.launch.root / "runs" / self.launch.name)

    @property
    def alive(self) -> bool:
        return self._thread is not None and self._thread.is_alive()

    def start(self) -> None:
        self.started_at = time.time()
        self._thread = threading.Thread(target=self._run, name="train")
        self._thread.start()

    def join(self, timeout: float | None = None) -> None:
        if self._thread is not None:
            self._thread.join(timeout)

    def _run(self) -> None:
        try:
            launch = self.launch
            loaded = launch.prepare()
            self.resumes = launch.resume or loaded.config.resume_from_checkpoint == "latest"
            session = self.open_session(loaded, root=launch.root, name=launch.name, resume=launch.resume, control=self.control)
            session.run()
            self.outcome = session.outcome or "failed"
            if self.outcome == "finished" and launch.when_finished is not None:
                self.conclusion = tuple(launch.when_finished(self.folder))
        except Ltx2Error as error:
            self._fail(RunFailed(text=error.text, fix=error.fix))
        except Exception as error:  # noqa: BLE001 - the last frame of the thread: an exception here reaches nobody else
            self._fail(RunFailed(text=f"{type(error).__name__}: {error}", detail=traceback.format_exc()))

    def _fail(self, failure: RunFailed) -> None:
        self.failure = failure
        self.outcome = "failed"


class Feed(Protocol):
    """A run as a screen sees it. Calls may block for a moment: they are made from a worker."""

    folder: RunFolder
    here: bool  # whether it trains in this process

    def read(self) -> list[Entry]: ...

    def alive(self) -> bool: ...

    def ask(self, request: Request) -> dict[str, object]: ...

    def conclusion(self) -> tuple[str, ...]: ...


class LocalFeed:
    """A run of this process: its journal and its control."""

    here = True

    def __init__(self, training: Training) -> None:
        self.training = training
        self.folder = training.folder
        self._tail = Tail(self.folder.journal)
        self._failure_told = False

    def read(self) -> list[Entry]:
        ended = not self.training.alive  # asked before reading, so that the last lines are not missed
        if self.training.resumes is None and not ended:
            return []
        since = 0.0 if self.training.resumes else self.training.started_at - 0.01  # a run of the same name may have failed before
        entries = [entry for entry in self._tail.read() if entry.at >= since]
        if ended and self.training.failure is not None and not self._failure_told:
            self._failure_told = True
            entries.append(Entry(time.time(), self.training.failure))
        return entries

    def alive(self) -> bool:
        return self.training.alive

    def ask(self, request: Request) -> dict[str, object]:
        control = self.training.control
        if request != "status":
            getattr(control, request)()
        return {"ok": True, "paused": control.paused, "stopping": control.stop_requested}

    def conclusion(self) -> tuple[str, ...]:
        return self.training.conclusion


class AttachedFeed:
    """A run of another process, or of the past: its journal and its socket."""

    here = False

    def __init__(self, folder: RunFolder) -> None:
        self.folder = folder
        self._tail = Tail(folder.journal)

    def read(self) -> list[Entry]:
        return self._tail.read()

    def alive(self) -> bool:
        return self.folder.is_alive()

    def ask(self, request: Request) -> dict[str, object]:
        return ask(self.folder, request)

    def conclusion(self) -> tuple[str, ...]:
        return ()
