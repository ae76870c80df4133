"""Ranks as threads of the test's process: a run of several costs no more than one, for no interpreter has to load torch again."""

from __future__ import annotations

import gc
import json
import os
import threading
from typing import TYPE_CHECKING, TypeVar

import torch
from torch.distributed import HashStore

from ltx2core.distributed.follow import Voice, run
from ltx2core.distributed.ranks import Together

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

_T = TypeVar("_T")


class ThreadRank:
    """What launch.py needs of a process. It follows the run as the process would, from the task on its stdin to the last word."""

    def __init__(self, rank: int, size: int, *, log: Path) -> None:
        given, write = os.pipe()
        read, said = os.pipe()
        self.stdin, self.stdout = os.fdopen(write, "wb"), os.fdopen(read, "rb")
        self.code = 0
        self._thread = threading.Thread(target=self._run, args=(rank, size, given, said), daemon=True)
        self._thread.start()

    def _run(self, rank: int, size: int, given: int, said: int) -> None:
        with os.fdopen(given) as tasks, os.fdopen(said, "w") as out:
            self.code = run(rank, size, lambda: json.loads(tasks.readline()), Voice(out))
            gc.collect()  # its connections go with it, as a process's do

    def wait(self) -> int:
        self._thread.join(60)
        return self.code

    def kill(self) -> None:
        return


def in_ranks(size: int, act: Callable[[Together], _T]) -> list[_T]:
    """What `act` gives on each of so many ranks, which are threads. An exception of one of them is raised."""
    store = HashStore()
    found: dict[int, _T] = {}
    errors: list[BaseException] = []

    def rank(number: int) -> None:
        try:
            found[number] = act(Together(store, rank=number, size=size, device=torch.device("cpu")))
        except BaseException as error:  # noqa: BLE001 - handed on
            errors.append(error)

    threads = [threading.Thread(target=rank, args=(number,)) for number in range(size)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    if errors:
        raise errors[0]
    return [found[number] for number in range(size)]
