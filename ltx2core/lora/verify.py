"""Whether a LoRA file fits a base model and holds numbers that make sense. Loads torch."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from ltx2core.errors import CheckpointError
from ltx2core.lora.layers import kind_of
from ltx2core.lora.read import SHOWN, read_lora, read_what_fits
from ltx2core.models.names import to_diffusers

if TYPE_CHECKING:
    from pathlib import Path

    from ltx2core.lora.keys import Layout
    from ltx2core.lora.read import Lora, Pair
    from ltx2core.models.checkpoint import Checkpoint


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """All layers of one kind, such as `attn1.to_q`, over the blocks."""

    layers: int
    rank: int
    delta_norm: float | None  # root of the summed squares of what is added to the weights; None when not finite


@dataclass(frozen=True, slots=True, kw_only=True)
class LoraReport:
    """What was found. A file with problems cannot be used with the base; warnings do not keep it from being used."""

    path: str
    base: str
    layout: Layout
    layers: int
    problems: tuple[str, ...]
    warnings: tuple[str, ...]
    kinds: dict[str, Kind]

    @property
    def usable(self) -> bool:
        return not self.problems


def verify_lora(path: Path, checkpoint: Checkpoint) -> LoraReport:
    """Compare a LoRA file with a base model's header: no weight of the base is read.

    Raises CheckpointError when the file is missing, unreadable or no LoRA at all.
    """
    lora, problems = read_what_fits(path)
    norms = {layer: delta_norm(pair) for layer, pair in lora.pairs.items()}
    not_finite = [layer for layer, norm in norms.items() if not math.isfinite(norm)]
    if not_finite:
        problems.append(f"{len(not_finite)} layers hold NaN or infinity: {_some(not_finite)}.")
    problems += _misfits(lora, _weights(checkpoint))
    kinds: dict[str, list[str]] = {}
    for layer in lora.pairs:
        kinds.setdefault(kind_of(layer), []).append(layer)
    return LoraReport(
        path=str(path),
        base=f"{checkpoint.path.name} ({checkpoint.version})",
        layout=lora.layout,
        layers=len(lora.pairs),
        problems=tuple(problems),
        warnings=tuple(_warnings(lora, checkpoint)),
        kinds={kind: _sum_up([(lora.pairs[layer], norms[layer]) for layer in layers]) for kind, layers in sorted(kinds.items())},
    )


def refuse_misfit(path: Path, checkpoint: Checkpoint) -> None:
    """Raise CheckpointError unless the LoRA file is whole and every layer of it is one of the base's. Reads no weight of the base."""
    if problems := _misfits(read_lora(path), _weights(checkpoint)):
        raise CheckpointError(f"{path} is not for this model: {problems[0]}", fix="Use the model that it was trained on.")


def delta_norm(pair: Pair) -> float:
    """The Frobenius norm of scale * up @ down, without making that matrix: its square is the sum of (up^T up) * (down down^T)."""
    down, up = pair.down.double(), pair.up.double()
    square = ((up.T @ up) * (down @ down.T)).sum()
    return abs(pair.scale) * float(square.clamp(min=0).sqrt())


def _weights(checkpoint: Checkpoint) -> dict[str, tuple[int, ...]]:
    """[out, in] of every weight of the base's transformer, by its layer's name."""
    weights: dict[str, tuple[int, ...]] = {}
    for key in checkpoint.keys("transformer"):
        if key.endswith(".weight") and (name := to_diffusers(key, "transformer")) is not None:
            weights[name.removesuffix(".weight")] = checkpoint.shape(key)
    return weights


def _misfits(lora: Lora, weights: dict[str, tuple[int, ...]]) -> list[str]:
    problems = []
    if lost := [layer for layer in lora.pairs if layer not in weights]:
        problems.append(f"the base has no layer for {len(lost)} of {len(lora.pairs)}: {_some(lost)}.")
    for layer, pair in lora.pairs.items():
        shape = (pair.up.shape[0], pair.down.shape[1])
        if layer in weights and weights[layer] != shape:
            problems.append(f"{layer} changes a weight of {[*shape]}; the base's is {[*weights[layer]]}.")
    more = len(problems) - SHOWN
    return problems[:SHOWN] + ([f"{more} more layers do not fit."] if more > 0 else [])


def _warnings(lora: Lora, checkpoint: Checkpoint) -> list[str]:
    warnings = []
    idle = [layer for layer, pair in lora.pairs.items() if not bool(torch.count_nonzero(pair.up))]
    if lora.pairs and len(idle) == len(lora.pairs):
        warnings.append("every B matrix is zero: the LoRA changes nothing.")
    elif idle:
        warnings.append(f"the B matrix of {len(idle)} of {len(lora.pairs)} layers is all zero, so they change nothing: {_some(idle)}.")
    scales = {pair.scale for pair in lora.pairs.values()} - {1.0}
    if scales:
        shown = ", ".join(f"{scale:g}" for scale in sorted(scales)[:SHOWN])
        warnings.append(
            f"it stores an alpha that is not the rank: a loader that knows no alpha applies it as it is, not times {shown}; "
            "`ltx2tui lora convert` folds it in."
        )
    said = lora.metadata.get("base_model_hash")
    if said is None:
        warnings.append("it does not say which base model it was trained on.")
    elif said != (own := checkpoint.fingerprint("transformer")):
        warnings.append(f"it was trained on {lora.metadata.get('base_model', 'a model')} with the hash {said}; the base's hash is {own}.")
    return warnings


def _sum_up(layers: list[tuple[Pair, float]]) -> Kind:
    norm = math.sqrt(sum(norm * norm for _, norm in layers))
    return Kind(
        layers=len(layers), rank=max(pair.rank for pair, _ in layers), delta_norm=norm if math.isfinite(norm) else None
    )  # JSON has no NaN


def _some(layers: list[str]) -> str:
    return ", ".join(layers[:SHOWN]) + (f" and {len(layers) - SHOWN} more" if len(layers) > SHOWN else "")
