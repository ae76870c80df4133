"""Whether the disk has room for what a run will cache, asked before anything is encoded: the sizes follow from the shapes."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ltx2core.errors import StorageError
from ltx2core.models.header import audio_vae_arguments, connector_arguments, video_vae_arguments

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from ltx2core.caching.store import Kind
    from ltx2core.data.clip import Bucket
    from ltx2core.models.checkpoint import Checkpoint

MOST_TOKENS = 1024  # of a caption, and what every one is padded to
_BF16, _HEADER_BYTES = 2, 1024


@dataclass(frozen=True, slots=True)
class EntrySizes:
    """Bytes of entries on disk, by a checkpoint's widths; of text at most."""

    checkpoint: Checkpoint

    def video(self, bucket: Bucket) -> int:
        channels = int(video_vae_arguments(self.checkpoint.config)["latent_channels"])
        return _cells(bucket) * channels * _BF16 + _HEADER_BYTES

    def mask(self, bucket: Bucket) -> int:
        return _cells(bucket) + _HEADER_BYTES

    def features(self, bucket: Bucket, width: int) -> int:
        """An image encoder's features of that width, at each latent."""
        return _cells(bucket) * width * _BF16 + _HEADER_BYTES

    def audio(self, steps: int) -> int:
        """Of so many latents of sound: each has a width, and a flag that says whether it is learned."""
        arguments = audio_vae_arguments(self.checkpoint.config)
        bins: int = int(arguments["mel_bins"]) // (1 << (len(arguments["ch_mult"]) - 1))
        return steps * (int(arguments["latent_channels"]) * bins * _BF16 + 1) + _HEADER_BYTES

    def text(self) -> int:
        """A caption after the connectors: 15.7 MB for 2.0, 12.6 MB for 2.3 and 2.5, whose sound has half the width."""
        arguments = connector_arguments(self.checkpoint.config, num_states=1)
        width = int(arguments["video_hidden_dim"]) + int(arguments["audio_hidden_dim"])
        return MOST_TOKENS * width * _BF16 + _HEADER_BYTES


def describe_room(folder: Path, needed: Mapping[Kind, Sequence[int]]) -> str:
    """One line: what is missing in the cache and how much is free. needed: by kind, the bytes of each missing entry.

    Raises StorageError when it does not fit.
    """
    total = sum(sum(sizes) for sizes in needed.values())
    place = folder
    while not place.exists():
        place = place.parent
    free = shutil.disk_usage(place).free
    parts = ", ".join(f"{len(sizes):,} {kind} ({say(sum(sizes))})" for kind, sizes in needed.items() if sizes)
    text = f"The cache lacks {parts}: at most {say(total)}, and {folder} has {say(free)} free"
    if total > free:
        raise StorageError(f"{text}.", fix=f"Free {say(total - free)} there, or choose another place with --root.")
    return f"{text}."


def say(size: int) -> str:
    """Bytes as people say them: 12.3 GB, 640 MB."""
    for unit, bytes_each in (("GB", 10**9), ("MB", 10**6)):
        if size >= bytes_each:
            return f"{size / bytes_each:.1f} {unit}"
    return f"{size / 1000:.0f} kB"


def _cells(bucket: Bucket) -> int:
    return ((bucket.frames - 1) // 8 + 1) * (bucket.height // 32) * (bucket.width // 32)
