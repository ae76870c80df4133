"""Where blocks that travel wait follows from how much RAM is free, and a refusal says what would help."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ltx2core.errors import RunError
from ltx2core.planning.host_plan import GIB, HostPlan, place_blocks


def place(blocks: float, free: float, *, inputs: float = 0, disk: bool = False) -> HostPlan:
    return place_blocks(blocks_bytes=int(blocks * GIB), inputs_bytes=int(inputs * GIB), free_bytes=int(free * GIB), disk=disk)


def test_blocks_are_locked_where_enough_is_left_for_the_system() -> None:
    assert place(34.5, 58) == HostPlan(waiting="locked", because="")
    assert place(0, 0.1).waiting == "locked"


def test_where_locking_would_leave_too_little_they_are_not_locked_and_both_amounts_are_told() -> None:
    found = place(34.5, 36)
    assert found.waiting == "memory"
    assert "34.5 GiB of 36.0 GiB locked would leave the system too little" in found.because


def test_without_room_they_are_refused_unless_a_folder_on_a_disk_is_named() -> None:
    with pytest.raises(RunError, match=r"need 34\.5 GiB of RAM; 20\.0 GiB are free") as caught:
        place(34.5, 20)
    assert "group_offload_to_disk_path" in caught.value.fix
    found = place(34.5, 20, disk=True)
    assert found.waiting == "disk"
    assert "34.5 GiB of blocks wait on disk" in found.because


def test_a_folder_that_no_block_needs_is_told_to_have_no_use() -> None:
    assert "no block waits on disk" in place(0, 20, disk=True).because


def test_inputs_in_host_memory_count_and_a_disk_does_not_help_them() -> None:
    assert place(20, 24, inputs=3.5).waiting == "memory"
    with pytest.raises(RunError, match="GiB of RAM"):
        place(20, 3, inputs=3.5, disk=True)


@given(st.floats(0, 60), st.floats(0, 10), st.floats(0.1, 100), st.floats(0.1, 50))
def test_more_memory_is_never_worse(blocks: float, inputs: float, free: float, more: float) -> None:
    order = ["locked", "memory"]
    try:
        before = order.index(place(blocks, free, inputs=inputs).waiting)
    except RunError:
        return
    assert order.index(place(blocks, free + more, inputs=inputs).waiting) <= before
