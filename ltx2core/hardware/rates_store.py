"""Measured rates, kept for each card with its driver and PyTorch in the user's cache folder. Loads no torch."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING

from ltx2core.errors import ConfigError
from ltx2core.hardware.rates import Rates, rates_from_json

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ltx2core.hardware.machine import Machine


def rates_file(environment: Mapping[str, str] | None = None) -> Path:
    """Where they are kept."""
    variables = os.environ if environment is None else environment
    return Path(variables.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "ltx2tui" / "rates.json"


def key_of(machine: Machine) -> str:
    """What rates belong to: the first card that may be used, or the processor, with the driver and the PyTorch that ran them."""
    first = next(iter(machine.usable_gpus), None)
    device = machine.cpu_name if first is None else first.uuid or first.name
    torch = machine.torch.version if machine.torch else "none"
    return " | ".join([device, *([] if first is None else [f"driver {machine.driver}"]), f"torch {torch}"])


def remembered_rates(machine: Machine, file: Path) -> Rates | None:
    """What was measured on this card with this driver and PyTorch; None where that was never done, or the file cannot be read."""
    try:
        return rates_from_json(_read(file)[key_of(machine)])
    except (KeyError, ConfigError):
        return None


def remember_rates(machine: Machine, rates: Rates, file: Path) -> None:
    """Keep them, in the place of earlier ones of the same key. Raises StorageError."""
    from ltx2core.runs.files import write_json

    write_json(file, {**_read(file), key_of(machine): rates.as_json()})


def _read(file: Path) -> dict[str, object]:
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):  # what is damaged is measured anew
        return {}
    return found if isinstance(found, dict) else {}
