"""Blocks that wait in RAM once for all processes of a host, each of which trains on a card of its own.

The memory has no name in any file system: one process makes it, the others open it through that process's entry in /proc, and it is gone
with the last of them, however they end. It does not count against /dev/shm, which containers often limit to 64 MiB.
"""

from __future__ import annotations

import mmap
import os
from typing import Protocol

import torch

from ltx2core.errors import RunError
from ltx2core.offload.host_memory import HostMemory

_PAGE = mmap.PAGESIZE


class Group(Protocol):
    """The processes of one host. All of them call its methods equally often, and in the same order. Each raises RunError when one of the
    others has ended."""

    @property
    def owner(self) -> bool:
        """Whether this process makes and fills what all share."""
        ...

    def wait(self) -> None:
        """Come back when all have come here."""
        ...

    def told(self, text: str | None = None) -> str:
        """What the owner says; only it gives a text."""
        ...


def share_memory(group: Group, *, count: int, nbytes: int) -> list[HostMemory]:
    """Memory for as many blocks of `nbytes` bytes, the same in every process of the group, to be locked by each for itself. Each process
    has to call this, with equal sizes.

    Raises RunError when the system does not give so much, or one process cannot reach what another has made.
    """
    group.wait()  # what is free is asked for by all before one of them takes it
    stride = -(-nbytes // _PAGE) * _PAGE
    mapped = _own(group, count * stride) if group.owner else _join(group, count * stride)
    return [HostMemory(torch.frombuffer(mapped, dtype=torch.uint8, count=nbytes, offset=index * stride)) for index in range(count)]


def _own(group: Group, nbytes: int) -> mmap.mmap:
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


def _join(group: Group, nbytes: int) -> mmap.mmap:
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
