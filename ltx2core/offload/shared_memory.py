"""Blocks that wait in RAM once for all processes of a host, each of which trains on a card of its own.

The memory has no name in any file system: one process makes it, the others open it through that process's entry in /proc, and it is gone
with the last of them, however they end. It does not count against /dev/shm, which containers often limit to 64 MiB.
"""

from __future__ import annotations

import mmap
import os
from typing import TYPE_CHECKING

import torch

from ltx2core.errors import RunError
from ltx2core.offload.host_memory import HostMemory

if TYPE_CHECKING:
    from torch._C._distributed_c10d import Store

_PAGE = mmap.PAGESIZE


class LocalGroup:
    """The processes of one host. All of them call `wait` equally often, and in the same places."""

    def __init__(self, store: Store, *, rank: int, size: int) -> None:
        """store: theirs alone; rank: among them, from 0."""
        if not 0 <= rank < size:
            raise ValueError(f"rank {rank} is none of {size}")
        self.rank, self.size = rank, size
        self._store = store
        self._turn = 0

    @property
    def owner(self) -> bool:
        """Whether this process makes and fills what all share."""
        return self.rank == 0

    def wait(self) -> None:
        """Come back when all have come here. Raises RunError when one does not."""
        self._turn += 1
        if self._store.add(f"arrived-{self._turn}", 1) == self.size:
            self._store.set(f"all-{self._turn}", "yes")
        self._ask(f"all-{self._turn}")

    def told(self, text: str | None = None) -> str:
        """What the owner says; only it gives a text."""
        self._turn += 1
        if text is not None:
            self._store.set(f"told-{self._turn}", text)
        return self._ask(f"told-{self._turn}")

    def _ask(self, key: str) -> str:
        try:
            return bytes(self._store.get(key)).decode()
        except RuntimeError as error:  # of torch.distributed: a timeout, or a lost connection
            raise RunError(
                f"Process {self.rank} of {self.size} on this host has waited in vain for the others.",
                fix="Look at what the others said last: one of them has ended.",
            ) from error


def local_group() -> LocalGroup | None:
    """The processes of this host, if torch.distributed runs several here; None otherwise."""
    from torch import distributed

    size = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    if size < 2 or not distributed.is_available() or not distributed.is_initialized():
        return None
    host = int(os.environ.get("GROUP_RANK", distributed.get_rank() // size))
    from torch.distributed.distributed_c10d import PrefixStore, _get_default_store

    store = PrefixStore(f"ltx2-blocks-of-host-{host}", _get_default_store())
    return LocalGroup(store, rank=int(os.environ.get("LOCAL_RANK", distributed.get_rank() % size)), size=size)


def share_memory(group: LocalGroup, *, count: int, nbytes: int) -> list[HostMemory]:
    """Memory for as many blocks of `nbytes` bytes, the same in every process of the group, to be locked by each for itself. Each process
    has to call this, with equal sizes.

    Raises RunError when the system does not give so much, or one process cannot reach what another has made.
    """
    group.wait()  # what is free is asked for by all before one of them takes it
    stride = -(-nbytes // _PAGE) * _PAGE
    mapped = _own(group, count * stride) if group.owner else _join(group, count * stride)
    return [HostMemory(torch.frombuffer(mapped, dtype=torch.uint8, count=nbytes, offset=index * stride)) for index in range(count)]


def _own(group: LocalGroup, nbytes: int) -> mmap.mmap:
    if not hasattr(os, "memfd_create"):
        group.told("failed")
        raise RunError("Processes cannot share blocks' memory on this system.", fix="Train in one process.")
    descriptor = os.memfd_create("ltx2-blocks")
    try:
        os.posix_fallocate(descriptor, 0, nbytes)  # now, not at the first write, which would end the process
        mapped = mmap.mmap(descriptor, nbytes)
    except OSError as error:
        group.told("failed")
        raise RunError(f"{nbytes / 2**30:.1f} GiB of memory for all processes could not be had: {error}.", fix="Free memory.") from error
    else:
        group.told(f"{os.getpid()} {descriptor} {os.fstat(descriptor).st_ino}")
        group.wait()
        return mapped
    finally:
        os.close(descriptor)


def _join(group: LocalGroup, nbytes: int) -> mmap.mmap:
    said = group.told()
    if said == "failed":
        raise RunError("The first process of this host could not get the memory for all.", fix="Look at what that one says.")
    process, number, inode = (int(part) for part in said.split())
    try:
        descriptor = os.open(f"/proc/{process}/fd/{number}", os.O_RDWR | os.O_CLOEXEC)
        try:
            status = os.fstat(descriptor)
            if (status.st_ino, status.st_size) != (inode, nbytes):
                raise OSError("another file is there")
            mapped = mmap.mmap(descriptor, nbytes)
        finally:
            os.close(descriptor)
    except OSError as error:
        raise RunError(
            f"What process {process} of this host has made for all cannot be opened: {error}.",
            fix="Start all processes as one user, in one container.",
        ) from error
    group.wait()
    return mapped
