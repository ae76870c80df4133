"""Whether the disk has room for what is about to be cached: asked before the first clip, since the last one comes hours later."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING

from ltx2core.data.clip import AUDIO_LATENTS_PER_SECOND
from ltx2core.errors import StorageError
from ltx2core.models.header import connector_arguments
from ltx2core.models.latents import latent_grid
from ltx2core.models.text_encoder import MAX_TOKENS

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path
    from typing import Any

    from ltx2core.data.clip import Bucket

_ITEM = 2  # bytes of bf16
_FRAME = 512  # bytes of a file's header


@dataclass(frozen=True, slots=True, kw_only=True)
class EntrySizes:
    """How many bytes entries take, by what the model's header says of its widths."""

    video_channels: int
    audio_channels: int
    text_width: int  # of both modalities together

    @classmethod
    def of(cls, config: Mapping[str, Any]) -> EntrySizes:
        text = connector_arguments(config, num_states=1)
        transformer = config["transformer"]
        return cls(
            video_channels=transformer["in_channels"],
            audio_channels=transformer.get("audio_in_channels", 128),
            text_width=text["video_hidden_dim"] + text["audio_hidden_dim"],
        )

    def video(self, bucket: Bucket) -> int:
        grid = latent_grid(width=bucket.width, height=bucket.height, frames=bucket.frames)
        return self.video_channels * prod(grid) * _ITEM + _FRAME

    def audio(self, seconds: float) -> int:
        return round(seconds * AUDIO_LATENTS_PER_SECOND) * (self.audio_channels * _ITEM + 1) + _FRAME

    def text(self) -> int:
        """At most: a small text encoder takes fewer tokens."""
        return MAX_TOKENS * self.text_width * _ITEM + _FRAME


def check_disk(root: Path, sizes: EntrySizes, *, videos: Iterable[Bucket], sounds: Iterable[float], texts: int) -> None:
    """Raise StorageError, with both amounts, when the disk of `root` has no room for the entries that are to be written there.

    videos: the bucket of each; sounds: the seconds of each.
    """
    needed_bytes = sum(map(sizes.video, videos)) + sum(map(sizes.audio, sounds)) + texts * sizes.text()
    place = next(folder for folder in (root, *root.absolute().parents) if folder.is_dir())
    free_bytes = shutil.disk_usage(place).free
    if needed_bytes > free_bytes:
        raise StorageError(
            f"The cache in {root} needs {needed_bytes / 1e9:.2f} GB more, and its disk has {free_bytes / 1e9:.2f} GB free.",
            fix="Free some space, or choose another place with --root; `ltx2tui cache prune` removes what no run needs.",
        )
