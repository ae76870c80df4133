"""Room for blocks that travel: locked as long as the system lets it be, as it is from then on, and refused when there is none."""

from __future__ import annotations

import pytest

from ltx2core.errors import RunError
from ltx2core.offload import masters as module
from ltx2core.offload.host_memory import PinnedMemory
from ltx2core.offload.masters import Masters
from ltx2core.runs.events import Event, Notice
from ltx2core.training import holding
from ltx2core.training.holding import tell_unlocked


def let_two_be_locked(monkeypatch: pytest.MonkeyPatch) -> list[PinnedMemory]:
    """A driver that locks two pieces of memory and says "out of memory" to each after them. The list holds what was tried."""
    tried: list[PinnedMemory] = []

    def lock(self: PinnedMemory) -> int:
        tried.append(self)
        code = 0 if len(tried) <= 2 else 2
        self.registered = code == 0
        self._unregister = lambda: None  # type: ignore[assignment]
        return code

    monkeypatch.setattr(PinnedMemory, "lock", lock)
    return tried


def test_what_the_system_does_not_lock_is_staged_tried_once_and_told_with_the_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    tried = let_two_be_locked(monkeypatch)
    masters = Masters(4096, lock=True)
    for index in range(2):
        masters.add(index)
    assert not masters.staged
    for index in range(2, 5):
        masters.add(index)
    assert len(tried) == 3
    assert masters.staged
    assert [master.registered for master in masters.found.values()] == [True, True, False, False, False]
    told: list[Event] = []
    monkeypatch.setattr(holding, "lock_limit", lambda: 8 << 20)
    tell_unlocked(masters, told.append)
    (notice,) = told
    assert isinstance(notice, Notice)
    assert "3 of 5 blocks" in notice.text
    assert "CUDA error 2" in notice.text
    assert "`ulimit -l` is 8 MiB" in notice.fix
    masters.close()


def test_memory_that_is_locked_or_need_not_be_is_nothing_to_tell() -> None:
    masters = Masters(4096, waiting="memory", lock=True)
    masters.add(0)
    told: list[Event] = []
    tell_unlocked(masters, told.append)
    assert not told
    assert masters.staged


def test_a_block_that_memory_has_no_room_for_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "available_memory", lambda: 2**29)
    with pytest.raises(RunError, match=r"needs 1\.00 GiB of RAM; 0\.50 are free") as caught:
        Masters(2**30, lock=False).add(0)
    assert "group_offload_to_disk_path" in caught.value.fix
