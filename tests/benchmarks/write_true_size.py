"""Writes a checkpoint of LTX-2 2.0 with random weights, in the true size and layout: what the released file is to a loader, 43 GB of it.

    python tests/benchmarks/write_true_size.py /data/ltx-2-19b-random.safetensors
    python tests/benchmarks/write_true_size.py tiny.safetensors --layers 2 --zeros    # a sparse file: its layout without its bytes
    python tests/benchmarks/write_true_size.py /data/gemma-3-12b-random --text-encoder    # a folder: Gemma3-12B's language model, 24 GB

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
from functools import cache
from math import prod
from pathlib import Path
from shutil import copy, disk_usage
from typing import TYPE_CHECKING, Any

import torch
from diffusers import AutoencoderKLLTX2Audio, AutoencoderKLLTX2Video, LTX2VideoTransformer3DModel
from diffusers.pipelines.ltx2.connectors import LTX2TextConnectors
from diffusers.pipelines.ltx2.vocoder import LTX2Vocoder
from transformers import Gemma3TextConfig, Gemma3TextModel

from ltx2core.models import header
from ltx2core.models.names import Component, to_official
from ltx2core.models.nano import nano_text_encoder
from ltx2core.models.released import released_config

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

GEMMA_STATES = 49  # hidden states of Gemma3-12B that are stacked: 48 layers and the embedding
GEMMA_12B: dict[str, Any] = {
    "vocab_size": 262208,
    "hidden_size": 3840,
    "intermediate_size": 15360,
    "num_attention_heads": 16,
    "num_key_value_heads": 8,
    "head_dim": 256,
    "sliding_window": 1024,
    "query_pre_attn_scalar": 256,
    "rope_scaling": {"rope_type": "linear", "factor": 8.0},
}
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


def plan_text_encoder(config: Any) -> list[Planned]:
    """The tensors of a Gemma3 language model, as transformers names them."""
    with torch.device("meta"):
        model = Gemma3TextModel(config)
    return [Planned(name, tuple(tensor.shape), torch.bfloat16) for name, tensor in sorted(model.state_dict().items())]


def write_text_encoder(folder: Path, *, layers: int) -> Path:
    """A folder as transformers reads it, with nano's tokenizer: which words are known changes no size and no time."""
    config = Gemma3TextConfig(num_hidden_layers=layers, **GEMMA_12B)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(config.to_json_string(use_diff=False))
    copy(nano_text_encoder() / "tokenizer.json", folder / "tokenizer.json")
    settings = json.loads((nano_text_encoder() / "tokenizer_config.json").read_text())
    (folder / "tokenizer_config.json").write_text(json.dumps(settings | {"model_max_length": 1024}))
    write(folder / "model.safetensors", plan_text_encoder(config), {"format": "pt"})
    return folder / "model.safetensors"


def checkpoint_metadata(config: dict[str, Any]) -> dict[str, str]:
    return {"model_version": "2.0.0", "config": json.dumps(config)}


def write(path: Path, planned: list[Planned], metadata: dict[str, str], *, holes: Callable[[Planned], bool] = lambda _: False) -> None:
    """Write the file. holes: whose data is left a hole, which reads as zeros and takes no disk."""
    entries: dict[str, Any] = {"__metadata__": metadata}
    place = 0
    for item in planned:
        dtype = "F32" if item.dtype == torch.float32 else "BF16"
        entries[item.key] = {"dtype": dtype, "shape": item.shape, "data_offsets": [place, place + item.num_bytes]}
        place += item.num_bytes
    text = json.dumps(entries, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    end = 8 + len(text) + place
    _check_room(path, 8 + len(text) + sum(item.num_bytes for item in planned if not holes(item)))
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        with temporary.open("wb") as file:
            file.write(struct.pack("<Q", len(text)) + text)
            for item, data in _data(planned):
                if holes(item):
                    file.seek(len(data), 1)
                else:
                    file.write(data)
            file.truncate(end)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def _check_room(path: Path, needed: int) -> None:
    free = disk_usage(path.parent).free
    if needed + SPARE_BYTES > free:
        sys.exit(f"{path} needs {needed / 1e9:.1f} GB, and {path.parent.resolve()} has {free / 1e9:.1f} GB free. Choose another disk.")


def _data(planned: list[Planned]) -> Iterator[tuple[Planned, memoryview]]:
    """The bytes of all tensors in pieces, cut from one pool of normal numbers: drawing 21 billion would take longer than writing them."""
    normal = torch.randn(PIECE + 4096, generator=torch.Generator().manual_seed(0))

    @cache  # a few spreads for thousands of tensors
    def pool(spread: float, middle: float, dtype: torch.dtype) -> memoryview:
        return memoryview((normal * spread + middle).to(dtype).view(torch.uint8).numpy())

    for index, item in enumerate(planned):
        start, width = index * 37 % 4096, item.dtype.itemsize  # so that no two tensors begin alike
        numbers = pool(*_distribution(item), item.dtype)[start * width :]
        for done in range(0, item.num_bytes, PIECE * width):
            yield item, numbers[: min(PIECE * width, item.num_bytes - done)]


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
    parser.add_argument("--text-encoder", action="store_true", help="write the text encoder's folder instead")
    options = parser.parse_args()
    begun, path = time.perf_counter(), options.path
    if options.text_encoder:
        path = write_text_encoder(path, layers=options.layers)
    else:
        config = released_config("2.0.0")
        config["transformer"]["num_layers"] = options.layers
        write(path, plan(config), checkpoint_metadata(config), holes=lambda _: options.zeros)
    seconds = time.perf_counter() - begun
    print(json.dumps({"path": str(path), "bytes": path.stat().st_size, "seconds": round(seconds, 1)}))


if __name__ == "__main__":
    main()
