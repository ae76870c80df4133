"""The card and the machine that a run is predicted for: those that are here, or a card by its name. Loads no torch."""

from __future__ import annotations

import difflib
import math
import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from ltx2core.errors import ConfigError
from ltx2core.hardware.cards import CARDS, card_names, find_card, rates_of, typical_card
from ltx2core.planning.block_time import compute_factor

if TYPE_CHECKING:
    from ltx2core.hardware.machine import Machine
    from ltx2core.hardware.rates import Rates

GIB = 1 << 30
SMALLEST_GIB, LARGEST_GIB = 4, 1024
LARGEST_RAM_GIB = 64 * 1024
USUAL_RAM_GIB = 64.0
MOST_CARDS = 64
_DRIVER_BYTES = GIB // 4  # what a driver and a desktop keep of a card that is not looked at
_SYSTEM_BYTES = 2 * GIB  # of RAM, the same
_NEXT_SIZE, _NEXT_RATE = 1.15, 0.9


@dataclass(frozen=True, slots=True, kw_only=True)
class Hardware:
    """free_bytes: of the card, before this program is on it. ram_bytes, disk_bytes: what is free; None: not looked at. correction: how
    many times longer steps have taken here than was predicted."""

    card: str
    memory_bytes: int
    free_bytes: int
    capability: tuple[int, int] | None
    rates: Rates
    ram_bytes: int
    disk_bytes: int | None
    correction: float = 1.0
    cards: int | None = None  # of this kind that can be used together; None: not known
    cores: int | None = None  # that may be kept busy; None: not known

    @property
    def fp8(self) -> bool:
        """Whether it multiplies in fp8."""
        return self.capability is not None and self.capability >= (8, 9)


def hardware_of(machine: Machine, rates: Rates | None = None) -> Hardware | None:
    """The first card that a run would take, with its measured rates, else those of its datasheet; None where no card can be used."""
    gpu = next(iter(machine.usable_gpus), None)
    if gpu is None or gpu.total_bytes is None:
        return None
    card = find_card(gpu.name, memory_bytes=gpu.total_bytes) or typical_card(gpu.total_bytes / GIB)
    generation, width = gpu.best_pcie_generation or gpu.pcie_generation, gpu.pcie_width
    known = generation in (3, 4, 5, 6) and width is not None
    found = rates or machine.rates or (rates_of(card, pcie_generation=generation, pcie_width=width) if known else rates_of(card))
    return Hardware(
        card=gpu.name,
        memory_bytes=gpu.total_bytes,
        free_bytes=gpu.total_bytes if gpu.free_bytes is None else gpu.free_bytes,
        capability=gpu.capability or card.capability,
        rates=found,
        ram_bytes=machine.ram_available_bytes,
        disk_bytes=machine.disk_free_bytes,
        cards=sum(one.name == gpu.name for one in machine.usable_gpus),
        cores=machine.cores,
    )


def hardware_named(
    card: str | None, *, gpu_memory_gib: float | None = None, ram_gib: float | None = None, cards: int | None = None
) -> Hardware:
    """A card by its name, by its memory or by both, or so many of it, in a machine of so much RAM (64 GiB unless it is said). Raises
    ConfigError."""
    problems = [
        *_outside("--gpu-memory-gib", gpu_memory_gib, SMALLEST_GIB, LARGEST_GIB),
        *_outside("--ram-gib", ram_gib, SMALLEST_GIB, LARGEST_RAM_GIB),
    ]
    if cards is not None and not 1 <= cards <= MOST_CARDS:
        problems.append(f"--gpus {cards}: 1 to {MOST_CARDS} GPUs of one machine can be planned for; use 1.")
    if card is None and gpu_memory_gib is None:
        problems.append("No card is named; use --card NAME or --gpu-memory-gib NUMBER.")
    wanted = int(gpu_memory_gib * GIB) if gpu_memory_gib is not None and not problems else None
    found = None if card is None else find_card(card, memory_bytes=wanted)
    if card is not None and found is None:
        problems.append(_unknown(card))
    if problems:
        raise ConfigError(problems)
    known = found or typical_card(wanted / GIB if wanted else 0.0)
    memory = wanted or known.memory_bytes
    ram = USUAL_RAM_GIB if ram_gib is None else ram_gib
    return Hardware(
        card=known.name if found else f"{gpu_memory_gib:g} GiB, rates of {known.name}",
        memory_bytes=memory,
        free_bytes=memory - _DRIVER_BYTES,
        capability=known.capability,
        rates=rates_of(known),
        ram_bytes=int(ram * GIB) - _SYSTEM_BYTES,
        disk_bytes=None,
        cards=cards,
    )


def next_larger(hardware: Hardware) -> Hardware | None:
    """The same machine with the next size of card that is not much slower, the usual one of that size; None above the largest. What was
    measured here, against the datasheet, is taken to hold for that card, too: otherwise two kinds of figures would be compared."""
    least, rate = hardware.memory_bytes / GIB * _NEXT_SIZE, hardware.rates.bf16_flops_per_second * _NEXT_RATE
    larger = [card for card in CARDS if card.memory_gib > least and rates_of(card).bf16_flops_per_second > rate and not card.laptop]
    if not larger:
        return None
    size = min(card.memory_gib for card in larger)
    usual = typical_card(size)
    card = usual if usual in larger else next(one for one in larger if one.memory_gib == size)
    named = hardware_named(card.name)
    return replace(
        named,
        ram_bytes=hardware.ram_bytes,
        disk_bytes=hardware.disk_bytes,
        cards=hardware.cards,
        cores=hardware.cores,
        rates=_as_here(named.rates, hardware),
        correction=hardware.correction * compute_factor(hardware.rates),
    )


def _as_here(rates: Rates, hardware: Hardware) -> Rates:
    """A datasheet's rates, as much higher or lower as those measured here are than what this card's own says. The link stays: it may be
    another slot's."""
    card = find_card(hardware.card, memory_bytes=hardware.memory_bytes)
    if hardware.rates.source != "measured" or card is None:
        return rates
    sheet, here = rates_of(card), hardware.rates
    products = here.bf16_flops_per_second / sheet.bf16_flops_per_second
    return replace(
        rates,
        bf16_flops_per_second=rates.bf16_flops_per_second * products,
        int8_ops_per_second=None if rates.int8_ops_per_second is None else rates.int8_ops_per_second * products,
        fp8_flops_per_second=None if rates.fp8_flops_per_second is None else rates.fp8_flops_per_second * products,
        memory_bytes_per_second=rates.memory_bytes_per_second * here.memory_bytes_per_second / sheet.memory_bytes_per_second,
    )


def _outside(flag: str, value: float | None, least: float, most: float) -> list[str]:
    if value is None or (math.isfinite(value) and least <= value <= most):
        return []
    return [f"{flag} = {value:g}: GiB from {least:g} to {most:,.0f} can be planned for; use {min(max(24.0, least), most):g}."]


def _unknown(card: str) -> str:
    bare = {re.sub(r"nvidia|geforce|rtx| ", "", name.lower()): name for name in card_names()}
    near = difflib.get_close_matches(re.sub(r"nvidia|geforce|rtx| ", "", card.lower()), list(bare), n=2, cutoff=0.6)
    named = [bare[one] for one in near]
    works = f"use {' or '.join(named)}" if named else "use a name such as RTX 4090 or H100"
    return f"--card {card}: no such card is known; {works}, or give its memory with --gpu-memory-gib."
