"""What this machine is: cards, cores, memory, disk. One call, no side effects; `as_json` is what `ltx2tui probe --json` prints."""

from __future__ import annotations

import dataclasses
import platform
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ltx2core.hardware import limits
from ltx2core.hardware.nvml import Cards, Gpu, Nvml

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["Gpu", "Machine", "as_json", "probe_machine"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """Bytes and cores that a run here may use."""

    gpus: tuple[Gpu, ...]
    driver: str | None  # of the NVIDIA cards
    no_gpu_because: str | None
    cpu_name: str
    cores: int  # usable by this process at once
    machine_cores: int
    ram_total_bytes: int  # the container's limit where it is the smaller
    ram_available_bytes: int
    ram_limited_by: str  # "machine" or "container"
    disk_path: str
    disk_total_bytes: int
    disk_free_bytes: int
    system: str
    python: str


def probe_machine(root: Path, *, nvml: Nvml | None = None) -> Machine:
    """What this machine is, with the disk that `root` lies on (or will lie on). Takes some 50 ms, more where a card must wake up."""
    import psutil

    cards: Cards = (nvml or Nvml()).cards()
    memory = psutil.virtual_memory()
    limit, used = limits.memory_limit(), limits.memory_used()
    contained = limit is not None and limit < memory.total
    total = limit if contained and limit is not None else memory.total
    available = min(memory.available, max(0, total - (used or 0))) if contained else memory.available
    place = _existing(root)
    disk = shutil.disk_usage(place)
    return Machine(
        gpus=cards.gpus,
        driver=cards.driver,
        no_gpu_because=cards.missing,
        cpu_name=_cpu_name(),
        cores=limits.usable_cores(),
        machine_cores=psutil.cpu_count() or 1,
        ram_total_bytes=total,
        ram_available_bytes=available,
        ram_limited_by="container" if contained else "machine",
        disk_path=str(place),
        disk_total_bytes=disk.total,
        disk_free_bytes=disk.free,
        system=f"{platform.system()} {platform.release()}",
        python=platform.python_version(),
    )


def as_json(machine: Machine) -> dict[str, object]:
    """A machine as plain JSON values."""
    return dataclasses.asdict(machine)


def _existing(path: Path) -> Path:
    """The nearest folder above a path that is there already."""
    path = path.absolute()
    return next(folder for folder in (path, *path.parents) if folder.is_dir())


def _cpu_name(lines: Iterable[str] | None = None) -> str:
    try:
        for line in lines if lines is not None else Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return " ".join(line.split(":", 1)[1].split())
    except OSError:
        pass
    return platform.processor() or platform.machine()
