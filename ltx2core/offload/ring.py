"""Blocks that travel: their matrices live in host memory and pass through a few slots on the card, always in the same order.

A step visits the S streamed blocks 0 .. S-1 forwards and S-1 .. 0 backwards, through R slots. Block k always uses slot k mod R. When
block k is done forwards, its slot takes k + R; when it is done backwards, k - R. So the last R blocks of the forward sweep are still
there when the backward sweep begins, the first R when the next step does, and a step loads exactly 2 (S - R) blocks, the fewest there
can be: frozen weights only ever travel to the card, never back.

Copies run on a stream of their own. A slot is overwritten only after the compute stream has passed an event that its last user left
there, and read only after an event of its copy; the host never waits, so the whole step can be captured as a graph. Masters that the card
cannot read by itself come through staging buffers, which takes the host's part in each copy: then nothing can be captured.
"""

from __future__ import annotations

from concurrent.futures import wait
from contextlib import nullcontext
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from collections.abc import Sequence
    from concurrent.futures import Future
    from contextlib import AbstractContextManager

    from torch import Tensor

    from ltx2core.offload.host_memory import Master
    from ltx2core.offload.ring_timer import Kind, RingTimer
    from ltx2core.offload.staging import Staging


class Ring:
    """Slots on the card for blocks that wait elsewhere. `acquire` and `release` follow the sweeps; loads are counted in `loads`.

    Nothing is loaded before the first of them, or `settle`.
    """

    def __init__(self, masters: Sequence[Master], *, slots: int, device: torch.device, staging: Staging | None = None) -> None:
        """masters: each streamed block's flat matrices, in forward order. staging: the way of those that are not page-locked; without
        it they are copied as they are, which on a card waits for each copy."""
        if not 1 <= slots <= len(masters):
            raise ValueError(f"expected 1 to {len(masters)} slots, got {slots}")
        self._masters = list(masters)
        self._staging = staging
        self._device = device
        self._slots = self._new_slots(slots)
        self._arriving: list[Future[torch.cuda.Event | None] | None] = [None] * slots  # through staging buffers
        self._held = [-1] * slots
        self._stream = torch.cuda.Stream(device) if device.type == "cuda" else None  # type: ignore[no-untyped-call]
        # Events of what is under way. None: nothing is, which a graph must not be made to wait for.
        self._copied: list[torch.cuda.Event | None] = [None] * slots
        self._used: list[torch.cuda.Event | None] = [None] * slots
        self.loads = 0
        self.timer: RingTimer | None = None

    @property
    def capturable(self) -> bool:
        """Whether a graph can hold a sweep: whether the host has no part in it."""
        return self._staging is None or all(master.registered for master in self._masters)

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
        comes = self._arriving[slot] is not None or self._copied[slot] is not None
        with self._timed("wait") if comes else nullcontext():
            self._arrive(slot)
            if (copied := self._copied[slot]) is not None and self._stream is not None:
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
        """Take the first blocks anew: their masters have changed, or `rest` has given the slots away."""
        if not self._slots[0].nbytes:
            self._slots = self._new_slots(len(self._slots))
        self._held = [-1] * len(self._slots)
        self.settle()

    def rest(self) -> None:
        """Give the memory of all slots back, until `reload`. Nothing may be acquired meanwhile."""
        self._wait()
        self._slots = [slot.new_empty(0) for slot in self._slots]
        self._held = [-1] * len(self._slots)

    def _new_slots(self, count: int) -> list[Tensor]:
        return [torch.empty(self._masters[0].nbytes, dtype=torch.uint8, device=self._device) for _ in range(count)]

    def settle(self) -> None:
        """Bring the first blocks back into their slots and wait until nothing is under way: how a step, and a graph, begins."""
        self._wait()  # first: the events of a capture cannot be waited for outside it
        for index in range(len(self._slots)):
            if self._held[index] != index:
                self._load(index)
        self._wait()

    def close(self) -> None:
        """Wait until nothing is under way and end what brings blocks; the ring cannot be used any more."""
        self._wait()
        if self._staging is not None:
            self._staging.close()

    def _wait(self) -> None:
        """Wait until nothing is under way, on the host; no event is needed any more."""
        for slot, arriving in enumerate(self._arriving):
            if arriving is not None and wait([arriving]).done and arriving.exception() is not None:
                self._held[slot] = -1  # whoever needs the block is told
        self._arriving = [None] * len(self._slots)
        if self._staging is not None:
            self._staging.settle()
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

    def _arrive(self, slot: int) -> None:
        """Wait until the copy of what comes through staging buffers is under way. Raises RunError when it could not be read."""
        arriving, self._arriving[slot] = self._arriving[slot], None
        if arriving is None:
            return
        held, self._held[slot] = self._held[slot], -1
        self._copied[slot] = arriving.result()
        self._held[slot] = held

    def _load(self, index: int) -> None:
        slot, master = index % len(self._slots), self._masters[index]
        if not self._slots[slot].nbytes:
            raise RuntimeError("the ring rests: reload it before blocks are used")
        self._arrive(slot)  # only where a sweep was broken off is something still on its way there
        self._held[slot] = index
        self.loads += 1
        before = [event for event in (self._used[slot], self._copied[slot]) if event is not None]
        if self._staging is not None and not master.registered:
            self._copied[slot] = None
            self._arriving[slot] = self._staging.send(master, self._slots[slot], after=before)
            return
        if self._stream is None:
            master.read(0, self._slots[slot])
            return
        for event in before:
            self._stream.wait_event(event)
        with torch.cuda.stream(self._stream):
            with self._timed("copy"):
                self._slots[slot].copy_(master.tensor, non_blocking=True)
            self._copied[slot] = self._stream.record_event()


def join_captured(stream: torch.cuda.Stream | None) -> None:
    """Have the current stream wait for another one, if that has a part in a capture."""
    if stream is None:
        return
    with torch.cuda.stream(stream):
        captured = torch.cuda.is_current_stream_capturing()
    if captured:
        torch.cuda.current_stream(stream.device).wait_stream(stream)
