"""The graphics cards, as NVIDIA's management library tells them. Owns every NVML call; any field may be missing.

`pynvml` is imported on first use. A machine without a driver, a card that hides a value, a driver too old for a call, a container without
the library: all normal.
"""

from __future__ import annotations

import importlib
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ltx2core.hardware.machine import Gpu, GpuProcess, MigSlice

__all__ = ["NO_DRIVER", "Cards", "Gpu", "Nvml"]

NO_DRIVER = "No NVIDIA driver was found on this machine."
DRIVER_MISSING = (
    "An NVIDIA card is on this machine's bus, but no driver answers here: install the driver, or start the container with its GPUs "
    "(docker run --gpus all)."
)
_NVLINKS = 36  # the most that the library numbers
_DIE = 0  # the temperature sensor on the die

# NVML's bits for why clocks are low, in words. A card at rest (bit 1) and clocks that somebody chose (2, 0x100) are no trouble.
_SLOWED = (
    (0x4, "power limit"),
    (0x8, "hardware protection"),
    (0x10, "kept in step with another card"),
    (0x20, "heat (driver)"),
    (0x40, "heat (hardware)"),
    (0x80, "power supply"),
    (0x200, "board power"),
    (0x400, "reliability voltage"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Cards:
    """Every card and the driver; `missing` says in a sentence why there is none."""

    gpus: tuple[Gpu, ...]
    driver: str | None
    missing: str | None
    cuda: str | None = None  # the newest that the driver knows


class Nvml:
    """A handle on the library, loaded once. `library` stands in for `pynvml` in tests."""

    def __init__(self, library: Any = None, *, bus: Path = Path("/sys/bus/pci/devices")) -> None:
        self._library = library
        self.missing: str | None = None
        try:
            if self._library is None:
                self._library = importlib.import_module("pynvml")
            self._library.nvmlInit()
        except Exception as error:  # noqa: BLE001 - the library raises its own classes, and a missing driver is no failure
            self.missing = _why(error, bus)

    def cards(self) -> Cards:
        """What the driver tells about each card now."""
        if self.missing is not None:
            return Cards(gpus=(), driver=None, missing=self.missing)
        count = self._told("nvmlDeviceGetCount") or 0
        gpus = tuple(self._gpu(index) for index in range(count))
        return Cards(
            gpus=gpus,
            driver=_text(self._told("nvmlSystemGetDriverVersion")),
            missing=None if gpus else "The driver sees no card.",
            cuda=_cuda(self._told("nvmlSystemGetCudaDriverVersion_v2")),
        )

    def memory(self, index: int = 0) -> tuple[int, int, int | None] | None:
        """(used bytes, total bytes, busy percent) of a card, or None where there is none."""
        if self.missing is not None or (handle := self._told("nvmlDeviceGetHandleByIndex", index)) is None:
            return None
        memory = self._told("nvmlDeviceGetMemoryInfo", handle)
        if memory is None:
            return None
        busy = self._told("nvmlDeviceGetUtilizationRates", handle)
        return int(memory.used), int(memory.total), None if busy is None else int(busy.gpu)

    def _told(self, call: str, *arguments: object) -> Any:
        """What a call returns; None when the card, its virtual stand-in, the driver or the library does not know it."""
        try:
            return getattr(self._library, call)(*arguments)
        except Exception:  # noqa: BLE001 - NVML_ERROR_NOT_SUPPORTED and a dozen kin; the value is simply not known
            return None

    def _gpu(self, index: int) -> Gpu:
        handle = self._told("nvmlDeviceGetHandleByIndex", index)
        memory = self._memory(handle)
        busy = self._told("nvmlDeviceGetUtilizationRates", handle)
        capability = self._told("nvmlDeviceGetCudaComputeCapability", handle)
        ecc, mig = self._told("nvmlDeviceGetEccMode", handle), self._told("nvmlDeviceGetMigMode", handle)
        processes = self._processes(handle)
        return Gpu(
            index=index,
            name=_text(self._told("nvmlDeviceGetName", handle)) or f"GPU {index}",
            total_bytes=None if memory is None else int(memory.total),
            free_bytes=None if memory is None else int(memory.free),
            capability=None if capability is None else (int(capability[0]), int(capability[1])),
            percent=None if busy is None else int(busy.gpu),
            temperature_celsius=self._told("nvmlDeviceGetTemperature", handle, _DIE),
            power_watts=_watts(self._told("nvmlDeviceGetPowerUsage", handle)),
            uuid=_text(self._told("nvmlDeviceGetUUID", handle)),
            used_by_others_bytes=_used_by_others(memory, processes),
            processes=processes,
            ecc=None if ecc is None else bool(ecc[0]),
            power_limit_watts=_watts(
                self._told("nvmlDeviceGetEnforcedPowerLimit", handle) or self._told("nvmlDeviceGetPowerManagementLimit", handle)
            ),
            default_power_limit_watts=_watts(self._told("nvmlDeviceGetPowerManagementDefaultLimit", handle)),
            slowed_by=self._slowed_by(handle),
            mig=None if mig is None else bool(mig[0]),
            mig_slices=self._slices(handle) if mig is not None and mig[0] else (),
            pcie_generation=self._told("nvmlDeviceGetCurrPcieLinkGeneration", handle),
            pcie_width=self._told("nvmlDeviceGetCurrPcieLinkWidth", handle),
            best_pcie_generation=self._told("nvmlDeviceGetMaxPcieLinkGeneration", handle),
            best_pcie_width=self._told("nvmlDeviceGetMaxPcieLinkWidth", handle),
            nvlinks=self._nvlinks(handle),
        )

    def _memory(self, handle: object) -> Any:
        """Memory with what the driver keeps for itself told apart; as one sum where the driver is older than that."""
        version = getattr(self._library, "nvmlMemory_v2", None)
        newer = None if version is None else self._told("nvmlDeviceGetMemoryInfo", handle, version)
        return newer or self._told("nvmlDeviceGetMemoryInfo", handle)

    def _processes(self, handle: object) -> tuple[GpuProcess, ...]:
        """The other processes on a card. One that computes and draws is listed by the driver twice, with the same memory."""
        found: dict[int, GpuProcess] = {}
        for call in ("nvmlDeviceGetComputeRunningProcesses", "nvmlDeviceGetGraphicsRunningProcesses"):
            for process in self._told(call, handle) or ():
                if process.pid != os.getpid():
                    name = _text(self._told("nvmlSystemGetProcessName", process.pid)) or ""
                    used = None if process.usedGpuMemory is None else int(process.usedGpuMemory)
                    found[process.pid] = GpuProcess(pid=int(process.pid), name=Path(name).name, used_bytes=used)
        return tuple(found.values())

    def _slowed_by(self, handle: object) -> tuple[str, ...]:
        bits = self._told("nvmlDeviceGetCurrentClocksEventReasons", handle)
        if bits is None:  # drivers before 535 know only the older name
            bits = self._told("nvmlDeviceGetCurrentClocksThrottleReasons", handle)
        return tuple(words for bit, words in _SLOWED if bits is not None and bits & bit)

    def _slices(self, handle: object) -> tuple[MigSlice, ...]:
        slices = []
        for number in range(self._told("nvmlDeviceGetMaxMigDeviceCount", handle) or 0):
            part = self._told("nvmlDeviceGetMigDeviceHandleByIndex", handle, number)
            if part is not None:
                memory = self._told("nvmlDeviceGetMemoryInfo", part)
                uuid = _text(self._told("nvmlDeviceGetUUID", part)) or ""
                slices.append(MigSlice(uuid=uuid, total_bytes=None if memory is None else int(memory.total)))
        return tuple(slices)

    def _nvlinks(self, handle: object) -> int | None:
        states = []
        for link in range(_NVLINKS):
            state = self._told("nvmlDeviceGetNvLinkState", handle, link)
            if state is None:
                break
            states.append(bool(state))
        return sum(states) if states else None


def _used_by_others(memory: Any, processes: tuple[GpuProcess, ...]) -> int | None:
    """Bytes that other processes hold. While this one has none of the card, all that is used is theirs, seen or not."""
    if memory is not None and not _has_context():
        return int(memory.used)
    told = [process.used_bytes for process in processes if process.used_bytes is not None]
    return sum(told) if told and len(told) == len(processes) else None


def _has_context() -> bool:
    """Whether this process has CUDA going."""
    torch = sys.modules.get("torch")
    return torch is not None and bool(torch.cuda.is_initialized())


def _watts(milliwatts: int | None) -> float | None:
    return None if milliwatts is None else milliwatts / 1000


def _cuda(number: int | None) -> str | None:
    """13000 as "13.0"."""
    return None if not number else f"{number // 1000}.{number % 1000 // 10}"


def _text(value: object) -> str | None:
    return value.decode(errors="replace") if isinstance(value, bytes) else None if value is None else str(value)


def _why(error: Exception, bus: Path) -> str:
    """Why the library does not start, and what helps."""
    kind = type(error).__name__
    if isinstance(error, ImportError):
        return "The package nvidia-ml-py is not installed, so cards cannot be seen."
    if kind in ("NVMLError_LibraryNotFound", "NVMLError_DriverNotLoaded"):
        return DRIVER_MISSING if _card_on(bus) else NO_DRIVER
    if kind == "NVMLError_LibRmVersionMismatch":
        return "The NVIDIA driver was updated while it ran: its library and its kernel module differ. Start the machine again."
    if kind == "NVMLError_NoPermission":
        return "This user may not use the NVIDIA driver: /dev/nvidiactl cannot be opened."
    if kind in ("NVMLError_FunctionNotFound", "NVMLError_ArgumentVersionMismatch"):
        return f"The NVIDIA driver is too old to be asked ({error}): update it."
    return f"The NVIDIA driver does not answer: {error}."


def _card_on(bus: Path) -> bool:
    """Whether a display or compute device of NVIDIA's is on the PCI bus."""
    for device in bus.glob("*"):
        try:
            vendor, kind = (device / "vendor").read_text().strip(), (device / "class").read_text().strip()
        except OSError:
            continue
        if vendor == "0x10de" and kind.startswith("0x03"):
            return True
    return False
