"""Safetensors files of our own writing: the library reads them, equal tensors give equal bytes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

from ltx2core.caching.tensors import read_metadata, read_tensors, write_tensors
from ltx2core.errors import StorageError

if TYPE_CHECKING:
    from pathlib import Path

TENSORS = {
    "b": torch.arange(3, dtype=torch.int64),
    "scalar": torch.tensor(2.5),
    "mask": torch.tensor([True, False, True]),
    "half": torch.randn(3, 5, generator=torch.Generator().manual_seed(0)).to(torch.bfloat16),
    "turned": torch.randn(4, 2, generator=torch.Generator().manual_seed(1)).t(),
    "none": torch.zeros(0, 4),
}


def test_the_library_reads_what_was_written(tmp_path: Path) -> None:
    write_tensors(tmp_path / "a.safetensors", TENSORS, metadata={"source": "clip „ü“.mp4"})
    loaded = load_file(tmp_path / "a.safetensors")
    assert loaded.keys() == TENSORS.keys()
    for name, tensor in TENSORS.items():
        assert loaded[name].dtype == tensor.dtype
        assert torch.equal(loaded[name], tensor)
    with safe_open(tmp_path / "a.safetensors", framework="pt") as file:
        assert file.metadata() == {"format": "pt", "source": "clip „ü“.mp4"}
    assert read_metadata(tmp_path / "a.safetensors") == {"format": "pt", "source": "clip „ü“.mp4"}


def test_equal_tensors_give_equal_bytes(tmp_path: Path) -> None:
    metadata = {f"key{number}": str(number) for number in range(20)}
    write_tensors(tmp_path / "a.safetensors", TENSORS, metadata=metadata)
    write_tensors(tmp_path / "b.safetensors", dict(reversed(TENSORS.items())), metadata=dict(reversed(metadata.items())))
    assert (tmp_path / "a.safetensors").read_bytes() == (tmp_path / "b.safetensors").read_bytes()


def test_a_file_that_is_absent_or_something_else_reads_as_none(tmp_path: Path) -> None:
    (tmp_path / "text.safetensors").write_text("hello")
    assert read_tensors(tmp_path / "text.safetensors") is None
    assert read_tensors(tmp_path / "absent.safetensors") is None
    assert read_metadata(tmp_path / "absent.safetensors") is None


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(StorageError, match="cannot be written"):
        write_tensors(tmp_path / "file" / "a.safetensors", TENSORS)
