"""The graphics cards, as NVIDIA's management library tells them. Owns every NVML call; any field may be missing.

`pynvml` is imported on first use. A machine without a driver, a card that hides a value, a container without the library: all normal.
"""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

NO_DRIVER = "No NVIDIA driver was found on this machine."


@dataclass(frozen=True, slots=True, kw_only=True)
class Gpu:
    """One card. None is a value that the driver does not tell."""

    index: int
    name: str
    total_bytes: int | None
    free_bytes: int | None
    capability: tuple[int, int] | None  # (9, 0) is an H100: decides which kernels exist
    percent: int | None
    temperature_celsius: int | None
    power_watts: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Cards:
    """Every card and the driver; `missing` says in a sentence why there is none."""

    gpus: tuple[Gpu, ...]
    driver: str | None
    missing: str | None


class Nvml:
    """A handle on the library, loaded once. `library` stands in for `pynvml` in tests."""

    def __init__(self, library: Any = None) -> None:
        self._library = library
        self.missing: str | None = None
        try:
            if self._library is None:
                self._library = importlib.import_module("pynvml")
            self._library.nvmlInit()
        except Exception as error:  # noqa: BLE001 - the library raises its own classes, and a missing driver is no failure
            self.missing = _why(error)

    def cards(self) -> Cards:
        """What the driver tells about each card now."""
        if self.missing is not None:
            return Cards(gpus=(), driver=None, missing=self.missing)
        count = _told(self._library.nvmlDeviceGetCount) or 0
        gpus = tuple(self._gpu(index) for index in range(count))
        return Cards(
            gpus=gpus, driver=_text(_told(self._library.nvmlSystemGetDriverVersion)), missing=None if gpus else "The driver sees no card."
        )

    def memory(self, index: int = 0) -> tuple[int, int, int | None] | None:
        """(used bytes, total bytes, busy percent) of a card, or None where there is none."""
        if self.missing is not None or (handle := _told(self._library.nvmlDeviceGetHandleByIndex, index)) is None:
            return None
        memory = _told(self._library.nvmlDeviceGetMemoryInfo, handle)
        if memory is None:
            return None
        busy = _told(self._library.nvmlDeviceGetUtilizationRates, handle)
        return int(memory.used), int(memory.total), None if busy is None else int(busy.gpu)

    def _gpu(self, index: int) -> Gpu:
        library = self._library
        handle = _told(library.nvmlDeviceGetHandleByIndex, index)
        memory = _told(library.nvmlDeviceGetMemoryInfo, handle)
        busy = _told(library.nvmlDeviceGetUtilizationRates, handle)
        milliwatts = _told(library.nvmlDeviceGetPowerUsage, handle)
        capability = _told(library.nvmlDeviceGetCudaComputeCapability, handle)
        return Gpu(
            index=index,
            name=_text(_told(library.nvmlDeviceGetName, handle)) or f"GPU {index}",
            total_bytes=None if memory is None else int(memory.total),
            free_bytes=None if memory is None else int(memory.free),
            capability=None if capability is None else (int(capability[0]), int(capability[1])),
            percent=None if busy is None else int(busy.gpu),
            temperature_celsius=_told(library.nvmlDeviceGetTemperature, handle, 0),  # 0: the sensor on the die
            power_watts=None if milliwatts is None else milliwatts / 1000,
        )


def _told(call: Callable[..., Any], *arguments: object) -> Any:
    """What a call returns; None when the card, or its virtual stand-in, does not support it."""
    try:
        return call(*arguments)
    except Exception:  # noqa: BLE001 - NVML_ERROR_NOT_SUPPORTED and a dozen kin; the value is simply not known
        return None


def _text(value: object) -> str | None:
    return value.decode(errors="replace") if isinstance(value, bytes) else None if value is None else str(value)


def _why(error: Exception) -> str:
    if isinstance(error, ImportError):
        return "The package nvidia-ml-py is not installed, so cards cannot be seen."
    if type(error).__name__ in ("NVMLError_LibraryNotFound", "NVMLError_DriverNotLoaded"):
        return NO_DRIVER
    return f"The NVIDIA driver does not answer: {error}."
