"""Rounded weights are kept between runs: read back to the last bit, and made again whenever a file is not what it should be."""

from __future__ import annotations

import os
import shutil
from typing import TYPE_CHECKING

import pytest
import torch
from engine_fixtures import events_of
from hypothesis import given, settings
from hypothesis import strategies as st
from rounded_place import ONE, STORAGES, Place, alike
from safetensors import safe_open
from step_engine import ALL_ATTENTIONS, F32

from ltx2core.models import rounded_file
from ltx2core.models.checkpoint import Checkpoint
from ltx2core.models.nano import nano_checkpoint
from ltx2core.models.quantised import quantise, widen
from ltx2core.models.rounded_file import (
    Made,
    checksum,
    describe_rounded,
    verify_rounded,
)
from ltx2core.models.safetensors_header import read_header
from ltx2core.runs.events import Notice
from ltx2core.training.adapter import AdapterSettings
from ltx2core.training.rounded_weights import place_beside, unneeded_files

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from engine_fixtures import MakeConfig, OpenRun

    from ltx2core.models.quantised import Storage


@pytest.mark.parametrize("storage", STORAGES)
def test_what_is_read_is_what_was_rounded_to_the_last_bit_wherever_blocks_lie(storage: Storage, place: Place) -> None:
    expected = place.load(storage, keep=False)
    assert alike(place.load(storage), expected)
    assert place.codes() == ["weights_kept"]
    assert alike(place.load(storage), expected)
    assert place.codes() == ["weights_read"]
    assert alike(place.load(storage, streamed=5), place.load(storage, streamed=0))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("storage", STORAGES)
def test_what_is_read_onto_a_card_and_into_locked_memory_is_what_was_rounded_there(storage: Storage, place: Place) -> None:
    card = torch.device("cuda")
    expected = place.load(storage, keep=False, device=card)
    assert alike(place.load(storage, device=card), expected)
    for streamed in (0, 2, 5):
        found = place.load(storage, streamed=streamed, device=card)
        for mine, theirs in zip(found.blocks.weights, expected.blocks.weights, strict=True):
            for name, piece in mine.layout.matrices.items():  # what lies between them is anything
                assert torch.equal(piece.view(mine.matrices).cpu(), piece.view(theirs.matrices).cpu()), name
            assert all(torch.equal(mine.scales[name], scale) for name, scale in theirs.scales.items())
    assert place.codes() == ["weights_kept", "weights_read", "weights_read", "weights_read"]


def test_what_is_read_does_not_come_from_the_checkpoint(place: Place) -> None:
    expected = place.load()
    place.spoil()
    assert not alike(place.load(keep=False), expected)
    assert alike(place.load(), expected)


@pytest.mark.parametrize(("storage", "share"), [("int8", 0.53), ("fp8", 0.52), ("nf4", 0.29)])
def test_a_file_takes_half_of_the_checkpoint_s_bytes_or_less_and_any_reader_of_safetensors_reads_it(
    storage: Storage, share: float, place: Place
) -> None:
    block = place.load(storage).blocks.weights[0]
    _, entries = read_header(place.file(storage))
    names = {key: name for key, name in place.checkpoint.names("transformer").items() if name in entries}
    source = sum(place.checkpoint.entries[key].end - place.checkpoint.entries[key].start for key in names)
    assert 2 * len(names) == len(entries)
    assert sum(entry.end - entry.start for entry in entries.values()) < share * source
    with safe_open(place.file(storage), framework="pt") as file:
        weight, scale = file.get_tensor(ONE), file.get_tensor(f"{ONE}_scale")
    assert torch.equal(widen(weight, scale, F32), widen(block.rows_of("attn1.to_q.weight"), block.scale_of("attn1.to_q.weight"), F32))


def test_a_matrix_in_groups_keeps_its_scales_of_groups(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(quantise.__kwdefaults__, "least_snr_db", 1000.0)
    expected = place.load(keep=False)
    assert any(scale.ndim == 2 for weights in expected.blocks.weights for scale in weights.scales.values())
    place.load()
    assert alike(place.load(), expected)
    assert place.codes() == ["weights_kept", "weights_read"]


def test_gates_are_rounded_anew_where_they_learn_and_the_file_serves_every_choice_of_layers(place: Place) -> None:
    place.load(adapter=AdapterSettings(rank=4, targets=("attn1.to_q",)))
    model = place.load(adapter=AdapterSettings(rank=4, targets=(*ALL_ATTENTIONS, "ff.net.2")))
    assert place.codes() == ["weights_kept", "weights_read"]
    assert alike(model, place.load(keep=False, adapter=AdapterSettings(rank=4, targets=(*ALL_ATTENTIONS, "ff.net.2"))))


def test_a_file_of_pictures_alone_is_made_again_with_sound_and_then_serves_both(place: Place) -> None:
    place.load(audio=False)
    model = place.load()
    assert place.codes() == ["weights_kept", "weights_unfit", "weights_kept"]
    assert alike(model, place.load(keep=False))
    assert alike(place.load(audio=False), place.load(audio=False, keep=False))
    assert place.codes() == ["weights_read"]


# Files that are not what they should be.


def cut(path: Path) -> None:
    os.truncate(path, path.stat().st_size - 5)


def turn_a_bit(path: Path) -> None:
    _, entries = read_header(path)
    with path.open("r+b") as file:
        file.seek(entries[ONE].start + 77)
        (value,) = file.read(1)
        file.seek(-1, os.SEEK_CUR)
        file.write(bytes([value ^ 4]))


def lose_a_page(path: Path) -> None:
    _, entries = read_header(path)
    with path.open("r+b") as file:
        file.seek(entries[ONE].start)
        file.write(bytes(4096))


def spoil_a_scale(path: Path) -> None:
    _, entries = read_header(path)
    with path.open("r+b") as file:
        file.seek(entries[f"{ONE}_scale"].start)
        file.write(bytes(4))


def empty(path: Path) -> None:
    path.write_bytes(b"")


def be_something_else(path: Path) -> None:
    shutil.copy(nano_checkpoint(), path)


def rename(old: bytes, new: bytes) -> Callable[[Path], None]:
    def do(path: Path) -> None:
        data = path.read_bytes()
        assert data.count(old) >= 1
        path.write_bytes(data.replace(old, new, 1))

    return do


DAMAGE = {
    "cut short": cut,
    "a bit turned": turn_a_bit,
    "a page that was never written": lose_a_page,
    "a scale of 0": spoil_a_scale,
    "empty": empty,
    "another safetensors file": be_something_else,
    "another rule": rename(b'"rule":"1', b'"rule":"0'),
    "facts that are none": rename(b'"facts":"{', b'"facts":"['),
    "another name of a matrix": rename(ONE.encode() + b'":', ONE.encode()[:-1] + b'x":'),
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
def test_a_file_that_is_not_what_was_written_is_told_of_and_written_again(damage: Callable[[Path], None], place: Place) -> None:
    expected = place.load()
    whole = place.file().read_bytes()
    damage(place.file())
    place.codes()
    assert alike(place.load(), expected)
    (unfit,) = [notice for notice in place.told if notice.code == "weights_unfit"]
    assert str(place.file()) in unfit.text
    assert place.codes() == ["weights_unfit", "weights_kept"]
    assert place.file().read_bytes() == whole
    assert alike(place.load(), expected)
    assert place.codes() == ["weights_read"]


@settings(max_examples=40, deadline=None)
@given(data=st.binary(max_size=200), at=st.floats(0, 1))
def test_a_file_with_any_bytes_over_its_header_is_never_trusted_and_never_an_error(
    data: bytes, at: float, whole_file: tuple[bytes, Made, Path]
) -> None:
    whole, made, path = whole_file
    start = int(at * 60_000)
    path.write_bytes(whole[:start] + data + whole[start + len(data) :])
    try:
        opened = rounded_file.open_rounded(path, made, {ONE: (160, 160)})
    except rounded_file.Unfit:
        return
    assert opened is not None
    assert opened.entries[ONE].shape == (160, 160)


@pytest.fixture(scope="module")
def whole_file(tmp_path_factory: pytest.TempPathFactory) -> tuple[bytes, Made, Path]:
    place = Place(tmp_path_factory.mktemp("whole"))
    place.load()
    made = describe_rounded(place.file())
    assert made is not None
    return place.file().read_bytes(), made, place.file()


def test_a_file_of_another_checkpoint_is_made_again(place: Place) -> None:
    place.load()
    _, entries = read_header(place.checkpoint_path)
    entry = next(entry for key, entry in entries.items() if key.endswith(ONE))
    with place.checkpoint_path.open("r+b") as file:
        file.seek(entry.start)
        file.write(bytes(64))
    place.codes()
    model = place.load()
    assert "was made from another checkpoint" in place.told[0].text
    assert place.codes() == ["weights_unfit", "weights_kept"]
    assert alike(model, place.load(keep=False))


# Looking after files, and runs.


def test_a_file_can_be_verified_without_its_checkpoint(place: Place) -> None:
    place.load("nf4")
    assert verify_rounded(place.file("nf4")) is None
    turn_a_bit(place.file("nf4"))
    assert verify_rounded(place.file("nf4")) == f"it holds other numbers than were written, in {ONE}"
    cut(place.file("nf4"))
    assert verify_rounded(place.file("nf4")) == "it cannot be read, or is cut short"


def test_files_that_nobody_reads_are_found(place: Place) -> None:
    for storage in STORAGES:
        place.load(storage)
    place.folder.mkdir(parents=True, exist_ok=True)
    elsewhere = place.folder / "0123456789abcdef.int8.rounded"
    shutil.copy(place.file(), elsewhere)
    assert unneeded_files(place.folder, place.checkpoint, {"int8", "fp8", "nf4"}) == []
    assert unneeded_files(place.folder, place.checkpoint, {"int8"}) == [place.file("fp8"), place.file("nf4")]
    assert unneeded_files(place.folder, None, {"fp8"}) == [elsewhere]
    cut(elsewhere)
    assert unneeded_files(place.folder, None, {"int8"}) == [elsewhere]


def test_a_checkpoint_that_is_a_folder_has_its_file_in_it(place: Place) -> None:
    folder = Checkpoint(path=place.checkpoint_path.parent, metadata={}, entries={})
    assert place_beside(folder, "fp8") == place.checkpoint_path.parent / "transformer.fp8.rounded"


@given(st.lists(st.integers(0, 255), min_size=1, max_size=64), st.integers(0, 63), st.integers(1, 255))
def test_a_sum_changes_with_any_byte_and_not_with_where_it_lies(values: list[int], at: int, more: int) -> None:
    data = torch.tensor(values, dtype=torch.uint8)
    other = data.clone()
    other[at % len(values)] += more
    assert checksum(data) != checksum(other)
    padded = torch.cat([torch.zeros(3, dtype=torch.uint8), data])
    assert checksum(padded[3:]) == checksum(data)


def test_a_run_writes_them_down_and_the_next_one_reads_them_unless_told_not_to(make_config: MakeConfig, open_run: OpenRun) -> None:
    codes = []
    for name, keys in (("first", {}), ("second", {}), ("third", {"keep_rounded_weights": False})):
        run = open_run(make_config(base_model_precision="int8-torchao", max_train_steps=1, **keys), name)
        assert run.run() == "finished", run.failure
        told = {event.code for event in events_of(run) if isinstance(event, Notice)}
        assert "rounding" in told
        codes.append({code for code in told if code.startswith("weights_")})
    assert codes == [{"weights_kept"}, {"weights_read"}, set()]
