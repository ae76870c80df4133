"""Between host and device while clips are encoded: copies in and out that the encoder does not wait for, and how busy it was."""

from __future__ import annotations

import time
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

import torch

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from torch import Tensor


class Landing(Protocol):
    """Results on their way to the host."""

    def wait(self) -> None:
        """Return when they are there."""


class Link(Protocol):
    """What `encode_clips` computes through."""

    pinned: bool

    def run(
        self, arrays: Sequence[Tensor], encode: Callable[[Tensor], Sequence[Mapping[str, Tensor]]]
    ) -> tuple[list[dict[str, Tensor]], Landing]:
        """What `encode` makes of the arrays, [B, ...] of equal shapes, on the host once `Landing.wait` returns."""

    def busy_seconds(self) -> float:
        """How long the device computed in all `run`s so far. Waits for the last."""


def to_host(tensors: Mapping[str, Tensor], device: torch.device) -> tuple[dict[str, Tensor], Landing]:
    """Tensors that were computed on the device, on their way to host memory."""
    if device.type != "cuda":
        return {name: tensor.cpu() for name, tensor in tensors.items()}, _Landed()
    landed = {name: _to_host(tensor) for name, tensor in tensors.items()}
    event = torch.cuda.Event()  # type: ignore[no-untyped-call]
    event.record(torch.cuda.current_stream(device))
    return landed, _Event(event)


def open_link(device: torch.device) -> Link:
    return CudaLink(device) if device.type == "cuda" else HostLink(device)


@dataclass
class HostLink:
    """Computes at once."""

    device: torch.device
    pinned: bool = False
    _busy: float = 0.0

    def run(
        self, arrays: Sequence[Tensor], encode: Callable[[Tensor], Sequence[Mapping[str, Tensor]]]
    ) -> tuple[list[dict[str, Tensor]], Landing]:
        begin = time.perf_counter()
        results = [{name: tensor.cpu() for name, tensor in made.items()} for made in encode(torch.stack(list(arrays)).to(self.device))]
        self._busy += time.perf_counter() - begin
        return results, _Landed()

    def busy_seconds(self) -> float:
        return self._busy


@dataclass
class CudaLink:
    """Copies in on a stream of their own, computes on the current one, and copies out behind that; nothing waits for anything else."""

    device: torch.device
    pinned: bool = True
    most_in_flight: int = 2  # what computes, and what lies on the device for after it
    _copies: torch.cuda.Stream = field(init=False)
    _in_flight: deque[tuple[torch.cuda.Event, torch.cuda.Event]] = field(default_factory=deque)
    _busy: float = 0.0

    def __post_init__(self) -> None:
        self._copies = torch.cuda.Stream(self.device)  # type: ignore[no-untyped-call]

    def run(
        self, arrays: Sequence[Tensor], encode: Callable[[Tensor], Sequence[Mapping[str, Tensor]]]
    ) -> tuple[list[dict[str, Tensor]], Landing]:
        while len(self._in_flight) >= self.most_in_flight:
            self._finish()
        computes = torch.cuda.current_stream(self.device)
        with torch.cuda.stream(self._copies):
            given = torch.empty((len(arrays), *arrays[0].shape), dtype=arrays[0].dtype, device=self.device)
            for index, array in enumerate(arrays):
                given[index].copy_(array, non_blocking=True)
        computes.wait_stream(self._copies)
        given.record_stream(computes)  # its memory belongs to the copying stream, which may not have it back before this is computed
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))  # type: ignore[no-untyped-call]
        begin.record(computes)
        results = [{name: _to_host(tensor) for name, tensor in made.items()} for made in encode(given)]
        end.record(computes)
        self._in_flight.append((begin, end))
        return results, _Event(end)

    def busy_seconds(self) -> float:
        while self._in_flight:
            self._finish()
        return self._busy

    def _finish(self) -> None:
        begin, end = self._in_flight.popleft()
        end.synchronize()
        self._busy += begin.elapsed_time(end) / 1000


class _Landed:
    def wait(self) -> None:
        pass


@dataclass(frozen=True)
class _Event:
    event: torch.cuda.Event

    def wait(self) -> None:
        self.event.synchronize()


def _to_host(tensor: Tensor) -> Tensor:
    """A tensor in host memory, where it will be when the current stream has come so far."""
    if tensor.device.type == "cpu":
        return tensor
    return torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True).copy_(tensor, non_blocking=True)
