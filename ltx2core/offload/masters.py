"""Room for the blocks that travel, in the place that the plan chose: locked memory, memory as it is, or files on disk."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from ltx2core.errors import RunError
from ltx2core.hardware.limits import available_memory
from ltx2core.offload.host_memory import PinnedMemory
from ltx2core.offload.shared_memory import share_memory

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ltx2core.offload.block_files import BlockFiles
    from ltx2core.offload.host_memory import HostMemory, Master
    from ltx2core.offload.shared_memory import Group

Waiting = Literal["locked", "memory", "disk"]
"""Where blocks wait: memory that the card reads by itself, memory that it does not, or files. The latter two come through `Staging`."""


class Masters:
    """One master a block that travels, by the block's number; more of them when more must travel."""

    def __init__(
        self, nbytes: int, *, waiting: Waiting = "locked", lock: bool, files: BlockFiles | None = None, group: Group | None = None
    ) -> None:
        """nbytes: of a block's matrices. lock: whether there is a card to lock memory for. files: for blocks on disk. group: processes
        that share the blocks which travel from the beginning; those that are added later are each process's own."""
        self.group = group
        self.files = files if waiting == "disk" else None
        self.found: dict[int, Master] = {}
        self.refused: int | None = None  # CUDA's code when it would not lock any more
        self._nbytes, self._waiting = nbytes, waiting
        self._lock = lock and waiting == "locked"

    @property
    def staged(self) -> bool:
        """Whether any of them needs staging buffers."""
        return self._waiting != "locked" or self.refused is not None

    @property
    def unlocked(self) -> int:
        """How many blocks the system would not lock."""
        return 0 if self.refused is None else sum(not master.registered for master in self.found.values())

    def begin(self, indices: Sequence[int]) -> None:
        """Room for the blocks that travel from the beginning. Every process of a group calls this, with the same numbers."""
        if self.group is None or self.files is not None:
            for index in indices:
                self.add(index)
        elif indices:
            for index, memory in zip(indices, share_memory(self.group, count=len(indices), nbytes=self._nbytes), strict=True):
                self._keep(index, memory)

    @property
    def filler(self) -> bool:
        """Whether this process fills what all of them read: alone it does."""
        return self.group is None or self.group.owner

    def wait(self) -> None:
        """Come back when every process of the group has come here."""
        if self.group is not None:
            self.group.wait()

    def add(self, index: int) -> Master:
        """Room for a block; of one on disk, whose file need not be there yet, the way to it. Raises RunError without memory for it."""
        if self.files is not None:
            self.found[index] = self.files.file(index)
            return self.found[index]
        if self._nbytes > (free := available_memory()):
            raise RunError(
                f"One more block that does not stay on the GPU needs {self._nbytes / 2**30:.2f} GiB of RAM; {free / 2**30:.2f} are free.",
                fix="Free memory, or name a folder on a fast disk in group_offload_to_disk_path.",
            )
        return self._keep(index, PinnedMemory(self._nbytes, register=False))

    def _keep(self, index: int, memory: HostMemory) -> Master:
        if self._lock and (code := memory.lock()) != 0:
            self.refused, self._lock = code, False  # the next would be refused, too
        self.found[index] = memory
        return memory

    def close(self) -> None:
        """Give locks and files back."""
        for master in self.found.values():
            master.close()
