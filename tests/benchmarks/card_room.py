"""Which of a machine's cards a case takes, among others that run at the same time."""

from __future__ import annotations

import contextlib
import math
import os
import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator


class Cards:
    """Hands out cards: each to one case at a time, or to as many as their caps leave room for on cards of `gib`, and in RAM."""

    def __init__(self, count: int, *, gib: float = 0.0, ram_gib: float = math.inf, at_once: float = math.inf) -> None:
        """gib: of each card that cases share; 0 for one case at a time on each. ram_gib, at_once: of all cases that run together."""
        self._shared, self._all, self._places = bool(gib), _mib(gib or 1.0), at_once
        self._free = [self._all] * count
        self._ram = self._all_ram = _mib(ram_gib)
        self._changed = threading.Condition()

    @contextlib.contextmanager
    def room(self, cap_gib: float | None, ram_gib: float = 0.0, *, count: int = 1) -> Iterator[tuple[int, ...]]:
        """The numbers of so many cards, those with the most room, once all of them have enough.

        cap_gib: on each of them, None for all of a card. ram_gib: that the case takes; one that takes more than there is comes alone.
        """
        needed = min(_mib(cap_gib), self._all) if self._shared and cap_gib else self._all
        ram = min(_mib(ram_gib), self._all_ram)
        with self._changed:
            self._changed.wait_for(lambda: self._has_room(needed, ram, count))
            chosen = tuple(sorted(range(len(self._free)), key=lambda card: -self._free[card])[:count])
            self._take(chosen, needed, ram, 1)
        try:
            yield chosen
        finally:
            with self._changed:
                self._take(chosen, -needed, -ram, -1)
                self._changed.notify_all()

    def _has_room(self, mib: float, ram: float, count: int) -> bool:
        return sum(free >= mib for free in self._free) >= count and self._ram >= ram and self._places >= 1

    def _take(self, cards: tuple[int, ...], mib: float, ram: float, places: int) -> None:
        for card in cards:
            self._free[card] -= mib
        self._ram -= ram
        self._places -= places


def _mib(gib: float) -> float:
    """Whole MiB, which add up to what they were; infinity stays."""
    return gib if math.isinf(gib) else math.ceil(1024 * gib)


def visible_name(card: int) -> str:
    """A card as CUDA_VISIBLE_DEVICES is to name it, where that may already choose among the machine's."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES", "")
    return visible.split(",")[card] if visible else str(card)
