"""Safetensors files, whole or absent, with the system's own error when a disk is full. The one place that writes tensors."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from ltx2core.runs.files import replacing

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from torch import Tensor


def write_tensors(path: Path, tensors: Mapping[str, Tensor], *, metadata: Mapping[str, str] | None = None) -> None:
    """Write tensors, from whatever device. Raises StorageError when the folder cannot be written or the disk is full."""
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    ready = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    with replacing(path) as temporary:
        try:
            save_file(ready, temporary, metadata={"format": "pt", **(metadata or {})})
        except SafetensorError as error:
            number = re.search(r"os error (\d+)", str(error))  # safetensors hides the system's error in its text
            raise OSError(int(number[1]) if number else 5, str(error)) from error


def read_tensors(path: Path) -> dict[str, Tensor] | None:
    """The tensors of a file, on the CPU; None when it is absent, cut short or of another format."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return dict(load_file(path))
    except (OSError, SafetensorError):
        return None


def read_metadata(path: Path) -> dict[str, str] | None:
    """A file's metadata; None when it is absent or not whole (safetensors compares the header with the file's length)."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="np") as file:
            return dict(file.metadata() or {})
    except (OSError, SafetensorError):
        return None
