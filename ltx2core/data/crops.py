"""Shapes and sizes: which width and height a picture is brought to, which part of it that shows, and which files are too small."""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from ltx2core.data.clip import Clip, Crop, Problem

if TYPE_CHECKING:
    from ltx2core.data.clip import Bucket

ResolutionType = Literal["pixel", "area", "pixel_area"]
CropAspect = Literal["square", "preserve", "closest", "random"]

SIDE_STEP = 32  # pixels a latent, each way
MAX_ASPECT = 4.0
_UNITS = {"pixel": "pixels on the shorter edge", "area": "megapixels", "pixel_area": "pixels, as the edge of a square"}


@dataclass(frozen=True, slots=True, kw_only=True)
class CropRule:
    """How pictures are cropped. aspect: the shape; of `aspects`, width / height, for closest and random.

    largest, shrunk: a picture above the first size is brought to the second before it is cropped; None for neither.
    most_enlarged: the share by which a shape of `aspects` may enlarge a picture at most.
    """

    aspect: CropAspect = "preserve"
    style: Literal["center", "corner", "random"] = "center"
    aspects: tuple[float, ...] = ()
    largest: float | None = None
    shrunk: float | None = None
    most_enlarged: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class SizeLimits:
    """Sizes, in the dataset's unit, and shapes, width / height, outside which files are left out."""

    smallest: float | None = None
    narrowest: float | None = None
    widest: float | None = None


def snap_size(pixels: float) -> int:
    """The nearest multiple of 32, the lower of two as near; 32 at least."""
    return max(math.ceil(pixels / SIDE_STEP - 0.5), 1) * SIDE_STEP


def bucket_size(width: float, height: float, *, resolution: float, resolution_type: ResolutionType = "pixel") -> tuple[int, int]:
    """Width and height, multiples of 32, nearest to the shape width : height at this resolution."""
    aspect = min(max(width / height, 1 / MAX_ASPECT), MAX_ASPECT)
    if resolution_type == "pixel":
        short = snap_size(resolution)
        long = snap_size(short * max(aspect, 1 / aspect))
        return (long, short) if aspect >= 1 else (short, long)
    area = resolution * 1e6 if resolution_type == "area" else resolution**2
    return snap_size(math.sqrt(area * aspect)), snap_size(math.sqrt(area / aspect))


def cropped_size(clip: Clip, rule: CropRule, *, resolution: float, resolution_type: ResolutionType, seed: int) -> tuple[int, int] | None:
    """Width and height that the clip's pictures are cropped to; None when every shape would enlarge them too much."""

    def at(width: float, height: float) -> tuple[int, int]:
        return bucket_size(width, height, resolution=resolution, resolution_type=resolution_type)

    if rule.aspect == "preserve":
        return at(clip.width, clip.height)
    if rule.aspect == "square":
        return at(1, 1)
    most = math.inf if rule.most_enlarged is None else 1 + rule.most_enlarged
    fitting = [aspect for aspect in rule.aspects if _cover(clip, *at(aspect, 1)) <= most + 1e-6]
    if not fitting:
        return None
    if rule.aspect == "random":
        aspect = fitting[int(chance(seed, "shape", clip.path.name) * len(fitting))]
    else:
        aspect = min(fitting, key=lambda shape: abs(math.log(shape * clip.height / clip.width)))
    return at(aspect, 1)


def crop_of(clip: Clip, bucket: Bucket, rule: CropRule, *, resolution_type: ResolutionType, seed: int) -> Crop:
    """Which part of the clip's pictures its bucket shows."""
    zoom = 1.0
    if rule.largest is not None and rule.shrunk is not None and measure(clip, resolution_type) > rule.largest:
        scale = rule.shrunk / measure(clip, resolution_type)
        if resolution_type == "area":
            scale = math.sqrt(scale)
        zoom = max(1.0, min(scale, 1.0) / _cover(clip, bucket.width, bucket.height))
    if rule.style == "corner":
        return Crop(across=0.0, down=0.0, zoom=zoom)
    if rule.style == "random":
        return Crop(across=chance(seed, "across", clip.path.name), down=chance(seed, "down", clip.path.name), zoom=zoom)
    return Crop(zoom=zoom)


def measure(clip: Clip, resolution_type: ResolutionType) -> float:
    """A picture's size in the unit of resolution_type."""
    if resolution_type == "pixel":
        return min(clip.width, clip.height)
    area = clip.width * clip.height
    return area / 1e6 if resolution_type == "area" else math.sqrt(area)


def outside_sizes(clip: Clip, limits: SizeLimits, resolution_type: ResolutionType) -> Problem | None:
    """Why the clip is too small or of a shape that is not wanted; None when it is neither."""
    name, shown, size = clip.path.name, f"{clip.width}x{clip.height}", measure(clip, resolution_type)
    if limits.smallest is not None and size < limits.smallest:
        text = f"{name} is {shown}; minimum_image_size asks for {limits.smallest:g} {_UNITS[resolution_type]}, it has {size:.4g}."
        return Problem(code="too_small", level="error", text=text, fix="Use a larger file, or lower minimum_image_size.")
    aspect = clip.width / clip.height
    for limit, name_of, beyond in (
        (limits.narrowest, "minimum_aspect_ratio", limits.narrowest is not None and aspect < limits.narrowest),
        (limits.widest, "maximum_aspect_ratio", limits.widest is not None and aspect > limits.widest),
    ):
        if beyond:
            text = f"{name} is {shown}, a shape of {aspect:.3g}; {name_of} is {limit:g}."
            return Problem(code="wrong_aspect", level="error", text=text, fix=f"Crop it, or change {name_of}.")
    return None


def size_notes(clip: Clip, bucket: Bucket, crop: Crop, *, resolution_type: ResolutionType) -> list[Problem]:
    """What bringing the clip's pictures to the bucket's size loses, or adds."""
    notes: list[Problem] = []
    name, shown, target = clip.path.name, f"{clip.width}x{clip.height}", f"{bucket.width}x{bucket.height}"
    scale = _cover(clip, bucket.width, bucket.height) * crop.zoom
    lost = 1 - bucket.width * bucket.height / (clip.width * clip.height * scale**2)
    if max(clip.width / clip.height, clip.height / clip.width) > MAX_ASPECT:
        text = f"{name} is {shown}, longer than {MAX_ASPECT:g}:1; {lost:.0%} of the picture is cropped away for {target}."
        notes.append(Problem(code="extreme_aspect", level="warning", text=text, fix="Crop it to what matters."))
    elif clip.width % SIDE_STEP or clip.height % SIDE_STEP:
        text = f"{name} is {shown}; sides are multiples of {SIDE_STEP}, so it trains as {target} and {lost:.1%} of the picture is cropped."
        notes.append(Problem(code="odd_size", level="info", text=text))
    if scale > 1.001:
        text = f"{name} is {shown}, smaller than its bucket {target}: it is enlarged {scale:.2f} times, which adds no detail."
        lower = f"Set resolution to {max(min(clip.width, clip.height) // SIDE_STEP, 1) * SIDE_STEP}"
        fix = f"{lower if resolution_type == 'pixel' else 'Lower resolution'}, or use a larger clip."
        notes.append(Problem(code="upscaled", level="info", text=text, fix=fix))
    return notes


def chance(seed: int, *what: object) -> float:
    """A number in 0..1, without 1, that follows from these alone: the same on every machine and in every process."""
    digest = hashlib.sha256("/".join(str(part) for part in (seed, *what)).encode("utf-8", "surrogateescape")).digest()
    return int.from_bytes(digest[:6], "big") / 2**48


def _cover(clip: Clip, width: int, height: int) -> float:
    """How many times larger a picture is made so that it covers width x height."""
    return max(width / clip.width, height / clip.height)
