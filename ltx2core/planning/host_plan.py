"""Where the blocks that travel wait between their visits to the card: locked memory, memory as it is, or a disk, and why."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from ltx2core.errors import RunError
from ltx2core.planning.step_plan import fewer_bits

if TYPE_CHECKING:
    from ltx2core.models.quantised import Storage
    from ltx2core.offload.masters import Waiting

GIB = 1024**3
STAGING_BYTES = GIB // 2  # the buffers of ltx2core.offload.staging
_LEAST_LEFT = GIB
_SHARE_LEFT = 0.05


@dataclass(frozen=True, slots=True, kw_only=True)
class HostPlan:
    """waiting: the place. because: a sentence with the numbers that decided it; empty for locked memory, the usual place."""

    waiting: Waiting
    because: str


def place_blocks(*, blocks_bytes: int, inputs_bytes: int, free_bytes: int, disk: bool, storage: Storage = "bf16") -> HostPlan:
    """The fastest place that has room.

    blocks_bytes: of the blocks that travel; inputs_bytes: of blocks' inputs that wait in locked memory, too; free_bytes: of RAM; disk:
    whether a folder for blocks is named; storage: of the blocks. The limit of locked memory has no part in this: `ulimit -l` is 8 MiB
    nearly everywhere and most drivers do not look at it, so locking is tried, and what is refused is staged. Raises RunError when nothing
    has room.
    """
    needed = blocks_bytes + inputs_bytes
    if disk and inputs_bytes + STAGING_BYTES <= free_bytes:
        some = f"{_gib(blocks_bytes)} of blocks wait on disk, as asked, and are read in each step"
        return HostPlan(waiting="disk", because=some if blocks_bytes else "no block waits on disk, for none has to leave the card")
    left = max(_LEAST_LEFT, int(_SHARE_LEFT * free_bytes))
    if needed <= free_bytes - left or (not blocks_bytes and needed <= free_bytes):
        return HostPlan(waiting="locked", because="")
    if needed + STAGING_BYTES <= free_bytes:
        because = f"blocks wait in RAM that is not locked, as {_gib(needed)} of {_gib(free_bytes)} locked would leave the system too little"
        return HostPlan(waiting="memory", because=because)
    smaller = f"set base_model_precision to {better}, " if (better := fewer_bits(storage)) else ""
    raise RunError(
        f"Blocks that do not stay on the GPU need {_gib(needed)} of RAM; {_gib(free_bytes)} are free.",
        fix=f"Name a folder on a fast disk in group_offload_to_disk_path, {smaller}train clips without sound, or free memory.",
    )


def _gib(number: int) -> str:
    return f"{number / GIB:.1f} GiB"
