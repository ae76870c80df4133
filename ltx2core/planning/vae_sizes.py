"""What the video VAE takes: its weights, what it holds beside them for a clip under each lever, what the allocator leaves idle, seconds.

At once it was measured on an H100, with 121 frames of 1280x704 (docs/BENCHMARKS.md has the command). What the chunked levers hold does not
simply follow pixels, for they work in windows of a fixed size: vae_sizes.json has it for many sizes, counted without a card by `python -m
ltx2core.planning.measure_vae`, and it is scaled to what the card took. Of a picture, or a few frames, they hold more than at once. Loads no
torch.
"""

from __future__ import annotations

import json
from bisect import bisect_left
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING, Literal

from ltx2core.models.vae_levers import SPATIAL, is_tiled, tile_and_stride
from ltx2core.planning.step_memory import GIB

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ltx2core.hardware.rates import Rates
    from ltx2core.models.vae_levers import VaeLevers
    from ltx2core.planning.clips import ClipShape
    from ltx2core.planning.job import Version

Half = Literal["encode", "decode"]

MEASURED_FLOPS = 659e12  # bf16 of the card that seconds were measured on: they scale with another's rate
CLIP_BYTES = 6.0  # a pixel of a clip in bf16, as it is encoded

# Of each half in bf16, counted on the modules.
WEIGHTS = {
    "2.0": {"encode": 1_388_197_762, "decode": 1_056_761_440},
    "2.3": {"encode": 637_873_794, "decode": 814_338_144},
    "2.5": {"encode": 637_873_794, "decode": 814_338_144},
}
_SAME_VAE = {"2.5": "2.3"}


# Bytes at once for each pixel of the clip, and of one of its frames, cuDNN's own memory in them: 13.36 GiB to encode 121x1280x704 and 12.96
# to decode it, weights in them. Of 2.3 the decoder was counted to hold 15 % less; a card has not shown it.
_AT_ONCE = {"encode": (117.7, 132.0), "decode": (116.7, 139.0)}
# The chunked levers on the card, against what was counted: 3.36, 5.20 and 3.26 GiB to encode that clip, 3.55, 3.70 and 3.23 to decode it.
_CARD = {
    ("encode", "temporal_roll"): 0.99,
    ("encode", "patch_conv"): 1.10,
    ("encode", "both"): 0.91,
    ("decode", "temporal_roll"): 1.15,
    ("decode", "patch_conv"): 1.03,
    ("decode", "both"): 1.04,
}
# Tiles are decoded one by one, the largest among the first, and joined at the end: 3.99 GiB, and 2.96 where each tile is small.
_FIRST_TILE_BYTES, _JOINED_BYTES = 2.0, 19.5  # a pixel of the clip

# Seconds of that clip: at once, temporal_roll, patch_conv, both, tiling, all three.
_SECONDS = {"encode": (0.77, 0.90, 1.20, 1.12, 0.95, 1.41), "decode": (0.55, 0.76, 0.91, 0.94, 0.70, 0.94)}
_MEGAPIXELS = 109.04

# What the allocator holds above what it gives out: 15.21 GiB where that is 13.66 encoding 1280x704x121, 7.37 of 6.69 with 768x512x121, 1.93
# of 1.77 where frames are encoded in turn. Decoding with activations of 12 GiB 0.55 to 0.69, of 5.2 GiB 0.33 to 0.76, of about 1 GiB 0.19
# to 0.43, of the smallest 0.15 to 0.2 (43 runs of presets on H200s; one of these left 1.53, where three with the same sample left 0.62).
_LEAST_RESERVE = GIB // 5
_ENCODE_RESERVE = 0.127  # of activations
_DECODE_RESERVE, _DECODE_RESERVE_BASE, _MOST_DECODE_RESERVE = 0.03, 3 * GIB // 10, 0.33  # of activations, and always; no more of them than


def activations(version: Version, half: Half, clip: ClipShape, levers: VaeLevers) -> int:
    """Bytes beside the weights, for one clip."""
    pixels = clip.megapixels * 1e6
    if not (levers.tiling and is_tiled(width=clip.width, height=clip.height)):
        return int(_untiled(version, half, clip.width * clip.height, clip.frames, levers))
    rows, columns = (tile_and_stride(side // SPATIAL)[0] * SPATIAL for side in (clip.height, clip.width))
    tile = _untiled(version, half, rows * columns, clip.frames, levers)
    if half == "encode":  # the clip that tiles are cut from, beside the largest
        return int(CLIP_BYTES * max(0.0, pixels - rows * columns * clip.frames) + tile)
    return int(max(_FIRST_TILE_BYTES * pixels + tile, _JOINED_BYTES * pixels))


def reserve(half: Half, given_out: int) -> int:
    """What the allocator holds beside activations of so many bytes."""
    if half == "encode":
        idle = _ENCODE_RESERVE * given_out
    else:
        idle = min(_DECODE_RESERVE_BASE + _DECODE_RESERVE * given_out, _MOST_DECODE_RESERVE * given_out)
    return max(_LEAST_RESERVE, int(idle))


def decoder_bytes(version: Version, clip: ClipShape, levers: VaeLevers) -> int:
    """What PyTorch's allocator holds at most to decode a clip: weights, activations, and what lies idle between these."""
    given_out = activations(version, "decode", clip, levers)
    return WEIGHTS[version]["decode"] + given_out + reserve("decode", given_out)


def seconds(half: Half, clip: ClipShape, levers: VaeLevers, rates: Rates) -> float:
    """Of one clip."""
    chunked = levers.temporal_roll + 2 * levers.patch_conv
    tiled = levers.tiling and is_tiled(width=clip.width, height=clip.height)
    index = (5 if chunked else 4) if tiled else chunked
    return _SECONDS[half][index] * clip.megapixels / _MEGAPIXELS * MEASURED_FLOPS / rates.bf16_flops_per_second


def chunked_name(levers: VaeLevers) -> str:
    """By what vae_sizes.json calls these of the chunked levers."""
    return "both" if levers.temporal_roll and levers.patch_conv else "temporal_roll" if levers.temporal_roll else "patch_conv"


def counted(version: Version, half: Half, levers: VaeLevers, *, frame: float, frames: int) -> float:
    """Bytes under chunked levers as counted without a card, for a clip of so many pixels in a frame; between the sizes of the table."""
    table = _table()
    rows = table.bytes[_SAME_VAE.get(version, version), half, chunked_name(levers)]
    return _between(table.areas, [_between(table.frames, row, frames) for row in rows], frame)


@dataclass(frozen=True, slots=True)
class _Table:
    """areas: pixels of a frame, ascending, from none; frames: ascending. bytes: a row for each area."""

    areas: list[float]
    frames: list[float]
    bytes: dict[tuple[str, str, str], list[list[float]]]


@cache
def _table() -> _Table:
    found = json.loads(files("ltx2core.planning").joinpath("vae_sizes.json").read_text(encoding="utf-8"))
    nothing = [0.0] * len(found["frames"])
    return _Table(
        areas=[0.0, *(width * height for width, height in found["sizes"])],
        frames=found["frames"],
        bytes={(one["version"], one["half"], one["levers"]): [nothing, *one["bytes"]] for one in found["counts"]},
    )


def _between(places: Sequence[float], values: Sequence[float], place: float) -> float:
    """On the line between the two nearest places; beyond the last two, on theirs."""
    index = min(max(1, bisect_left(places, place)), len(places) - 1)
    (first, last), (low, high) = places[index - 1 : index + 1], values[index - 1 : index + 1]
    return low + (high - low) * (place - first) / (last - first)


def _untiled(version: Version, half: Half, frame: float, frames: int, levers: VaeLevers) -> float:
    """Of a clip, or a tile of one, of so many pixels in a frame."""
    a_clip, a_frame = _AT_ONCE[half]
    if levers.temporal_roll or levers.patch_conv:
        return _CARD[half, chunked_name(levers)] * counted(version, half, levers, frame=frame, frames=frames)
    return (a_clip * frames + a_frame) * frame
