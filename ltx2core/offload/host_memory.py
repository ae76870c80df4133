"""Where blocks that travel wait in RAM: page-locked, so that the card reads them by itself, or as it is where it cannot be locked."""

from __future__ import annotations

import mmap
import weakref
from typing import Protocol

import torch
from torch import Tensor

from ltx2core.errors import RunError


class Master(Protocol):
    """A block's flat matrices, wherever they wait."""

    @property
    def registered(self) -> bool:
        """Whether the card reads them by itself."""
        ...

    @property
    def tensor(self) -> Tensor:
        """All of them, uint8 [nbytes]."""
        ...

    @property
    def nbytes(self) -> int: ...

    def read(self, start: int, target: Tensor) -> None:
        """Fill `target`, uint8, with what lies from byte `start` on. Raises RunError when that cannot be read."""
        ...

    def close(self) -> None: ...


class HostMemory:
    """A piece of RAM as a master. The card reads it by itself once this process has locked it."""

    def __init__(self, tensor: Tensor) -> None:
        """tensor: uint8 [nbytes]; what it lies in lives as long as it does."""
        self.tensor = tensor
        self.registered = False

    @property
    def nbytes(self) -> int:
        return self.tensor.nbytes

    def read(self, start: int, target: Tensor) -> None:
        """Fill `target` with what lies from byte `start` on."""
        target.copy_(self.tensor[start : start + target.numel()])

    def lock(self) -> int:
        """Register the memory with the driver; CUDA's error code, 0 for none. The memory stays usable where it is refused."""
        code = register(self.tensor)
        self.registered = code == 0
        if self.registered:
            # Pages that are given back while they are registered leave the address range locked for the driver.
            self._unregister = weakref.finalize(self, unregister, self.tensor.data_ptr())
        return code

    def close(self) -> None:
        """Give the lock back. The tensor must not be copied from any more."""
        if self.registered:
            self._unregister()
            self.registered = False


class PinnedMemory(HostMemory):
    """Host memory that the card reads by itself: anonymous pages, registered with the driver at their exact size.

    PyTorch's own pinned allocator rounds each block up to a power of two: 1 GiB for a block of 772 MB, 14.5 GB lost in all.
    """

    def __init__(self, nbytes: int, *, register: bool = True) -> None:
        """Raises RunError when the system does not give so much memory, or does not lock it."""
        try:
            self._map = mmap.mmap(-1, max(nbytes, 1), flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        except (OSError, ValueError) as error:
            raise RunError(f"{nbytes / 2**30:.1f} GiB of host memory could not be had: {error}.", fix="Stream fewer blocks.") from error
        super().__init__(torch.frombuffer(self._map, dtype=torch.uint8, count=nbytes))
        if register and (code := self.lock()) != 0:
            raise RunError(
                f"{nbytes / 2**30:.1f} GiB of host memory could not be locked for the GPU (CUDA error {code}).",
                fix="Raise the limit of locked memory (`ulimit -l unlimited`), or stream fewer blocks.",
            )


def register(tensor: Tensor) -> int:
    """Page-lock a tensor's memory for the card; CUDA's error code, 0 for none."""
    code = int(torch.cuda.cudart().cudaHostRegister(tensor.data_ptr(), tensor.nbytes, 0))  # type: ignore[no-untyped-call]
    if code != 0:
        _clear_error()
    return code


def unregister(address: int) -> None:
    """Give a lock back."""
    torch.cuda.cudart().cudaHostUnregister(address)  # type: ignore[no-untyped-call]


def _clear_error() -> None:
    """Take back the error that a refused call leaves for the next kernel's launch, which would be blamed for it."""
    try:
        torch.empty(1, device="cuda").fill_(0)
    except torch.OutOfMemoryError:
        raise
    except RuntimeError:
        return
