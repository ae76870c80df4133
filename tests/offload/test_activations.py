"""Inputs of blocks in host memory, on the CPU: what is put is what is taken, also after a sweep that was broken off."""

from __future__ import annotations

import torch
from torch import Tensor

from ltx2core.offload.activations import HostActivations
from ltx2core.offload.ahead import inputs_ahead


def inputs(index: int, sweep: int, *, tokens: int = 5, dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor]:
    video = torch.full((2, tokens, 3), 100.0 * sweep + index, dtype=dtype)
    return video, -video[:, :2]


def is_back(host: HostActivations, index: int, sweep: int, *, tokens: int = 5, dtype: torch.dtype = torch.float32) -> bool:
    expected = inputs(index, sweep, tokens=tokens, dtype=dtype)
    found = host.take(index)
    return all(one.dtype == dtype and torch.equal(one, two) for one, two in zip(found, expected, strict=True))


def test_what_is_put_in_order_is_taken_in_reverse() -> None:
    host = HostActivations()
    for sweep in range(3):
        for index in (0, 1, 4, 5):
            host.put(index, inputs(index, sweep))
        assert all(is_back(host, index, sweep) for index in (5, 4, 1, 0))


def test_it_keeps_copies() -> None:
    host, (video, audio) = HostActivations(), inputs(0, 1)
    host.put(0, (video, audio))
    video.zero_()
    assert is_back(host, 0, 1)


def test_a_sweep_that_was_broken_off_leaves_nothing_for_the_next_one() -> None:
    """On the way forwards after `done` blocks, or on the way back before `done` blocks."""
    for done in range(4):
        host = HostActivations()
        for index in range(done):
            host.put(index, inputs(index, 1))
        for sweep in (2, 3):
            for index in range(4):
                host.put(index, inputs(index, sweep))
            if sweep == 2:
                for index in reversed(range(done, 4)):
                    assert is_back(host, index, sweep)
                continue
            assert all(is_back(host, index, sweep) for index in (3, 2, 1, 0))


def test_after_settling_a_new_sweep_begins() -> None:
    host = HostActivations()
    for index in range(3):
        host.put(index, inputs(index, 1))
    assert is_back(host, 2, 1)
    host.settle()
    for index in range(3):
        host.put(index, inputs(index, 2))
    assert all(is_back(host, index, 2) for index in (2, 1, 0))


def test_batches_of_other_shapes_and_types_use_the_same_memory_when_it_is_large_enough() -> None:
    host = HostActivations()
    addresses = []
    for sweep, (tokens, dtype) in enumerate([(9, torch.float32), (5, torch.float32), (9, torch.bfloat16), (9, torch.float32)]):
        for index in range(2):
            host.put(index, inputs(index, sweep, tokens=tokens, dtype=dtype))
        assert all(is_back(host, index, sweep, tokens=tokens, dtype=dtype) for index in (1, 0))
        addresses.append([buffer.tensor.data_ptr() for buffer in host.buffers()])
    assert all(each == addresses[0] for each in addresses)


def test_memory_that_was_replaced_lives_as_long_as_somebody_holds_it() -> None:
    """A captured step of the smaller shape still writes there."""
    host = HostActivations()
    host.put(0, inputs(0, 1))
    held = host.buffers()
    host.settle()
    host.put(0, inputs(0, 2, tokens=50))
    assert host.buffers()[0].tensor.data_ptr() != held[0].tensor.data_ptr()
    assert float(held[0].tensor[:4].view(torch.float32)) == 100.0
    assert is_back(host, 0, 2, tokens=50)


def test_memory_is_as_large_as_the_inputs_not_as_the_next_power_of_two() -> None:
    """Each tensor begins at a multiple of 256 bytes."""
    host = HostActivations()
    host.put(0, (torch.ones(33, 1024), torch.ones(3)))  # 132 KiB, where a power of two would take 256
    assert host.buffers()[0].tensor.nbytes == 33 * 4096 + 256


def test_small_inputs_come_several_blocks_ahead_and_large_ones_one() -> None:
    assert [inputs_ahead(size) for size in (1, 22_000_000, 50_000_000, 115_000_000)] == [4, 4, 2, 1]
    host = HostActivations()
    for index in range(7):
        host.put(index, inputs(index, 1))
    assert is_back(host, 6, 1)
    assert host.on_the_way == [5, 4, 3, 2]
    assert is_back(host, 5, 1)
    assert host.on_the_way == [4, 3, 2, 1]
