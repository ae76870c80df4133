"""What the processes of a run say to each other: `Together` for several, `Alone` for one.

Each trains on a card of its own with the whole model; what they exchange is the adapter's gradients, once an update. Two groups of
torch.distributed carry that: gloo over localhost for words between the hosts' threads, and on cards NCCL for tensors. Words come first:
all have met before a tensor is exchanged, so that one that is late (it does a batch again that did not fit, or rank 0 draws samples) is
waited for by threads that sleep, and one that has ended is noticed at once, by its closed connection.
"""

from __future__ import annotations

import contextlib
import os
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import Tensor

from ltx2core.errors import RunError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from torch._C._distributed_c10d import Store

# Of words, samples may take hours; of tensors, NCCL counts from when the host asks, and the card may have an update's batches to do first.
# A process that has ended is noticed without: it closes its connections, and `abort` is called.
_PATIENCE = timedelta(days=30)
_CONNECTING = timedelta(minutes=5)
_FRAME = 512  # bytes: what is longer takes a second exchange
_BUCKET = 64 << 20  # bytes of small tensors that are exchanged as one
_LARGE = 8 << 20  # bytes from which a tensor is exchanged by itself, in place
_NCCL = {  # PyTorch's default for a lost peer is to end the process, which here may be the app
    "TORCH_NCCL_ASYNC_ERROR_HANDLING": "2",  # abort the exchange, and nothing else
    "TORCH_NCCL_ENABLE_MONITORING": "0",
}


class RankLost(RunError):  # noqa: N818 - the words that a caller reads: another process is gone
    """Another process of this run has ended, or does not answer."""


class Ranks(Protocol):
    """The processes of a run. All of them call the same methods in the same order; each raises RankLost when another has ended."""

    @property
    def rank(self) -> int: ...

    @property
    def size(self) -> int: ...

    @property
    def owner(self) -> bool:
        """Whether this process is the run's own, rank 0, which decides, writes and fills what all share."""
        ...

    def wait(self) -> None:
        """Come back when all have come here."""
        ...

    def told(self, text: str | None = None) -> str:
        """What the owner says; only it gives a text."""
        ...

    def meet(self, text: str) -> list[str]:
        """What each says, by rank."""
        ...

    def add_up(self, tensor: Tensor) -> None:
        """Put the sum over all into a tensor, in place."""
        ...

    def average(self, tensors: Sequence[Tensor]) -> None:
        """Put the mean over all into each tensor, in place."""
        ...

    def spread(self, tensors: Sequence[Tensor]) -> None:
        """Copy the owner's values into everyone's tensors."""
        ...


class Alone:
    """A run of one process."""

    rank, size, owner = 0, 1, True

    def wait(self) -> None:
        return

    def told(self, text: str | None = None) -> str:
        return text or ""

    def meet(self, text: str) -> list[str]:
        return [text]

    def add_up(self, tensor: Tensor) -> None:
        return

    def average(self, tensors: Sequence[Tensor]) -> None:
        return

    def spread(self, tensors: Sequence[Tensor]) -> None:
        return


ALONE = Alone()


class Together:
    """Several processes of one host, or threads of a test."""

    def __init__(self, store: Store, *, rank: int, size: int, device: torch.device) -> None:
        """store: theirs alone. device: of the tensors that are exchanged. Comes back when all can talk; `connect_cards` comes next. Raises
        RankLost."""
        if not 0 <= rank < size:
            raise ValueError(f"rank {rank} is none of {size}")
        from torch._C._distributed_c10d import PrefixStore

        self.rank, self.size = rank, size
        self._store, self._device, self._closed = store, device, False
        store.set_timeout(_CONNECTING)
        with self._listening():
            self._words = _gloo(PrefixStore("words", store), rank, size)
        self._words._set_default_timeout(_PATIENCE)
        self._tensors = self._words

    def connect_cards(self) -> None:
        """Let the cards reach each other; on a CPU there is nothing to do. `abort` may come meanwhile, from another thread. Raises RankLost
        when another rank has ended or the cards cannot reach each other, OutOfMemoryError when this one is full."""
        if self._device.type != "cuda":
            return
        one = torch.ones(1, device=self._device)
        self.wait()  # for all to have room for as much: one that fails now would be waited for in NCCL
        try:
            self._tensors = self._nccl()
            self._tensors.allreduce([one]).wait()  # now: its buffers must be there when memory is planned
            total = int(one)  # waits for the card
        except RuntimeError as error:
            raise _card_error(error) from error
        if self._closed or total != self.size:  # what is broken off ends as if it were done
            raise _card_error(RuntimeError("their first exchange was broken off" if self._closed else f"1 of each makes {total}"))
        self._tensors._set_default_timeout(_PATIENCE)

    @property
    def owner(self) -> bool:
        return self.rank == 0

    def wait(self) -> None:
        self.meet("")

    def told(self, text: str | None = None) -> str:
        data = (text or "").encode()
        frame = _framed(data)
        self._broadcast(self._words, frame)
        size, head = _unframed(frame)
        if size <= len(head):
            return head[:size].decode()
        rest = torch.frombuffer(bytearray(data), dtype=torch.uint8) if self.owner else torch.empty(size, dtype=torch.uint8)
        self._broadcast(self._words, rest)
        return rest.numpy().tobytes().decode()

    def meet(self, text: str) -> list[str]:
        data = text.encode()
        found = [_unframed(frame) for frame in self._gather(_framed(data))]
        longest = max(size for size, _ in found)
        if longest <= _FRAME - 8:
            return [head[:size].decode() for size, head in found]
        own = torch.zeros(longest, dtype=torch.uint8)
        own[: len(data)] = torch.frombuffer(bytearray(data or b"\0"), dtype=torch.uint8)[: len(data)]
        return [whole[:size].numpy().tobytes().decode() for whole, (size, _) in zip(self._gather(own), found, strict=True)]

    def add_up(self, tensor: Tensor) -> None:
        with self._listening():
            self._tensors.allreduce([tensor]).wait()  # on a card this makes the stream wait, not the host

    def average(self, tensors: Sequence[Tensor]) -> None:
        for tensor in tensors:
            if tensor.nbytes >= _LARGE:
                self.add_up(tensor)
                tensor.mul_(1 / self.size)
        for bucket in _buckets([tensor for tensor in tensors if tensor.nbytes < _LARGE]):
            flat = torch.cat([tensor.reshape(-1) for tensor in bucket])
            self.add_up(flat)
            _take_back(flat.mul_(1 / self.size), bucket)

    def spread(self, tensors: Sequence[Tensor]) -> None:
        with torch.no_grad():
            for bucket in _buckets(tensors):
                flat = torch.cat([tensor.detach().reshape(-1) for tensor in bucket])
                self._broadcast(self._tensors, flat)
                _take_back(flat, bucket)

    def abort(self) -> None:
        """Break off what is exchanged between cards, which a process that has ended would hold up for ever. From any thread."""
        closed, self._closed = self._closed, True
        if self._tensors is not self._words and not closed:
            with contextlib.suppress(RuntimeError):
                self._tensors.abort()

    def close(self) -> None:
        """Give the cards' memory for exchanges back. It waits for nobody, as the library's own way would: the others may be gone."""
        self.abort()

    def _nccl(self) -> Any:
        import torch.distributed as dist
        from torch._C._distributed_c10d import PrefixStore

        for name, value in _NCCL.items():
            os.environ.setdefault(name, value)
        options = dist.ProcessGroupNCCL.Options()
        options._timeout = _CONNECTING
        return dist.ProcessGroupNCCL(PrefixStore("tensors", self._store), self.rank, self.size, options)

    def _broadcast(self, group: Any, tensor: Tensor) -> None:
        from torch.distributed import BroadcastOptions

        options = BroadcastOptions()
        options.rootRank, options.rootTensor = 0, 0
        with self._listening():
            group.broadcast([tensor], options).wait()

    def _gather(self, own: Tensor) -> list[Tensor]:
        found = [torch.empty_like(own) for _ in range(self.size)]
        with self._listening():
            self._words.allgather([found], [own]).wait()
        return found

    @contextlib.contextmanager
    def _listening(self) -> Iterator[None]:
        """Errors of torch.distributed in our words."""
        try:
            yield
        except RuntimeError as error:
            raise RankLost(
                f"Rank {self.rank} of {self.size} has waited in vain for the others: {_first_line(error)}",
                fix="Resume the run: it goes on from its last checkpoint.",
            ) from error


def _gloo(store: Store, rank: int, size: int) -> Any:
    import torch.distributed as dist

    group: Any = dist.ProcessGroupGloo
    options = group._Options()
    options._timeout = _CONNECTING
    options._devices = [group.create_device(hostname="127.0.0.1")]  # a host's own name may lead anywhere
    return group(store, rank, size, options)


def _card_error(error: RuntimeError) -> RuntimeError | RankLost:
    """What went wrong when cards were connected: memory that ran out as what it is, else that they do not reach each other, which may
    come from a process that has ended."""
    if isinstance(error, torch.OutOfMemoryError):
        return error
    if "out of memory" in str(error):
        return torch.OutOfMemoryError(f"NCCL found no room on the GPU: {_first_line(error)}")
    return RankLost(
        f"The GPUs of this run cannot reach each other: {_first_line(error)}",
        fix="NCCL_DEBUG=INFO says more. Give a container shared memory (--shm-size=1g); NCCL_P2P_DISABLE=1 goes another way.",
    )


def _framed(data: bytes) -> Tensor:
    """Its length, and as much of it as a frame holds: uint8 [_FRAME]."""
    frame = len(data).to_bytes(8, "little") + data[: _FRAME - 8]
    return torch.frombuffer(bytearray(frame.ljust(_FRAME, b"\0")), dtype=torch.uint8)


def _unframed(frame: Tensor) -> tuple[int, bytes]:
    data = frame.numpy().tobytes()
    return int.from_bytes(data[:8], "little"), data[8:]


def _buckets(tensors: Sequence[Tensor]) -> Iterator[list[Tensor]]:
    """The tensors in their order, so many at a time as are exchanged as one: of one type, and together no larger than a bucket."""
    bucket: list[Tensor] = []
    nbytes = 0
    for tensor in tensors:
        if bucket and (nbytes + tensor.nbytes > _BUCKET or tensor.dtype != bucket[0].dtype):
            yield bucket
            bucket, nbytes = [], 0
        bucket.append(tensor)
        nbytes += tensor.nbytes
    if bucket:
        yield bucket


def _take_back(flat: Tensor, bucket: Sequence[Tensor]) -> None:
    parts = torch.split(flat, [tensor.numel() for tensor in bucket])
    torch._foreach_copy_(
        [tensor.detach() for tensor in bucket], [part.view(tensor.shape) for part, tensor in zip(parts, bucket, strict=True)]
    )


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
