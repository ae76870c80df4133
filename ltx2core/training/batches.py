"""Which clips a step trains on, and its random draws: pure functions of seed and step, so that a resumed run goes on exactly."""

from __future__ import annotations

import hashlib
import random
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import accumulate
from typing import TYPE_CHECKING, Protocol

from ltx2core.data.clip import Times

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from torch import Generator


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """A clip to draw: `group` holds what may share a batch (bucket, audio length, treatment), `times` how often an epoch shows it.

    clips: the numbers of its stretches, of which each visit takes another one; empty stands for the entry's own number.
    batch_size: of its group; None takes the run's. dataset, schedule: where it belongs, and when that is drawn from.
    """

    group: str
    times: int = 1
    clips: tuple[int, ...] = ()
    batch_size: int | None = None
    dataset: str = ""
    schedule: Times = field(default_factory=Times)


class Order(Protocol):
    """The endless sequence of batches of a run: a pure function of entries, seed and number."""

    def batch(self, index: int) -> tuple[int, ...]:
        """The clips, by number, of the run's batch `index`, counted from 0 over all epochs."""
        ...

    def batches_in(self, epochs: int) -> int:
        """How many batches the first epochs have."""
        ...

    def samples_before(self, index: int) -> int:
        """How many samples the run has seen before its batch `index`."""
        ...


class DataOrder:
    """Each epoch shows every clip `times` times; a batch never mixes groups."""

    def __init__(self, entries: Sequence[Entry], *, batch_size: int, seed: int) -> None:
        if not entries or any(entry.times < 1 for entry in entries):
            raise ValueError("expected entries that are each shown at least once")
        self._entries = tuple(entries)
        self._batch_size = batch_size
        self._seed = seed
        counts: dict[str, int] = {}
        sizes: dict[str, int] = {}
        for entry in entries:
            counts[entry.group] = counts.get(entry.group, 0) + entry.times
            if sizes.setdefault(entry.group, entry.batch_size or batch_size) != (entry.batch_size or batch_size):
                raise ValueError(f"group {entry.group} has two batch sizes")
        self._sizes = sizes
        self._samples_per_epoch = sum(counts.values())
        self.batches_per_epoch = sum(-(-count // sizes[group]) for group, count in counts.items())
        self._epoch = lru_cache(maxsize=2)(self._make_epoch)
        self._before = lru_cache(maxsize=2)(lambda epoch: tuple(accumulate(map(len, self._epoch(epoch)), initial=0)))

    def batch(self, index: int) -> tuple[int, ...]:
        epoch, place = divmod(index, self.batches_per_epoch)
        return self._epoch(epoch)[place]

    def batches_in(self, epochs: int) -> int:
        return epochs * self.batches_per_epoch

    def samples_before(self, index: int) -> int:
        epoch, place = divmod(index, self.batches_per_epoch)
        return epoch * self._samples_per_epoch + self._before(epoch)[place]

    def _make_epoch(self, epoch: int) -> tuple[tuple[int, ...], ...]:
        draw = random.Random(derive_seed(self._seed, "order", epoch))
        groups: dict[str, list[int]] = {}
        for number, entry in enumerate(self._entries):
            groups.setdefault(entry.group, []).extend([number] * entry.times)
        batches: list[tuple[int, ...]] = []
        for name in sorted(groups):
            size = self._sizes[name]
            draw.shuffle(groups[name])
            batches += [tuple(groups[name][start : start + size]) for start in range(0, len(groups[name]), size)]
        draw.shuffle(batches)
        return tuple(self._shown(batches, epoch))

    def _shown(self, batches: Sequence[tuple[int, ...]], epoch: int) -> Iterator[tuple[int, ...]]:
        """The batches of an epoch with each entry's clip in its place."""
        seen = [epoch * entry.times for entry in self._entries]
        for batch in batches:
            clips = []
            for number in batch:
                clips.append(clip_at(self._entries, number, seen[number], seed=self._seed))
                seen[number] += 1
            yield tuple(clips)


def clip_at(entries: Sequence[Entry], number: int, visit: int, *, seed: int) -> int:
    """The clip that an entry shows at its visit, counted from 0: its stretches take turns, in another order each time round."""
    clips = entries[number].clips
    if len(clips) < 2:
        return clips[0] if clips else number
    round_, place = divmod(visit, len(clips))
    return random.Random(derive_seed(seed, "stretch", number, round_)).sample(clips, len(clips))[place]


def derive_seed(seed: int, *purpose: object) -> int:
    """A seed of its own for each purpose: 63 bits, the same on every machine and in every process."""
    text = "/".join(str(part) for part in (seed, *purpose))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def generator_for(seed: int, *purpose: object) -> Generator:
    """A CPU random generator for one purpose, such as the noise of one batch."""
    import torch

    return torch.Generator().manual_seed(derive_seed(seed, *purpose))
