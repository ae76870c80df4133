"""A stand-in for the module `pynvml`: its functions by name, answering with values as its structs hold them.

No card is needed, and none is imitated beyond its answers: the names, arguments, units and error classes are those of nvidia-ml-py 13.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


class NVMLError(Exception):
    """What every failure of the library derives from."""


class NVMLError_NotSupported(NVMLError):  # noqa: N801, N818 - named as the real ones are
    pass


class NVMLError_LibraryNotFound(NVMLError):  # noqa: N801, N818
    pass


class NVMLError_LibRmVersionMismatch(NVMLError):  # noqa: N801, N818
    pass


class NVMLError_NoPermission(NVMLError):  # noqa: N801, N818
    pass


class NVMLError_FunctionNotFound(NVMLError):  # noqa: N801, N818
    pass


@dataclass
class Memory:
    total: int = 80 << 30
    used: int = 3 << 30
    free: int = 77 << 30
    reserved: int = 0


@dataclass
class Busy:
    gpu: int = 42


@dataclass
class Process:
    pid: int
    usedGpuMemory: int | None  # noqa: N815


@dataclass
class FakeCard:
    """The answers of one card, by the name of the function. A value that is a function gets the further arguments."""

    answers: dict[str, Any] = field(default_factory=dict)

    def answer(self, call: str, *arguments: Any) -> Any:
        values = H100 | self.answers
        if call not in values:
            raise NVMLError_NotSupported("Not Supported")
        value = values[call]
        if isinstance(value, Exception):
            raise value
        return value(*arguments) if callable(value) else value


H100: dict[str, Any] = {
    "nvmlDeviceGetName": "NVIDIA H100",
    "nvmlDeviceGetMemoryInfo": lambda version=None: Memory() if version is None else Memory(used=2 << 30, reserved=1 << 30),
    "nvmlDeviceGetUtilizationRates": Busy(),
    "nvmlDeviceGetPowerUsage": 350_500,
    "nvmlDeviceGetTemperature": lambda sensor: 55,
    "nvmlDeviceGetCudaComputeCapability": (9, 0),
    "nvmlDeviceGetUUID": "GPU-11111111-aaaa-bbbb-cccc-000000000000",
    "nvmlDeviceGetEccMode": [1, 1],
    "nvmlDeviceGetMigMode": [0, 0],
    "nvmlDeviceGetEnforcedPowerLimit": 700_000,
    "nvmlDeviceGetPowerManagementDefaultLimit": 700_000,
    "nvmlDeviceGetCurrentClocksEventReasons": 0x1,
    "nvmlDeviceGetCurrPcieLinkGeneration": 5,
    "nvmlDeviceGetCurrPcieLinkWidth": 16,
    "nvmlDeviceGetMaxPcieLinkGeneration": 5,
    "nvmlDeviceGetMaxPcieLinkWidth": 16,
    "nvmlDeviceGetComputeRunningProcesses": [],
    "nvmlDeviceGetGraphicsRunningProcesses": [],
}


class FakeNvml:
    """The module. `silent` are the calls that no card supports; `broken` makes its start fail."""

    nvmlMemory_v2 = 33554472  # noqa: N815

    def __init__(
        self,
        *cards: FakeCard,
        silent: tuple[str, ...] = (),
        broken: Exception | None = None,
        driver: str | bytes = b"580.65",
        cuda: int = 13000,
        names: dict[int, str] | None = None,
    ) -> None:
        self.cards = cards or (FakeCard(),)
        self.silent, self.broken = silent, broken
        self.names = names or {}
        self.system = {
            "nvmlSystemGetDriverVersion": driver,
            "nvmlSystemGetCudaDriverVersion_v2": cuda,
            "nvmlDeviceGetCount": len(self.cards),
        }

    def nvmlInit(self) -> None:  # noqa: N802
        if self.broken:
            raise self.broken

    def __getattr__(self, name: str) -> Any:
        if not name.startswith("nvml"):
            raise AttributeError(name)

        def call(*arguments: Any) -> Any:
            if name in self.silent:
                raise NVMLError_NotSupported("Not Supported")
            if name in self.system:
                return self.system[name]
            if name == "nvmlDeviceGetHandleByIndex":
                return self.cards[arguments[0]]
            if name == "nvmlDeviceGetMigDeviceHandleByIndex":
                return arguments[0].answer(name, arguments[1])
            if name == "nvmlSystemGetProcessName":
                return self.names[arguments[0]]
            return arguments[0].answer(name, *arguments[1:])

        return call
