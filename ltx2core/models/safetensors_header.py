"""The header of a safetensors file: its metadata, and where each tensor lies. Reads no tensor.

A file that cannot be used is refused here, in words for the person who downloaded it. Format: 8 bytes of length, a JSON header, data
(https://github.com/huggingface/safetensors).
"""

from __future__ import annotations

import json
import struct
from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING

from ltx2core.errors import CheckpointError

if TYPE_CHECKING:
    from pathlib import Path

_MAX_HEADER_BYTES = 100 * 1024 * 1024  # what the format itself allows
_BITS = {"BOOL": 8, "U8": 8, "I8": 8, "F8_E4M3": 8, "F8_E5M2": 8, "F8_E8M0": 8, "I16": 16, "U16": 16, "F16": 16, "BF16": 16}
_BITS |= {"I32": 32, "U32": 32, "F32": 32, "I64": 64, "U64": 64, "F64": 64, "F4": 4}
_OTHER_FORMATS = (  # how files begin that people save under the wrong name, and what to do about it
    (b"GGUF", "a GGUF file", "Use the .safetensors file of the model."),
    (
        b"version https://git-lfs",
        "a git-lfs pointer, not the file itself",
        "Run `git lfs pull` in its folder, or download it from the hub.",
    ),
    (b"PK\x03\x04", "a zip or a pickled PyTorch file", "Use the .safetensors file of the model; pickles are never read."),
    (b"<", "a web page", "Download it again; a gated model needs its licence accepted and HF_TOKEN set."),
    (b"{", "a JSON file", "Give the .safetensors file itself."),
)


@dataclass(frozen=True, slots=True)
class Entry:
    """Where a tensor lies. start, end: offsets in the file."""

    path: Path
    dtype: str  # as safetensors spells it: BF16, F32, F8_E4M3
    shape: tuple[int, ...]
    start: int
    end: int


def read_header(path: Path) -> tuple[dict[str, str], dict[str, Entry]]:
    """Metadata, and tensor entries in file order. Raises CheckpointError when the file is missing, of another format, or cut short."""
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            start = file.read(32)
            _check_kind(path, start, size)
            (length,) = struct.unpack("<Q", start[:8])
            file.seek(8)
            header = json.loads(file.read(length))
        metadata = {str(key): str(value) for key, value in header.pop("__metadata__", {}).items()}
        entries = {key: _entry(path, value, 8 + length) for key, value in header.items()}
    except FileNotFoundError as error:
        raise CheckpointError(f"{path} does not exist.", fix="Check the path.") from error
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error.strerror}.", fix="Check the file and its permissions.") from error
    except (struct.error, ValueError, KeyError, TypeError, AttributeError, IndexError, RecursionError) as error:
        raise CheckpointError(
            f"{path} is not a readable safetensors file: its header is damaged.", fix="Download it again and compare its checksum."
        ) from error
    entries = dict(sorted(entries.items(), key=lambda item: item[1].start))
    _check_extents(path, entries, size)
    return metadata, entries


def _check_kind(path: Path, start: bytes, size: int) -> None:
    if _begins_as_one(start, size):  # whatever its first bytes spell: a length may be any number
        return
    for beginning, what, fix in _OTHER_FORMATS:
        if start.startswith(beginning):
            raise CheckpointError(f"{path} is {what}, not a safetensors file.", fix=fix)
    if size < 10:
        raise CheckpointError(f"{path} is not a safetensors file: it has {size} bytes.", fix="Download it again.")
    (length,) = struct.unpack("<Q", start[:8])
    if not 2 <= length <= min(_MAX_HEADER_BYTES, size - 8):
        cut = 2 <= length <= _MAX_HEADER_BYTES and start[8:9] == b"{"
        found = f"its header should be {length:,} bytes, and the whole file has {size:,}"
        raise CheckpointError(
            f"{path} {'is cut short' if cut else 'is not a safetensors file'}: {found}.", fix="Download it again and compare its checksum."
        )


def _begins_as_one(start: bytes, size: int) -> bool:
    """Whether a length that the file has room for is followed by JSON."""
    return start[8:9] == b"{" and 2 <= struct.unpack("<Q", start[:8])[0] <= min(_MAX_HEADER_BYTES, size - 8)


def _entry(path: Path, value: dict[str, object], data_start: int) -> Entry:
    dtype, shape, offsets = value["dtype"], value["shape"], value["data_offsets"]
    if not (isinstance(dtype, str) and isinstance(shape, list) and isinstance(offsets, list)):
        raise TypeError("a field of another type")
    sizes = tuple(int(number) for number in shape)
    start, end = int(offsets[0]), int(offsets[1])
    if start < 0 or any(number < 0 for number in sizes) or (dtype in _BITS and (end - start) * 8 != prod(sizes) * _BITS[dtype]):
        raise ValueError("a tensor whose place does not fit its shape")
    return Entry(path, dtype, sizes, data_start + start, data_start + end)


def _check_extents(path: Path, entries: dict[str, Entry], size: int) -> None:
    cut = [key for key, entry in entries.items() if entry.end > size]
    if cut:
        expected = max(entry.end for entry in entries.values())
        raise CheckpointError(
            f"{path} is cut short: {size:,} of {expected:,} bytes. {first_five(cut)}.",
            fix="Download it again; most tools go on where they were.",
        )


def first_five(keys: list[str]) -> str:
    """How many tensors are missing, and the first five of them: "7 tensors are missing: a, b, c, d, e"."""
    more = ", …" if len(keys) > 5 else ""
    return f"{len(keys)} {'tensor is' if len(keys) == 1 else 'tensors are'} missing: {', '.join(keys[:5])}{more}"
