"""Clips decoded by other processes, ahead of the encoder that takes them, in the order in which they are asked for.

Processes and not threads: a file that crashes FFmpeg ends a process of its own, and Python's lock, which threads would hold between
frames, stays free for the thread that feeds the GPU. What is decoded and not yet taken is bounded in bytes. Frames come through a pipe
into memory that the GPU can copy from by itself.
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
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch

import ltx2core
from ltx2core.errors import DatasetError, Stopped
from ltx2core.hardware.helper_memory import HELPERS, peak_of
from ltx2core.hardware.limits import locked_for, usable_cores

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from torch import Tensor

MOST_PROCESSES = 16
PIPE_BYTES = 1 << 20  # the most that Linux lets any user have
LIBRARIES_BYTES = 4 << 30  # of address space, what a decoder holds back of an 8192 x 8192 clip counted in; frames come on top
_POLL_SECONDS = 0.1
_DTYPES = {"uint8": torch.uint8, "bool": torch.bool, "float32": torch.float32}


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What to decode (decoder.py). rotation: None takes the file's own. Sound has seconds and sample_rate, all else a size.

    start: seconds into the file. crop: what of a picture is kept, as data/clip.py's Crop has it: across, down, zoom.
    """

    kind: Literal["frames", "still", "linked", "mask", "sound", "silence"]
    path: str
    width: int = 0
    height: int = 0
    frames: int = 0
    fps: float = 0.0
    rotation: int | None = None
    seconds: float = 0.0
    sample_rate: int = 0
    start: float = 0.0
    crop: tuple[float, float, float] = (0.5, 0.5, 1.0)

    @property
    def array_bytes(self) -> int:
        """What decoding it takes, and holds until it is taken."""
        return 8 * round(self.seconds * self.sample_rate) if self.seconds else 3 * self.width * self.height * self.frames


@dataclass(frozen=True, slots=True, kw_only=True)
class Decoded:
    """An array as it was decoded, on the CPU: frames uint8 [F, H, W, 3], sound float32 [2, n], a mask bool [f, h, w].

    valid: samples of sound before its padding.
    """

    array: Tensor
    valid: int = 0


class Ahead:
    """Decodes requests, in order. Use it in a `with`, iterate once; its processes end with it."""

    def __init__(
        self,
        requests: Sequence[Request],
        *,
        processes: int,
        max_bytes: int,
        pinned: bool = False,
        is_made: Callable[[int], bool] = lambda _: False,
        should_stop: Callable[[], bool] = lambda: False,
        seconds_allowed: float = 300.0,
    ) -> None:
        """max_bytes: of what is being decoded or waits. is_made: whether a request, by its place, need not be decoded any more.
        seconds_allowed: for one request; its process is killed then.
        """
        self._requests, self._max_bytes, self._pinned = requests, max_bytes, pinned
        self._is_made, self._should_stop, self._seconds_allowed = is_made, should_stop, seconds_allowed
        self._changed = threading.Condition()
        self._ready: dict[int, Decoded | DatasetError | None] = {}
        self._next = self._taken = self._bytes = 0
        self._closed = False
        largest = max((request.array_bytes for request in requests), default=1)
        count = max(1, min(processes, MOST_PROCESSES, len(requests), max_bytes // max(self._held(largest), 1)))
        address_space, threads = LIBRARIES_BYTES + 3 * largest, max(1, usable_cores() // count)
        self._threads = [threading.Thread(target=self._work, args=(address_space, threads), daemon=True) for _ in range(count)]
        self._peaks: list[int] = []  # of host memory, of the processes of each thread
        self.seconds_waited = 0.0  # by the one who takes

    def __enter__(self) -> Ahead:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        for thread in self._threads:
            thread.join()
        HELPERS.held(sum(self._peaks))

    def __iter__(self) -> Iterator[Decoded | DatasetError | None]:
        """What became of each request; None for one that need not be decoded any more. Raises Stopped when asked to."""
        for index in range(len(self._requests)):
            begin = time.perf_counter()
            with self._changed:
                while index not in self._ready:
                    if self._should_stop():
                        raise Stopped("Stopped while caching; what was encoded is kept.")
                    self._changed.wait(_POLL_SECONDS)
                found = self._ready.pop(index)
            self.seconds_waited += time.perf_counter() - begin
            yield found
            with self._changed:
                self._taken = index + 1
                self._bytes -= self._held(self._requests[index].array_bytes)
                self._changed.notify_all()

    def _held(self, size: int) -> int:
        """Of host memory, for an array of so many bytes."""
        return locked_for(size) if self._pinned else size

    def _work(self, address_space: int, threads: int) -> None:
        process: _Process | None = None
        most = 0
        try:
            while (index := self._claim()) is not None:
                request = self._requests[index]
                found: Decoded | DatasetError | None
                try:
                    if self._is_made(index):
                        self._give(index, None)
                        continue
                    process = process or _Process(address_space, threads)
                    found = process.decode(request, pinned=self._pinned, seconds=self._seconds_allowed, closed=lambda: self._closed)
                except Exception as error:  # noqa: BLE001 - the last frame of a worker: without an answer the reader would wait for ever
                    if process is not None:
                        most = max(most, process.end())
                    process = None
                    reason = error.reason if isinstance(error, _Ended) else f"it cannot be decoded ({type(error).__name__}: {error})."
                    found = DatasetError(reason)
                self._give(index, found)
        finally:
            if process is not None:
                most = max(most, process.end())
            self._peaks.append(most)

    def _give(self, index: int, found: Decoded | DatasetError | None) -> None:
        with self._changed:
            self._ready[index] = found
            self._changed.notify_all()

    def _claim(self) -> int | None:
        """The next request, once there is room for it; None when there is none, or no one who wants it."""
        with self._changed:
            while not self._closed and self._next < len(self._requests):
                size = self._held(self._requests[self._next].array_bytes)
                if self._next == self._taken or self._bytes + size <= self._max_bytes:  # the one that is waited for always goes
                    self._bytes += size
                    self._next += 1
                    return self._next - 1
                self._changed.wait()
            return None


def _widen(pipe: int) -> None:
    """Let a pipe hold more: a clip of 300 MB goes through it, by default in 5,000 pieces of 64 KiB."""
    with contextlib.suppress(ImportError, AttributeError, OSError):  # not on Linux, or more than a user may have
        import fcntl

        fcntl.fcntl(pipe, fcntl.F_SETPIPE_SZ, PIPE_BYTES)


class _Ended(Exception):  # noqa: N818 (it is how a process ends)
    """A process died, or was given up."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class _Process:
    """A decoding process, for one thread."""

    def __init__(self, address_space: int, threads: int) -> None:
        package = str(Path(next(iter(ltx2core.__path__))).parent)
        path = os.pathsep.join([package, *filter(None, [os.environ.get("PYTHONPATH")])])
        # One thread each: those of several processes would wait for each other by spinning. -P: nothing is imported from the current
        # folder, which may be one of clips from anywhere.
        env = {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
        command = [sys.executable, "-P", "-m", "ltx2core.caching.decoder", str(address_space), str(threads)]
        pipe, silent = subprocess.PIPE, subprocess.DEVNULL
        # A session of its own: ctrl+c is for the program, which ends its decoders itself.
        self._process = subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=silent, env=env, bufsize=0, start_new_session=True)
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._input, self._output = self._process.stdin, self._process.stdout
        _widen(self._output.fileno())
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._output, selectors.EVENT_READ)

    def decode(self, request: Request, *, pinned: bool, seconds: float, closed: Callable[[], bool]) -> Decoded | DatasetError:
        """What the process answers. Raises _Ended when it cannot, is too slow, or nobody waits for it any more."""
        deadline = time.monotonic() + seconds
        try:
            self._input.write(json.dumps(asdict(request)).encode() + b"\n")
        except OSError:
            raise self._died() from None
        line = bytearray()
        while not line.endswith(b"\n"):
            self._wait(deadline, seconds, closed)
            byte = os.read(self._output.fileno(), 1)  # not more: the array's bytes follow
            if not byte:
                raise self._died()
            line += byte
        said: dict[str, Any] = json.loads(line)
        if "error" in said:
            return DatasetError(said["error"])
        array = torch.empty(said["shape"], dtype=_DTYPES[said["dtype"]], pin_memory=pinned)
        view = memoryview(array.reshape(-1).view(torch.uint8).numpy())  # type: ignore[arg-type]
        filled = 0
        while filled < len(view):
            self._wait(deadline, seconds, closed)
            count = self._output.readinto(view[filled:])  # type: ignore[attr-defined]
            if not count:
                raise self._died()
            filled += count
        return Decoded(array=array, valid=said.get("valid", 0))

    def _wait(self, deadline: float, seconds: float, closed: Callable[[], bool]) -> None:
        while not self._selector.select(_POLL_SECONDS):
            if closed():
                raise _Ended("it is not wanted any more.")
            if time.monotonic() > deadline:
                raise _Ended(f"it was still being decoded after {seconds:.0f} s.")

    def _died(self) -> _Ended:
        code = self._process.wait()
        how = f"signal {-code}" if code < 0 else f"exit status {code}"
        return _Ended(f"it made the decoder crash ({how}).")

    def end(self) -> int:
        """End it; the most host memory that it has held, in bytes, 0 where that is not known."""
        peak = peak_of(self._process.pid) or 0
        self._selector.close()
        self._process.kill()
        self._process.wait()
        for pipe in (self._input, self._output):
            with contextlib.suppress(OSError):
                pipe.close()
        return peak
