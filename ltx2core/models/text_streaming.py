"""Runs modules in turn whose weights lie in host memory: each one's weights travel to the device just before it runs.

A module's weights are one contiguous host buffer, page-locked when the device is a GPU. They travel on a stream of their own into one
of a few device slots, one module ahead of the one that computes, and are read there in place: on the device there is never more than
the slots. On a CPU the same code copies from memory to memory, which is what tests compare with the module as a whole.

Forward only. Weights never travel back, so nothing here may be trained.
"""

from __future__ import annotations

import contextlib
import weakref
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from collections.abc import Sequence

_ALIGNMENT = 256  # bytes: what a GPU's own allocator gives, so that matrix products take their fast paths


class Lane(Protocol):
    """How bytes get to the device, and how computing and copying wait for each other. A mark is a moment on one of the two."""

    def copy(self, target: Tensor, source: Tensor, after: object) -> object:
        """Start to copy once the moment `after` has passed; the moment it has arrived."""

    def wait(self, arrived: object) -> None:
        """Let what is computed from now on wait for a copy."""

    def mark(self) -> object:
        """The moment when all that was computed so far is done."""

    def finish(self) -> None:
        """Let what is computed from now on wait for every copy."""


class Direct:
    """Copies at once: host memory to host memory."""

    def copy(self, target: Tensor, source: Tensor, after: object) -> object:
        target.copy_(source)
        return None

    def wait(self, arrived: object) -> None:
        pass

    def mark(self) -> object:
        return None

    def finish(self) -> None:
        pass


class CopyStream:
    """Copies on a CUDA stream beside the one that computes; neither ever stops the host."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]

    def copy(self, target: Tensor, source: Tensor, after: object) -> object:
        with torch.cuda.stream(self._stream):
            if isinstance(after, torch.cuda.Event):
                self._stream.wait_event(after)
            target.copy_(source, non_blocking=True)
            return self._stream.record_event()

    def wait(self, arrived: object) -> None:
        assert isinstance(arrived, torch.cuda.Event)
        torch.cuda.current_stream(self._device).wait_event(arrived)

    def mark(self) -> object:
        return torch.cuda.current_stream(self._device).record_event()

    def finish(self) -> None:
        torch.cuda.current_stream(self._device).wait_stream(self._stream)


@dataclass(frozen=True, slots=True)
class _Piece:
    """One tensor of a module: where it belongs, and where its bytes lie in the module's buffer."""

    name: str
    owner: nn.Module
    leaf: str
    empty: Tensor  # a meta tensor of its type and shape: what the module holds while the weights are away
    start: int

    @property
    def end(self) -> int:
        return self.start + self.empty.numel() * self.empty.element_size()

    def view(self, flat: Tensor) -> Tensor:
        return flat[self.start : self.end].view(self.empty.dtype).view(self.empty.shape)

    def assign(self, tensor: Tensor) -> None:
        if self.leaf in self.owner._parameters:
            self.owner._parameters[self.leaf] = nn.Parameter(tensor, requires_grad=False)
        else:
            self.owner._buffers[self.leaf] = tensor


class Streamer:
    """Streams `units`, which run in this order, through `slots` buffers on the device.

    With two slots the next unit's weights travel while one computes; with one slot each is fetched when it is needed. Weights come
    from `fill`, tensor by tensor, or from what the units hold already, with `adopt`. The units' tensors are on the meta device while
    they do not run.
    """

    def __init__(self, units: Sequence[nn.Module], device: torch.device, *, slots: int = 2, lane: Lane | None = None) -> None:
        self.device = device
        self._pieces = [_pieces_of(unit) for unit in units]
        self._sizes = [-(-pieces[-1].end // _ALIGNMENT) * _ALIGNMENT for pieces in self._pieces]
        self._host: list[Tensor | None] = [None] * len(units)
        self._lane: Lane = lane or (CopyStream(device) if device.type == "cuda" else Direct())
        self._slots: list[Tensor | None] = [None] * slots
        self._holds: list[int | None] = [None] * slots
        self._arrived: list[object] = [None] * slots
        self._free: list[object] = [None] * slots
        self._locked: list[Tensor] = []
        weakref.finalize(self, _unlock, self._locked).atexit = False
        self.page_locked = device.type == "cuda"
        for index, unit in enumerate(units):
            unit.register_forward_pre_hook(lambda module, arguments, index=index: self._bring(index))
            unit.register_forward_hook(lambda module, arguments, output, index=index: self._leave(index))

    @property
    def slot_bytes(self) -> int:
        """Bytes of one device slot: the largest unit."""
        return max(self._sizes)

    @property
    def host_bytes(self) -> int:
        return sum(self._sizes)

    def fill(self, unit: int, name: str, tensor: Tensor) -> None:
        """Put one tensor of a unit into host memory, cast to the type that the unit has. name: within the unit."""
        (piece,) = (piece for piece in self._pieces[unit] if piece.name == name)
        piece.view(self._buffer(unit)).copy_(tensor)

    def adopt(self) -> None:
        """Take over the weights that the units hold, one unit after the other, so that nothing is held twice."""
        for index, pieces in enumerate(self._pieces):
            for piece in pieces:
                held = piece.owner._parameters if piece.leaf in piece.owner._parameters else piece.owner._buffers
                value = held[piece.leaf]
                assert value is not None
                self.fill(index, piece.name, value)
                piece.assign(piece.empty)

    def release(self) -> None:
        """Give the device slots back. The next run takes new ones."""
        self._lane.finish()  # a copy may be on its way into memory that someone else gets next
        for pieces in self._pieces:
            for piece in pieces:
                piece.assign(piece.empty)
        self._slots = [None] * len(self._slots)
        self._holds = [None] * len(self._holds)

    def _bring(self, index: int) -> None:
        slot = self._send(index)
        self._lane.wait(self._arrived[slot])
        flat = self._slots[slot]
        assert flat is not None
        for piece in self._pieces[index]:
            piece.assign(piece.view(flat))
        if len(self._slots) > 1 and index + 1 < len(self._pieces):
            self._send(index + 1)

    def _leave(self, index: int) -> None:
        for piece in self._pieces[index]:
            piece.assign(piece.empty)
        self._free[index % len(self._slots)] = self._lane.mark()

    def _send(self, index: int) -> int:
        """The slot that a unit's weights are in, or on the way to."""
        slot = index % len(self._slots)
        if self._holds[slot] == index:
            return slot
        flat = self._slots[slot]
        if flat is None:
            flat = self._slots[slot] = torch.empty(self.slot_bytes, dtype=torch.uint8, device=self.device)
            self._free[slot] = self._lane.mark()  # the allocator may give memory that queued work still reads
        host = self._buffer(index)
        self._arrived[slot] = self._lane.copy(flat[: host.numel()], host, self._free[slot])
        self._holds[slot] = index
        return slot

    def _buffer(self, unit: int) -> Tensor:
        """A unit's host memory, page-locked if that can be had: a copy from other memory stops the host while it lasts."""
        flat = self._host[unit]
        if flat is None:
            flat = self._host[unit] = torch.empty(self._sizes[unit], dtype=torch.uint8)
            if self.page_locked:
                self.page_locked = _lock(flat, self.device)
                if self.page_locked:
                    self._locked.append(flat)
        return flat


def stream_module(module: nn.Module, device: torch.device) -> Streamer:
    """Stream a module that is in host memory whole: its own linear layers and the members of its lists, one at a time. The rest, which
    is small, moves to the device.

    One slot, as the largest unit of the connectors (1.5 GB of 5.9) is far larger than the others: a second slot would cost more than
    the whole language model's two.
    """
    units: list[nn.Module] = [child for child in module.children() if isinstance(child, nn.Linear)]
    units += [member for child in module.children() for members in _outer_lists(child) for member in members]
    inside = {id(part) for unit in units for part in unit.modules()}
    for part in module.modules():
        if id(part) in inside:
            continue
        for name, parameter in part._parameters.items():
            if parameter is not None:
                part._parameters[name] = nn.Parameter(parameter.to(device), requires_grad=False)
        for name, buffer in part._buffers.items():
            if buffer is not None:
                part._buffers[name] = buffer.to(device)
    streamer = Streamer(units, device, slots=1)
    streamer.adopt()
    return streamer


def _outer_lists(module: nn.Module) -> list[nn.ModuleList]:
    """The lists in a module that lie in no other list."""
    if isinstance(module, nn.ModuleList):
        return [module]
    return [found for child in module.children() for found in _outer_lists(child)]


def _pieces_of(unit: nn.Module) -> list[_Piece]:
    pieces: list[_Piece] = []
    start = 0
    for prefix, owner in unit.named_modules():
        held = {**owner._parameters, **owner._buffers}
        for leaf, tensor in held.items():
            if tensor is None:
                continue
            name = f"{prefix}.{leaf}" if prefix else leaf
            pieces.append(_Piece(name, owner, leaf, torch.empty_like(tensor, device="meta"), start))
            start = -(-pieces[-1].end // _ALIGNMENT) * _ALIGNMENT
    assert all(first.end <= second.start for first, second in pairwise(pieces))
    return pieces


def _lock(flat: Tensor, device: torch.device) -> bool:
    """Page-lock memory; False when the driver will not.

    Not `pin_memory`: PyTorch rounds such memory up to a power of two, and keeps it for itself when it is freed (22 GB that training
    would miss).
    """
    portable = 1  # cudaHostRegisterPortable
    if int(_cudart().cudaHostRegister(flat.data_ptr(), flat.numel(), portable)) == 0:
        return True
    with contextlib.suppress(RuntimeError):  # the refusal stays behind as CUDA's last error, and the next kernel would raise it
        torch.zeros(1, device=device)
    return False


def _unlock(locked: list[Tensor]) -> None:
    for flat in locked:
        _cudart().cudaHostUnregister(flat.data_ptr())
    locked.clear()


def _cudart() -> Any:
    return torch.cuda.cudart()  # type: ignore[no-untyped-call]
