"""Safetensors files, whole or absent. The one place that writes tensors.

The file is written here and not by the library: its writer puts metadata in a random order, so that equal tensors give unequal
files, and hides a full disk in the text of an error of its own.
"""

from __future__ import annotations

import hashlib
import json
import struct
from typing import TYPE_CHECKING

from ltx2core.runs.files import replacing

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from torch import Tensor

_DTYPES = {
    "torch.float64": "F64",
    "torch.float32": "F32",
    "torch.bfloat16": "BF16",
    "torch.float16": "F16",
    "torch.int64": "I64",
    "torch.bool": "BOOL",
}
_ALIGNMENT = 8  # of the data, as readers that map the file expect


def write_tensors(path: Path, tensors: Mapping[str, Tensor], *, metadata: Mapping[str, str] | None = None) -> None:
    """Write tensors, from whatever device: the same bytes for the same values. Raises StorageError when there is no room."""
    import torch

    ordered = sorted(tensors.items(), key=lambda item: (-item[1].element_size(), item[0]))  # wide types first keeps all aligned
    header: dict[str, object] = {"__metadata__": dict(sorted({"format": "pt", **(metadata or {})}.items()))}
    offset = 0
    for name, tensor in ordered:
        size = tensor.numel() * tensor.element_size()
        header[name] = {"dtype": _DTYPES[str(tensor.dtype)], "shape": [*tensor.shape], "data_offsets": [offset, offset + size]}
        offset += size
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % _ALIGNMENT)
    with replacing(path) as temporary, temporary.open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for _, tensor in ordered:
            file.write(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)


def digest(tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 of tensors' names, types, shapes and values, in hex."""
    import torch

    found = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        found.update(f"{name} {tensor.dtype} {[*tensor.shape]}\n".encode())
        found.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return found.hexdigest()


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
