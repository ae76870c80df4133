"""Whether a file is whole, from its outermost structure alone: a few dozen bytes read, however large it is."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, BinaryIO, Literal

if TYPE_CHECKING:
    from pathlib import Path

Kind = Literal["mp4", "matroska", "text", "other"]

_BOXES = {b"ftyp", b"moov", b"mdat", b"free", b"skip", b"wide", b"pnot", b"styp", b"sidx", b"moof", b"mfra", b"uuid", b"meta"}
_MAX_BOXES = 100_000  # a fragmented mp4 has two a fragment
_EBML, _SEGMENT = 0x1A45DFA3, 0x18538067


@dataclass(frozen=True, slots=True, kw_only=True)
class Structure:
    """What the outermost boxes claim."""

    kind: Kind
    size: int  # bytes of the file
    missing_bytes: int = 0  # that its boxes claim beyond its end
    has_index: bool = True  # False for an mp4 whose moov was never written


def read_structure(path: Path) -> Structure:
    """The structure of the file at `path`. Raises OSError when it cannot be opened."""
    with path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        head = file.read(512)
        if head[4:8] in _BOXES:
            return _walk_boxes(file, size)
        if int.from_bytes(head[:4]) == _EBML:
            return Structure(kind="matroska", size=size, missing_bytes=_missing_in_segment(head, size))
        return Structure(kind="text" if _is_text(head) else "other", size=size)


def _walk_boxes(file: BinaryIO, size: int) -> Structure:
    """ISO/IEC 14496-12, section 4.2: 4 bytes size, 4 bytes type; size 1 puts 8 bytes of it after the type, 0 means to the end."""
    at, has_index = 0, False
    for _ in range(_MAX_BOXES):
        file.seek(at)
        head = file.read(16)
        length, kind = int.from_bytes(head[:4]), head[4:8]
        if kind not in _BOXES:  # the end, or bytes that a recorder left behind it
            break
        has_index = has_index or kind == b"moov"
        if length == 0:
            at = size
            break
        at += int.from_bytes(head[8:16]) if length == 1 else max(length, 8)
        if at >= size:
            break
    return Structure(kind="mp4", size=size, missing_bytes=max(at - size, 0), has_index=has_index)


def _missing_in_segment(head: bytes, size: int) -> int:
    """Bytes that a Matroska segment claims beyond the file's end; 0 when its length is unknown, as in a live recording."""
    length, used = _vint(head, 4)
    at = 4 + used + length
    if int.from_bytes(head[at : at + 4]) != _SEGMENT:
        return 0
    length, used = _vint(head, at + 4)
    unknown = (1 << 7 * used) - 1
    return 0 if length == unknown else max(at + 4 + used + length - size, 0)


def _vint(data: bytes, at: int) -> tuple[int, int]:
    """A variable-size integer of EBML (RFC 8794, section 4) and the bytes it takes; 0 and 1 where there is none."""
    first = data[at] if at < len(data) else 0
    if first == 0:
        return 0, 1
    used = 9 - first.bit_length()
    value = int.from_bytes(data[at : at + used]) & ((1 << 7 * used) - 1)
    return value, used


def _is_text(head: bytes) -> bool:
    return b"\0" not in head and sum(byte < 9 or 13 < byte < 32 for byte in head) == 0
