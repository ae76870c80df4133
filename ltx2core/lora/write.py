"""Writing a LoRA file in the layout that is asked for, and reading it back to compare it with what it was made of.

No loader of the official layout looks for an alpha (diffusers' even refuses one), so the factor is folded into `up`: a reader that
knows no alpha gets the whole LoRA. Loads torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import torch

from ltx2core.caching.tensors import write_tensors
from ltx2core.errors import CheckpointError, StorageError
from ltx2core.lora.keys import key_of
from ltx2core.lora.read import Pair, read_lora

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from torch import Tensor

Written = Literal["official", "diffusers", "kohya"]

# Half a step between two neighbours, relative, doubled for the product that the fold makes before it is rounded.
_ROUNDING = {torch.bfloat16: 2.0**-8, torch.float16: 2.0**-10, torch.float32: 2.0**-23}
_SMALLEST = {torch.bfloat16: 2.0**-133, torch.float16: 2.0**-24, torch.float32: 2.0**-149}  # the step near zero


def pairs_of(adapter: Mapping[str, Tensor], *, scale: float | Callable[[str], float]) -> dict[str, Pair]:
    """The adapter in training, by its parameters' names, as layers. scale: alpha / rank, or what gives a layer's own."""
    ending = ".lora_A.weight"
    layers = [name.removesuffix(ending) for name in adapter if name.endswith(ending)]
    return {
        layer: Pair(
            down=adapter[layer + ending].detach().cpu(),
            up=adapter[f"{layer}.lora_B.weight"].detach().cpu(),
            scale=scale(layer) if callable(scale) else scale,
        )
        for layer in layers
    }


def write_lora(path: Path, pairs: Mapping[str, Pair], *, layout: Written, dtype: torch.dtype, metadata: Mapping[str, str]) -> None:
    """Write the file, whole or not at all, and compare what it reads back as with `pairs`, number by number.

    Raises CheckpointError when `pairs` hold a number that is not finite (in `dtype`), StorageError when the file cannot be written
    or is not the LoRA that went in.
    """
    tensors: dict[str, Tensor] = {}
    for layer, pair in pairs.items():
        tensors[key_of(layer, "down", layout)] = _finite(pair.down.float().to(dtype), layer)
        tensors[key_of(layer, "up", layout)] = _finite((pair.up.float() * pair.scale).to(dtype), layer)
        if layout == "kohya":
            tensors[key_of(layer, "alpha", layout)] = torch.tensor(float(pair.rank))
    rank = str(max(pair.rank for pair in pairs.values()))
    write_tensors(path, tensors, metadata={**metadata, "rank": rank, "alpha": rank})
    _compare(path, pairs, dtype)


def _compare(path: Path, pairs: Mapping[str, Pair], dtype: torch.dtype) -> None:
    try:
        read = read_lora(path).pairs
    except CheckpointError as error:
        raise StorageError(f"{path} does not read back: {error.text}", fix=_AGAIN) from error
    wrong = sorted(read.keys() ^ pairs.keys()) or [layer for layer in pairs if not _equal(read[layer], pairs[layer], dtype)]
    if wrong:
        raise StorageError(f"{path} does not read back as the LoRA that was written: {wrong[0]} differs.", fix=_AGAIN)


_AGAIN = "Check the disk, then export again: checkpoints are kept."


def _equal(read: Pair, meant: Pair, dtype: torch.dtype) -> bool:
    """Whether both add the same to a layer, but for one rounding to `dtype`."""
    if read.scale != 1.0:
        return False
    return _close(read.down, meant.down.float(), dtype) and _close(read.up, meant.up.float() * meant.scale, dtype)


def _close(read: Tensor, meant: Tensor, dtype: torch.dtype) -> bool:
    if read.shape != meant.shape:
        return False
    allowed = meant.abs() * _ROUNDING[dtype] + _SMALLEST[dtype]
    return bool(((read.float() - meant).abs() <= allowed).all())


def _finite(tensor: Tensor, layer: str) -> Tensor:
    if not bool(torch.isfinite(tensor).all()):
        raise CheckpointError(f"{layer} holds a number that is not finite in {tensor.dtype}.", fix="Use an earlier checkpoint's LoRA.")
    return tensor.contiguous()
