"""What several GPUs of one host change in a plan: gradients that are exchanged, host memory that is shared or not, its bandwidth.

Each GPU holds and computes what it would by itself, but for NCCL's buffers. Weights that wait in RAM are there once, and all cards read
them from the same memory. Arithmetic; loads no torch.
"""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING

from ltx2core.planning.step_memory import GIB

if TYPE_CHECKING:
    from ltx2core.hardware.rates import Rates
    from ltx2core.planning.hardware import Hardware
    from ltx2core.planning.phases import Phase

# Of each card: NCCL's buffers and its kernels in CUDA's context. Not measured; it allocates some 10 MiB a channel and peer.
EXCHANGE_BYTES = 6 * GIB // 10
_LOADED_BYTES = 7 * GIB // 10  # of a process that has imported what training needs, and waits until the cache is filled
_NUMBER_BYTES = 4  # gradients are exchanged in float32: training/agreement.py says why
# An all-reduce of 1 GiB ran at 329 GB/s on two H100 over NVLink (bus bandwidth, NCCL), one of 0.8 GiB of gradients at 257 on two H200
# (tests/benchmarks/ranks.py); about half of it is counted on. Other cards go
# over PCIe, and consumer cards through host memory, since their driver lets none reach another: every byte passes the link out and in
# again, in parts that wait for each other, so a quarter of the link's rate.
_NVLINK = 150e9
_OF_LINK = 1 / 4
_SLOWEST_LINK = 12e9
# Host memory that all cards read from: two channels of DDR5-4800 give 77 GB/s, of which copies reach four fifths. Servers have far more.
_HOST_BYTES_A_SECOND = 60e9
_JOINED_BY_NVLINK = re.compile(r"\bg?[bh]200\b|\bh100( 80gb)? hbm3|sxm|^h100$|^a100 (40|80)gb$", re.IGNORECASE)
_PRIVATE = ("process", "compiler", "inputs of blocks", "staging")  # host memory that each rank has for itself while training


def exchange_rate(hardware: Hardware, processes: int) -> float:
    """Bytes a second that each card sends while gradients are exchanged. hardware: its link as it is for one card."""
    if _JOINED_BY_NVLINK.search(hardware.card):
        return _NVLINK
    link = hardware.rates.to_device_bytes_per_second or _SLOWEST_LINK
    return min(link * _OF_LINK, _HOST_BYTES_A_SECOND / (2 * processes))  # written to host memory, and read from it


def exchange_seconds(numbers: int, processes: int, hardware: Hardware) -> float:
    """Of the mean over all ranks of so many gradients, once an update: in a ring each card sends nearly twice of all."""
    return 2 * (processes - 1) / processes * numbers * _NUMBER_BYTES / exchange_rate(hardware, processes)


def with_shared_host(hardware: Hardware, processes: int) -> Hardware:
    """The card with the share of host memory's bandwidth that is left to it while all read their blocks."""
    return replace(hardware, rates=shared_rates(hardware.rates, processes))


def shared_rates(rates: Rates, processes: int) -> Rates:
    """A card's rates while so many read their blocks from one host's memory."""
    link = rates.to_device_bytes_per_second
    if processes == 1 or link is None:
        return rates
    return replace(rates, to_device_bytes_per_second=min(link, _HOST_BYTES_A_SECOND / processes))


def of_all(phase: Phase, processes: int) -> Phase:
    """A phase of one process as that of several: the card's memory with what exchanges need, RAM with that of all."""
    if processes == 1:
        return phase
    if phase.name in ("text", "encode"):  # rank 0 does it, while the others load
        return replace(phase, ram={**phase.ram, "waiting ranks": (processes - 1) * _LOADED_BYTES})
    return replace(phase, vram={**phase.vram, "exchange": EXCHANGE_BYTES}, ram=ram_of_all(phase.ram, processes))


def ram_of_all(ram: dict[str, int], processes: int) -> dict[str, int]:
    """Host memory of one process by part as that of all, what they share counted once."""
    return {part: each * processes if part in _PRIVATE else each for part, each in ram.items()}


def words(numbers: int, processes: int, clips: int, hardware: Hardware) -> str:
    """A sentence on what an update of several ranks is."""
    seconds, rate = exchange_seconds(numbers, processes, hardware), exchange_rate(hardware, processes)
    size = numbers * _NUMBER_BYTES / GIB
    return (
        f"{processes} GPUs learn from {clips} clips an update; {size:.2g} GiB of gradients take {seconds:.2g} s to exchange, at "
        f"{rate / 1e9:.3g} GB/s"
    )
