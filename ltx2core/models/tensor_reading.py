"""Tensors from a safetensors file into memory of their own, one at a time, in the order of the file.

The file is read, not mapped: pages of a mapped file count as this process's memory, and tensors that point into them keep all 43 GB
alive. To a GPU a tensor goes in pieces through two small pinned buffers, so the host never holds a whole one; the next piece is read
from disk while the last one travels.
"""

from __future__ import annotations

import contextlib
import io
import os
from typing import TYPE_CHECKING, Protocol

import torch

from ltx2core.errors import CheckpointError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from ltx2core.models.safetensors_header import Entry

PIECE_BYTES = 32 * 1024 * 1024  # of one pinned buffer: 1.3 ms of PCIe 4.0, long against the cost of starting a copy
_DTYPES = {
    "BOOL": torch.bool,
    "U8": torch.uint8,
    "I8": torch.int8,
    "I16": torch.int16,
    "I32": torch.int32,
    "I64": torch.int64,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "F32": torch.float32,
    "F64": torch.float64,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
}


def read_tensors(entries: Iterable[tuple[str, Entry]], device: torch.device | str = "cpu") -> Iterator[tuple[str, torch.Tensor]]:
    """(name, tensor) of each entry, on the device, in the file's number format. Raises CheckpointError when the file cannot be read."""
    device = torch.device(device)
    transfer: Transfer = Direct() if device.type == "cpu" else Staged(device)
    with contextlib.ExitStack() as stack:
        files: dict[Path, io.FileIO] = {}
        for name, entry in entries:
            if entry.dtype not in _DTYPES:
                raise CheckpointError(
                    f"{entry.path}: {name} is in the number format {entry.dtype}, which cannot be read.",
                    fix="Use the bf16 file of the model.",
                )
            if entry.path not in files:
                files[entry.path] = stack.enter_context(_open(entry.path))
            flat = torch.empty(entry.end - entry.start, dtype=torch.uint8, device=device)
            transfer.fill(flat, files[entry.path], entry.start)
            yield name, flat.view(_DTYPES[entry.dtype]).reshape(entry.shape)


class Transfer(Protocol):
    """A way for bytes of a file into a tensor."""

    def fill(self, target: torch.Tensor, file: io.FileIO, start: int) -> None:
        """Fill target (uint8 [n]) with the file's bytes from `start`."""


class Direct:
    """Reads straight into the tensor, which lies in host memory."""

    def fill(self, target: torch.Tensor, file: io.FileIO, start: int) -> None:
        _read_into(file, target, start)


class Staged:
    """Reads into two host buffers in turn, pinned where the device is a GPU, and copies each to the tensor while the other is filled.

    Copies go to the current stream: what computes on the tensor next is ordered after them, and the host goes on reading at once. An
    event per buffer tells when it may be filled again.
    """

    def __init__(self, device: torch.device, *, piece_bytes: int = PIECE_BYTES) -> None:
        on_gpu = device.type == "cuda"
        self._buffers = [torch.empty(piece_bytes, dtype=torch.uint8, pin_memory=on_gpu) for _ in range(2)]
        self._sent: list[torch.cuda.Event | None] = [
            torch.cuda.Event() if on_gpu else None  # type: ignore[no-untyped-call]
            for _ in self._buffers
        ]
        self._device = device
        self._turn = 0

    def fill(self, target: torch.Tensor, file: io.FileIO, start: int) -> None:
        size = self._buffers[0].numel()
        for done in range(0, target.numel(), size):
            piece = target[done : done + size]
            buffer, sent = self._buffers[self._turn][: piece.numel()], self._sent[self._turn]
            if sent is not None:
                sent.synchronize()  # returns at once for an event that was never recorded
            _read_into(file, buffer, start + done)
            piece.copy_(buffer, non_blocking=sent is not None)
            if sent is not None:
                sent.record(torch.cuda.current_stream(self._device))
            self._turn = 1 - self._turn


def _open(path: Path) -> io.FileIO:
    try:
        file = io.FileIO(path)
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error.strerror}.", fix="Check the file and its permissions.") from error
    if hasattr(os, "posix_fadvise"):  # not on macOS
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_SEQUENTIAL)  # doubles how far the kernel reads ahead
    return file


def _read_into(file: io.FileIO, target: torch.Tensor, start: int) -> None:
    view, done = target.numpy().data, 0
    try:
        file.seek(start)
        while done < len(view):
            count = file.readinto(view[done:])  # at most 2 GiB a call
            if not count:
                raise CheckpointError(
                    f"{file.name!s} became shorter while it was read.", fix="Wait until its download is done, or download it again."
                )
            done += count
    except OSError as error:
        raise CheckpointError(
            f"{file.name!s} cannot be read at byte {start + done:,}: {error.strerror}.",
            fix="Copy the file to another disk, or download it again.",
        ) from error
