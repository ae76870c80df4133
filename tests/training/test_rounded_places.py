"""Where files of rounded weights lie, when they cannot be written, and who writes them where there are several processes."""

from __future__ import annotations

import json
import os
import time
from contextlib import ExitStack
from typing import TYPE_CHECKING

import pytest
from processes import ForkedPython
from rounded_place import Place, alike
from step_engine import CPU

from ltx2core.caching.sharing import claim
from ltx2core.models import rounded_file
from ltx2core.models.nano import nano_checkpoint
from ltx2core.models.rounded_file import (
    Made,
    RoundedWriter,
    open_rounded,
    read_rounded,
    verify_rounded,
)
from ltx2core.training import rounded_weights
from ltx2core.training.rounded_weights import rounded_files

if TYPE_CHECKING:
    from pathlib import Path

    import torch

    from ltx2core.models.quantised import Storage


# Where files lie, and when they cannot.


def test_a_folder_that_cannot_be_written_has_its_file_below_the_cache(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    models = place.checkpoint_path.parent
    monkeypatch.setattr(rounded_weights.os, "access", lambda path, mode: path != models)
    expected = place.load()
    assert place.codes() == ["weights_kept"]
    assert not place.file().exists()
    (path,) = rounded_files(place.folder)
    assert path.name == f"{place.checkpoint.fingerprint('transformer')}.int8.rounded"
    assert alike(place.load(), expected)
    assert place.codes() == ["weights_read"]


def test_without_room_weights_are_rounded_all_the_same_and_it_is_said(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    class Usage:
        free = rounded_weights.SPARE_BYTES + 1_000_000

    monkeypatch.setattr(rounded_weights.shutil, "disk_usage", lambda path: Usage)
    assert alike(place.load(), place.load(keep=False))
    (notice,) = place.told
    assert notice.code == "weights_not_kept"
    assert "1.0 GB free" in notice.text
    assert "keep_rounded_weights" in notice.fix
    assert list(place.checkpoint_path.parent.iterdir()) == [place.checkpoint_path]


@pytest.mark.parametrize("after", [0, 1, 100])
def test_a_disk_that_is_full_after_all_costs_the_file_and_not_the_run(place: Place, monkeypatch: pytest.MonkeyPatch, after: int) -> None:
    written = 0

    def write(file: object, data: object) -> None:
        nonlocal written
        written += 1
        if written > after:
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(rounded_file, "_write", write)
    assert alike(place.load(), place.load(keep=False))
    (notice,) = place.told
    assert notice.code == "weights_not_kept"
    assert "is full" in notice.text
    assert list(place.checkpoint_path.parent.iterdir()) == [place.checkpoint_path]


def test_a_load_that_is_broken_off_leaves_no_file(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    added = 0
    add = RoundedWriter.add

    def broken(self: RoundedWriter, *arguments: object) -> None:
        nonlocal added
        added += 1
        if added == 50:
            raise KeyboardInterrupt
        add(self, *arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(RoundedWriter, "add", broken)
    with pytest.raises(KeyboardInterrupt):
        place.load()
    assert list(place.checkpoint_path.parent.iterdir()) == [place.checkpoint_path]


def test_the_file_grows_while_weights_are_made_and_none_of_them_waits_in_memory(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    add, sizes = RoundedWriter.add, []

    def watched(self: RoundedWriter, name: str, rows: torch.Tensor, scale: torch.Tensor, snr_db: float) -> None:
        (path,) = place.checkpoint_path.parent.glob(".*.tmp.rounded")
        before = path.stat().st_size
        add(self, name, rows, scale, snr_db)
        sizes.append((path.stat().st_size - before, rows.nbytes + scale.nbytes))

    monkeypatch.setattr(RoundedWriter, "add", watched)
    place.load()
    assert all(grown == stored for grown, stored in sizes[1:])


def test_what_a_killed_process_left_half_written_goes_when_the_file_is_written(place: Place) -> None:
    old, new = (place.file().with_name(f".model.int8.{name}.tmp.rounded") for name in ("0123", "4567"))
    for path, age in ((old, 7200), (new, 0)):
        path.write_bytes(b"half")
        os.utime(path, (time.time() - age,) * 2)
    place.load()
    assert not old.exists()
    assert new.exists()


def test_a_checkpoint_in_8_bits_already_is_not_kept_twice(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rounded_weights, "_source_bytes", lambda *_: 3_200_000)
    place.load()
    assert place.codes() == []
    assert not place.file().exists()
    place.load("nf4")
    assert place.codes() == ["weights_kept"]


def test_nothing_is_written_into_the_program_itself(tmp_path: Path) -> None:
    before = sorted(nano_checkpoint().parent.iterdir())
    place = Place(tmp_path)
    place.checkpoint_path = nano_checkpoint()
    place.load()
    assert sorted(nano_checkpoint().parent.iterdir()) == before
    assert len(list(rounded_files(place.folder))) == 1


# Several processes.


def test_of_two_processes_one_writes_and_the_other_does_not_wait(place: Place) -> None:
    name = f".{place.checkpoint.fingerprint('transformer')}.int8.working"
    with ExitStack() as held:
        assert claim(place.folder, held, name=name)
        model = place.load()
    assert place.codes() == ["weights_not_kept"]
    assert alike(model, place.load(keep=False))
    place.load()
    assert place.codes() == ["weights_kept"]


@pytest.mark.parametrize("storage", ["int8", "nf4"])
def test_blocks_that_another_process_fills_are_left_to_it_and_not_written_down(storage: Storage, place: Place) -> None:
    """Processes of one host share the blocks that travel: this one takes their scales, where those are its own, and touches no row."""
    expected = place.load(storage)
    shared, other = place.load(storage, keep=False), place.load(storage, keep=False)
    names = {
        f"transformer_blocks.{index}.{name}": (weights, name)
        for index, weights in enumerate(shared.blocks.weights)
        for name in weights.layout.members
        if weights.layout.is_rounded(name)
    }
    for weights in shared.blocks.weights[:2]:
        weights.written = False
        weights.matrices.zero_()
    made = Made(source=place.checkpoint.fingerprint("transformer"), storage=storage)
    opened = open_rounded(place.file(storage), made, {name: block.layout.shape_of(inner) for name, (block, inner) in names.items()})
    assert opened is not None
    read_rounded(opened, names, device=CPU)
    assert all(not weights.matrices.any() for weights in shared.blocks.weights[:2])
    for weights, theirs in zip(shared.blocks.weights, other.blocks.weights, strict=True):
        if not weights.written:
            weights.matrices.copy_(theirs.matrices)
    assert alike(shared, expected)
    place.file(storage).unlink()
    place.codes()
    assert not place.store.load(place.checkpoint, storage, names, device=CPU, make=lambda writer: None, write=False)
    assert place.codes() == []
    assert not place.file(storage).exists()


_PROCESS = """
import sys, json, torch
from pathlib import Path
from ltx2core.models.checkpoint import open_checkpoint
from ltx2core.training.adapter import AdapterSettings
from ltx2core.training.fast_model import FastSettings, load_fast
from ltx2core.training.rounded_weights import RoundedStore
torch.set_num_threads(1)
print("ready", flush=True)
sys.stdin.readline()
told = []
for _ in range(3):
    load_fast(open_checkpoint(Path(sys.argv[1])), settings=FastSettings(storage="int8", compile=False), adapter=AdapterSettings(rank=4),
        audio=True, seed=0, dtype=torch.float32, device=torch.device("cpu"), kept=RoundedStore(folder=Path(sys.argv[2]), emit=told.append))
print(json.dumps([notice.code for notice in told]), flush=True)
"""


@pytest.mark.slow
def test_processes_with_caches_of_their_own_write_one_file_at_the_same_time_and_it_is_whole(place: Place, tmp_path: Path) -> None:
    """Different caches, so that no lock tells them of each other: the last one to finish leaves its file, which is the same."""
    expected = place.load(keep=False)
    other = ForkedPython(_PROCESS, str(place.checkpoint_path), str(tmp_path / "other"))
    assert other.stdout.readline() == "ready\n"
    other.stdin.write("go\n")
    other.stdin.flush()
    for _ in range(3):
        assert alike(place.load(), expected)
    told = json.loads(other.communicate()[0])
    assert other.returncode == 0, other.stderr
    assert all("weights_unfit" not in codes and codes[-1] == "weights_read" for codes in (told, place.codes()))
    assert verify_rounded(place.file()) is None
    assert alike(place.load(), expected)
    assert sorted(path.name for path in place.checkpoint_path.parent.iterdir()) == ["model.int8.rounded", "model.safetensors"]
