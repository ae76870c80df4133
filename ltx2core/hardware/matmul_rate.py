"""How many operations a second this device reaches in large matrix products: what a step's utilisation is measured against.

Measured in a fraction of a second and kept for the machine, never looked up by a card's name: clocks, power limits and a share of a card
decide as much as its make. Loads torch.
"""

from __future__ import annotations

import contextlib
import json
import os
import platform
import time
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from ltx2core.errors import StorageError
from ltx2core.runs.files import write_json

if TYPE_CHECKING:
    from collections.abc import Callable

_SECONDS = {"cuda": 0.2, "cpu": 0.1}  # of measuring, after warming up
_SIZE = {"cuda": 4096, "cpu": 512}  # 96 MB in bf16; 0.27 GFLOP a product on a CPU
_ROUNDS = 10  # products between two looks at the clock
_MOST_KEPT = 64  # machines and versions in the file


def rates_file() -> Path:
    """Where rates are kept for this user."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "ltx2tui" / "matmul_rates.json"


def matmul_rate(device: torch.device, dtype: torch.dtype, *, path: Path | None = None) -> float:
    """Floating-point operations a second of products in this type. Measured the first time that this machine, torch and type are met;
    that it cannot be written down is no error."""
    path = path or rates_file()
    key = f"{_identity(device)} | {str(dtype).removeprefix('torch.')} | torch {torch.__version__}"
    kept = _read(path)
    if (rate := kept.get(key)) is not None:
        return rate
    rate = _measured(key, device, dtype)
    newest = dict([*_read(path).items(), (key, rate)][-_MOST_KEPT:])
    with contextlib.suppress(StorageError):  # a home that is read-only: it is measured again next time
        write_json(path, newest)
    return rate


@cache
def _measured(_key: str, device: torch.device, dtype: torch.dtype) -> float:
    """Once in a process, whether it could be kept or not."""
    size = _SIZE.get(device.type, 512)
    a, b, out = (torch.randn(size, size, device=device, dtype=torch.float32).to(dtype) for _ in range(3))
    wait = torch.cuda.synchronize if device.type == "cuda" else _nothing
    for _ in range(3):
        torch.mm(a, b, out=out)
    best = _fastest(lambda: torch.mm(a, b, out=out), wait, seconds=_SECONDS.get(device.type, 0.1))
    return 2.0 * size**3 / best


def _fastest(product: Callable[[], object], wait: Callable[[], None], *, seconds: float) -> float:
    """Seconds of a product in the fastest of many rounds: others that use the device make the rest slower."""
    best, end = float("inf"), time.perf_counter() + seconds
    wait()
    while time.perf_counter() < end:
        begin = time.perf_counter()
        for _ in range(_ROUNDS):
            product()
        wait()
        best = min(best, (time.perf_counter() - begin) / _ROUNDS)
    return best


def _nothing() -> None:
    return


def _identity(device: torch.device) -> str:
    """What tells this device from another, a part of a card from the whole one, and few threads from many. Machines may share a home."""
    if device.type == "cuda":
        found = torch.cuda.get_device_properties(device)
        return f"{found.name}, {found.multi_processor_count} processors, {found.total_memory} bytes, {platform.node()}"
    return f"{torch.backends.cpu.get_cpu_capability()}, {torch.get_num_threads()} threads, {platform.node()}"


def _read(path: Path) -> dict[str, float]:
    try:
        kept = json.loads(path.read_text(encoding="utf-8"))
        return {str(key): float(rate) for key, rate in kept.items() if float(rate) > 0}
    except (OSError, ValueError, TypeError, AttributeError):  # none yet, or somebody else's
        return {}
