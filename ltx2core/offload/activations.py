"""Inputs of blocks that wait for their backward in page-locked host memory, copied beside the compute in both directions.

A sweep forwards puts them there in order, the sweep backwards takes them in reverse. A copy out must be over before its source is used
again, so each source is held until the next block's copy is under way; the way back begins a few blocks ahead (offload/ahead.py).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ltx2core.offload.ahead import inputs_ahead
from ltx2core.offload.host_memory import PinnedMemory
from ltx2core.offload.layout import Place
from ltx2core.offload.ring import join_captured

if TYPE_CHECKING:
    from collections.abc import Sequence

_ALIGNED = 256  # bytes


class HostActivations:
    """One sweep's inputs at a time. A block's buffer grows to the largest that it had to hold."""

    def __init__(self) -> None:
        self._buffers: dict[int, PinnedMemory] = {}
        self._places: dict[int, list[Place]] = {}
        self._waiting: list[int] = []  # what was put and not yet taken, in order
        self._leaving: tuple[Sequence[Tensor], torch.cuda.Event] | None = None
        self._coming: dict[int, tuple[list[Tensor], torch.cuda.Event | None]] = {}
        self._stream: torch.cuda.Stream | None = None
        self.refused: int | None = None  # CUDA's code when it would not lock a buffer: copies wait then, and cannot be captured

    def buffers(self) -> list[PinnedMemory]:
        """The host memory in use: a captured step reads and writes it, also when a larger batch has had it replaced."""
        return list(self._buffers.values())

    @property
    def on_the_way(self) -> list[int]:
        """The blocks whose inputs come back now, the next one first."""
        return list(self._coming)

    def settle(self) -> None:
        """Forget what a sweep that was broken off, or captured, left under way. The buffers stay."""
        if self._stream is not None:
            torch.cuda.current_stream(self._stream.device).synchronize()
            self._stream.synchronize()
        self._waiting.clear()
        self._coming.clear()
        self._leaving = None

    def join(self) -> None:
        """Have the compute stream wait for copies that are being captured."""
        join_captured(self._stream)

    def put(self, index: int, tensors: Sequence[Tensor]) -> None:
        """Send a block's inputs away. Blocks come in rising order; one that comes again begins a new sweep."""
        if self._waiting and self._waiting[-1] >= index:  # the sweep before was broken off
            self._waiting.clear()
        self._coming.clear()
        self._waiting.append(index)
        host = self._room(index, tensors)
        if not tensors[0].is_cuda:
            for target, source in zip(host, tensors, strict=True):
                target.copy_(source)
            return
        compute = torch.cuda.current_stream(tensors[0].device)
        if self._stream is None:
            self._stream = torch.cuda.Stream(tensors[0].device)  # type: ignore[no-untyped-call]
        self._stream.wait_stream(compute)
        with torch.cuda.stream(self._stream):
            for target, source in zip(host, tensors, strict=True):
                target.copy_(source, non_blocking=True)
            event = self._stream.record_event()
        if self._leaving is not None:
            compute.wait_event(self._leaving[1])
        self._leaving = tensors, event

    def take(self, index: int) -> list[Tensor]:
        """Have a block's inputs back, and let those of the blocks before come."""
        if self._leaving is not None:
            torch.cuda.current_stream(self._leaving[0][0].device).wait_event(self._leaving[1])
            self._leaving = None
        if index not in self._coming:
            self._bring(index)
        tensors, event = self._coming.pop(index)
        if event is not None:
            torch.cuda.current_stream(tensors[0].device).wait_event(event)
        self._waiting.remove(index)
        ahead = inputs_ahead(sum(tensor.nbytes for tensor in tensors))
        for before in reversed(self._waiting[-ahead:]):
            if before not in self._coming:
                self._bring(before)
        return tensors

    def _bring(self, index: int) -> None:
        host = [place.view(self._buffers[index].tensor) for place in self._places[index]]
        if self._stream is None:
            self._coming[index] = [tensor.clone() for tensor in host], None
            return
        device = self._stream.device
        tensors = [torch.empty(tensor.shape, dtype=tensor.dtype, device=device) for tensor in host]
        self._stream.wait_stream(torch.cuda.current_stream(device))  # whose memory this was until now
        with torch.cuda.stream(self._stream):
            for target, source in zip(tensors, host, strict=True):
                target.copy_(source, non_blocking=True)
            self._coming[index] = tensors, self._stream.record_event()

    def _room(self, index: int, tensors: Sequence[Tensor]) -> list[Tensor]:
        """Host memory of the tensors' shapes: views of the block's buffer, of a new one where it is too small."""
        places, size = [], 0
        for tensor in tensors:
            places.append(Place(size, tuple(tensor.shape), tensor.dtype))
            size += -(-tensor.nbytes // _ALIGNED) * _ALIGNED
        self._places[index] = places
        if index not in self._buffers or self._buffers[index].tensor.nbytes < size:
            if self._stream is not None:
                self._stream.synchronize()  # a copy from or to the memory that goes may be under way; shapes grow a few times a run
            self._buffers[index] = memory = PinnedMemory(size, register=False)
            if tensors[0].is_cuda and self.refused is None:
                self.refused = memory.lock() or None
        return [place.view(self._buffers[index].tensor) for place in places]
