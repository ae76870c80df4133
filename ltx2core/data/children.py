"""Clips read by other processes, so that no file can take the program down, fill its memory, or hold it up.

A few processes (child.py), each with a bound on its memory, read files in batches. One that does not answer in time is killed; one
that dies is replaced. Either way the file it was reading is named, and the rest of its batch goes to the next process.
"""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import subprocess
import sys
import threading
import time
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import ltx2core
from ltx2core.data.clip import Clip, Problem
from ltx2core.data.records import clip_from_json, inspection_from_json
from ltx2core.errors import DatasetError, Stopped

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from ltx2core.data.inspection import Inspection

Depth = Literal["header", "deep"]

# Above what an 8192 x 8192 clip takes: 17 frames of 100 MB that the decoder may hold back, twice that with 10 bits a colour.
MEMORY_BYTES = 4 << 30


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """How long a file may take. The reader stops by itself at the first two; `grace` later its process is killed."""

    header_seconds: float = 20.0
    deep_seconds: float = 60.0
    grace: float = 15.0
    memory_bytes: int = MEMORY_BYTES
    pixels: int = 8192 * 8192

    def deadline(self, depth: Depth) -> float:
        return self.header_seconds + (self.deep_seconds if depth == "deep" else 0.0) + self.grace


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """What became of a file. kept: whether it would be the same next time; a reader that was killed says nothing for good."""

    clip: Clip
    inspection: Inspection | None = None
    kept: bool = True


class _Ended(Exception):  # noqa: N818 - it is how a process ends, not an error of ours
    """The process died, or was killed for being late."""

    def __init__(self, code: str) -> None:
        super().__init__(code)
        self.code = code


class Children:
    """Processes that read clips. Use it in a `with`; they end with it."""

    def __init__(self, count: int | None = None, *, bounds: Bounds | None = None) -> None:
        self.count = count or min(os.cpu_count() or 1, 16)
        self._bounds = bounds or Bounds()
        self._stop = threading.Event()
        self._threads = ThreadPoolExecutor(self.count, thread_name_prefix="scan")
        self._idle: list[_Child] = []
        self._lock = threading.Lock()

    def __enter__(self) -> Children:
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._threads.shutdown(wait=True, cancel_futures=True)
        for child in self._idle:
            child.end()

    def read(self, paths: Sequence[Path], depth: Depth) -> Future[list[Reading]]:
        """What the files are, in their order. The future raises Stopped when this is closed first."""
        return self._threads.submit(self._read, list(paths), depth)

    def _read(self, paths: list[Path], depth: Depth) -> list[Reading]:
        readings: list[Reading] = []
        with self._lock:
            child = self._idle.pop() if self._idle else None
        while len(readings) < len(paths):
            child = child or _Child(self._bounds)
            try:
                for reading in child.read(paths[len(readings) :], depth, self._stop):
                    readings.append(reading)  # noqa: PERF402 - what came before the process ended stays
            except _Ended as ended:
                child.end()
                child = None
                readings.append(_failed(paths[len(readings)], ended.code, bounds=self._bounds, depth=depth))
            except Stopped:
                if child is not None:
                    child.end()
                raise
        if child is not None:
            with self._lock:
                self._idle.append(child)
        return readings


@dataclass
class _Child:
    """One process, used by one thread at a time."""

    bounds: Bounds
    _process: subprocess.Popen[bytes] = field(init=False)
    _held: bytes = field(default=b"", init=False)

    def __post_init__(self) -> None:
        package = str(Path(next(iter(ltx2core.__path__))).parent)
        path = os.pathsep.join([package, *filter(None, [os.environ.get("PYTHONPATH")])])
        # One thread each: OpenMP's threads of several processes wait for each other by spinning. -P: nothing is imported from the
        # current folder, which may be a folder of clips from anywhere.
        env = {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
        command = [sys.executable, "-P", "-m", "ltx2core.data.child", str(self.bounds.memory_bytes)]
        try:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                env=env,
                start_new_session=True,  # ctrl+c is for the program, which ends its readers itself
            )
        except OSError as error:
            raise DatasetError(
                f"No process can be started to read clips: {error}.", fix="Free some memory, or end other programs."
            ) from error

    def read(self, paths: list[Path], depth: Depth, stop: threading.Event) -> Iterator[Reading]:
        """Ask for all, then take the answers one by one. Raises _Ended for the first that got none."""
        bounds = self.bounds
        extras = {"depth": depth, "pixels": bounds.pixels, "header_seconds": bounds.header_seconds, "deep_seconds": bounds.deep_seconds}
        try:
            assert self._process.stdin is not None
            self._process.stdin.write("".join(json.dumps({"path": os.fspath(path), **extras}) + "\n" for path in paths).encode())
            self._process.stdin.flush()
        except OSError:
            raise _Ended("decoder_crashed") from None
        for path in paths:
            yield _reading(path, self._answer(bounds.deadline(depth), stop))

    def _answer(self, seconds: float, stop: threading.Event) -> dict[str, Any]:
        assert self._process.stdout is not None
        deadline = time.monotonic() + seconds
        with selectors.DefaultSelector() as selector:
            selector.register(self._process.stdout, selectors.EVENT_READ)
            while b"\n" not in self._held:
                if stop.is_set():
                    raise Stopped("The scan was stopped.")
                if (left := deadline - time.monotonic()) <= 0:
                    raise _Ended("timed_out")
                if selector.select(min(left, 0.2)):
                    data = os.read(self._process.stdout.fileno(), 1 << 16)
                    if not data:
                        raise _Ended("decoder_crashed")
                    self._held += data
        line, _, self._held = self._held.partition(b"\n")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def end(self) -> None:
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                with contextlib.suppress(OSError):  # what was not yet written goes to nobody
                    pipe.close()


def _reading(path: Path, said: dict[str, Any]) -> Reading:
    if "failed" in said:
        return _failed(path, said["failed"], said["text"])
    found = said["inspection"]
    clip = clip_from_json(path, said["clip"])
    kept = all(problem.code != "unreadable" for problem in clip.problems)  # permissions and links change without the file
    return Reading(clip=clip, inspection=inspection_from_json(found) if found is not None else None, kept=kept)


def _failed(path: Path, code: str, detail: str = "", *, bounds: Bounds | None = None, depth: Depth = "deep") -> Reading:
    name, again = path.name, "Encode it again, or leave it out."
    memory = (bounds.memory_bytes if bounds else MEMORY_BYTES) / 2**30
    texts = {
        "timed_out": f"{name} was still being read after {bounds.deadline(depth) if bounds else 0:.0f} s; its reader was ended.",
        "out_of_memory": f"{name} takes more than {memory:.3g} GiB of memory to decode.",
        "decoder_crashed": f"{name} made the decoder crash{f' ({detail})' if detail else ''}; only its own process ended.",
    }
    return Reading(clip=Clip(path=path, problems=(Problem(code=code, level="error", text=texts[code], fix=again),)), kept=False)
