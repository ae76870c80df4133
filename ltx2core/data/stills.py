"""Pictures as clips of one frame: what a file is, and its pixels as the model takes them.

Pillow reads them: it turns them upright by their EXIF tag, and knows transparency, palettes and 16 bits.
"""

from __future__ import annotations

import contextlib
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from ltx2core.data.captions import CaptionRule, read_caption
from ltx2core.data.clip import Clip, Crop, Problem
from ltx2core.data.media import MAX_PIXELS
from ltx2core.errors import DatasetError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from numpy.typing import NDArray
    from PIL.Image import Image

    from ltx2core.data.clip import Bucket

_FORMATS = ("PNG", "JPEG", "WEBP", "BMP")  # no others: Pillow also reads formats that run programs (EPS)
_TOO_LARGE = f"at most {MAX_PIXELS:,} pixels are read"


def probe_still(path: Path, *, captions: CaptionRule | None = None) -> Clip:
    """What the picture at `path` is. One that cannot be used comes back with a problem of level error."""
    name, problems = path.name, list[Problem]()
    try:
        with _opened(path) as image:
            turned = image.getexif().get(0x0112, 1) in (5, 6, 7, 8)  # orientations that lie on their side
            width, height = (image.height, image.width) if turned else image.size
            if image.format == "JPEG":
                image.draft("RGB", (image.width // 8, image.height // 8))  # reads all of it, at an eighth of the size
            image.load()
            codec, see_through = (image.format or "").lower(), _see_through(image)
    except _Unreadable as error:
        return Clip(path=path, still=True, problems=(Problem(code=error.code, level="error", text=f"{name} {error}.", fix=error.fix),))
    if see_through:
        problems.append(Problem(code="transparent", level="info", text=f"{name} has transparent parts; they are made white."))
    clip = Clip(path=path, width=width, height=height, frames=1, codec=codec, still=True, problems=tuple(problems))
    if (captions or CaptionRule()).needs_text_file:
        text, told = read_caption(path)
        clip = replace(clip, caption=text).having(*told)
    return clip


def decode_still(path: Path, *, bucket: Bucket, crop: Crop | None = None) -> NDArray[np.uint8]:
    """The picture as one frame: uint8 [1, H, W, 3], scaled until it covers the bucket, then cropped. Raises DatasetError."""
    from PIL import Image, ImageOps

    crop = crop or Crop()
    try:
        with _opened(path) as opened:
            image = ImageOps.exif_transpose(opened)
            scale = max(bucket.width / image.width, bucket.height / image.height) * crop.zoom
            size = (max(round(image.width * scale), bucket.width), max(round(image.height * scale), bucket.height))
            scaled = _to_rgb(image).resize(size, Image.Resampling.BICUBIC)
            left, top = round((size[0] - bucket.width) * crop.across), round((size[1] - bucket.height) * crop.down)
            return np.asarray(scaled.crop((left, top, left + bucket.width, top + bucket.height)), dtype=np.uint8)[None].copy()
    except _Unreadable as error:
        raise DatasetError(f"{path} {error}.", fix=error.fix) from error


class _Unreadable(Exception):  # noqa: N818 - never leaves this file
    def __init__(self, code: str, text: str, fix: str) -> None:
        super().__init__(text)
        self.code, self.fix = code, fix


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[Image]:
    """The picture, opened; every failure inside the block becomes _Unreadable."""
    from PIL import Image, UnidentifiedImageError

    try:
        if not path.is_file():
            raise _Unreadable("unreadable", "is not a regular file", "Remove it, or put the picture there.")
        if path.stat().st_size == 0:
            raise _Unreadable("empty_file", "is empty (0 bytes)", "Copy or export it again.")
        with Image.open(path, formats=_FORMATS) as image:
            if image.width * image.height > MAX_PIXELS:
                text = f"has {image.width}x{image.height} pixels; {_TOO_LARGE}"
                raise _Unreadable("too_many_pixels", text, "Scale it down.")
            yield image
    except UnidentifiedImageError as error:
        raise _Unreadable("not_a_picture", "is not a picture in a known format", "Use PNG, JPEG, WebP or BMP.") from error
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:  # a warning where those are errors
        raise _Unreadable("too_many_pixels", f"is too large; {_TOO_LARGE}", "Scale it down.") from error
    except PermissionError as error:
        raise _Unreadable("unreadable", f"cannot be opened: {error.strerror or error}", "Change its permissions.") from error
    except (OSError, ValueError, SyntaxError, EOFError, IndexError, KeyError, TypeError, OverflowError, MemoryError) as error:
        # what Pillow's decoders raise for damaged files
        raise _Unreadable("not_a_picture", f"cannot be decoded: {str(error) or type(error).__name__}", "Save it again as PNG.") from error


def _see_through(image: Image) -> bool:
    if image.mode in ("RGBA", "LA", "PA"):
        lowest = image.getchannel("A").getextrema()[0]
        return isinstance(lowest, int | float) and lowest < 255
    return "transparency" in image.info


def _to_rgb(image: Image) -> Image:
    """8-bit RGB: over white where it is transparent, 16 bits scaled down."""
    from PIL import Image as Pillow

    if image.mode.startswith(("I", "F")):
        values = np.asarray(image).astype(np.float64)
        image = Pillow.fromarray(np.clip(values / 257 if values.max(initial=0) > 255 else values, 0, 255).astype(np.uint8))
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        with_alpha = image.convert("RGBA")
        white = Pillow.new("RGBA", with_alpha.size, (255, 255, 255, 255))
        image = Pillow.alpha_composite(white, with_alpha)
    return image.convert("RGB")
