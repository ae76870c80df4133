"""Blocks that come through staging buffers: the ring's bookkeeping with them, small buffers, and memory or a disk that cannot be read."""

from __future__ import annotations

import threading

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from test_ring import CPU, SIZES, backwards, forwards, loads_of, masters_of, visit
from torch import Tensor

from ltx2core.errors import RunError
from ltx2core.offload.host_memory import PinnedMemory
from ltx2core.offload.ring import Ring
from ltx2core.offload.staging import Staging


@given(SIZES, st.integers(0, 11))
@settings(deadline=None, max_examples=40)
def test_every_visit_finds_its_block_and_loads_are_as_many_as_without_staging(size: tuple[int, int], where: int) -> None:
    count, slots = size
    staging = Staging(device=CPU, piece_bytes=3, pieces=2)
    ring = Ring(masters_of(count), slots=slots, device=CPU, staging=staging)
    ring.settle()
    assert loads_of(ring, forwards, backwards) == ring.loads_per_step()
    forwards(ring, until=min(where, count))  # broken off
    forwards(ring)
    backwards(ring)
    assert loads_of(ring, forwards, backwards) == ring.loads_per_step()
    assert not ring.capturable
    ring.close()


def test_blocks_come_through_staging_buffers_again_after_a_rest() -> None:
    ring = Ring(masters_of(4), slots=2, device=CPU, staging=Staging(device=CPU, piece_bytes=3, pieces=2))
    ring.settle()
    forwards(ring)
    ring.rest()
    ring.reload()
    assert loads_of(ring, forwards, backwards) == ring.loads_per_step()
    ring.close()


def test_a_block_is_put_together_from_its_pieces_whatever_their_size() -> None:
    expected = torch.arange(1000).to(torch.uint8)
    for piece_bytes in (1000, 999, 7):
        staging, slot = Staging(device=CPU, piece_bytes=piece_bytes, pieces=2), torch.zeros(1000, dtype=torch.uint8)
        master = PinnedMemory(1000, register=False)
        master.tensor.copy_(expected)
        assert staging.send(master, slot, after=[]).result() is None
        assert torch.equal(slot, expected)
        staging.close()


def test_the_next_block_is_read_while_the_one_before_is_used() -> None:
    ring = Ring(masters_of(3), slots=2, device=CPU, staging=Staging(device=CPU, piece_bytes=8, pieces=1))
    ring.settle()
    visit(ring, 0)
    ring.release(0, following=2)
    visit(ring, 1)  # 2 is on its way to the other slot meanwhile
    visit(ring, 2)
    assert ring.loads == 3
    ring.close()


class Unreadable:
    """A block on a disk that is gone until it is back."""

    registered = False
    tensor = torch.zeros(8, dtype=torch.uint8)
    nbytes = 8

    def __init__(self) -> None:
        self.gone = True

    def read(self, start: int, target: Tensor) -> None:
        if self.gone:
            raise RunError("The disk is gone.")
        target.fill_(7)

    def close(self) -> None:
        return


def test_a_block_that_cannot_be_read_is_an_error_where_it_is_needed_and_read_again_afterwards() -> None:
    bad = Unreadable()
    ring = Ring([*masters_of(2), bad], slots=2, device=CPU, staging=Staging(device=CPU, piece_bytes=3, pieces=2))
    ring.settle()
    visit(ring, 0)
    ring.release(0, following=2)
    visit(ring, 1)
    with pytest.raises(RunError, match="The disk is gone"):
        ring.acquire(2)
    bad.gone = False
    assert (ring.acquire(2) == 7).all()
    ring.close()


def test_settling_takes_note_of_a_block_that_could_not_be_read() -> None:
    bad = Unreadable()
    ring = Ring([*masters_of(1), bad], slots=1, device=CPU, staging=Staging(device=CPU, piece_bytes=8, pieces=2))
    ring.settle()
    ring.release(0, following=1)
    ring.settle()
    visit(ring, 0)
    bad.gone = False
    assert (ring.acquire(1) == 7).all()
    ring.close()


def test_a_ring_that_is_closed_leaves_no_thread() -> None:
    before = threading.active_count()
    ring = Ring(masters_of(3), slots=1, device=CPU, staging=Staging(device=CPU))
    ring.settle()
    assert threading.active_count() > before
    ring.close()
    assert threading.active_count() == before
