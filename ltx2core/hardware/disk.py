"""How fast a folder's disk writes and reads, measured with a file that is gone again, in about a second."""

from __future__ import annotations

import contextlib
import os
import tempfile
import time
from typing import TYPE_CHECKING

from ltx2core.hardware.machine import DiskSpeed

if TYPE_CHECKING:
    from pathlib import Path

CHUNK = 8 << 20
MOST = 512 << 20  # beyond this more bytes tell nothing new
_SPARE = 2 << 30  # a disk with less free is left alone


def disk_speed(folder: Path, *, seconds: float = 0.5, most: int = MOST) -> DiskSpeed | None:
    """What the disk of an existing folder does, or None where nothing may be written, or little room is left.

    seconds: for writing, and for reading again. most: bytes to write at most.
    """
    status = os.statvfs(folder)
    if status.f_bavail * status.f_frsize < _SPARE:
        return None
    try:
        with tempfile.NamedTemporaryFile(dir=folder, prefix=".speed-", buffering=0) as file:
            written, write_seconds = _write(file.fileno(), seconds, most)
            read = _read(file.fileno(), seconds) if _out_of_cache(file.fileno(), written) else None
    except OSError:  # a folder of somebody else's, a quota
        return None
    return DiskSpeed(write_bytes_per_second=written / write_seconds, read_bytes_per_second=read)


def _write(descriptor: int, seconds: float, most: int) -> tuple[int, float]:
    """(bytes, seconds) until they are on the disk, synced piece by piece so that no backlog outlasts the time."""
    data = os.urandom(CHUNK)  # a disk that compresses has nothing to gain
    begin, written = time.perf_counter(), 0
    while written < most and (not written or time.perf_counter() - begin < seconds):
        written += os.write(descriptor, data)
        if written % (4 * CHUNK) == 0:
            os.fsync(descriptor)
    os.fsync(descriptor)
    return written, time.perf_counter() - begin


def _out_of_cache(descriptor: int, length: int) -> bool:
    """Whether the system could be told to forget the file, so that a read comes from the disk."""
    if not hasattr(os, "posix_fadvise"):
        return False
    with contextlib.suppress(OSError):
        os.posix_fadvise(descriptor, 0, length, os.POSIX_FADV_DONTNEED)
        return True
    return False


def _read(descriptor: int, seconds: float) -> float:
    os.lseek(descriptor, 0, os.SEEK_SET)
    begin, read = time.perf_counter(), 0
    while piece := len(os.read(descriptor, CHUNK)):
        read += piece
        if time.perf_counter() - begin > seconds:
            break
    return read / max(time.perf_counter() - begin, 1e-6)
