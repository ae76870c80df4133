"""Blocks that wait on disk: bit-equal to resident ones, written once, read again by the next model, and mended where they are damaged."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
import torch
from step_engine import draw_batch, fast_nano, fast_step, make_batch, same

from ltx2core.errors import RunError, StorageError
from ltx2core.models.checkpoint import Checkpoint
from ltx2core.offload import block_files
from ltx2core.offload.block_files import BlockFile, check_room
from ltx2core.offload.layout import state_of
from ltx2core.planning.step_plan import StepPlan
from ltx2core.training.fast_model import FastSettings
from ltx2core.training.step import losses_of

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor

EAGER = FastSettings(compile=False)
ON_DISK = replace(EAGER, streamed=3, slots=2, waiting="disk")


def files_of(folder: Path) -> dict[str, int]:
    """Name and time of change of every file."""
    return {path.name: path.stat().st_mtime_ns for path in folder.glob("*/*")}


@pytest.mark.parametrize("storage", ["bf16", "int8", "fp8"])
def test_steps_and_forwards_from_disk_give_the_bits_of_resident_blocks_also_when_the_files_are_found_again(
    storage: str, tmp_path: Path
) -> None:
    drawn = draw_batch(make_batch(count=2))
    expected = fast_step(*fast_nano(replace(EAGER, storage=storage)), drawn)  # type: ignore[arg-type]
    written: dict[str, int] = {}
    for _ in range(2):
        model, fast = fast_nano(replace(ON_DISK, storage=storage, disk=tmp_path))  # type: ignore[arg-type]
        ring = fast.blocks.ring
        assert ring is not None
        for _ in range(2):
            before = ring.loads
            loss, gradients = fast_step(model, fast, drawn)
            assert ring.loads - before == ring.loads_per_step() == 2
            assert torch.equal(loss, expected[0])
            assert same(gradients, expected[1])
        with torch.no_grad():
            assert torch.equal(losses_of(model, drawn, audio_weight=0.7).total, expected[0])
        if storage != "bf16":
            assert len(fast.rounding) == len(fast_nano(replace(EAGER, storage=storage))[1].rounding)  # type: ignore[arg-type]
        fast.close()
        written = written or files_of(tmp_path)
        assert files_of(tmp_path) == written, "written once"
    assert len(written) == 3


def test_a_second_model_does_not_read_matrices_from_the_checkpoint_that_are_on_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[str] = []
    tensors = Checkpoint.tensors

    def counted(self: Checkpoint, *arguments: object, **keys: object) -> object:
        for name, tensor in tensors(self, *arguments, **keys):  # type: ignore[arg-type]
            read.append(name)
            yield name, tensor

    monkeypatch.setattr(Checkpoint, "tensors", counted)
    counts = []
    for _ in range(2):
        read.clear()
        fast = fast_nano(replace(ON_DISK, disk=tmp_path))[1]
        counts.append(len(read))
        fast.close()
    matrices = sum(member.name in fast.layout.matrices for member in fast.layout.members.values())
    assert counts[0] - counts[1] == 3 * matrices


def test_blocks_that_go_to_disk_later_are_written_from_the_card_or_found(tmp_path: Path) -> None:
    drawn = draw_batch(make_batch())
    expected = fast_step(*fast_nano(), drawn)
    model, fast = fast_nano(replace(EAGER, waiting="disk", disk=tmp_path))
    assert not files_of(tmp_path)
    for streamed in (2, 5):
        plan = StepPlan(storage="bf16", precision="dequant", streamed=streamed, slots=1, kept=0, inputs_to_host=True)
        fast.apply(plan)
        loss, gradients = fast_step(model, fast, drawn)
        assert torch.equal(loss, expected[0])
        assert same(gradients, expected[1])
        assert len(files_of(tmp_path)) == streamed
    fast.close()


def test_what_is_on_disk_is_the_checkpoint_s_and_another_storage_has_files_of_its_own(tmp_path: Path) -> None:
    resident, fast = fast_nano()[1], fast_nano(replace(ON_DISK, disk=tmp_path))[1]
    index = next(iter(fast.masters.found))
    expected, found = (state_of(model.layout, model.blocks.weights[index]) for model in (resident, fast))
    assert all(torch.equal(found[name], value) for name, value in expected.items())
    fast.close()
    fast_nano(replace(ON_DISK, disk=tmp_path, storage="int8"))[1].close()
    assert len(list(tmp_path.iterdir())) == 2


@pytest.mark.parametrize("damage", ["cut short", "empty", "another size"])
def test_a_damaged_file_is_written_anew(damage: str, tmp_path: Path) -> None:
    drawn = draw_batch(make_batch())
    fast_nano(replace(ON_DISK, disk=tmp_path))[1].close()
    victim = sorted(tmp_path.glob("*/*"))[1]
    data = victim.read_bytes()
    victim.write_bytes({"cut short": data[:-1], "empty": b"", "another size": data + b"0"}[damage])
    model, fast = fast_nano(replace(ON_DISK, disk=tmp_path))
    assert same(fast_step(model, fast, drawn)[1], fast_step(*fast_nano(), drawn)[1])
    assert victim.read_bytes() == data
    fast.close()


def test_a_file_that_is_gone_or_cut_short_in_the_middle_of_a_run_is_an_error_that_names_it(tmp_path: Path) -> None:
    file = BlockFile(tmp_path / "block-000.safetensors", 8)
    with pytest.raises(RunError, match=r"block-000\.safetensors cannot be read"):
        file.read(0, torch.empty(8, dtype=torch.uint8))
    fast = fast_nano(replace(ON_DISK, disk=tmp_path))[1]
    path = next(tmp_path.glob("*/block-*"))
    target: Tensor = torch.empty(fast.layout.matrix_bytes, dtype=torch.uint8)
    master = next(each for each in fast.masters.found.values() if isinstance(each, BlockFile) and each.path == path)
    with path.open("r+b") as opened:
        opened.truncate(path.stat().st_size - 1)
    with pytest.raises(RunError, match="it is cut short") as caught:
        master.read(0, target)
    assert "written anew" in caught.value.fix
    fast.close()


def test_a_disk_without_room_is_refused_with_both_amounts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(block_files.shutil, "disk_usage", lambda _: type("Usage", (), {"free": 2**30}))
    check_room(tmp_path, 2**30)
    with pytest.raises(StorageError, match=r"need 2\.0 GiB in .*, where 1\.0 GiB are free"):
        check_room(tmp_path, 2**31)
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="cannot be written"):
        check_room(tmp_path / "file" / "below", 1)
