"""Whether the cards of a run compute alike.

Each rank clips and steps by itself, with the same gradients. Cards of different kinds add them up in different orders, so each would have
a norm of its own, and the weights drift apart. Nor can one without fp8 products follow the plan of one that has them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from ltx2core.errors import RunError

if TYPE_CHECKING:
    from collections.abc import Sequence

    import torch


@dataclass(frozen=True, slots=True)
class Kind:
    """A device's name; and what its kernels are chosen by, and how many threads add up a sum: architecture and multiprocessors."""

    name: str
    capability: str = ""
    multiprocessors: int = 0


def kind_of(device: torch.device) -> Kind:
    """A card as CUDA describes it. All CPUs are of one kind, being that of one host."""
    if device.type != "cuda":
        return Kind("a CPU")
    import torch

    found = torch.cuda.get_device_properties(device)
    return Kind(found.name, f"{found.major}.{found.minor}", found.multi_processor_count)


def check_one_kind(kinds: Sequence[Kind]) -> None:
    """Raise RunError unless these, by rank, compute alike. Names and memory may differ."""
    first = kinds[0]
    for rank, kind in enumerate(kinds):
        if (kind.capability, kind.multiprocessors) != (first.capability, first.multiprocessors):
            raise RunError(
                f"Rank {rank} of {len(kinds)} would train on {_words_of(kind)}, rank 0 on {_words_of(first)}: GPUs of different kinds "
                "round differently, so their weights would drift apart.",
                fix="Let CUDA_VISIBLE_DEVICES name GPUs of one kind (`nvidia-smi -L` lists them), and set num_processes to their number.",
            )


def _words_of(kind: Kind) -> str:
    return f"{kind.name} ({kind.multiprocessors} multiprocessors)" if kind.multiprocessors else kind.name
