"""Blocks that wait on disk: a safetensors file each, written once for a checkpoint and a storage, and read again by every run after it.

A file holds a block's flat matrices and, of 8-bit ones, their scales. A run that was killed leaves whole files, which the next one uses.
"""

from __future__ import annotations

import json
import mmap
import os
import shutil
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from ltx2core.caching.fingerprint import fingerprint
from ltx2core.errors import RunError, StorageError
from ltx2core.runs.files import replacing, storage_error

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from torch import Tensor

    from ltx2core.offload.layout import Layout

_MATRICES = "matrices"


class BlockFile:
    """A block's matrices in a file, which need not exist before it is first read."""

    registered = False

    def __init__(self, path: Path, nbytes: int) -> None:
        self.path, self.nbytes = path, nbytes

    @cached_property
    def _file(self) -> tuple[int, int]:
        """The open file, and where in it the matrices begin."""
        try:
            descriptor = os.open(self.path, os.O_RDONLY)
            length = int.from_bytes(os.pread(descriptor, 8, 0), "little")
            header = json.loads(os.pread(descriptor, length, 8))
        except (OSError, ValueError) as error:
            raise self._unreadable(str(error)) from error
        return descriptor, 8 + length + int(header[_MATRICES]["data_offsets"][0])

    @property
    def tensor(self) -> Tensor:
        """The matrices, mapped: pages come from the disk when they are looked at, and need no memory of their own."""
        descriptor, start = self._file
        page = start - start % mmap.ALLOCATIONGRANULARITY
        mapped = mmap.mmap(descriptor, start - page + self.nbytes, access=mmap.ACCESS_COPY, offset=page)
        return torch.frombuffer(mapped, dtype=torch.uint8, count=self.nbytes, offset=start - page)

    def read(self, start: int, target: Tensor) -> None:
        """Fill `target` from byte `start` of the matrices on. Raises RunError when the file cannot be read, or ends before."""
        descriptor, first = self._file
        room, done = target.numpy().data, 0
        while done < len(room):
            try:
                count = os.preadv(descriptor, [room[done:]], first + start + done)
            except OSError as error:
                raise self._unreadable(str(error)) from error
            if count == 0:
                raise self._unreadable("it is cut short")
            done += count

    def close(self) -> None:
        """Let go of the file."""
        if "_file" in self.__dict__:
            os.close(self.__dict__.pop("_file")[0])

    def _unreadable(self, why: str) -> RunError:
        return RunError(f"{self.path} cannot be read: {why}.", fix="Remove it, then start again: it is written anew.")


@dataclass(frozen=True, slots=True)
class BlockFiles:
    """The folder of one checkpoint's blocks in one layout."""

    folder: Path
    layout: Layout

    def file(self, index: int) -> BlockFile:
        return BlockFile(self.folder / f"block-{index:03d}.safetensors", self.layout.matrix_bytes)

    def find(self, index: int) -> tuple[dict[str, Tensor], dict[str, float]] | None:
        """A block's scales and signal to noise in dB, if its file is there and whole; None if it must be written."""
        path = self.file(index).path
        if not path.is_file():
            return None
        try:
            with safe_open(path, framework="pt") as file:  # reads the header, and checks it against the file's length
                if file.get_slice(_MATRICES).get_shape() != [self.layout.matrix_bytes]:
                    return None
                scales = {name: file.get_tensor(name) for name in file.keys() if name != _MATRICES}  # noqa: SIM118 - no mapping
                return scales, json.loads((file.metadata() or {})["snr_db"])
        except (SafetensorError, OSError, ValueError, KeyError):  # whatever it is, the file is written anew
            return None

    def write(self, index: int, matrices: Tensor, scales: Mapping[str, Tensor], snr_db: Mapping[str, float]) -> None:
        """Write a block's file, whole or not at all. Raises StorageError where there is no room."""
        tensors = {name: tensor.cpu() for name, tensor in scales.items()} | {_MATRICES: matrices.cpu()}
        with replacing(self.file(index).path) as temporary:
            save_file(tensors, temporary, metadata={"snr_db": json.dumps(dict(snr_db))})

    def missing_bytes(self, indices: list[int]) -> int:
        """How much of these blocks is still to be written."""
        return sum(self.layout.matrix_bytes for index in indices if not self.file(index).path.is_file())


def block_files(folder: Path, *, weights: str, layout: Layout) -> BlockFiles:
    """The files of a checkpoint's blocks below a folder. weights: the fingerprint of the checkpoint's transformer."""
    places = {name: f"{place.start} {place.shape} {place.dtype}" for name, place in layout.matrices.items()}
    return BlockFiles(folder / fingerprint({"weights": weights, "storage": layout.storage, **places})[:16], layout)


def check_room(folder: Path, nbytes: int) -> None:
    """Raise StorageError when a folder cannot take so many bytes more, or cannot be made."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(folder).free
    except OSError as error:
        raise storage_error(folder / "block", error) from error
    if nbytes > free:
        raise StorageError(
            f"Blocks that wait on disk need {nbytes / 2**30:.1f} GiB in {folder}, where {free / 2**30:.1f} GiB are free.",
            fix="Name a folder on another disk in group_offload_to_disk_path, or free space there.",
        )
