"""What a machine is, as plain frozen values: cards, cores, memory, disk, software, terminal. Nothing is looked up here.

Each field says in its annotation what it is: `docs/PROBE.md` is made from these, and `ltx2tui probe --json` prints them. `from_json` reads
what that printed, so that a machine can be planned for on another one.

`python -m ltx2core.hardware.machine > docs/PROBE.md` writes the page.
"""

from __future__ import annotations

import dataclasses
import sys
import types
import typing
from dataclasses import dataclass
from typing import Annotated, Any, Literal, TypeVar, get_args, get_origin

from ltx2core.errors import ConfigError
from ltx2core.hardware.rates import BlockTime, Rates, rates_from_json

SCHEMA = 1  # raised when a key changes its meaning or goes; new keys leave it
Graphics = Literal["kitty", "sixel", "half cells"]
Part = TypeVar("Part")


@dataclass(frozen=True, slots=True, kw_only=True)
class GpuProcess:
    """Another process on a card."""

    pid: Annotated[int, "Its number, as the driver counts: a container may not see the process behind it."]
    name: Annotated[str, "Its program, empty where the system does not tell."]
    used_bytes: Annotated[int | None, "Memory of the card that it holds; null under Windows and WSL, which do not tell."]


@dataclass(frozen=True, slots=True, kw_only=True)
class MigSlice:
    """A part of a card that MIG has cut off."""

    uuid: Annotated[str, "What CUDA_VISIBLE_DEVICES names it by."]
    total_bytes: Annotated[int | None, "Its memory."]


@dataclass(frozen=True, slots=True, kw_only=True)
class Gpu:
    """One card. None is a value that the driver does not tell."""

    index: Annotated[int, "Its number, counted along the bus, as nvidia-smi does."]
    name: Annotated[str, "What the driver calls it."]
    total_bytes: Annotated[int | None, "Its memory."]
    free_bytes: Annotated[int | None, "Memory that nobody holds now."]
    capability: Annotated[tuple[int, int] | None, "Compute capability: [9, 0] is an H100. It decides which kernels exist."]
    percent: Annotated[int | None, "How busy it is now."]
    temperature_celsius: Annotated[int | None, "Temperature of its die now."]
    power_watts: Annotated[float | None, "What it draws now."]
    uuid: Annotated[str | None, "Its own name, the same in every machine and after every start."] = None
    visible: Annotated[bool, "Whether CUDA_VISIBLE_DEVICES lets this process use it."] = True
    cuda_index: Annotated[int | None, "Its number for CUDA, as far as CUDA counts along the bus; null where it is hidden."] = None
    used_by_others_bytes: Annotated[int | None, "Memory that other processes hold now, the desktop included."] = None
    processes: Annotated[tuple[GpuProcess, ...], "Those processes, as far as they can be seen."] = ()
    ecc: Annotated[bool | None, "Whether it corrects errors of its memory, which costs some of it on cards with GDDR."] = None
    power_limit_watts: Annotated[float | None, "The most that it may draw."] = None
    default_power_limit_watts: Annotated[float | None, "The most that it may draw when nobody changed that."] = None
    slowed_by: Annotated[tuple[str, ...], "Why its clocks are lower than they could be, now."] = ()
    mig: Annotated[bool | None, "Whether MIG has cut it into slices."] = None
    mig_slices: Annotated[tuple[MigSlice, ...], "Those slices."] = ()
    pcie_generation: Annotated[int | None, "Generation of its PCIe link now. A card at rest goes down to 1; that is no fault."] = None
    pcie_width: Annotated[int | None, "Lanes of that link now."] = None
    best_pcie_generation: Annotated[int | None, "The best generation that it and its slot know together."] = None
    best_pcie_width: Annotated[int | None, "The most lanes that it and its slot have together."] = None
    nvlinks: Annotated[int | None, "NVLinks to other cards that are up; null where it has none."] = None

    @property
    def laptop(self) -> bool:
        """Whether it is a card for laptops, which share their power with the processor."""
        return any(word in self.name for word in ("Laptop", "Max-Q", "Mobile")) and "Workstation" not in self.name


@dataclass(frozen=True, slots=True, kw_only=True)
class Terminal:
    """Where the app is shown."""

    term: Annotated[str, "$TERM."] = ""
    program: Annotated[str, "The terminal's own name, as far as it says one."] = ""
    multiplexer: Annotated[Literal["tmux", "screen", "zellij"] | None, "What keeps the session when the connection drops."] = None
    ssh: Annotated[bool, "Whether it is shown over SSH."] = False
    truecolour: Annotated[bool, "Whether it says that it shows 16 million colours."] = False
    graphics: Annotated[Graphics, "The best way to show pictures that is known to work, without asking the terminal."] = "half cells"


@dataclass(frozen=True, slots=True, kw_only=True)
class DiskSpeed:
    """What was measured in a folder, with a file that is gone again."""

    write_bytes_per_second: Annotated[float, "Writing, until the data is on the disk."]
    read_bytes_per_second: Annotated[float | None, "Reading it again from the disk; null where the system's cache could not be passed."]


@dataclass(frozen=True, slots=True, kw_only=True)
class TorchBuild:
    """The PyTorch that is installed, read from its files without loading it."""

    version: Annotated[str, "Its version."]
    cuda: Annotated[str | None, "The CUDA that it was built for; null for the CPU's build."]


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """What a run here may use. None is what the system does not tell."""

    gpus: Annotated[tuple[Gpu, ...], "Every NVIDIA card, hidden ones included."]
    driver: Annotated[str | None, "Version of the NVIDIA driver."]
    no_gpu_because: Annotated[str | None, "Why no card can be used, in a sentence; null where one can."]
    cpu_name: Annotated[str, "The processor."]
    cores: Annotated[int, "Cores that this process may keep busy at once: affinity and the container's quota considered."]
    machine_cores: Annotated[int, "Cores of the machine."]
    ram_total_bytes: Annotated[int, "Memory; the container's limit where that is smaller."]
    ram_available_bytes: Annotated[int, "Memory that can be taken before the machine, or its container, swaps or kills."]
    ram_limited_by: Annotated[str, "machine or container."]
    disk_path: Annotated[str, "The folder that runs/ and cache/ lie in, or the nearest that is there already."]
    disk_total_bytes: Annotated[int, "Size of its disk."]
    disk_free_bytes: Annotated[int, "What this user may still write there."]
    system: Annotated[str, "Operating system and its version."]
    python: Annotated[str, "Version of Python."]
    schema: Annotated[int, "Of this page: raised when a key changes its meaning or goes."] = SCHEMA
    driver_cuda: Annotated[str | None, "The newest CUDA that the driver knows."] = None
    torch: Annotated[TorchBuild | None, "PyTorch; null where it is not installed."] = None
    software_problem: Annotated[str | None, "Why driver, PyTorch and cards do not go together, and what helps; null where they do."] = None
    visible_devices: Annotated[str | None, "CUDA_VISIBLE_DEVICES; null where it is not set."] = None
    device_order: Annotated[str | None, "CUDA_DEVICE_ORDER; null where it is not set, and CUDA counts the fastest card first."] = None
    affinity_cores: Annotated[int | None, "Cores that the process is allowed on."] = None
    cpu_quota: Annotated[float | None, "Cores' worth of time that the container allows; null without a limit."] = None
    swap_total_bytes: Annotated[int, "Swap; the container's limit where that is smaller."] = 0
    swap_used_bytes: Annotated[int, "Swap in use, by whomever."] = 0
    pinned_limit_bytes: Annotated[int | None, "The most memory that can be page-locked for copies; half of it under WSL."] = None
    locked_limit_bytes: Annotated[int | None, "ulimit -l, which CUDA's page-locking does not count; null without a limit."] = None
    shm_total_bytes: Annotated[int | None, "/dev/shm, through which processes pass batches; null where there is none."] = None
    shm_free_bytes: Annotated[int | None, "What is free there."] = None
    disk_speed: Annotated[DiskSpeed | None, "How fast that disk is; null where it was not measured."] = None
    container: Annotated[bool, "Whether this is a container."] = False
    wsl: Annotated[bool, "Whether this is Windows' Linux (WSL), whose driver moves memory of the GPU into RAM instead of failing."] = False
    on_battery: Annotated[bool | None, "Whether it runs on its battery; null where it has none."] = None
    terminal: Annotated[Terminal, "The terminal."] = Terminal()
    rates: Annotated[Rates | None, "What `probe --measure` found here last; null where it was not run since driver or PyTorch changed."] = (
        None
    )

    @property
    def usable_gpus(self) -> tuple[Gpu, ...]:
        """The cards that this process may use, in CUDA's order."""
        return tuple(
            sorted((gpu for gpu in self.gpus if gpu.visible), key=lambda gpu: gpu.index if gpu.cuda_index is None else gpu.cuda_index)
        )


def as_json(machine: Machine) -> dict[str, object]:
    """A machine as plain JSON values."""
    return dataclasses.asdict(machine)


def from_json(value: object) -> Machine:
    """The machine that `as_json` wrote. Keys of a newer version are passed over. Raises ConfigError for what is no machine."""
    if not isinstance(value, dict) or value.get("schema", SCHEMA) != SCHEMA:
        raise ConfigError([f"This is not a machine of version {SCHEMA}; `ltx2tui probe --json` writes one."])
    return _read(Machine, value, "")


def _read(part: type[Part], value: object, path: str) -> Part:
    if not isinstance(value, dict):
        raise ConfigError([f"machine {path or 'file'}: a group of keys in braces belongs here; `ltx2tui probe --json` writes one."])
    hints = typing.get_type_hints(part)
    fields = {field.name: field for field in dataclasses.fields(part)}  # type: ignore[arg-type]
    missing = [n for n, f in fields.items() if n not in value and f.default is f.default_factory is dataclasses.MISSING]
    if missing:
        raise ConfigError([f"machine {path}{missing[0]} is missing; `ltx2tui probe --json` writes it."])
    return part(**{name: _value(hints[name], item, f"{path}{name}") for name, item in value.items() if name in fields})


def _value(hint: Any, value: object, path: str) -> object:
    """A value of an annotation: nested parts as their classes, lists as tuples. Raises ConfigError for one of another kind."""
    options = get_args(hint) if get_origin(hint) in (types.UnionType, typing.Union) else (hint,)
    if value is None and type(None) in options:
        return None
    kind = next(option for option in options if option is not type(None))
    if kind is Rates:
        return rates_from_json(value)
    if isinstance(kind, type) and dataclasses.is_dataclass(kind):
        return _read(kind, value, f"{path}.")
    if get_origin(kind) is tuple and isinstance(value, list | tuple):
        inner = get_args(kind)[0]
        return tuple(_value(inner, item, f"{path}[{index}]") for index, item in enumerate(value))
    if get_origin(kind) is Literal and value in get_args(kind):
        return value
    plain = (int, float) if kind is float else kind
    if isinstance(kind, type) and isinstance(value, plain) and (kind is bool or not isinstance(value, bool)):
        return value
    raise ConfigError([f"machine {path} = {value!r}: {_words(hint)} belongs here; `ltx2tui probe --json` writes it."])


def markdown_page() -> str:
    """Every key of `ltx2tui probe --json` as a Markdown page."""
    parts = [
        "# Keys of `ltx2tui probe --json`",
        "Generated by `python -m ltx2core.hardware.machine > docs/PROBE.md`; a test keeps it true. `null` is what the system does not "
        f"tell. `schema` is {SCHEMA}: it is raised when a key changes its meaning or goes, and not when one is added.",
    ]
    for part in (Machine, Gpu, GpuProcess, MigSlice, Terminal, DiskSpeed, TorchBuild, Rates, BlockTime):
        hints = typing.get_type_hints(part, include_extras=True)
        rows = [f"| `{name}` | {_words(get_args(hint)[0])} | {get_args(hint)[1]} |" for name, hint in hints.items()]
        heading = "The machine" if part is Machine else part.__name__
        parts.append(
            "\n".join(
                [
                    f"## {heading}",
                    "",
                    (part.__doc__ or "").partition(". ")[0].rstrip(".") + ".",
                    "",
                    "| key | value | |",
                    "|---|---|---|",
                    *rows,
                ]
            )
        )
    return "\n\n".join(parts) + "\n"


def _words(hint: Any) -> str:
    options = get_args(hint) if get_origin(hint) in (types.UnionType, typing.Union) else (hint,)
    said = [_word(option) for option in options if option is not type(None)]
    return " or ".join([*said, *(["null"] if type(None) in options else [])])


def _word(kind: Any) -> str:
    if get_origin(kind) is tuple:
        inner = get_args(kind)
        return f"list of {_word(inner[0])}" if inner[-1] is Ellipsis else f"list of {len(inner)} {_word(inner[0])}s"
    if get_origin(kind) is Literal:
        return ", ".join(str(option) for option in get_args(kind))
    names: dict[object, str] = {int: "whole number", float: "number", str: "text", bool: "true or false"}
    return names.get(kind) or str(kind.__name__)


if __name__ == "__main__":
    sys.stdout.write(markdown_page())
