"""The ring on the CPU, where copies are done at once: which block is in which slot, and how often one is loaded."""

from __future__ import annotations

import sys

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ltx2core.errors import RunError
from ltx2core.offload.host_memory import PinnedMemory
from ltx2core.offload.ring import Ring

CPU = torch.device("cpu")


def masters_of(count: int, nbytes: int = 8) -> list[PinnedMemory]:
    """Block k is full of the number k."""
    masters = [PinnedMemory(nbytes, register=False) for _ in range(count)]
    for index, master in enumerate(masters):
        master.tensor.fill_(index)
    return masters


def ring_of(count: int, slots: int) -> Ring:
    ring = Ring(masters_of(count), slots=slots, device=CPU)
    ring.settle()
    return ring


def visit(ring: Ring, index: int) -> None:
    assert (ring.acquire(index) == index).all()
    assert ring.acquire(index).data_ptr() == ring.slot_of(index).data_ptr()


def forwards(ring: Ring, *, wrap: bool = False, until: int | None = None) -> None:
    for index in range(ring.streamed if until is None else until):
        visit(ring, index)
        ring.release(index, following=ring.forward_follower(index, wrap=wrap))


def backwards(ring: Ring, *, until: int = 0) -> None:
    for index in reversed(range(until, ring.streamed)):
        visit(ring, index)
        ring.release(index, following=ring.backward_follower(index))


def loads_of(ring: Ring, *sweeps: object) -> int:
    before = ring.loads
    for sweep in sweeps:
        sweep(ring)  # type: ignore[operator]
    return ring.loads - before


SIZES = st.integers(1, 12).flatmap(lambda count: st.tuples(st.just(count), st.integers(1, count)))


@given(SIZES)
@settings(deadline=None)
def test_every_step_loads_twice_what_no_slot_holds(size: tuple[int, int]) -> None:
    count, slots = size
    ring = ring_of(count, slots)
    assert ring.loads == slots
    for _ in range(3):
        assert loads_of(ring, forwards, backwards) == 2 * (count - slots) == ring.loads_per_step()


@given(SIZES)
@settings(deadline=None)
def test_sweeps_forwards_alone_load_every_block_that_does_not_stay(size: tuple[int, int]) -> None:
    """Slots whose block comes round again in the same place keep it: those of the last blocks that no other follows."""
    count, slots = size
    ring = ring_of(count, slots)
    for _ in range(3):
        loaded = loads_of(ring, lambda ring: forwards(ring, wrap=True))
        assert loaded == count - slots + min(slots, count - slots)
    assert loads_of(ring, forwards, backwards) == ring.loads_per_step()


@given(SIZES, st.integers(0, 11), st.booleans())
@settings(deadline=None)
def test_after_a_sweep_that_was_broken_off_every_block_is_the_right_one_again(size: tuple[int, int], where: int, back: bool) -> None:
    count, slots = size
    ring = ring_of(count, slots)
    if back:
        forwards(ring)
        backwards(ring, until=min(where, count))
    else:
        forwards(ring, until=min(where, count))
    forwards(ring)  # each visit compares the numbers
    backwards(ring)
    assert loads_of(ring, forwards, backwards) == ring.loads_per_step()


@given(SIZES)
@settings(deadline=None)
def test_settling_brings_the_first_blocks_back_and_nothing_when_they_are_there(size: tuple[int, int]) -> None:
    ring = ring_of(*size)
    assert loads_of(ring, lambda ring: ring.settle()) == 0
    forwards(ring)
    ring.settle()
    assert loads_of(ring, lambda ring: [visit(ring, index) for index in range(size[1])]) == 0


def test_masters_that_have_changed_are_taken_anew() -> None:
    masters = masters_of(3)
    ring = Ring(masters, slots=2, device=CPU)
    ring.settle()
    for master in masters:
        master.tensor.add_(10)
    assert (ring.acquire(0) == 0).all()
    ring.reload()
    assert (ring.acquire(0) == 10).all()
    assert (ring.acquire(1) == 11).all()


@given(SIZES)
@settings(deadline=None, max_examples=30)
def test_a_ring_that_has_rested_brings_the_same_blocks_and_holds_nothing_meanwhile(size: tuple[int, int]) -> None:
    ring = ring_of(*size)
    forwards(ring)  # ends with the last blocks in the slots
    ring.rest()
    assert ring.slot_bytes == 0
    with pytest.raises(RuntimeError, match="rests"):
        ring.acquire(0)
    ring.reload()
    assert ring.slot_bytes == 8 * size[1]
    assert loads_of(ring, forwards, backwards) == ring.loads_per_step()


@pytest.mark.parametrize("slots", [0, 4])
def test_a_ring_has_a_slot_at_least_and_no_more_than_blocks(slots: int) -> None:
    with pytest.raises(ValueError, match=f"1 to 3 slots, got {slots}"):
        ring_of(3, slots)


def test_slots_take_their_own_memory_and_no_more() -> None:
    ring = ring_of(5, 2)
    assert ring.slot_bytes == 2 * 8
    assert ring.streamed == 5


def test_host_memory_is_as_large_as_asked_for_not_as_the_next_power_of_two() -> None:
    """Resident memory after writing all of it: within 3 % of 48 MiB and a bit, where a power of two would take 64."""
    psutil = pytest.importorskip("psutil")
    size, process = 48 * 2**20 + 4096, psutil.Process()
    before = process.memory_info().rss
    memory = PinnedMemory(size, register=False)
    memory.tensor.fill_(1)
    assert process.memory_info().rss - before < 1.03 * size
    assert memory.tensor.shape == (size,)
    assert memory.tensor.dtype == torch.uint8
    assert not memory.registered
    memory.close()


def test_memory_that_the_system_does_not_have_is_an_error_with_a_fix() -> None:
    with pytest.raises(RunError, match="GiB of host memory could not be had") as caught:
        PinnedMemory(sys.maxsize // 2, register=False)
    assert "fewer blocks" in caught.value.fix
