"""Writes vae_sizes.json: `python -m ltx2core.planning.measure_vae > ltx2core/planning/vae_sizes.json`, seven minutes on a CPU.

What a half of the video VAE holds beside its weights under the levers that work in parts: the bytes of all tensors that are alive at once,
counted on modules of the true width without data (`meta`). What a kernel takes for itself is not seen.
"""

from __future__ import annotations

import argparse
import itertools
import json
from typing import TYPE_CHECKING

import torch
from diffusers import AutoencoderKLLTX2Video

from ltx2core.models import header
from ltx2core.models.released import released_config
from ltx2core.models.vae_chunks import chunked
from ltx2core.models.vae_levers import VaeLevers
from ltx2core.planning import vae_sizes
from ltx2core.planning.clips import SPATIAL, TEMPORAL, ClipShape
from ltx2core.planning.peak_memory import PeakMemory

if TYPE_CHECKING:
    from ltx2core.planning.job import Version
    from ltx2core.planning.vae_sizes import Half

VERSIONS: tuple[Version, ...] = ("2.0", "2.3")  # 2.5 has 2.3's
HALVES: tuple[Half, ...] = ("encode", "decode")
LEVERS = (
    VaeLevers(temporal_roll=True),
    VaeLevers(patch_conv=True),
    VaeLevers(temporal_roll=True, patch_conv=True),
)
SIZES = ((256, 256), (384, 256), (480, 320), (576, 384), (768, 512), (1024, 576), (1280, 704), (1920, 1088))
FRAMES = (1, 9, 17, 25, 33, 49, 65, 89, 121, 257)


def half_of(version: Version, half: Half) -> AutoencoderKLLTX2Video:
    """That half of a version's video VAE in bf16, without data."""
    with torch.device("meta"):
        vae = AutoencoderKLLTX2Video(**header.video_vae_arguments(released_config(f"{version}.0"))).to(torch.bfloat16)
    setattr(vae, "decoder" if half == "encode" else "encoder", None)
    vae.eval().requires_grad_(False)
    return vae


def count(vae: AutoencoderKLLTX2Video, half: Half, clip: ClipShape, levers: VaeLevers) -> int:
    """Bytes of the tensors that are alive at once at most. levers: without tiling."""
    latents = (1, 128, (clip.frames - 1) // TEMPORAL + 1, clip.height // SPATIAL, clip.width // SPATIAL)
    shape = latents if half == "decode" else (1, 3, clip.frames, clip.height, clip.width)
    given = torch.empty(shape, dtype=torch.bfloat16, device="meta")
    with torch.no_grad(), chunked(vae, patch_conv=levers.patch_conv, temporal_roll=levers.temporal_roll), PeakMemory() as memory:
        vae.decode(given, None, return_dict=False) if half == "decode" else vae.encode(given, return_dict=False)
    peak: int = memory.peak
    return peak


def main() -> None:
    argparse.ArgumentParser(description=__doc__.splitlines()[0]).parse_args()
    lines = []
    for version, half in itertools.product(VERSIONS, HALVES):
        vae = half_of(version, half)
        for levers in LEVERS:
            clips = [[ClipShape(width=width, height=height, frames=frames) for frames in FRAMES] for width, height in SIZES]
            found = [[count(vae, half, clip, levers) for clip in row] for row in clips]
            entry = {"version": version, "half": half, "levers": vae_sizes.chunked_name(levers), "bytes": found}
            lines.append(json.dumps(entry))
    counts = ",\n ".join(lines)
    print(f'{{"sizes": {json.dumps(SIZES)},\n"frames": {json.dumps(FRAMES)},\n"counts": [\n {counts}\n]}}')  # noqa: T201 - what this is for


if __name__ == "__main__":
    main()
