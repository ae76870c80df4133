"""The files of a DoRA and of a LoKr, with the names and meanings that ComfyUI and diffusers read. Loads torch.

DoRA: ComfyUI computes (W + B A) dora_scale / |W|, with the lengths of the frozen rows, where training computes (W + B A) m / |W + B A|.
So dora_scale is m |W| / |W + B A|, which gives the same weights there; diffusers hands its files to PEFT, which takes m itself.
LoKr: W1 x W2 under LyCORIS' names, which both LyCORIS and ComfyUI read; the scale is folded into W2, so alpha is the rank.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from ltx2core.caching.tensors import read_tensors, write_tensors
from ltx2core.errors import CheckpointError, StorageError
from ltx2core.lora.keys import key_of, official_key
from ltx2core.training.adapter import base_weight, layer_of, row_norms, scale_of

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from torch import Tensor, nn

    from ltx2core.lora.write import Written
    from ltx2core.training.adapter import AdapterSettings


def other_tensors(
    adapter: Mapping[str, Tensor], settings: AdapterSettings, transformer: nn.Module, *, layout: Written
) -> dict[str, Tensor]:
    """The file's tensors, float32 on the CPU. adapter: the values to write; transformer: with an adapter of that kind on it."""
    values = {name: value.detach().float().cpu() for name, value in adapter.items()}
    if settings.lokr is not None:
        return _lokr(values, {layer: scale_of(transformer, layer) for layer in dict.fromkeys(map(layer_of, values))})
    return _dora(values, settings, transformer, layout=layout)


def write_other(path: Path, tensors: Mapping[str, Tensor], *, dtype: torch.dtype, metadata: Mapping[str, str]) -> None:
    """Write the file, whole or not at all, and read it back. Raises CheckpointError for numbers that are not finite, StorageError."""
    stored = {name: tensor.to(dtype).contiguous() for name, tensor in tensors.items()}
    if wrong := [name for name, tensor in stored.items() if not bool(torch.isfinite(tensor).all())]:
        raise CheckpointError(f"{wrong[0]} holds a number that is not finite in {dtype}.", fix="Use an earlier checkpoint's LoRA.")
    write_tensors(path, stored, metadata=metadata)
    read = read_tensors(path)
    if read is None or read.keys() != stored.keys() or not all(torch.equal(read[name], tensor) for name, tensor in stored.items()):
        raise StorageError(
            f"{path} does not read back as what was written.", fix="Check the disk, then export again: checkpoints are kept."
        )


def _dora(values: Mapping[str, Tensor], settings: AdapterSettings, transformer: nn.Module, *, layout: Written) -> dict[str, Tensor]:
    found: dict[str, Tensor] = {}
    for layer in dict.fromkeys(map(layer_of, values)):
        down, up = values[f"{layer}.lora_A.weight"], values[f"{layer}.lora_B.weight"] * settings.shape_of(layer).scale
        found |= {key_of(layer, "down", layout): down, key_of(layer, "up", layout): up}
        length = values[f"{layer}.lora_magnitude_vector.weight"]
        if layout == "diffusers":
            found[f"transformer.{layer}.lora_magnitude_vector"] = length
            continue
        frozen = base_weight(transformer, layer).cpu()
        scale = length * row_norms(frozen) / row_norms(frozen + up @ down)
        stem = key_of(layer, "alpha", layout).removesuffix(".alpha")
        found[f"{stem}.dora_scale"] = scale.unsqueeze(1)  # [out, 1]
        if layout == "kohya":
            found[key_of(layer, "alpha", layout)] = torch.tensor(float(down.shape[0]))
    return found


def _lokr(values: Mapping[str, Tensor], scales: Mapping[str, float]) -> dict[str, Tensor]:
    """The scale goes into W2, or into the first of its two parts. Whole matrices need no alpha."""
    found: dict[str, Tensor] = {}
    for name, value in values.items():
        layer = layer_of(name)
        leaf = name.removeprefix(f"{layer}.")
        stem = official_key(f"{layer}.alpha").removesuffix(".alpha")
        found[f"{stem}.{leaf}"] = value * scales[layer] if leaf in ("lokr_w2", "lokr_w2_a") else value
        if leaf in ("lokr_w1_b", "lokr_w2_b"):
            found[f"{stem}.alpha"] = torch.tensor(float(value.shape[0]))
    return found
