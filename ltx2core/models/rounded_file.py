"""The file that keeps rounded weights between runs: written while they are made, read straight into where they stay.

A safetensors file: of each matrix its stored numbers and its scales, under diffusers' names, in the order in which they were made, and in
the header what they were made from, how, how exactly (SNR), and a sum of each. The header's room is set aside first and filled in last, so
nothing waits in memory. rounded_weights.py (training) says where files lie and what a user is told.
"""

from __future__ import annotations

import io
import json
import os
import struct
from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ltx2core.errors import CheckpointError
from ltx2core.models import nf4
from ltx2core.models.quantised import GROUP, LEAST_SNR_DB, STORED, Storage
from ltx2core.models.safetensors_header import Entry, read_header
from ltx2core.models.tensor_reading import Direct, Staged, Transfer

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from ltx2core.offload.layout import BlockWeights

RULE = f"1: groups of {GROUP} below {LEAST_SNR_DB:g} dB, blocks of {nf4.BLOCK}"  # a file by another rule holds other numbers
_NAMES = {torch.int8: "I8", torch.float8_e4m3fn: "F8_E4M3", torch.uint8: "U8", torch.float32: "F32"}
_MOST_BYTES_A_NAME = 420  # of the header, for a matrix, its scales and what is told of them, besides their names
_SETTLE_BYTES = 1 << 28  # written at a time: pages that wait for the disk are memory that loading needs


@dataclass(frozen=True, slots=True, kw_only=True)
class Made:
    """What weights were made from, and as what. source: the fingerprint of the checkpoint's transformer."""

    source: str
    storage: Storage


@dataclass(frozen=True, slots=True)
class Fact:
    """What the header tells of a matrix: its signal to noise, and the sums of its stored numbers and of its scales."""

    snr_db: float
    rows_sum: int
    scale_sum: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Opened:
    """A file that fits. entries and facts: by a matrix's name; the scales of one are the entry NAME_scale."""

    path: Path
    entries: dict[str, Entry]
    facts: dict[str, Fact]


class Unfit(Exception):  # noqa: N818 - no error: the weights are made again
    """Why a file cannot be used, as the end of a sentence that begins with its path."""


class RoundedWriter:
    """Writes what `add` is given. It never stops the loading that it goes along with: what went wrong is raised by `finish`."""

    def __init__(self, path: Path, made: Made, *, names: Sequence[str], note: str) -> None:
        """names: of all matrices that will come, in any order. note: where the source lies, for people."""
        self._metadata = {"format": "pt", "rule": RULE, "source": made.source, "storage": made.storage, "note": note}
        self._header: dict[str, object] = {}
        self._facts: dict[str, list[float]] = {}
        self._room = 4096 + 2 * len(json.dumps(self._metadata)) + sum(2 * _MOST_BYTES_A_NAME + 6 * len(name) for name in names)
        self._room += -self._room % 8
        self._place = self._settled = 0
        self._failure: OSError | None = None
        self._file: io.FileIO | None = None
        try:
            self._file = io.FileIO(path, "w")
            self._file.seek(8 + self._room)
        except OSError as error:
            self._fail(error)

    def add(self, name: str, rows: Tensor, scale: Tensor, snr_db: float) -> None:
        """A matrix as it is stored, wherever it lies, and its scales."""
        if self._file is None:
            return
        try:
            sums = [self._append(key, tensor.detach().cpu().contiguous()) for key, tensor in ((name, rows), (f"{name}_scale", scale))]
        except OSError as error:
            self._fail(error)
            return
        self._facts[name] = [snr_db, *sums]

    def finish(self) -> None:
        """Complete the file. Raises the OSError that stopped the writing, if one did."""
        if self._failure is None and self._file is not None:
            text = json.dumps({"__metadata__": self._metadata | {"facts": json.dumps(self._facts)}, **self._header}, separators=(",", ":"))
            assert len(text) <= self._room
            self._file.seek(0)
            _write(self._file, struct.pack("<Q", self._room) + text.encode().ljust(self._room))
        self.close()
        if self._failure is not None:
            raise self._failure

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None

    def _append(self, key: str, tensor: Tensor) -> int:
        data = tensor.reshape(-1).view(torch.uint8)
        assert self._file is not None
        _write(self._file, data.numpy().data)
        end = self._place + data.numel()
        self._header[key] = {"dtype": _NAMES[tensor.dtype], "shape": [*tensor.shape], "data_offsets": [self._place, end]}
        self._place = end
        if end - self._settled >= _SETTLE_BYTES:
            _settle(self._file.fileno())
            self._settled = end
        return int(checksum(data))

    def _fail(self, error: OSError) -> None:
        self._failure = error
        self.close()


def open_rounded(path: Path, made: Made, shapes: Mapping[str, tuple[int, int]]) -> Opened | None:
    """The file, if it holds all matrices of `shapes`, [N, K] before rounding, by name; None when there is none. Raises Unfit."""
    if not path.exists():
        return None
    try:
        metadata, entries = read_header(path)
    except CheckpointError as error:
        raise Unfit("is cut short, or no such file at all") from error
    if not metadata.keys() >= {"rule", "source", "storage", "facts"}:
        raise Unfit("was written by something else")
    if metadata["source"] != made.source:
        raise Unfit("was made from another checkpoint")
    if metadata["rule"] != RULE or metadata["storage"] != made.storage:
        raise Unfit("was made by another way of rounding")
    try:
        facts = {name: Fact(float(snr), int(rows), int(scale)) for name, (snr, rows, scale) in json.loads(metadata["facts"]).items()}
    except (ValueError, TypeError, AttributeError, OverflowError, RecursionError) as error:
        raise Unfit("was written by something else") from error
    if lacking := [name for name in shapes if name not in facts or name not in entries or f"{name}_scale" not in entries]:
        raise Unfit(f"lacks {len(lacking)} of {len(shapes)} matrices, such as {lacking[0]}")
    for name, shape in shapes.items():
        if not _fits(entries[name], entries[f"{name}_scale"], shape, made.storage):
            raise Unfit(f"holds {name} in another shape")
    return Opened(path=path, entries=entries, facts=facts)


def read_rounded(opened: Opened, weights: Mapping[str, tuple[BlockWeights, str]], *, device: torch.device) -> None:
    """Fill the matrices of `weights`, each given with its name in its block: from the file to where they stay, without a copy in between.

    Raises Unfit when the file cannot be read, or is not what was written; the matrices are anything then.
    """
    direct, staged = Direct(), None if device.type == "cpu" else Staged(device)
    found: list[tuple[str, Tensor, int]] = []

    def take(name: str, target: Tensor, expected: int, file: io.FileIO) -> None:
        data = target.reshape(-1).view(torch.uint8)
        transfer: Transfer = direct if staged is None or data.device.type == "cpu" else staged
        transfer.fill(data, file, opened.entries[name].start)
        found.append((name, checksum(data), expected))

    try:
        with io.FileIO(opened.path) as file:
            if hasattr(os, "posix_fadvise"):
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_SEQUENTIAL)
            for name in sorted(weights, key=lambda name: opened.entries[name].start):
                block, inner = weights[name]
                fact, key = opened.facts[name], f"{name}_scale"
                if block.written:  # else another process reads what this one shares
                    take(name, block.rows_of(inner), fact.rows_sum, file)
                travels = block.layout.storage == "nf4"  # its scales have their place among the matrices
                if travels and not block.written:
                    block.snr_db[inner] = fact.snr_db
                    continue
                scale = block.scale_of(inner) if travels else torch.empty(opened.entries[key].shape)
                take(key, scale, fact.scale_sum, file)
                block.put_scale(inner, scale.to(device) if not travels else scale, fact.snr_db)
    except (CheckpointError, OSError) as error:
        raise Unfit("cannot be read to its end") from error
    _compare(found)


def verify_rounded(path: Path) -> str | None:
    """Why a file cannot be used, whatever it was made from; None when it is what was written. Reads all of it, a matrix at a time."""
    from ltx2core.models.tensor_reading import read_tensors

    try:
        metadata, entries = read_header(path)
        facts = {name: Fact(*values) for name, values in json.loads(metadata["facts"]).items()}
        for name, fact in facts.items():
            tensors = dict(read_tensors((key, entries[key]) for key in (name, f"{name}_scale")))
            _compare([(name, checksum(tensors[name]), fact.rows_sum), (name, checksum(tensors[f"{name}_scale"]), fact.scale_sum)])
    except Unfit as unfit:
        return f"it {unfit}"
    except (CheckpointError, OSError, ValueError, TypeError, KeyError, AttributeError):
        return "it cannot be read, or is cut short"
    return None


def describe_rounded(path: Path) -> Made | None:
    """What a file says it was made from; None for one that is not whole or none of these."""
    try:
        metadata, _ = read_header(path)
    except CheckpointError:
        return None
    storage: Storage | None = next((each for each in STORED if each == metadata.get("storage")), None)
    return Made(source=metadata["source"], storage=storage) if storage and "source" in metadata and metadata.get("rule") == RULE else None


def checksum(tensor: Tensor) -> Tensor:
    """The sum of a tensor's bytes as whole numbers of 64 bits, wrapping: int64, left on the device. It finds pages that were never written
    and bits that turned, at the speed of memory."""
    data = tensor.reshape(-1).view(torch.uint8)
    if data.numel() % 8:
        return data.sum(dtype=torch.int64)
    return (data.clone() if data.storage_offset() % 8 else data).view(torch.int64).sum()


def scale_numbers(shape: tuple[int, int], storage: Storage) -> int:
    """How many scales a matrix [N, K] has at most."""
    rows, columns = shape
    most = {"int8": max(1, columns // GROUP), "fp8": 1, "nf4": columns / nf4.BLOCK}
    return int(rows * most[storage])


def _compare(found: Sequence[tuple[str, Tensor, int]]) -> None:
    sums = torch.stack([each.to("cpu") for _, each, _ in found]).tolist() if found else []
    if damaged := [name for (name, _, expected), value in zip(found, sums, strict=True) if value != expected]:
        raise Unfit(f"holds other numbers than were written, in {damaged[0]}")


def _fits(entry: Entry, scale: Entry, shape: tuple[int, int], storage: Storage) -> bool:
    rows, columns = shape
    stored = (rows, columns // 2) if storage == "nf4" else shape
    scales: dict[Storage, list[tuple[int, ...]]] = {
        "int8": [(rows,), (rows, columns // GROUP)],
        "fp8": [(rows,)],
        "nf4": [(rows * columns // nf4.BLOCK,)],
    }
    numbers = entry.dtype == _NAMES[STORED[storage]] and entry.shape == stored and entry.end - entry.start == prod(stored)
    return numbers and scale.dtype == "F32" and scale.shape in scales[storage]


def _write(file: io.FileIO, data: bytes | memoryview) -> None:
    """All of the data: one call writes at most 2 GiB."""
    view = memoryview(data)
    while view:
        view = view[file.write(view) or 0 :]


def _settle(descriptor: int) -> None:
    """Have what was written on the disk, and out of memory."""
    if hasattr(os, "fdatasync") and hasattr(os, "posix_fadvise"):
        os.fdatasync(descriptor)
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
