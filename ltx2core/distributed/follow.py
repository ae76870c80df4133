"""One of the run's other processes: `python -m ltx2core.distributed.follow RANK SIZE`, started by launch.py.

It trains as the run's process does, and says as little as it can: that it is ready, warnings that concern it alone, and why it ended.
"""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import sys
import threading
import traceback
from pathlib import Path
from queue import SimpleQueue
from typing import IO, TYPE_CHECKING, Any

from ltx2core.distributed.ranks import RankLost
from ltx2core.errors import Ltx2Error
from ltx2core.runs.events import Notice

if TYPE_CHECKING:
    from collections.abc import Callable

    from ltx2core.runs.events import Event


class Voice:
    """What this process says to the run's: a line of JSON each. Warnings of before training are kept until it begins, when the run's
    process has said its own and knows which of them are the same."""

    def __init__(self, out: IO[str]) -> None:
        self._out = out
        self._lock = threading.Lock()
        self._kept: list[Notice] | None = []

    def ready(self) -> None:
        self._say({"ready": True})

    def failed(self, text: str, *, fix: str = "", lost: bool = False) -> None:
        self._say({"failed": {"text": text, "fix": fix, "lost": lost}})

    def emit(self, event: Event) -> None:
        if not isinstance(event, Notice) or event.level == "info":
            return
        if self._kept is not None:
            self._kept.append(event)
        else:
            self._say({"notice": dataclasses.asdict(event)})

    def training_begins(self) -> None:
        kept, self._kept = self._kept or [], None
        for notice in kept:
            self.emit(notice)

    def _say(self, words: dict[str, Any]) -> None:
        with self._lock:
            self._out.write(json.dumps(words) + "\n")
            self._out.flush()


def main() -> int:
    """Follow the run until it ends; the exit code."""
    rank, size = int(sys.argv[1]), int(sys.argv[2])
    voice = Voice(os.fdopen(os.dup(1), "w"))
    os.dup2(2, 1)  # libraries print
    heard: SimpleQueue[dict[str, Any]] = SimpleQueue()
    threading.Thread(target=_listen, args=(heard,), daemon=True).start()
    return run(rank, size, heard.get, voice)


def run(rank: int, size: int, hear: Callable[[], dict[str, Any]], voice: Voice) -> int:
    """Follow the run and say what goes wrong; the exit code. hear: waits for what the run's process says next: the task, then that all are
    ready to meet."""
    try:
        from ltx2core.training.follower import follow  # now, while the run's process fills the cache: it loads torch

        follow(rank, size, hear(), voice, go=hear)
    except Ltx2Error as error:
        voice.failed(error.text, fix=error.fix, lost=isinstance(error, RankLost))
        return 1
    except Exception as error:  # noqa: BLE001 - the last frame of the process: what is not said here is never said
        traceback.print_exc()
        if type(error).__name__ == "OutOfMemoryError":
            voice.failed("its GPU has run out of memory.", fix="Lower the resolution or video.num_frames, or set train_batch_size to 1.")
        else:
            voice.failed(f"{type(error).__name__}: {error}")
        return 1
    return 0


def _listen(heard: SimpleQueue[dict[str, Any]]) -> None:
    """Take what the run's process says; end this one when that has ended, whatever is under way. That may have been killed: then nobody
    else removes the folder where all met."""
    task: dict[str, Any] | None = None
    while (line := sys.stdin.buffer.readline()).endswith(b"\n"):  # else its end, maybe in the middle of a line
        words = json.loads(line)
        task = task or words
        heard.put(words)
    if task is not None:
        shutil.rmtree(Path(task["store"]).parent, ignore_errors=True)
    os._exit(0)


if __name__ == "__main__":
    code = main()
    sys.stdout.flush()
    os._exit(code)  # threads of CUDA and NCCL that wait for another process must not keep this one
