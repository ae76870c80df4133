"""How long a step's two sweeps over the blocks take when some of them travel: each block waits for its weights, each copy for its slot.

The order is offload/ring.py's. Of S blocks that travel, block k uses slot k mod R; when it is done forwards its slot takes block k + R,
when it is done backwards, k - R. The last R of the forward sweep are there when the backward sweep begins, the first R when the next step
does. Copies to the card go one after the other over one link. Inputs of blocks that wait in host memory come over it, too, each asked for
when a block so many before it begins (offload/ahead.py).
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Sweeps:
    """In seconds: forward, and backward of a block that kept all; again: a forward that is computed a second time; attended: of that, saved
    where self-attention was kept; between: from a step's end to the next one's blocks; load, fetch: a block's copy, and its inputs'.
    ahead: of how many blocks the inputs are asked for while one is computed."""

    blocks: int
    streamed: int
    slots: int
    kept: int
    attention: int
    forward: float
    backward: float
    again: float
    attended: float
    between: float
    load: float
    fetch: float
    ahead: int = 1


def travelling_blocks(streamed: int, count: int) -> list[int]:
    """Which blocks travel: evenly between those that stay, so that copies have compute to hide behind."""
    streamed = min(streamed, count)
    return [(2 * index + 1) * count // (2 * streamed) for index in range(streamed)]


def least_seconds(sweeps: Sweeps) -> float:
    """What compute and copies take when neither ever waits for the other but at the ends of a sweep."""
    ahead, back = sweeps.blocks * sweeps.forward, _backward_seconds(sweeps)
    loads = max(0, sweeps.streamed - sweeps.slots) * sweeps.load
    fetches = (sweeps.blocks - sweeps.kept) * sweeps.fetch
    return max(ahead, loads - sweeps.between) + max(back, loads + fetches - sweeps.between)


def look_seconds(sweeps: Sweeps) -> float:
    """Of a sweep forwards without gradients, one of several."""
    return max(sweeps.blocks * sweeps.forward, sweeps.streamed * sweeps.load)


def sweep_seconds(sweeps: Sweeps) -> float:
    """Of both sweeps of a step that follows another, what it waits for included."""
    if not sweeps.streamed and not sweeps.fetch:
        return sweeps.blocks * sweeps.forward + _backward_seconds(sweeps)
    places = {block: index for index, block in enumerate(travelling_blocks(sweeps.streamed, sweeps.blocks))}
    backwards = _backwards(sweeps, places)
    arrivals = dict.fromkeys(range(sweeps.slots), 0.0)
    now = free = 0.0  # of compute and of the link
    begun = 0.0
    for _ in range(2):  # the second begins with what the first has left under way
        begun = now
        for block in range(sweeps.blocks):
            place = places.get(block)
            if place is None:
                now += sweeps.forward
                continue
            now = max(now, arrivals[place]) + sweeps.forward
            if (following := place + sweeps.slots) < sweeps.streamed:
                arrivals[following] = free = max(free, now) + sweeps.load
        inputs: dict[int, float] = {}
        waiting = [block for block in range(sweeps.blocks) if backwards[block][1]] if sweeps.fetch else []
        for block in range(sweeps.blocks - 1, -1, -1):
            place, (seconds, again) = places.get(block), backwards[block]
            if again and sweeps.fetch:
                for wanted in reversed(waiting[-1 - sweeps.ahead :]):
                    if wanted not in inputs:
                        inputs[wanted] = free = max(free, now) + sweeps.fetch
                waiting.pop()
                now = max(now, inputs[block])
            if place is None:
                now += seconds
                continue
            now = max(now, arrivals[place]) + seconds
            if (following := place - sweeps.slots) >= 0:
                arrivals[following] = free = max(free, now) + sweeps.load
        now += sweeps.between
    return now - begun - sweeps.between


def _backwards(sweeps: Sweeps, places: dict[int, int]) -> list[tuple[float, bool]]:
    """Of each block the seconds of its backward, and whether it is computed again: the last that stay keep all, as the engine has it."""
    resident = [block for block in range(sweeps.blocks) if block not in places]
    kept = set(resident[max(0, len(resident) - sweeps.kept) :])
    again = [block for block in range(sweeps.blocks) if block not in kept]
    attending = set(again[max(0, len(again) - sweeps.attention) :])
    return [
        (
            sweeps.backward if block in kept else sweeps.backward + sweeps.again - (sweeps.attended if block in attending else 0.0),
            block not in kept,
        )
        for block in range(sweeps.blocks)
    ]


def _backward_seconds(sweeps: Sweeps) -> float:
    again = sweeps.blocks - sweeps.kept
    return sweeps.blocks * sweeps.backward + again * sweeps.again - min(sweeps.attention, again) * sweeps.attended
