"""The truth about a run: journal.jsonl, one event a line. This file owns writing and reading it.

The trainer's process is the only writer. The app, `attach`, trackers and the report read the same file with `Tail`, live or
afterwards; none of them can make the trainer wait.
"""

from __future__ import annotations

import contextlib
import json
import os
import time
from dataclasses import dataclass
from threading import Lock
from typing import TYPE_CHECKING

from ltx2core.errors import StorageError
from ltx2core.runs.events import Event, Notice, from_json, to_json
from ltx2core.runs.secrets import redact

if TYPE_CHECKING:
    from pathlib import Path


@dataclass(frozen=True, slots=True)
class Entry:
    """An event and when it was written, in seconds since the epoch."""

    at: float
    event: Event


class Journal:
    """The only writer of a journal. Safe to call from several threads; a line costs microseconds.

    A line is one `write` to a descriptor opened for appending, so a reader never sees two lines mixed and a process that is
    killed leaves at most one line cut short, which readers skip. A full disk never stops the training loop: lines that could not
    be written are counted in `lost`, and said in the journal once there is room again.
    """

    def __init__(self, path: Path) -> None:
        try:
            self._descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        except OSError as error:
            raise StorageError(f"{path} cannot be written: {error.strerror}.", fix="Choose another folder with --root.") from error
        self.path = path
        self.lost = 0
        self._is_cut = False  # whether the last line was written in part
        self._lock = Lock()
        self._end_cut_line()

    def emit(self, event: Event) -> None:
        line = redact(json.dumps(to_json(event, seconds_since_epoch=time.time()), separators=(",", ":"), allow_nan=False))
        with self._lock:
            if not self._write(line):
                self.lost += 1
            elif self.lost:
                text = f"{self.lost} journal lines could not be written."
                notice = Notice(code="journal_gap", level="warning", text=text, fix="Free disk space.")
                if self._write(json.dumps(to_json(notice, seconds_since_epoch=time.time()))):
                    self.lost = 0

    def close(self) -> None:
        os.close(self._descriptor)

    def _write(self, line: str) -> bool:
        """Whether the whole line is written. A disk that fills up takes a part of it, which is ended before the next."""
        data = (b"\n" if self._is_cut else b"") + line.encode() + b"\n"
        try:
            written = os.write(self._descriptor, data)
        except OSError:
            return False
        self._is_cut = written < len(data)
        return not self._is_cut

    def _end_cut_line(self) -> None:
        """End a line that a killed process left unfinished, so that the next one is not lost with it."""
        size = os.fstat(self._descriptor).st_size
        if size == 0:
            return
        with self.path.open("rb") as file:
            file.seek(size - 1)
            if file.read(1) != b"\n":
                os.write(self._descriptor, b"\n")


class Tail:
    """Reads a journal from its start and then what is added to it. A partial last line waits for its end."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._offset = 0

    def skip(self) -> None:
        """Leave out what is there now."""
        with contextlib.suppress(FileNotFoundError):
            self._offset = self.path.stat().st_size

    def read(self) -> list[Entry]:
        """The entries added since the last call; empty when there are none, or no file yet."""
        try:
            with self.path.open("rb") as file:
                file.seek(self._offset)
                data = file.read()
        except FileNotFoundError:
            return []
        whole = data.rfind(b"\n") + 1
        self._offset += whole
        return [entry for line in data[:whole].splitlines() if (entry := _parse(line)) is not None]


def read_journal(path: Path) -> list[Entry]:
    """Every whole entry of a journal; lines that are cut, or of an unknown kind, are left out."""
    return Tail(path).read()


def _parse(line: bytes) -> Entry | None:
    try:
        value = json.loads(line)
    except ValueError:  # a line that a killed process left behind
        return None
    if not isinstance(value, dict):
        return None
    event = from_json(value)
    at = value.get("at", 0.0)
    return Entry(at=float(at), event=event) if event is not None and isinstance(at, int | float) else None
