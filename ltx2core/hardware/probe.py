"""What this machine is: cards, cores, memory, disk, software, terminal. Looks and does not touch, unless it is asked for the disk's speed.

Loads neither torch nor CUDA. `machine.py` has what comes back.
"""

from __future__ import annotations

import dataclasses
import os
import platform
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ltx2core.hardware import limits
from ltx2core.hardware.disk import disk_speed
from ltx2core.hardware.machine import Gpu, Machine, as_json
from ltx2core.hardware.nvml import Cards, Nvml
from ltx2core.hardware.rates_store import rates_file, remembered_rates
from ltx2core.hardware.software import installed_torch, software_problem
from ltx2core.hardware.terminal import terminal_of
from ltx2core.hardware.visible import visible_indices

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from ltx2core.hardware.machine import TorchBuild

__all__ = ["Gpu", "Machine", "as_json", "probe_machine"]

_WSL_PINNED_SHARE = 0.5  # Windows lets about half of the memory be page-locked


def probe_machine(
    root: Path,
    *,
    nvml: Nvml | None = None,
    environment: Mapping[str, str] | None = None,
    torch: TorchBuild | None = None,
    measure_disk: bool = False,
) -> Machine:
    """What this machine is, with the disk that `root` lies on (or will lie on). Takes some 50 ms, more where a card must wake up.

    environment: variables, the process's own by default. torch: the build to judge, the installed one by default. measure_disk: write and
    read a file there, which takes about a second more.
    """
    variables = os.environ if environment is None else environment
    place = _existing(root)
    disk = shutil.disk_usage(place)
    machine = Machine(
        gpus=(),
        driver=None,
        no_gpu_because=None,
        cpu_name=cpu_name(),
        cores=limits.usable_cores(),
        machine_cores=os.cpu_count() or 1,
        affinity_cores=limits.affinity_cores(),
        cpu_quota=limits.cpu_limit(),
        **_memory(wsl=(wsl := is_wsl())),
        disk_path=str(place),
        disk_total_bytes=disk.total,
        disk_free_bytes=disk.free,
        disk_speed=disk_speed(place) if measure_disk else None,
        system=f"{platform.system()} {platform.release()}",
        python=platform.python_version(),
        container=_is_container(),
        wsl=wsl,
        on_battery=_on_battery(),
        terminal=terminal_of(variables),
    )
    machine = dataclasses.replace(machine, device_order=variables.get("CUDA_DEVICE_ORDER"))
    machine = _with_cards(machine, (nvml or Nvml()).cards(), torch or installed_torch(), variables.get("CUDA_VISIBLE_DEVICES"))
    return dataclasses.replace(machine, rates=remembered_rates(machine, rates_file(variables)))


def is_wsl(release: str | None = None) -> bool:
    """Whether this is Windows' Linux, by the kernel's name."""
    return "microsoft" in (platform.release() if release is None else release).lower()


def _with_cards(machine: Machine, cards: Cards, torch: TorchBuild | None, visible: str | None) -> Machine:
    """The machine with its cards, which of them may be used, and whether the software fits them."""
    allowed = visible_indices(visible, cards.gpus)
    numbers = {index: number for number, index in enumerate(allowed)}
    gpus = tuple(dataclasses.replace(gpu, visible=gpu.index in numbers, cuda_index=numbers.get(gpu.index)) for gpu in cards.gpus)
    missing = cards.missing
    if gpus and not allowed:
        missing = f"CUDA_VISIBLE_DEVICES={visible} hides every card: unset it, or name one (0, or the beginning of its UUID)."
    usable = [gpu for gpu in gpus if gpu.visible]
    return dataclasses.replace(
        machine,
        gpus=gpus,
        driver=cards.driver,
        driver_cuda=cards.cuda,
        no_gpu_because=missing,
        torch=torch,
        visible_devices=visible,
        software_problem=software_problem(torch, driver=cards.driver, driver_cuda=cards.cuda, gpus=usable),
    )


def _memory(*, wsl: bool) -> dict[str, Any]:
    """Memory, swap, what can be page-locked, and /dev/shm: the container's where it is the smaller."""
    import psutil

    memory, swap = psutil.virtual_memory(), psutil.swap_memory()
    limit, swap_limit = limits.memory_limit(), limits.swap_limit()
    contained = limit is not None and limit < memory.total
    total = limit if contained and limit is not None else memory.total
    try:
        shm = shutil.disk_usage("/dev/shm")
    except OSError:  # not on this system, or not for this user
        shm = None
    return {
        "ram_total_bytes": total,
        "ram_available_bytes": min(limits.available_memory(), total),
        "ram_limited_by": "container" if contained else "machine",
        "swap_total_bytes": swap.total if swap_limit is None else min(swap.total, swap_limit),
        "swap_used_bytes": swap.used,
        "pinned_limit_bytes": int(total * _WSL_PINNED_SHARE) if wsl else total,
        "locked_limit_bytes": limits.locked_limit(),
        "shm_total_bytes": shm.total if shm else None,
        "shm_free_bytes": shm.free if shm else None,
    }


def _is_container() -> bool:
    return any(Path(mark).exists() for mark in ("/.dockerenv", "/run/.containerenv", "/run/systemd/container")) or "container" in os.environ


def _on_battery() -> bool | None:
    import psutil

    try:
        battery = psutil.sensors_battery()
    except (AttributeError, OSError, ValueError):  # not on this system, or a sensor that answers nonsense
        return None
    return None if battery is None or battery.power_plugged is None else not battery.power_plugged


def _existing(path: Path) -> Path:
    """The nearest folder above a path that is there already."""
    path = path.absolute()
    return next(folder for folder in (path, *path.parents) if folder.is_dir())


def cpu_name(lines: Iterable[str] | None = None) -> str:
    """What the processor calls itself."""
    try:
        for line in lines if lines is not None else Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return " ".join(line.split(":", 1)[1].split())
    except OSError:
        pass
    return platform.processor() or platform.machine()
