"""A machine in words, for the Hardware page and `ltx2tui probe` alike."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from ltx2tui.words import count, size

if TYPE_CHECKING:
    from ltx2core.hardware.nvml import Gpu
    from ltx2core.hardware.probe import Machine

GIB = 1 << 30


@dataclass(frozen=True, slots=True)
class Section:
    """A part of the machine: its kind, what it is, and what to know about it."""

    title: str
    text: str
    more: tuple[str, ...] = ()


def machine_sections(machine: Machine) -> list[Section]:
    """What a machine is, part by part."""
    cards = [_card(gpu, machine.driver) for gpu in machine.gpus] or [
        Section(
            "Graphics",
            "No NVIDIA GPU, which is fine for the small built-in model.",
            (
                machine.no_gpu_because or "",
                "The demo and your first tries run on the processor, in minutes.",
                "Training LTX-2 itself needs a card; this app then runs on that machine over SSH.",
            ),
        )
    ]
    cores = count(machine.cores, "core")
    of = f" of {machine.machine_cores}" if machine.cores < machine.machine_cores else ""
    return [
        *cards,
        Section("Processor", machine.cpu_name, (f"{cores}{of} for this process.",)),
        Section(
            "Memory",
            f"{size(machine.ram_available_bytes)} free of {size(machine.ram_total_bytes)}",
            ("The limit is the container's, not the machine's.",) if machine.ram_limited_by == "container" else (),
        ),
        Section(
            "Disk",
            f"{size(machine.disk_free_bytes)} free of {size(machine.disk_total_bytes)}",
            (f"Runs and caches go under {machine.disk_path}.",),
        ),
        Section("System", f"{machine.system}, Python {machine.python}"),
    ]


def _card(gpu: Gpu, driver: str | None) -> Section:
    memory = (
        f"{size(gpu.free_bytes)} free of {size(gpu.total_bytes)}" if gpu.free_bytes is not None and gpu.total_bytes else "memory unknown"
    )
    facts = [
        f"compute capability {gpu.capability[0]}.{gpu.capability[1]}" if gpu.capability else "",
        f"driver {driver}" if driver else "",
        f"{gpu.temperature_celsius} °C" if gpu.temperature_celsius is not None else "",
        f"{gpu.power_watts:.0f} W" if gpu.power_watts is not None else "",
        f"{gpu.percent}% busy" if gpu.percent is not None else "",
    ]
    return Section(f"GPU {gpu.index}", f"{gpu.name}, {memory}", (" · ".join(fact for fact in facts if fact),))
