"""Giving an adapter the values of a LoRA file: to sample with it, or to go on training from it. Loads torch."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from ltx2core.errors import CheckpointError
from ltx2core.lora.layers import modality_of
from ltx2core.lora.read import SHOWN

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from torch import nn

    from ltx2core.lora.layers import Modality
    from ltx2core.lora.read import Lora, Pair


def start_from(parameters: Mapping[str, nn.Parameter], lora: Lora, *, scale: float | Callable[[str], float]) -> int:
    """Make the adapter add what the LoRA adds, exactly but for rounding; how many of its layers the file does not have.

    parameters: as training/adapter.py names them, with their first values, which stay where the file has nothing: in layers that it
    lacks, and in the rows of A beyond its rank. There B is zero, so nothing is added, but learning can begin; with A zero too it
    never would. scale: alpha / rank of the adapter, or what gives a layer's own; B is divided by it.
    Raises CheckpointError when the adapter is narrower than the file, or lacks one of its layers, and says what would work.
    """
    layers = [name.removesuffix(".lora_A.weight") for name in parameters if name.endswith(".lora_A.weight")]
    check_rank(lora, lambda layer: parameters[f"{layer}.lora_A.weight"].shape[0] if layer in layers else lora.rank)
    check_layers(
        lora, {layer: (parameters[f"{layer}.lora_B.weight"].shape[0], parameters[f"{layer}.lora_A.weight"].shape[1]) for layer in layers}
    )
    with torch.no_grad():
        for layer, pair in lora.pairs.items():
            down, up = parameters[f"{layer}.lora_A.weight"], parameters[f"{layer}.lora_B.weight"]
            down[: pair.rank] = pair.down.to(down)
            up.zero_()
            up[:, : pair.rank] = pair.up.to(up) * (pair.scale / (scale(layer) if callable(scale) else scale))
    return len(layers) - len(lora.pairs)


def check_rank(lora: Lora, rank_of: Callable[[str], int]) -> None:
    """Raises CheckpointError when a run whose layers have these ranks cannot start from the LoRA."""
    narrow = [(pair.rank, rank_of(layer)) for layer, pair in lora.pairs.items() if pair.rank > rank_of(layer)]
    if narrow:
        wide, rank = max(narrow)
        raise CheckpointError(
            f"{lora.path} has rank {wide}, and this run trains rank {rank}: it would not fit.",
            fix=f"Set lora_rank to {wide} or more.",
        )


def check_layers(lora: Lora, trained: Mapping[str, tuple[int, int]]) -> None:
    """Raises CheckpointError when a run that trains these layers, with weights of these [out, in], cannot start from the LoRA."""
    _refuse_lost_layers(lora, [layer for layer in lora.pairs if layer not in trained], trained={modality_of(layer) for layer in trained})
    for layer, pair in lora.pairs.items():
        _refuse_misfit(lora, layer, pair, trained[layer])


def _refuse_lost_layers(lora: Lora, lost: list[str], *, trained: set[Modality]) -> None:
    if not lost:
        return
    first = ", ".join(lost[:SHOWN]) + (f" and {len(lost) - SHOWN} more" if len(lost) > SHOWN else "")
    more = {modality_of(layer) for layer in lost} - trained
    fix = "Name them in peft_lora_target_modules, or use another LoRA."
    if trained == {"video"} and more:
        fix = "Train with sound, as that LoRA was."
    elif trained == {"audio"} and more:
        fix = "Train with pictures, as that LoRA was, or use one of sound alone."
    raise CheckpointError(
        f"{lora.path} has layers that are not trained here: {first}.",
        fix=fix,
    )


def _refuse_misfit(lora: Lora, layer: str, pair: Pair, weight: tuple[int, int]) -> None:
    if (pair.up.shape[0], pair.down.shape[1]) != weight:
        raise CheckpointError(
            f"{lora.path} is not for this model: {layer} changes a weight of {[pair.up.shape[0], pair.down.shape[1]]}, "
            f"the model's is {[*weight]}.",
            fix="Use the model that it was trained on.",
        )
