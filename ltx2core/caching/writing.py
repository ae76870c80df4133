"""Entries of the cache written on threads, while the next ones are computed; progress told in order, once they are on disk."""

from __future__ import annotations

from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING

from ltx2core.runs.events import Progress

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor

    from ltx2core.caching.link import Landing
    from ltx2core.caching.passes import CachePass
    from ltx2core.caching.store import Kind
    from ltx2core.runs.events import Phase

WRITERS = 4  # an entry is synced before it counts, which on a network disk takes longer than encoding a small clip
MOST_WRITES = 16  # that wait: their tensors are in host memory


class Writer:
    """Writes one pass's entries. Use it in a `with`: what it was given is on disk at its end, also when that comes early."""

    def __init__(self, work: CachePass, kind: Kind, *, total: int, phase: Phase) -> None:
        self._work, self._kind, self._total, self._phase, self._done = work, kind, total, phase, 0
        self._threads = ThreadPoolExecutor(WRITERS, thread_name_prefix="cache-writer")
        self._waiting: deque[tuple[str, Future[None] | None]] = deque()

    def __enter__(self) -> Writer:
        return self

    def __exit__(self, *_: object) -> None:
        self._threads.shutdown(wait=True)

    def write(self, name: str, tensors: Mapping[str, Tensor] | None, landing: Landing | None, *, source: str, item: str) -> None:
        """Write an entry, once its tensors have landed; None: there is nothing to write, and `item` is done with.

        Raises StorageError when an earlier one could not be written.
        """
        future = None if tensors is None or landing is None else self._threads.submit(self._save, name, tensors, landing, source)
        self._waiting.append((item, future))
        self.tell()

    def tell(self) -> None:
        """Say what is on disk by now. Raises StorageError when something could not be written."""
        while self._waiting and (len(self._waiting) > MOST_WRITES or self._waiting[0][1] is None or self._waiting[0][1].done()):
            self._tell()

    def finish(self) -> None:
        """Return when all is written. Raises StorageError when something could not be."""
        while self._waiting:
            self._tell()

    def _tell(self) -> None:
        item, future = self._waiting.popleft()
        if future is not None:
            future.result()
        self._done += 1
        self._work.emit(Progress(phase=self._phase, done=self._done, total=self._total, item=item))

    def _save(self, name: str, tensors: Mapping[str, Tensor], landing: Landing, source: str) -> None:
        landing.wait()
        self._work.store.save(self._kind, name, tensors, source=source)
