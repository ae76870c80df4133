"""Whether driver, PyTorch and cards go together, from files and numbers alone: nothing of PyTorch is loaded."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from typing import TYPE_CHECKING

from ltx2core.hardware.machine import TorchBuild

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ltx2core.hardware.machine import Gpu

# The oldest driver for Linux under which programs of a CUDA generation run. Source: NVIDIA, CUDA compatibility, minor version table.
_OLDEST_DRIVER = {11: "450.80.02", 12: "525.60.13", 13: "580.65.06"}
_OLDEST_CAPABILITY = (8, 0)  # bf16 in hardware


def installed_torch(folder: Path | None = None) -> TorchBuild | None:
    """The build of PyTorch in `folder`, else of the one that would be imported; None where there is none."""
    if folder is None:
        spec = importlib.util.find_spec("torch")
        if spec is None or not spec.submodule_search_locations:
            return None
        folder = Path(next(iter(spec.submodule_search_locations)))
    try:
        text = (folder / "version.py").read_text(encoding="utf-8")
    except OSError:
        return None
    version, cuda = (re.search(rf"^{name}\b[^=\n]*=\s*['\"]([^'\"]+)['\"]", text, re.MULTILINE) for name in ("__version__", "cuda"))
    return TorchBuild(version=version[1] if version else "unknown", cuda=cuda[1] if cuda else None)


def software_problem(torch: TorchBuild | None, *, driver: str | None, driver_cuda: str | None, gpus: Sequence[Gpu]) -> str | None:
    """Why the cards cannot be used with this driver and PyTorch, and what helps; None where they can, or where there are no cards."""
    if not gpus:
        return None
    if torch is None:
        return "PyTorch is not installed: pip install torch."
    if torch.cuda is None:
        return f"PyTorch {torch.version} is built for the CPU only and does not see the card: install a CUDA build of it."
    needed, known = _major(torch.cuda), _major(driver_cuda)
    if needed is not None and known is not None and known < needed:
        oldest = f"driver {_OLDEST_DRIVER[needed]}" if needed in _OLDEST_DRIVER else "a newer driver"
        return (
            f"The driver {driver or ''} knows CUDA {driver_cuda}, and PyTorch {torch.version} is built for CUDA {torch.cuda}: "
            f"update to {oldest} or newer, or install a PyTorch built for CUDA {known}."
        ).replace("  ", " ")
    old = [gpu for gpu in gpus if gpu.capability is not None and gpu.capability < _OLDEST_CAPABILITY]
    if len(old) == len(gpus):
        major, minor = old[0].capability or (0, 0)
        return f"{old[0].name} has compute capability {major}.{minor}; training in bf16 needs 8.0 (RTX 30, A100) or newer."
    return None


def _major(version: str | None) -> int | None:
    match = re.match(r"(\d+)", version or "")
    return int(match[1]) if match else None
