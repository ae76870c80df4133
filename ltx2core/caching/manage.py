"""Looking after the cache as a whole: how much it holds, whether it is sound, and what a config no longer needs."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ltx2core.caching.store import KINDS
from ltx2core.caching.tensors import read_tensors

if TYPE_CHECKING:
    from collections.abc import Callable, Collection
    from pathlib import Path

    from ltx2core.caching.store import Kind, Store


@dataclass(frozen=True, slots=True, kw_only=True)
class CacheSize:
    """Entries of one kind and their bytes on disk."""

    kind: Kind
    entries: int
    file_bytes: int


def measure_cache(store: Store) -> list[CacheSize]:
    """What the cache holds, one line a kind."""
    sizes: dict[Kind, list[int]] = {kind: [] for kind in KINDS}
    for kind, path in store.entries():
        with contextlib.suppress(FileNotFoundError):  # another process removed it meanwhile
            sizes[kind].append(path.stat().st_size)
    return [CacheSize(kind=kind, entries=len(found), file_bytes=sum(found)) for kind, found in sizes.items()]


def verify_cache(store: Store, *, on_entry: Callable[[int], None] | None = None) -> list[Path]:
    """The entries that cannot be used: unreadable, cut short, or with values that are not finite. Reads every one of them whole."""
    damaged = []
    for done, (_, path) in enumerate(store.entries(), start=1):
        tensors = read_tensors(path)
        if tensors is None or any(tensor.is_floating_point() and not tensor.isfinite().all() for tensor in tensors.values()):
            damaged.append(path)
        if on_entry is not None:
            on_entry(done)
    return damaged


def prune_cache(store: Store, *, keep: Collection[str]) -> tuple[int, int]:
    """Remove every entry whose name is not in `keep` (CachePass.names gives a config's): how many, and their bytes.

    Other runs that share the cache make again what they miss.
    """
    removed = [(path, path.stat().st_size) for _, path in store.entries() if path.stem not in keep]
    for path, _ in removed:
        path.unlink(missing_ok=True)
    return len(removed), sum(size for _, size in removed)
