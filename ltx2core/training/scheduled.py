"""The order of batches where datasets come and go, or are drawn from by chance. training/batches.py has the plain one.

Everything follows from entries, seed and the batch's number; what came before is computed anew after a resume, which takes a second
for a hundred thousand batches.
"""

from __future__ import annotations

import random
from bisect import bisect_right
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from ltx2core.data.clip import Times
from ltx2core.errors import DatasetError
from ltx2core.training.batches import DataOrder, Entry, Order, derive_seed

if TYPE_CHECKING:
    from collections.abc import Sequence


def make_order(entries: Sequence[Entry], *, batch_size: int, seed: int, accumulation: int = 1) -> Order:
    """The order of a run's batches: the plain one unless a dataset has a schedule. accumulation: batches in a step."""
    if all(entry.schedule == Times() for entry in entries):
        return DataOrder(entries, batch_size=batch_size, seed=seed)
    return ScheduledOrder(entries, batch_size=batch_size, seed=seed, accumulation=accumulation)


@dataclass(frozen=True, slots=True)
class _Dataset:
    """One dataset's own endless order, and its clips' numbers in the run."""

    name: str
    order: DataOrder
    schedule: Times

    def open_at(self, *, epoch: int, step: int) -> bool:
        times = self.schedule
        return (
            times.start_epoch <= epoch
            and (times.end_epoch is None or epoch <= times.end_epoch)
            and times.start_step <= step
            and (times.end_step is None or step <= times.end_step)
        )


class ScheduledOrder:
    """Batches never mix datasets. Each dataset goes through all its clips before it shows one again.

    With probabilities that are all 1, an epoch holds every batch of every dataset that is open, shuffled; a dataset that joins in the
    middle of one adds its batches to what is left, one that leaves takes them with it. Otherwise each batch is of a dataset drawn by
    probability among those that are open, and an epoch is as many batches as the datasets hold that are open at its beginning.
    """

    def __init__(self, entries: Sequence[Entry], *, batch_size: int, seed: int, accumulation: int = 1) -> None:
        self._seed, self._accumulation = seed, accumulation
        self._datasets: list[_Dataset] = []
        for name in dict.fromkeys(entry.dataset for entry in entries):
            own = [replace(entry, clips=entry.clips or (number,)) for number, entry in enumerate(entries) if entry.dataset == name]
            order = DataOrder(own, batch_size=batch_size, seed=derive_seed(seed, "dataset", name))
            self._datasets.append(_Dataset(name, order, own[0].schedule))
        self._weighted = any(dataset.schedule.probability != 1 for dataset in self._datasets)
        self._starts = [0]  # the first batch of each epoch that is known, and of the one after them
        self._drawn: list[tuple[int, int]] = []  # of each batch that is known: which dataset, and which of its batches
        self._samples = [0]  # before each batch that is known and was asked for
        self._next = [0] * len(self._datasets)  # of each dataset: its first batch that was not drawn yet

    def batch(self, index: int) -> tuple[int, ...]:
        while len(self._drawn) <= index:
            self._make_epoch()
        number, own = self._drawn[index]
        return self._datasets[number].order.batch(own)

    def batches_in(self, epochs: int) -> int:
        while len(self._starts) <= epochs:
            self._make_epoch()
        return self._starts[epochs]

    def samples_before(self, index: int) -> int:
        while len(self._samples) <= index:
            self._samples.append(self._samples[-1] + len(self.batch(len(self._samples) - 1)))
        return self._samples[index]

    def epoch_of(self, index: int) -> int:
        """The epoch of a batch, counted from 1."""
        self.batch(index)
        return bisect_right(self._starts, index)

    def _make_epoch(self) -> None:
        epoch, begin = len(self._starts), self._starts[-1]
        self._drawn += self._weighted_epoch(epoch, begin) if self._weighted else self._whole_epoch(epoch, begin)
        self._starts.append(len(self._drawn))

    def _whole_epoch(self, epoch: int, begin: int) -> list[tuple[int, int]]:
        draw = random.Random(derive_seed(self._seed, "order", epoch))
        made: list[tuple[int, int]] = []
        left: list[int] = []  # the datasets of the batches to come
        joined: set[int] = set()
        opened = self._open(epoch, begin)
        while True:
            left = [number for number in left if number in opened]
            left += [number for number in sorted(opened - joined) for _ in range(self._datasets[number].order.batches_per_epoch)]
            joined |= opened
            draw.shuffle(left)
            before = opened
            while left and opened == before:
                made.append(self._take(left.pop()))
                opened = self._open(epoch, begin + len(made), or_fail=False)
            if not left:
                return made

    def _weighted_epoch(self, epoch: int, begin: int) -> list[tuple[int, int]]:
        draw = random.Random(derive_seed(self._seed, "order", epoch))
        length = sum(self._datasets[number].order.batches_per_epoch for number in self._open(epoch, begin))
        made: list[tuple[int, int]] = []
        for place in range(length):
            opened = sorted(self._open(epoch, begin + place))
            weights = [self._datasets[number].schedule.probability for number in opened]
            made.append(self._take(draw.choices(opened, weights)[0]))
        return made

    def _take(self, number: int) -> tuple[int, int]:
        own = self._next[number]
        self._next[number] = own + 1
        return number, own

    def _open(self, epoch: int, index: int, *, or_fail: bool = True) -> set[int]:
        """The datasets that a batch may be of. Raises DatasetError when there is none."""
        step = index // self._accumulation + 1
        found = {number for number, dataset in enumerate(self._datasets) if dataset.open_at(epoch=epoch, step=step)}
        if not found and or_fail:
            raise DatasetError(
                f"In epoch {epoch}, at step {step}, no dataset is trained on: all have ended, or begin later.",
                fix="Let one begin earlier (start_epoch, start_step) or end later (end_epoch, end_step).",
            )
        return found
