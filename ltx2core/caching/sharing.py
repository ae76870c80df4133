"""How processes that fill one cache at the same time share the work: the second goes through it from the other end.

Each looks again before it decodes a clip whether the entry is there by now, so they meet in the middle. Nothing depends on it: without
locks, or where it goes wrong, an entry is made twice, with the same content and under the same name.
"""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

_T = TypeVar("_T")


@contextlib.contextmanager
def in_turn(folder: Path, jobs: Sequence[_T]) -> Iterator[Sequence[_T]]:
    """The jobs, backwards if another process is at work in the folder. The system ends a claim with its process, however that ends."""
    with contextlib.ExitStack() as held:
        yield jobs if claim(folder, held) else jobs[::-1]


def claim(folder: Path, held: contextlib.ExitStack, *, name: str = ".working") -> bool:
    """Whether no other process has claimed the folder; it is claimed until `held` is closed then. True where that cannot be known.

    name: of the file that says so; other names are other claims.
    """
    try:
        import fcntl

        folder.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(folder / name, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    except (ImportError, OSError):
        return True
    held.callback(os.close, descriptor)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:  # a file system without locks
        return True
    return True
