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
    from ltx2core.data.repair.plan import Repair

Depth = Literal["header", "deep"]

# Above what an 8192 x 8192 clip takes: 17 frames of 100 MB that the decoder may hold back, twice that with 10 bits a colour.
MEMORY_BYTES = 4 << 30
_MAY_PASS = ("unreadable", "out_of_memory")  # permissions, links and memory change without the file


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """How long a file may take. The reader stops by itself at the first two; `grace` later its process is killed."""

    header_seconds: float = 20.0
    deep_seconds: float = 60.0
    grace: float = 15.0
    mend_seconds: float = 1800.0  # encoding a long clip takes many times its length
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Mended:
    """What became of a repair: the frames of each file that was written, or why none was."""

    frames: tuple[int, ...] = ()
    trouble: str = ""


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

    def mend(self, path: Path, repair: Repair, targets: Sequence[Path]) -> Future[Mended]:
        """Do a repair; see repair/mend.py. The future raises Stopped when this is closed first."""
        return self._threads.submit(self._mend, path, repair, list(targets))

    def _read(self, paths: list[Path], depth: Depth) -> list[Reading]:
        bounds = self._bounds
        extras = {"depth": depth, "pixels": bounds.pixels, "header_seconds": bounds.header_seconds, "deep_seconds": bounds.deep_seconds}
        asked: list[dict[str, object]] = [{"path": os.fspath(path), **extras} for path in paths]
        said = self._ask(asked, bounds.deadline(depth))
        return [_reading(path, answer, bounds, depth) for path, answer in zip(paths, said, strict=True)]

    def _mend(self, path: Path, repair: Repair, targets: list[Path]) -> Mended:
        asked: dict[str, object] = {
            "path": os.fspath(path),
            "repair": repair.to_json(),
            "targets": [os.fspath(target) for target in targets],
        }
        (answer,) = self._ask([asked], self._bounds.mend_seconds)
        if "failed" in answer:
            return Mended(trouble=answer["text"] or _failure(path.name, answer["failed"], self._bounds, self._bounds.mend_seconds))
        return Mended(frames=tuple(answer["frames"]))

    def _ask(self, asked: list[dict[str, object]], seconds: float) -> list[dict[str, Any]]:
        """The answer to each, in order; {"failed": code, "text": ""} where the process ended over it."""
        answers: list[dict[str, Any]] = []
        with self._lock:
            child = self._idle.pop() if self._idle else None
        while len(answers) < len(asked):
            child = child or _Child(self._bounds.memory_bytes)
            try:
                for answer in child.ask(asked[len(answers) :], seconds, self._stop):
                    answers.append(answer)  # noqa: PERF402 - what came before the process ended stays
            except _Ended as ended:
                child.end()
                child = None
                answers.append({"failed": ended.code, "text": ""})
            except Stopped:
                child.end()
                raise
        if child is not None:
            with self._lock:
                self._idle.append(child)
        return answers


@dataclass
class _Child:
    """One process, used by one thread at a time."""

    memory_bytes: int
    _process: subprocess.Popen[bytes] = field(init=False)
    _held: bytes = field(default=b"", init=False)

    def __post_init__(self) -> None:
        package = str(Path(next(iter(ltx2core.__path__))).parent)
        path = os.pathsep.join([package, *filter(None, [os.environ.get("PYTHONPATH")])])
        # One thread each: OpenMP's threads of several processes wait for each other by spinning. -P: nothing is imported from the
        # current folder, which may be a folder of clips from anywhere.
        env = {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
        command = [sys.executable, "-P", "-m", "ltx2core.data.child", str(self.memory_bytes)]
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

    def ask(self, asked: list[dict[str, object]], seconds: float, stop: threading.Event) -> Iterator[dict[str, Any]]:
        """Ask for all, then take the answers one by one. Raises _Ended for the first that got none in so many seconds."""
        try:
            assert self._process.stdin is not None
            self._process.stdin.write("".join(json.dumps(one) + "\n" for one in asked).encode())
            self._process.stdin.flush()
        except OSError:
            raise _Ended("decoder_crashed") from None
        for _ in asked:
            yield self._answer(seconds, stop)

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


def _reading(path: Path, said: dict[str, Any], bounds: Bounds, depth: Depth) -> Reading:
    if "failed" in said:
        text = _failure(path.name, said["failed"], bounds, bounds.deadline(depth), said["text"])
        problem = Problem(code=said["failed"], level="error", text=text, fix="Encode it again, or leave it out.")
        return Reading(clip=Clip(path=path, problems=(problem,)), kept=False)
    found = said["inspection"]
    clip = clip_from_json(path, said["clip"])
    kept = all(problem.code not in _MAY_PASS for problem in clip.problems)
    return Reading(clip=clip, inspection=inspection_from_json(found) if found is not None else None, kept=kept)


def _failure(name: str, code: str, bounds: Bounds, seconds: float, detail: str = "") -> str:
    texts = {
        "timed_out": f"{name} was still being read after {seconds:.0f} s; its reader was ended.",
        "out_of_memory": f"{name} takes more than {bounds.memory_bytes / 2**30:.3g} GiB of memory to decode.",
        "decoder_crashed": f"{name} made the decoder crash{f' ({detail})' if detail else ''}; only its own process ended.",
    }
    return texts[code]
