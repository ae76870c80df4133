"""Which cards CUDA_VISIBLE_DEVICES leaves to this process, by CUDA's own rules, without asking CUDA."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ltx2core.hardware.machine import Gpu


def visible_indices(value: str | None, gpus: Sequence[Gpu]) -> tuple[int, ...]:
    """The indices of the cards that may be used, in the order in which CUDA numbers them.

    value: of the variable. An entry is a number along the bus, the beginning of a card's UUID ("GPU-..."), or a slice of MIG ("MIG-...").
    CUDA stops at the first entry that names nothing, and sees nothing at all where one is named twice.
    """
    if value is None:
        return tuple(gpu.index for gpu in gpus)
    found: list[int] = []
    slices: list[str] = []
    for entry in (part.strip() for part in value.split(",")):
        index = _index(entry, gpus)
        if index is None:
            break
        if entry.startswith("MIG-"):
            slices.append(entry)
        elif index in found:
            return ()
        if index not in found:
            found.append(index)
    return () if len(set(slices)) < len(slices) else tuple(found)


def _index(entry: str, gpus: Sequence[Gpu]) -> int | None:
    """The card that an entry names; None for one that names none, or more than one."""
    if re.fullmatch(r"\d+", entry):
        return int(entry) if any(gpu.index == int(entry) for gpu in gpus) else None
    if entry.startswith("MIG-"):
        # The older form, MIG-GPU-<uuid of the card>/<instance>/<slice>, begins with the card's own name.
        matches = [
            gpu.index
            for gpu in gpus
            if any(part.uuid.startswith(entry) for part in gpu.mig_slices)
            or (gpu.uuid is not None and entry.startswith(f"MIG-{gpu.uuid}/"))
        ]
    elif len(entry) > len("GPU-") and entry.startswith("GPU-"):
        matches = [gpu.index for gpu in gpus if gpu.uuid is not None and gpu.uuid.startswith(entry)]
    else:
        return None
    return matches[0] if len(matches) == 1 else None
