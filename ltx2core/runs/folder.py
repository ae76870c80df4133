"""Where the files of a run lie, and whether it is alive.

runs/<name>/  config.json  datasets.json  held_out.json  held_out_base.json  journal.jsonl  output.log  run.lock  control.sock
              checkpoints/step-000500/{adapter,optimizer}.safetensors + state.json
              samples/step-000500/*.mp4    lora/<name>.safetensors
"""

from __future__ import annotations

import fcntl
import os
import re
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ltx2core.errors import RunError
from ltx2core.runs.files import storage_error

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import IO

NAME_RULE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


@dataclass(frozen=True, slots=True)
class RunFolder:
    """The folder of one run. Nothing is created until `create` is called."""

    path: Path

    @property
    def name(self) -> str:
        return self.path.name

    @property
    def config(self) -> Path:
        return self.path / "config.json"

    @property
    def datasets(self) -> Path:
        return self.path / "datasets.json"

    @property
    def journal(self) -> Path:
        return self.path / "journal.jsonl"

    @property
    def output_log(self) -> Path:
        return self.path / "output.log"

    @property
    def lock(self) -> Path:
        return self.path / "run.lock"

    @property
    def checkpoints(self) -> Path:
        return self.path / "checkpoints"

    @property
    def samples(self) -> Path:
        return self.path / "samples"

    @property
    def held_out(self) -> Path:
        return self.path / "held_out.json"

    @property
    def held_out_base(self) -> Path:
        """What each held-out clip's loss was before training."""
        return self.path / "held_out_base.json"

    @property
    def cached(self) -> Path:
        """The names of the cache's entries that the run reads, so that a prune leaves them."""
        return self.path / "cached.json"

    @property
    def lora(self) -> Path:
        return self.path / "lora" / f"{self.name}.safetensors"

    @property
    def control_socket(self) -> Path:
        """The run's socket. A path too long for a socket address (108 bytes on Linux) moves to the temporary folder."""
        path = self.path.absolute() / "control.sock"
        if len(os.fsencode(path)) < 100:
            return path
        import hashlib

        return Path(tempfile.gettempdir()) / f"ltx2tui-{os.getuid()}-{hashlib.sha256(os.fsencode(path)).hexdigest()[:16]}.sock"

    def step_folder(self, parent: Path, step: int) -> Path:
        return parent / f"step-{step:06d}"

    def create(self) -> None:
        """Make the folder. Raises RunError for a name that would leave it, StorageError when it cannot be written."""
        if NAME_RULE.fullmatch(self.name) is None:
            raise RunError(f"A run cannot be named {self.name!r}.", fix="Use letters, digits, dots, dashes and underscores, 64 at most.")
        try:
            self.path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise storage_error(self.path, error) from error

    def is_alive(self) -> bool:
        """Whether a process trains in this folder now: whether the lock is held, not what a file claims."""
        try:
            with self.lock.open("r") as file:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        except OSError:
            return False
        return False


class RunLock:
    """Held by the process that trains in a folder; the system lets go of it however that process ends."""

    def __init__(self, folder: RunFolder) -> None:
        folder.create()
        try:
            self._file = folder.lock.open("a+")
        except OSError as error:
            raise storage_error(folder.lock, error) from error
        if not _taken(self._file):
            self._file.close()
            raise RunError(
                f"The run {folder.name!r} is training in another process.",
                fix=f"Watch it with `ltx2tui attach {folder.name}`, or choose another name with --run.",
            )

    def release(self) -> None:
        self._file.close()


def _taken(file: IO[str]) -> bool:
    """Whether the lock could be had. Tried for a moment: who asks `is_alive` holds it for an instant."""
    for attempt in range(10):
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            time.sleep(0.02 if attempt < 9 else 0)
        else:
            return True
    return False


def list_runs(root: Path) -> Iterator[RunFolder]:
    """Every run under `root`/runs, the one written to last first."""
    folders = [RunFolder(journal.parent) for journal in (root / "runs").glob("*/journal.jsonl")]
    yield from sorted(folders, key=lambda folder: folder.journal.stat().st_mtime, reverse=True)
