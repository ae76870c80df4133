"""Which clips a step trains on, and its random draws: pure functions of seed and step, so that a resumed run goes on exactly."""

from __future__ import annotations

import hashlib
import random
from dataclasses import dataclass
from functools import lru_cache
from itertools import accumulate
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Generator


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """A clip to draw: `group` holds what may share a batch (bucket and audio length), `times` how often an epoch shows it."""

    group: str
    times: int = 1


class DataOrder:
    """The endless sequence of batches of a run. Each epoch shows every clip `times` times; a batch never mixes groups."""

    def __init__(self, entries: Sequence[Entry], *, batch_size: int, seed: int) -> None:
        if not entries or any(entry.times < 1 for entry in entries):
            raise ValueError("expected entries that are each shown at least once")
        self._entries = tuple(entries)
        self._batch_size = batch_size
        self._seed = seed
        counts: dict[str, int] = {}
        for entry in entries:
            counts[entry.group] = counts.get(entry.group, 0) + entry.times
        self._samples_per_epoch = sum(counts.values())
        self.batches_per_epoch = sum(-(-count // batch_size) for count in counts.values())
        self._epoch = lru_cache(maxsize=2)(self._make_epoch)
        self._before = lru_cache(maxsize=2)(lambda epoch: tuple(accumulate(map(len, self._epoch(epoch)), initial=0)))

    def batch(self, index: int) -> tuple[int, ...]:
        """The clips, by number, of the run's batch `index`, counted from 0 over all epochs."""
        epoch, place = divmod(index, self.batches_per_epoch)
        return self._epoch(epoch)[place]

    def samples_before(self, index: int) -> int:
        """How many samples the run has seen before its batch `index`."""
        epoch, place = divmod(index, self.batches_per_epoch)
        return epoch * self._samples_per_epoch + self._before(epoch)[place]

    def _make_epoch(self, epoch: int) -> tuple[tuple[int, ...], ...]:
        draw = random.Random(derive_seed(self._seed, "order", epoch))
        groups: dict[str, list[int]] = {}
        for number, entry in enumerate(self._entries):
            groups.setdefault(entry.group, []).extend([number] * entry.times)
        batches: list[tuple[int, ...]] = []
        for name in sorted(groups):
            draw.shuffle(groups[name])
            batches += [tuple(groups[name][start : start + self._batch_size]) for start in range(0, len(groups[name]), self._batch_size)]
        draw.shuffle(batches)
        return tuple(batches)


def derive_seed(seed: int, *purpose: object) -> int:
    """A seed of its own for each purpose: 63 bits, the same on every machine and in every process."""
    text = "/".join(str(part) for part in (seed, *purpose))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def generator_for(seed: int, *purpose: object) -> Generator:
    """A CPU random generator for one purpose, such as the noise of one batch."""
    import torch

    return torch.Generator().manual_seed(derive_seed(seed, *purpose))
