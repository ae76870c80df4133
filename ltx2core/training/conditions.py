"""Parts of a clip that are given instead of learned: the first frame, as image-to-video needs, a beginning, an end, a region, a mask.

A given token is clean, has timestep 0 and no loss; the sample's sigma stays what it is (the official trainer's intrinsic conditions).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import torch

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Generator, Tensor

IMAGE_TO_VIDEO = 0.5  # how often the first frame is given where a dataset is for it: the official trainer's image-to-video default

Kind = Literal["first_frame", "prefix", "suffix", "spatial_crop", "mask"]


@dataclass(frozen=True, slots=True, kw_only=True)
class GivenPart:
    """A part and how often it is given, 0..1, drawn for each sample.

    length: latent frames of a prefix or suffix (8 frames each, the very first alone), or audio latents (25 a second).
    region: y1, x1, y2, x2 in latent cells of 32 pixels, for spatial_crop; the end is not included.
    """

    kind: Kind
    probability: float
    modality: Literal["video", "audio"] = "video"
    length: int = 1
    region: tuple[int, int, int, int] | None = None


def draw_given(
    parts: Sequence[GivenPart], *, grid: tuple[int, int, int], count: int, generator: Generator, masks: Tensor | None = None
) -> Tensor:
    """Which tokens of `count` samples are given: bool [count, F H W], on the generator's device.

    grid: latent frames, height and width; audio has (steps, 1, 1). masks: bool [count, F H W], what the part `mask` gives; None for
    nothing. Each part is drawn for every sample, in the order of `parts`. A sample of which nothing would be left to learn is learned
    whole.
    """
    frames, height, width = grid
    given = torch.zeros(count, frames, height, width, dtype=torch.bool)
    for part in parts:
        drawn = torch.rand(count, generator=generator) < part.probability
        if part.kind != "mask":
            given |= drawn.view(-1, 1, 1, 1) & _tokens(part, grid)
        elif masks is not None:
            given |= drawn.view(-1, 1, 1, 1) & masks.view(given.shape)
    tokens = given.flatten(1)
    return tokens & ~tokens.all(dim=1, keepdim=True)


def with_first_frame(parts: Sequence[GivenPart], gives: bool | None) -> list[GivenPart]:
    """The parts as a dataset wants them: image-to-video as often as the run says, half of the time where it says never; or not at all.

    gives: None leaves the parts as they are.
    """
    first = [part for part in parts if part.kind == "first_frame" and part.modality == "video"]
    others = [part for part in parts if part not in first]
    if gives is None:
        return list(parts)
    if not gives:
        return others
    return list(parts) if first else [GivenPart(kind="first_frame", probability=IMAGE_TO_VIDEO), *others]


def _tokens(part: GivenPart, grid: tuple[int, int, int]) -> Tensor:
    found = torch.zeros(grid, dtype=torch.bool)
    if part.kind == "spatial_crop":
        top, left, bottom, right = part.region or (0, 0, 0, 0)
        found[:, top:bottom, left:right] = True
    elif part.kind == "suffix":
        found[max(0, grid[0] - part.length) :] = True
    else:
        found[: 1 if part.kind == "first_frame" else part.length] = True
    return found
