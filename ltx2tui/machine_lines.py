"""A machine in words, for the Hardware page and `ltx2tui probe` alike."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from ltx2tui.words import count, size

if TYPE_CHECKING:
    from ltx2core.hardware.machine import Gpu, Machine, Terminal
    from ltx2core.hardware.rates import Rates

GIB = 1 << 30


@dataclass(frozen=True, slots=True)
class Section:
    """A part of the machine: its kind, what it is, what to know about it, and what is wrong with it."""

    title: str
    text: str
    more: tuple[str, ...] = ()
    wrong: tuple[str, ...] = ()


def machine_sections(machine: Machine) -> list[Section]:
    """What a machine is, part by part."""
    found = [_graphics(machine), *(_card(gpu) for gpu in machine.gpus)]
    return [
        *(section for section in found if section is not None),
        *([_software(machine)] if machine.gpus else []),
        _processor(machine),
        _memory(machine),
        _disk(machine),
        _speed(machine.rates),
        _surroundings(machine),
    ]


def _graphics(machine: Machine) -> Section | None:
    """Why there is no card to use; nothing where there is one."""
    if machine.usable_gpus:
        return None
    if machine.gpus:
        return Section("Graphics", "No GPU may be used.", (), (machine.no_gpu_because or "",))
    return Section(
        "Graphics",
        "No NVIDIA GPU, which is fine for the small built-in model.",
        (
            machine.no_gpu_because or "",
            "The demo and your first tries run on the processor, in minutes.",
            "Training LTX-2 itself needs a card; this app then runs on that machine over SSH.",
        ),
    )


def _card(gpu: Gpu) -> Section:
    memory = (
        f"{size(gpu.free_bytes)} free of {size(gpu.total_bytes)}" if gpu.free_bytes is not None and gpu.total_bytes else "memory unknown"
    )
    now = _joined(
        f"capability {gpu.capability[0]}.{gpu.capability[1]}" if gpu.capability else "",
        f"{gpu.temperature_celsius} °C" if gpu.temperature_celsius is not None else "",
        _power(gpu),
        f"{gpu.percent}% busy" if gpu.percent is not None else "",
        {True: "ECC on", False: "ECC off", None: ""}[gpu.ecc],
    )
    ways = _joined(
        _link(gpu),
        count(gpu.nvlinks, "NVLink") if gpu.nvlinks else "",
        f"MIG: {count(len(gpu.mig_slices), 'slice')}" if gpu.mig else "",
        "hidden by CUDA_VISIBLE_DEVICES" if not gpu.visible else "",
    )
    wrong = (f"Slowed down by: {', '.join(gpu.slowed_by)}.",) if gpu.slowed_by else ()
    return Section(f"GPU {gpu.index}", f"{gpu.name}, {memory}", _lines(now, ways, _others(gpu)), wrong)


def _power(gpu: Gpu) -> str:
    if gpu.power_watts is None:
        return "" if gpu.power_limit_watts is None else f"limit {gpu.power_limit_watts:.0f} W"
    limit = f" of {gpu.power_limit_watts:.0f}" if gpu.power_limit_watts is not None else ""
    return f"{gpu.power_watts:.0f}{limit} W"


def _link(gpu: Gpu) -> str:
    """The link to the machine; a card at rest may be at a lower generation, so both are said where they differ."""
    if gpu.pcie_generation is None or gpu.pcie_width is None:
        return ""
    best = gpu.best_pcie_generation or gpu.pcie_generation, gpu.best_pcie_width or gpu.pcie_width
    now = f"{gpu.pcie_generation} x{gpu.pcie_width}"
    return f"PCIe {now}" if best == (gpu.pcie_generation, gpu.pcie_width) else f"PCIe {now} now, {best[0]} x{best[1]} at best"


def _others(gpu: Gpu) -> str:
    """Who else holds memory of the card."""
    if not gpu.used_by_others_bytes:
        return ""
    named = [f"{p.name or f'process {p.pid}'} {size(p.used_bytes)}" for p in gpu.processes if p.used_bytes]
    seen = f" ({', '.join(named[:3])}{', …' if len(named) > 3 else ''})" if named else ""
    return f"Others hold {size(gpu.used_by_others_bytes)}{seen}."


def _software(machine: Machine) -> Section:
    cuda = f" (CUDA {machine.driver_cuda})" if machine.driver_cuda else ""
    torch = f"PyTorch {machine.torch.version}" if machine.torch else "no PyTorch"
    return Section("Software", f"Driver {machine.driver or '?'}{cuda}, {torch}", (), _lines(machine.software_problem or ""))


def _processor(machine: Machine) -> Section:
    of = f" of {machine.machine_cores}" if machine.cores < machine.machine_cores else ""
    quota = f", {machine.cpu_quota:g} by the container's limit" if machine.cpu_quota is not None else ""
    return Section("Processor", machine.cpu_name, (f"{count(machine.cores, 'core')}{of} for this process{quota}.",))


def _memory(machine: Machine) -> Section:
    swap = f"swap {size(machine.swap_total_bytes)}, {size(machine.swap_used_bytes)} used" if machine.swap_total_bytes else "no swap"
    halved = machine.pinned_limit_bytes is not None and machine.pinned_limit_bytes < machine.ram_total_bytes
    facts = _joined(
        swap,
        f"page-locked up to {size(machine.pinned_limit_bytes)}" if halved and machine.pinned_limit_bytes else "",
        f"/dev/shm {size(machine.shm_free_bytes)} free" if machine.shm_free_bytes is not None else "",
    )
    contained = "The limit is the container's, not the machine's." if machine.ram_limited_by == "container" else ""
    return Section("Memory", f"{size(machine.ram_available_bytes)} free of {size(machine.ram_total_bytes)}", _lines(facts, contained))


def _disk(machine: Machine) -> Section:
    speed = machine.disk_speed
    rates = ""
    if speed is not None:
        read = f", reads {_bytes_rate(speed.read_bytes_per_second)}" if speed.read_bytes_per_second else ""
        rates = f"Writes {_bytes_rate(speed.write_bytes_per_second)}{read}."
    return Section(
        "Disk",
        f"{size(machine.disk_free_bytes)} free of {size(machine.disk_total_bytes)}",
        _lines(f"Runs and caches go under {machine.disk_path}.", rates),
    )


def _speed(rates: Rates | None) -> Section:
    if rates is None:
        return Section("Speed", "Not measured yet: ltx2tui probe --measure, ten seconds.")
    kinds = (
        ("bf16", rates.bf16_flops_per_second),
        ("int8", rates.int8_ops_per_second),
        ("fp8", rates.fp8_flops_per_second),
    )
    text = _joined(*(f"{kind} {_tera(rate)}" for kind, rate in kinds if rate))
    copies = _joined(
        f"copies to the card {_bytes_rate(rates.to_device_bytes_per_second)}" if rates.to_device_bytes_per_second else "",
        f"its memory {_bytes_rate(rates.memory_bytes_per_second)}",
    )
    block = rates.block
    took = _joined(
        f"a block ({count(block.video_tokens, 'token')}, {block.video_width} wide) {block.seconds * 1000:.1f} ms" if block else "",
        f"a launch {rates.launch_seconds * 1e6:.1f} µs",
    )
    return Section("Speed", text, _lines(copies, took))


def _surroundings(machine: Machine) -> Section:
    places = _joined(
        "WSL" if machine.wsl else "", "in a container" if machine.container else "", "on battery" if machine.on_battery else ""
    )
    text = f"{machine.system}, Python {machine.python}" + (f", {places}" if places else "")
    return Section("System", text, _lines(_terminal(machine.terminal)))


def _terminal(terminal: Terminal) -> str:
    if not terminal.term:
        return ""
    kept = f" in {terminal.multiplexer}" if terminal.multiplexer else ""
    far = " over SSH" if terminal.ssh else ""
    colours = "16 million" if terminal.truecolour else "256"
    return _joined(f"{terminal.program or terminal.term}{kept}{far}", f"{colours} colours", f"pictures in {terminal.graphics}")


def _tera(rate: float) -> str:
    tera = rate / 1e12
    return f"{tera:.0f} TFLOP/s" if tera >= 10 else f"{tera:.2f} TFLOP/s"


def _bytes_rate(rate: float) -> str:
    """Bytes a second in the makers' units of 1000."""
    return f"{rate / 1e9:.1f} GB/s" if rate >= 1e9 else f"{rate / 1e6:.0f} MB/s"


def _joined(*facts: str) -> str:
    return " · ".join(fact for fact in facts if fact)


def _lines(*lines: str) -> tuple[str, ...]:
    return tuple(line for line in lines if line)
