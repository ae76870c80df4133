"""Several processes of a host that train with one copy of the blocks in RAM: what it costs, and that it leaves nothing behind."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
import torch
from processes import ForkedPython
from rank_threads import in_ranks
from step_engine import draw_batch, fast_nano, fast_step, make_batch

from ltx2core.errors import RunError
from ltx2core.offload import shared_memory
from ltx2core.offload.shared_memory import Group, share_memory
from ltx2core.training.fast_model import FastSettings

pytestmark = pytest.mark.skipif(not hasattr(os, "memfd_create"), reason="needs Linux")


def start(rank: int, folder: Path) -> ForkedPython:
    return ForkedPython("import share_blocks; share_blocks.main()", str(rank), "2", str(folder))


def said(process: ForkedPython) -> dict[str, dict[str, float]]:
    line = process.stdout.readline()
    assert line, process.communicate()[1]
    found: dict[str, dict[str, float]] = json.loads(line)
    return found


@pytest.mark.slow
def test_two_processes_hold_the_blocks_once_compute_what_one_does_and_leave_nothing_when_killed(tmp_path: Path) -> None:
    """All the memory that both have for the blocks: at most 3 % more than the weights. In bf16, in int8, and with blocks on disk."""
    before = set(Path("/dev/shm").iterdir())
    processes = [start(rank, tmp_path) for rank in range(2)]
    try:
        expected = {storage: one_alone(storage) for storage in ("bf16", "int8")}
        found = [said(process) for process in processes]
        for storage, numbers in expected.items():
            assert [(one[storage]["loss"], one[storage]["gradients"]) for one in found] == [numbers] * 2
            assert 0.97 * found[0][storage]["weights"] < sum(one[storage]["Pss"] for one in found) <= 1.03 * found[0][storage]["weights"]
        assert [(one["disk"]["loss"], one["disk"]["gradients"]) for one in found] == [expected["bf16"]] * 2
        assert len(list((tmp_path / "blocks").glob("*/block-*.safetensors"))) == 5, "written once"
        for process in processes:
            assert "ltx2-blocks (deleted)" in Path(f"/proc/{process.pid}/maps").read_text(), "it has no name in any file system"
    finally:
        for process in processes:
            process.kill()
            process.communicate()
    assert set(Path("/dev/shm").iterdir()) == before


def one_alone(storage: str) -> tuple[float, float]:
    """The loss, and the sum of all gradients' sizes, of a process with resident blocks, on one thread as the others are: sums of several
    threads differ in their last bits."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return _one_step(storage)
    finally:
        torch.set_num_threads(threads)


def _one_step(storage: str) -> tuple[float, float]:
    loss, gradients = fast_step(*fast_nano(FastSettings(compile=False, storage=storage)), draw_batch(make_batch()))  # type: ignore[arg-type]
    return float(loss), float(torch.stack([value.double().abs().sum() for value in gradients.values()]).sum())


def test_what_one_writes_all_read_and_blocks_do_not_touch() -> None:
    mine, theirs = in_ranks(2, lambda group: share_memory(group, count=3, nbytes=5000))
    for index, memory in enumerate(mine):
        memory.tensor.fill_(index + 1)
    target = torch.zeros(100, dtype=torch.uint8)
    for index, memory in enumerate(theirs):
        assert memory.nbytes == 5000
        assert (memory.tensor == index + 1).all()
        memory.read(4900, target)
        assert (target == index + 1).all()
        assert memory.tensor.data_ptr() % 4096 == 0


def test_memory_that_the_system_does_not_have_is_an_error_in_every_process(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(12, "Cannot allocate memory")

    monkeypatch.setattr(shared_memory.os, "posix_fallocate", refuse)

    def share(group: Group) -> str:
        with pytest.raises(RunError) as found:
            share_memory(group, count=3, nbytes=5000)
        return found.value.text

    first, second = in_ranks(2, share)
    assert "Cannot allocate memory" in first
    assert "first process of this host" in second
