from __future__ import annotations

import json
import struct
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from ltx2core.errors import CheckpointError
from ltx2core.models.checkpoint import open_checkpoint
from ltx2core.models.safetensors_header import read_header

TINY = Path(__file__).parent.parent / "data" / "reference" / "ltx-2.0-tiny.safetensors"


def file_with(path: Path, header: object, data: bytes = b"") -> Path:
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)
    return path


def test_metadata_and_places_are_read_in_the_order_of_the_file(tmp_path: Path) -> None:
    path = tmp_path / "m.safetensors"
    save_file({"b": torch.zeros(2, 3), "a": torch.zeros(4, dtype=torch.bfloat16)}, path, metadata={"config": "{}"})
    metadata, entries = read_header(path)
    assert metadata == {"config": "{}"}
    assert list(entries) == ["b", "a"]
    assert (entries["b"].dtype, entries["b"].shape, entries["b"].end - entries["b"].start) == ("F32", (2, 3), 24)
    assert entries["a"].end == path.stat().st_size


@pytest.mark.parametrize(
    ("content", "what"),
    [
        (b"", "0 bytes"),
        (b"short", "5 bytes"),
        (b"hello, I am a text file", "not a safetensors file"),
        (struct.pack("<Q", 1 << 60) + b"{}", "1,152,921,504,606,846,976"),
        (struct.pack("<Q", 10) + b"not json!!", "header is damaged"),
        (struct.pack("<Q", 4) + b"[[]]", "header is damaged"),
        (struct.pack("<Q", 5000) + b'{"__metadata__":{}', "cut short"),
        (b"GGUF\x03\x00\x00\x00\x00\x00\x00\x00", "GGUF"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:abc\nsize 43", "git-lfs pointer"),
        (b"PK\x03\x04archive/data.pkl", "pickled"),
        (b"<!DOCTYPE html><html>Access to model is restricted", "web page"),
        (b'{"error": "Access to model is restricted"}', "JSON"),
    ],
)
def test_a_file_of_another_kind_is_named_in_one_line(tmp_path: Path, content: bytes, what: str) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=what) as caught:
        open_checkpoint(path)
    assert "\n" not in caught.value.text
    assert str(path) in caught.value.text
    assert caught.value.fix


def test_a_file_cut_short_names_the_first_five_tensors_that_it_lost(tmp_path: Path) -> None:
    path = tmp_path / "m.safetensors"
    save_file({f"t{index}": torch.zeros(100) for index in range(8)}, path)
    whole = path.stat().st_size
    path.write_bytes(path.read_bytes()[: whole - 6 * 400 - 1])
    with pytest.raises(CheckpointError) as caught:
        read_header(path)
    assert f"{whole:,} bytes" in caught.value.text
    assert "7 tensors are missing: t1, t2, t3, t4, t5, …" in caught.value.text


@pytest.mark.parametrize(
    "entry",
    [
        {"dtype": "F32", "shape": [2, 2], "data_offsets": [0, 8]},  # 16 bytes are needed
        {"dtype": "F32", "shape": [-1], "data_offsets": [0, -4]},
        {"dtype": "F32", "shape": [1], "data_offsets": [8, 12, "x"][1:]},
        {"dtype": "F32", "shape": [1]},
        {"dtype": 32, "shape": [1], "data_offsets": [0, 4]},
        "F32",
    ],
)
def test_a_tensor_whose_place_does_not_fit_its_shape_is_a_damaged_header(tmp_path: Path, entry: object) -> None:
    with pytest.raises(CheckpointError, match="header is damaged"):
        read_header(file_with(tmp_path / "m.safetensors", {"t": entry}, bytes(64)))


def test_a_missing_file_and_a_folder_in_its_place_are_told(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="does not exist"):
        read_header(tmp_path / "m.safetensors")
    with pytest.raises(CheckpointError, match="cannot be read"):
        read_header(tmp_path)


@settings(max_examples=60, deadline=None)
@given(place=st.integers(0, 6000), byte=st.integers(0, 255), length=st.integers(0, 6000))
def test_no_damage_to_a_header_escapes_as_another_error(
    tmp_path_factory: pytest.TempPathFactory, place: int, byte: int, length: int
) -> None:
    path = tmp_path_factory.mktemp("damage") / "m.safetensors"
    content = bytearray(TINY.read_bytes()[:6000])
    content[:8] = struct.pack("<Q", length)
    content[place : place + 1] = bytes([byte])
    path.write_bytes(content)
    with pytest.raises(CheckpointError):
        open_checkpoint(path)


@pytest.mark.parametrize("first", [*b"<{"])
def test_a_length_whose_first_byte_spells_another_format_is_a_length(tmp_path: Path, first: int) -> None:
    header = json.dumps({"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}).encode()
    length = 256 + first
    path = tmp_path / "a.safetensors"
    path.write_bytes(struct.pack("<Q", length) + header.ljust(length) + b"\0" * 4)
    _, entries = read_header(path)
    assert list(entries) == ["a"]
