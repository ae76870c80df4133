"""Where each process of a run computes: how many there may be, and what the environment of each says. Loads no torch."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ltx2core.errors import RunError
from ltx2core.hardware.limits import usable_cores

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ltx2core.hardware.machine import Machine


def check_processes(count: int, machine: Machine) -> None:
    """Raise RunError for more processes than there are cards for them. A machine without any may train in as many as one likes."""
    visible = len(machine.usable_gpus)
    if count <= 1 or visible == 0 or count <= visible:
        return
    hidden = len(machine.gpus) - visible
    also = f", CUDA_VISIBLE_DEVICES={machine.visible_devices} hiding {hidden}" if hidden else ""
    raise too_many(count, visible, also=also, fix=", or let CUDA_VISIBLE_DEVICES name more" if hidden else "")


def too_many(count: int, visible: int, *, also: str = "", fix: str = "") -> RunError:
    """The words for more processes than cards."""
    return RunError(
        f"num_processes = {count}: each process trains on a GPU of its own, and {visible} can be used{also}.", fix=f"Use {visible}{fix}."
    )


def environment_of(rank: int, size: int, *, variables: Mapping[str, str]) -> dict[str, str]:
    """The variables of the process of a rank: it sees one card, the `rank`-th of those that are visible here, and takes its share of the
    cores. Cards are counted as CUDA counts them, so rank 0, which sees all, is on the first."""
    visible = variables.get("CUDA_VISIBLE_DEVICES")
    entries = None if visible is None else [entry.strip() for entry in visible.split(",")]
    card = str(rank) if entries is None else entries[rank] if rank < len(entries) else ""
    threads = str(share_of_cores(size))
    own = {name: variables.get(name) or threads for name in ("OMP_NUM_THREADS", "TORCHINDUCTOR_COMPILE_THREADS")}
    return {**variables, **own, "CUDA_VISIBLE_DEVICES": card}


def share_of_cores(size: int) -> int:
    """How many threads each of so many processes computes with. Threads that wait for each other spin: two processes with as many as
    there are cores slow each other a hundredfold."""
    return max(1, usable_cores() // size)


def name_of(rank: int, size: int) -> str:
    """A process in words, as its rank, which counts from 0."""
    return f"Rank {rank} of {size}"
