"""The way to the card of memory that it cannot read by itself: through a few small page-locked buffers, filled by threads.

Blocks that could not be locked, or lie on disk, are cut into pieces; a piece is read into a buffer by one of a few threads while others
are copied to the card. So copies go as fast as the slower of reading and the link, beside the compute, and the locked memory is small.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor, wait
from queue import SimpleQueue
from typing import TYPE_CHECKING

import torch

from ltx2core.offload.host_memory import PinnedMemory

if TYPE_CHECKING:
    from collections.abc import Sequence
    from concurrent.futures import Future

    from torch import Tensor

    from ltx2core.offload.host_memory import Master

PIECE_BYTES = 32 << 20
PIECES = 16
READERS = 4  # one core copies some 10 GB/s and reads a disk one request at a time; the link takes 25 to 55 GB/s


class Staging:
    """Buffers and threads of a ring. Transfers are done one after another, in the order in which they were asked for."""

    def __init__(self, *, device: torch.device, piece_bytes: int = PIECE_BYTES, pieces: int = PIECES) -> None:
        self._device, self._piece_bytes = device, piece_bytes
        self._stream = torch.cuda.Stream(device) if device.type == "cuda" else None  # type: ignore[no-untyped-call]
        self._buffers: SimpleQueue[_Buffer] = SimpleQueue()
        for _ in range(pieces):
            self._buffers.put(_Buffer(piece_bytes, lock=device.type == "cuda"))
        self._sender = ThreadPoolExecutor(1, thread_name_prefix="staging")
        self._readers = ThreadPoolExecutor(READERS, thread_name_prefix="staging-reader")

    @property
    def nbytes(self) -> int:
        """Host memory of all buffers, while no transfer is under way."""
        return self._buffers.qsize() * self._piece_bytes

    def send(self, master: Master, slot: Tensor, *, after: Sequence[torch.cuda.Event]) -> Future[torch.cuda.Event | None]:
        """Bring a block to a slot once the card has passed these events. The result comes when all of it has been read and its copies are
        under way: an event of their end, None on a CPU, where they are done. It raises RunError when the block cannot be read."""
        return self._sender.submit(self._send, master, slot, after)

    def settle(self) -> None:
        """Wait until no copy is under way. What was sent must have come before."""
        if self._stream is not None:
            self._stream.synchronize()

    def close(self) -> None:
        """End the threads. What was sent is brought to its end."""
        self._sender.shutdown()
        self._readers.shutdown()
        self.settle()

    def _send(self, master: Master, slot: Tensor, after: Sequence[torch.cuda.Event]) -> torch.cuda.Event | None:
        if self._stream is not None:
            for event in after:
                self._stream.wait_event(event)
        pieces = [self._readers.submit(self._move, master, slot, start) for start in range(0, slot.numel(), self._piece_bytes)]
        wait(pieces)  # all, also where one failed: the slot may be written to again afterwards
        for piece in pieces:
            piece.result()
        return None if self._stream is None else self._stream.record_event()

    def _move(self, master: Master, slot: Tensor, start: int) -> None:
        part = slot[start : start + self._piece_bytes]
        buffer = self._buffers.get()
        try:
            if buffer.copied is not None:
                buffer.copied.synchronize()
            source = buffer.memory.tensor[: part.numel()]
            master.read(start, source)
            if self._stream is None:
                part.copy_(source)
                return
            with torch.cuda.stream(self._stream):
                part.copy_(source, non_blocking=True)
                buffer.copied = self._stream.record_event()
        finally:
            self._buffers.put(buffer)


class _Buffer:
    """One piece's memory, locked if the system lets it be: copies from it are slower otherwise, and as right."""

    def __init__(self, nbytes: int, *, lock: bool) -> None:
        self.memory = PinnedMemory(nbytes, register=False)
        self.copied: torch.cuda.Event | None = None
        if lock:
            self.memory.lock()
