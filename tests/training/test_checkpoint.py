"""Checkpoints are complete or absent: cut short, damaged, half-built, or out of space."""

from __future__ import annotations

import json
import os
import subprocess
from typing import TYPE_CHECKING

import pytest
import torch

from ltx2core.errors import RunError, StorageError
from ltx2core.runs import files
from ltx2core.training.checkpoint import Identity, keep_newest, latest_complete, open_step, save_checkpoint

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

IDENTITY = Identity(base="abc", rank=4, alpha=8.0, targets="def", seed=0)


def _save(parent: Path, step: int, *, size: int = 16) -> Path:
    adapter = {"x.lora_A.weight": torch.full((size,), float(step))}
    return save_checkpoint(parent, step=step, identity=IDENTITY, adapter=adapter, optimizer={"step.x": torch.tensor(float(step))})


def _steps(parent: Path) -> list[str]:
    return sorted(path.name for path in parent.iterdir())


def test_a_saved_checkpoint_reads_back_bit_for_bit(tmp_path: Path) -> None:
    folder = _save(tmp_path, 500)
    assert {path.name for path in folder.iterdir()} == {"adapter.safetensors", "optimizer.safetensors", "state.json"}
    saved, damaged = latest_complete(tmp_path)
    assert saved is not None
    assert (saved.step, saved.identity, damaged) == (500, IDENTITY, [])
    adapter, optimizer = saved.tensors()
    assert torch.equal(adapter["x.lora_A.weight"], torch.full((16,), 500.0))
    assert torch.equal(optimizer["step.x"], torch.tensor(500.0))


@pytest.mark.parametrize("name", ["adapter.safetensors", "optimizer.safetensors", "state.json"])
@pytest.mark.parametrize("damage", ["cut", "gone", "flipped"])
def test_a_damaged_checkpoint_is_passed_over_for_the_one_before(tmp_path: Path, name: str, damage: str) -> None:
    _save(tmp_path, 1)
    path = _save(tmp_path, 2) / name
    data = path.read_bytes()
    if damage == "gone":
        path.unlink()
    elif damage == "cut":
        path.write_bytes(data[:-5])
    else:
        path.write_bytes(data[:-4] + bytes([data[-4] ^ 1]) + data[-3:] if name != "state.json" else data.replace(b'"step"', b'"stop"'))
    saved, damaged = latest_complete(tmp_path)
    assert saved is not None
    assert saved.step == 1
    assert [item.name for item in damaged] == ["step-000002"]


def test_a_checkpoint_of_a_newer_program_is_refused_and_not_passed_over(tmp_path: Path) -> None:
    _save(tmp_path, 1)
    state = _save(tmp_path, 2) / "state.json"
    state.write_text(json.dumps(json.loads(state.read_text()) | {"version": 99, "something": "new"}))
    with pytest.raises(RunError, match="written by a newer ltx2tui: its version is 99") as caught:
        latest_complete(tmp_path)
    assert "Update" in caught.value.fix


def test_a_checkpoint_from_before_runs_could_start_from_a_lora_is_read(tmp_path: Path) -> None:
    state = _save(tmp_path, 2) / "state.json"
    written = json.loads(state.read_text()) | {"version": 1}
    del written["identity"]["init"]
    state.write_text(json.dumps(written))
    saved, damaged = latest_complete(tmp_path)
    assert saved is not None
    assert (saved.step, saved.identity.init, damaged) == (2, "", [])


def test_the_newest_stay_and_half_built_ones_go(tmp_path: Path) -> None:
    for step in (1, 2, 3, 1_000_000):
        _save(tmp_path, step)
    (tmp_path / ".step-000009.77.tmp").mkdir()
    keep_newest(tmp_path, 0)
    assert _steps(tmp_path) == ["step-000001", "step-000002", "step-000003", "step-1000000"]
    keep_newest(tmp_path, 2)
    assert _steps(tmp_path) == ["step-000003", "step-1000000"]
    saved, _ = latest_complete(tmp_path)
    assert saved is not None
    assert saved.step == 1_000_000


def test_the_one_that_is_to_stay_is_kept_besides_the_newest(tmp_path: Path) -> None:
    for step in (1, 2, 3, 4):
        _save(tmp_path, step)
    keep_newest(tmp_path, 2, besides=1)
    assert _steps(tmp_path) == ["step-000001", "step-000003", "step-000004"]
    keep_newest(tmp_path, 1, besides=4)
    assert _steps(tmp_path) == ["step-000003", "step-000004"]
    keep_newest(tmp_path, 1, besides=77)  # pruned long ago
    assert _steps(tmp_path) == ["step-000004"]
    saved = open_step(tmp_path, 4)
    assert saved is not None
    assert saved.step == 4
    assert open_step(tmp_path, 1) is None


def test_the_same_step_can_be_saved_again(tmp_path: Path) -> None:
    _save(tmp_path, 4)
    _save(tmp_path, 4, size=8)
    assert _steps(tmp_path) == ["step-000004"]


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A folder on a disk of 256 KiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    if os.geteuid() != 0 or subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", folder], check=False).returncode:
        pytest.skip("needs to mount a small disk")
    yield folder
    subprocess.run(["umount", folder], check=True)


def test_a_full_disk_leaves_older_checkpoints_and_says_so(small_disk: Path) -> None:
    _save(small_disk, 1)
    with pytest.raises(StorageError, match="is full") as caught:
        _save(small_disk, 2, size=200_000)
    assert "step-000002" in caught.value.text
    assert _steps(small_disk) == ["step-000001"]
    saved, damaged = latest_complete(small_disk)
    assert saved is not None
    assert (saved.step, damaged) == (1, [])


def test_running_out_of_space_while_syncing_leaves_no_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _save(tmp_path, 1)

    def full(_descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(files.os, "fsync", full)
    with pytest.raises(StorageError, match="is full"):
        _save(tmp_path, 2)
    assert _steps(tmp_path) == ["step-000001"]


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "checkpoints").write_text("in the way")
    with pytest.raises(StorageError, match="cannot be written"):
        _save(tmp_path / "checkpoints", 1)
