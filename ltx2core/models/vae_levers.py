"""What lowers the memory of the video VAE, for encoding and decoding. Each lever is its own; all go together.

| lever         | what it does                                                       | against one clip at once          |
|---------------|--------------------------------------------------------------------|-----------------------------------|
| tiling        | pictures larger than a tile in overlapping tiles, joined smoothly  | a little different where they meet |
| slicing       | the clips of a batch one by one                                    | equal                             |
| patch_conv    | each layer a few frames and rows at a time (vae_chunks.py)         | equal up to rounding              |
| temporal_roll | all layers a few frames at a time (vae_chunks.py)                  | equal up to rounding              |
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from diffusers import AutoencoderKLLTX2Video

SPATIAL = 32  # pixels a latent, on each side
TILE, OVERLAP = 16, 2  # latents a side at most, and shared by neighbours: 512 and 64 pixels, as diffusers has them


@dataclass(frozen=True, slots=True, kw_only=True)
class VaeLevers:
    """Which levers are on."""

    tiling: bool = False
    slicing: bool = False
    patch_conv: bool = False
    temporal_roll: bool = False


@contextlib.contextmanager
def levers_on(vae: AutoencoderKLLTX2Video, levers: VaeLevers, *, rows: int, columns: int) -> Iterator[None]:
    """The VAE with these levers on, for clips of that many latents a side. None is on afterwards."""
    from ltx2core.models.vae_chunks import chunked  # loads diffusers

    if levers.tiling:
        (height, down), (width, across) = tile_and_stride(rows), tile_and_stride(columns)
        vae.enable_tiling(
            tile_sample_min_height=height * SPATIAL,
            tile_sample_min_width=width * SPATIAL,
            tile_sample_stride_height=down * SPATIAL,
            tile_sample_stride_width=across * SPATIAL,
        )
    if levers.slicing:
        vae.enable_slicing()
    try:
        with chunked(vae, patch_conv=levers.patch_conv, temporal_roll=levers.temporal_roll):
            yield
    finally:
        vae.disable_tiling()
        vae.disable_slicing()


def is_tiled(*, width: int, height: int) -> bool:
    """Whether a picture of that size in pixels is larger than one tile."""
    return max(width, height) > TILE * SPATIAL


def tile_and_stride(latents: int) -> tuple[int, int]:
    """Length of a tile and the way to the next one, in latents, for a side of that many; a side that fits in a tile is not cut.

    Tiles share a side evenly. With one size for all, a side of 15 latents would leave a tile of 1 over, which the decoder cannot
    pad by reflection.
    """
    if latents <= TILE:
        return latents, latents
    tiles = -(-latents // (TILE - OVERLAP))
    stride = -(-latents // tiles)
    return stride + OVERLAP, stride
