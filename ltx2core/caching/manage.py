"""Looking after the cache as a whole: how much it holds, whether it is sound, and what nothing needs any more."""

from __future__ import annotations

import contextlib
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ltx2core.caching.sharing import claim
from ltx2core.caching.store import KINDS
from ltx2core.caching.tensors import digest, read_metadata, read_tensors
from ltx2core.errors import RunError

if TYPE_CHECKING:
    from collections.abc import Callable, Collection
    from pathlib import Path

    from ltx2core.caching.store import Kind, Store

LEFTOVER_SECONDS = 3600  # a file that is still being written is younger


@dataclass(frozen=True, slots=True, kw_only=True)
class CacheSize:
    """Entries of one kind and their bytes on disk."""

    kind: Kind
    entries: int
    file_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Damage:
    """An entry that cannot be used, and why."""

    path: Path
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Pruned:
    """What was removed, or would be: entries by kind, and leftovers of processes that were killed while they wrote."""

    kinds: tuple[CacheSize, ...]
    leftovers: int
    leftover_bytes: int

    @property
    def entries(self) -> int:
        return sum(kind.entries for kind in self.kinds)

    @property
    def file_bytes(self) -> int:
        return sum(kind.file_bytes for kind in self.kinds) + self.leftover_bytes


def measure_cache(store: Store) -> list[CacheSize]:
    """What the cache holds, one line a kind."""
    return _sizes(list(store.entries()))


def verify_cache(store: Store, *, on_entry: Callable[[int], None] | None = None) -> list[Damage]:
    """The entries that cannot be used. Reads every one of them whole."""
    damaged = []
    for done, (_, path) in enumerate(store.entries(), start=1):
        if (reason := _damage(path)) is not None:
            damaged.append(Damage(path=path, reason=reason))
        if on_entry is not None:
            on_entry(done)
    return damaged


def prune_cache(store: Store, *, keep: Collection[str], only_list: bool = False) -> Pruned:
    """Remove every entry whose name is not in `keep`, and what killed processes left half written; only_list: remove nothing.

    Each file goes as a whole, so a prune that is broken off leaves a sound cache. Raises RunError while another process fills the cache.
    """
    with contextlib.ExitStack() as held:
        for kind in KINDS:
            if (store.root / kind).is_dir() and not claim(store.root / kind, held):
                raise RunError(f"Another process fills the cache in {store.root} now.", fix="Wait until it has ended.")
        unneeded = [(kind, path) for kind, path in store.entries() if path.stem not in keep]
        leftovers = [path for kind in KINDS for path in (store.root / kind).glob("??/.*.tmp.safetensors") if _age(path) > LEFTOVER_SECONDS]
        pruned = Pruned(kinds=tuple(_sizes(unneeded)), leftovers=len(leftovers), leftover_bytes=sum(_length(path) for path in leftovers))
        if not only_list:
            for path in [*(path for _, path in unneeded), *leftovers]:
                path.unlink(missing_ok=True)
    return pruned


def _damage(path: Path) -> str | None:
    metadata, tensors = read_metadata(path), read_tensors(path)
    if metadata is None or tensors is None:
        return "it cannot be read, or is cut short"
    if any(tensor.is_floating_point() and not tensor.isfinite().all() for tensor in tensors.values()):
        return "it has values that are not finite"
    if metadata.get("sha256", expected := digest(tensors)) != expected:
        return "its values are not those that were written"
    return None


def _sizes(entries: Collection[tuple[Kind, Path]]) -> list[CacheSize]:
    sizes: dict[Kind, list[int]] = {kind: [] for kind in KINDS}
    for kind, path in entries:
        with contextlib.suppress(FileNotFoundError):  # another process removed it meanwhile
            sizes[kind].append(path.stat().st_size)
    return [CacheSize(kind=kind, entries=len(found), file_bytes=sum(found)) for kind, found in sizes.items()]


def _length(path: Path) -> int:
    with contextlib.suppress(FileNotFoundError):
        return path.stat().st_size
    return 0


def _age(path: Path) -> float:
    with contextlib.suppress(FileNotFoundError):
        return time.time() - path.stat().st_mtime
    return 0.0
