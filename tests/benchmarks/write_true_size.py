"""Writes a checkpoint of LTX-2 2.0 with random weights, in the true size and layout: what the released file is to a loader, 43 GB of it.

    python tests/benchmarks/write_true_size.py /data/ltx-2-19b-random.safetensors
    python tests/benchmarks/write_true_size.py tiny.safetensors --layers 2 --zeros    # a sparse file: its layout without its bytes

Values have the spread of a fresh model (1 / sqrt of the inputs), so a forward pass stays finite; norms are ones. Nothing is held in
memory but one piece. The file gets its name when it is whole.
"""

from __future__ import annotations

import argparse
import json
import struct
import sys
import time
from dataclasses import dataclass
from math import prod
from pathlib import Path
from shutil import disk_usage
from typing import TYPE_CHECKING, Any

import torch
from diffusers import AutoencoderKLLTX2Audio, AutoencoderKLLTX2Video, LTX2VideoTransformer3DModel
from diffusers.pipelines.ltx2.connectors import LTX2TextConnectors
from diffusers.pipelines.ltx2.vocoder import LTX2Vocoder

from ltx2core.models import header
from ltx2core.models.names import Component, to_official
from ltx2core.models.released import released_config

if TYPE_CHECKING:
    from collections.abc import Iterator

GEMMA_STATES = 49  # hidden states of Gemma3-12B that are stacked: 48 layers and the embedding
UNREAD_STATISTICS = ("channel", "mean-of-stds", "mean-of-stds_over_std-of-means")  # in the file, and in no module
PIECE = 2**24  # numbers written at once
SPARE_BYTES = 2**30


@dataclass(frozen=True, slots=True)
class Planned:
    """A tensor to write."""

    key: str
    shape: tuple[int, ...]
    dtype: torch.dtype

    @property
    def num_bytes(self) -> int:
        return prod(self.shape) * self.dtype.itemsize


def plan(config: dict[str, Any], *, num_states: int = GEMMA_STATES) -> list[Planned]:
    """The tensors of a 2.0 file, in its order: float32 first, then by name, as safetensors' own writer sorts."""
    with torch.device("meta"):
        parts: dict[Component, torch.nn.Module] = {
            "transformer": LTX2VideoTransformer3DModel(**header.transformer_arguments(config)),
            "connectors": LTX2TextConnectors(**header.connector_arguments(config, num_states=num_states)),
            "video_vae": AutoencoderKLLTX2Video(**header.video_vae_arguments(config)),
            "audio_vae": AutoencoderKLLTX2Audio(**header.audio_vae_arguments(config)),
            "vocoder": LTX2Vocoder(**header.vocoder_arguments(config)),
        }
    blocks = len(config["vae"]["encoder_blocks"])
    width = config["vae"]["latent_channels"]
    planned = [Planned(f"vae.per_channel_statistics.{name}", (width,), torch.float32) for name in UNREAD_STATISTICS]
    for component, module in parts.items():
        for name, tensor in module.state_dict().items():
            keeps_float32 = "scale_shift_table" in name or name.startswith("latents_")
            key = to_official(name, component, num_encoder_blocks=blocks)
            planned.append(Planned(key, tuple(tensor.shape), torch.float32 if keeps_float32 else torch.bfloat16))
    return sorted(planned, key=lambda item: (-item.dtype.itemsize, item.key))


def write(path: Path, planned: list[Planned], config: dict[str, Any], *, zeros: bool = False) -> None:
    """Write the file. zeros: leave the data a hole, which reads as zeros and takes no disk."""
    entries: dict[str, Any] = {"__metadata__": {"model_version": "2.0.0", "config": json.dumps(config)}}
    place = 0
    for item in planned:
        dtype = "F32" if item.dtype == torch.float32 else "BF16"
        entries[item.key] = {"dtype": dtype, "shape": item.shape, "data_offsets": [place, place + item.num_bytes]}
        place += item.num_bytes
    text = json.dumps(entries, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    if not zeros:
        _check_room(path, 8 + len(text) + place)
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        with temporary.open("wb") as file:
            file.write(struct.pack("<Q", len(text)) + text)
            if zeros:
                file.truncate(8 + len(text) + place)
            else:
                for data in _data(planned):
                    file.write(data)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def _check_room(path: Path, needed: int) -> None:
    free = disk_usage(path.parent).free
    if needed + SPARE_BYTES > free:
        sys.exit(f"{path} needs {needed / 1e9:.1f} GB, and {path.parent.resolve()} has {free / 1e9:.1f} GB free. Choose another disk.")


def _data(planned: list[Planned]) -> Iterator[memoryview]:
    """The bytes of all tensors in pieces, cut from one pool of normal numbers: drawing 21 billion would take longer than writing them."""
    pool = torch.randn(PIECE + 4096, generator=torch.Generator().manual_seed(0))
    for index, item in enumerate(planned):
        start = index * 37 % 4096  # so that no two tensors begin alike
        count, spread, middle = prod(item.shape), *_distribution(item)
        for done in range(0, count, PIECE):
            numbers = pool[start : start + min(PIECE, count - done)]
            yield memoryview((numbers * spread + middle).to(item.dtype).view(torch.uint8).numpy())


def _distribution(item: Planned) -> tuple[float, float]:
    """Spread and middle of a tensor's values."""
    if item.key.endswith("std-of-means") or ("norm" in item.key and item.key.endswith("weight")):
        return 0.0, 1.0
    if len(item.shape) < 2 or "scale_shift_table" in item.key:
        return 0.01, 0.0
    return prod(item.shape[1:]) ** -0.5, 0.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("path", type=Path)
    parser.add_argument("--layers", type=int, default=48, help="transformer blocks: 48 in the released model, 0.77 GB each")
    parser.add_argument("--zeros", action="store_true", help="leave the data a hole in a sparse file")
    options = parser.parse_args()
    config = released_config("2.0.0")
    config["transformer"]["num_layers"] = options.layers
    planned = plan(config)
    begun = time.perf_counter()
    write(options.path, planned, config, zeros=options.zeros)
    size, seconds = options.path.stat().st_size, time.perf_counter() - begun
    print(json.dumps({"path": str(options.path), "bytes": size, "tensors": len(planned), "seconds": round(seconds, 1)}))


if __name__ == "__main__":
    main()
