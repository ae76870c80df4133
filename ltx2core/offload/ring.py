"""Blocks that travel: their matrices live in host memory and pass through a few slots on the card, always in the same order.

A step visits the S streamed blocks 0 .. S-1 forwards and S-1 .. 0 backwards, through R slots. Block k always uses slot k mod R. When
block k is done forwards, its slot takes k + R; when it is done backwards, k - R. So the last R blocks of the forward sweep are still
there when the backward sweep begins, the first R when the next step does, and a step loads exactly 2 (S - R) blocks, the fewest there
can be: frozen weights only ever travel to the card, never back.

Copies run on a stream of their own. A slot is overwritten only after the compute stream has passed an event that its last user left
there, and read only after an event of its copy; the host never waits, so the whole step can be captured as a graph.
"""

from __future__ import annotations

import mmap
import weakref
from contextlib import nullcontext
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ltx2core.errors import RunError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from contextlib import AbstractContextManager

    from ltx2core.offload.ring_timer import Kind, RingTimer


class Ring:
    """Slots on the card for blocks in host memory. `acquire` and `release` follow the sweeps; loads are counted in `loads`."""

    def __init__(self, masters: Sequence[Tensor], *, slots: int, device: torch.device) -> None:
        """masters: each streamed block's flat matrices, in forward order, page-locked if they are to be copied beside compute."""
        if not 1 <= slots <= len(masters):
            raise ValueError(f"expected 1 to {len(masters)} slots, got {slots}")
        self._masters = list(masters)
        self._slots = [torch.empty_like(masters[0], device=device) for _ in range(slots)]
        self._held = [-1] * slots
        self._stream = torch.cuda.Stream(device) if device.type == "cuda" else None  # type: ignore[no-untyped-call]
        # Events of what is under way. None: nothing is, which a graph must not be made to wait for.
        self._copied: list[torch.cuda.Event | None] = [None] * slots
        self._used: list[torch.cuda.Event | None] = [None] * slots
        self.loads = 0
        self.timer: RingTimer | None = None
        self.settle()

    @property
    def slot_bytes(self) -> int:
        """Memory of all slots."""
        return sum(slot.nbytes for slot in self._slots)

    @property
    def streamed(self) -> int:
        """How many blocks travel."""
        return len(self._masters)

    def loads_per_step(self) -> int:
        """How many blocks a step brings to the card."""
        return 2 * (len(self._masters) - len(self._slots))

    def slot_of(self, index: int) -> Tensor:
        """The slot that block `index` uses, whether it is there or not."""
        return self._slots[index % len(self._slots)]

    def acquire(self, index: int) -> Tensor:
        """The matrices of streamed block `index`: what runs on the current stream from now on may read them, until `release`."""
        slot = index % len(self._slots)
        if self._held[slot] != index:  # out of order: a sweep was broken off
            self._load(index)
        if (copied := self._copied[slot]) is not None and self._stream is not None:
            with self._timed("wait"):
                torch.cuda.current_stream(self._stream.device).wait_event(copied)
        return self._slots[slot]

    def release(self, index: int, *, following: int | None) -> None:
        """Block `index` has been read for now; `following` is the block that its slot takes next, None for none."""
        slot = index % len(self._slots)
        if self._stream is not None:
            self._used[slot] = torch.cuda.current_stream(self._stream.device).record_event()
        if following is not None:
            self._load(following)

    def reload(self) -> None:
        """Take the first blocks anew: their masters have changed."""
        self._held = [-1] * len(self._slots)
        self.settle()

    def settle(self) -> None:
        """Bring the first blocks back into their slots and wait until nothing is under way: how a step, and a graph, begins."""
        self._wait()  # first: the events of a capture cannot be waited for outside it
        for index in range(len(self._slots)):
            if self._held[index] != index:
                self._load(index)
        self._wait()

    def _wait(self) -> None:
        """Wait until nothing is under way, on the host; no event is needed any more."""
        if self._stream is not None:
            torch.cuda.current_stream(self._stream.device).synchronize()
            self._stream.synchronize()
        self._copied = [None] * len(self._slots)
        self._used = [None] * len(self._slots)

    def join(self) -> None:
        """Have the compute stream wait for copies that are being captured: a capture cannot end before, not even a failed one."""
        with self._timed("wait"):
            join_captured(self._stream)
        if self.timer is not None:
            self.timer.end()

    def _timed(self, kind: Kind) -> AbstractContextManager[None]:
        return nullcontext() if self.timer is None else self.timer.span(kind)

    def forward_follower(self, index: int, *, wrap: bool = False) -> int | None:
        """What the slot of a block takes when it is done forwards. wrap: the next sweep runs forwards again (sampling)."""
        following = index + len(self._slots)
        if following < len(self._masters):
            return following
        if not wrap:
            return None
        first = index % len(self._slots)
        return first if first != index else None

    def backward_follower(self, index: int) -> int | None:
        """What the slot of a block takes when it is done backwards."""
        following = index - len(self._slots)
        return following if following >= 0 else None

    def _load(self, index: int) -> None:
        slot = index % len(self._slots)
        self._held[slot] = index
        self.loads += 1
        if self._stream is None:
            self._slots[slot].copy_(self._masters[index])
            return
        if (used := self._used[slot]) is not None:
            self._stream.wait_event(used)
        with torch.cuda.stream(self._stream):
            with self._timed("copy"):
                self._slots[slot].copy_(self._masters[index], non_blocking=True)
            self._copied[slot] = self._stream.record_event()


def join_captured(stream: torch.cuda.Stream | None) -> None:
    """Have the current stream wait for another one, if that has a part in a capture."""
    if stream is None:
        return
    with torch.cuda.stream(stream):
        captured = torch.cuda.is_current_stream_capturing()
    if captured:
        torch.cuda.current_stream(stream.device).wait_stream(stream)


class PinnedMemory:
    """Host memory that the card reads by itself: anonymous pages, registered with the driver at their exact size.

    PyTorch's own pinned allocator rounds each block up to a power of two: 1 GiB for a block of 772 MB, 14.5 GB lost in all.
    """

    def __init__(self, nbytes: int, *, register: bool = True) -> None:
        """Raises RunError when the system does not give so much memory, or does not lock it."""
        try:
            self._map = mmap.mmap(-1, max(nbytes, 1), flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        except (OSError, ValueError) as error:
            raise RunError(f"{nbytes / 2**30:.1f} GiB of host memory could not be had: {error}.", fix="Stream fewer blocks.") from error
        self.tensor = torch.frombuffer(self._map, dtype=torch.uint8, count=nbytes)
        self.registered = False
        if register:
            self._register(nbytes)

    def _register(self, nbytes: int) -> None:
        code = int(torch.cuda.cudart().cudaHostRegister(self.tensor.data_ptr(), nbytes, 0))  # type: ignore[no-untyped-call]
        if code != 0:
            raise RunError(
                f"{nbytes / 2**30:.1f} GiB of host memory could not be locked for the GPU (CUDA error {code}).",
                fix="Raise the limit of locked memory (`ulimit -l unlimited`), or stream fewer blocks.",
            )
        self.registered = True
        # Pages that are given back while they are registered leave the address range locked for the driver.
        self._unregister = weakref.finalize(self, _unregister, self.tensor.data_ptr())

    def close(self) -> None:
        """Give the lock back. The tensor must not be copied from any more."""
        if self.registered:
            self._unregister()
            self.registered = False


def _unregister(address: int) -> None:
    torch.cuda.cudart().cudaHostUnregister(address)  # type: ignore[no-untyped-call]
