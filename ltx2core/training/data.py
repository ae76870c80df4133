"""Batches as tensors: reads cached clips and texts, and puts a batch together. What to read is training/batches.py's to say."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch

from ltx2core.errors import StorageError
from ltx2core.models.latents import audio_steps_for, latent_grid, pack_audio, pack_video
from ltx2core.models.text import TextEmbedding
from ltx2core.training.batches import Entry
from ltx2core.training.objective import to_device
from ltx2core.training.reference import Reference

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Generator, Tensor

    from ltx2core.caching.passes import Cached, CachedClip
    from ltx2core.caching.store import Kind, Store
    from ltx2core.data.clip import Bucket


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """Clean tokens on the device: video [B, L, C] and audio [B, La, Ca], one of which may be None; learned audio [B, La]; texts [B, T, D].

    grid: of the video tokens; (1, 1, 1) without. fps: [B], on the CPU: its values are read in every step. masks: bool [B, L] on the CPU,
    what may be given of each clip; None when no clip has a mask. sigma_offset, gives_first_frame: what the clips' dataset asks of noise
    levels and of image-to-video. features: [B, L, D], an image encoder's at each video token, for CREPA.
    """

    video: Tensor | None
    audio: Tensor | None
    audio_learned: Tensor | None
    text: TextEmbedding
    grid: tuple[int, int, int]
    fps: Tensor
    bucket: str
    masks: Tensor | None = None
    reference: Reference | None = None
    sigma_offset: float = 0.0
    gives_first_frame: bool | None = None
    features: Tensor | None = None

    @property
    def count(self) -> int:
        """B, how many samples it holds."""
        return self.text.video.shape[0]


@dataclass(frozen=True, slots=True)
class Reader:
    """Reads batches from the store. Files come from the system's page cache after the first epoch."""

    store: Store
    cached: Cached
    device: torch.device

    def entries(self, clips: Sequence[CachedClip], *, most_tokens: int | None = None) -> list[Entry]:
        """What training/batches.py orders: clips may share a batch when size, length, rate, having sound and treatment are equal.

        Stretches of a clip that take turns are one entry. most_tokens: what a batch may hold at most, beyond a single clip.
        """
        turns: dict[tuple[str, str], list[int]] = {}
        entries: list[Entry] = []
        numbers: list[list[int]] = []
        for number, clip in enumerate(clips):
            sample, treatment = clip.sample, clip.sample.treatment
            if sample.takes_turns:
                mine = turns.setdefault((clip.source, treatment.dataset), [])
                mine.append(number)
                if len(mine) > 1:
                    continue
                numbers.append(mine)
            else:
                numbers.append([number])
            size = treatment.batch_size or (None if most_tokens is None else max(1, most_tokens // clip_tokens(clip)))
            entries.append(
                Entry(
                    group=_group(clip) + (f" x{size}" if size else ""),
                    times=sample.repeats + 1,
                    batch_size=size,
                    dataset=treatment.dataset,
                    schedule=treatment.times,
                )
            )
        return [replace(entry, clips=tuple(mine)) for entry, mine in zip(entries, numbers, strict=True)]

    def batch(self, clips: Sequence[CachedClip], *, draw: Generator | None = None, caption_dropout: float = 0.0) -> Batch:
        """The clips as one batch. draw: chooses among a clip's captions and drops some; None takes the first, and drops none."""
        picture = clips[0].sample.picture
        video = None if picture is None else torch.stack([self._load("video", clip.video)["latents"] for clip in clips if clip.video])
        texts = [self.text_entry(self._caption(clip, draw, caption_dropout)) for clip in clips]
        audio, learned = None, None
        if all(clip.audio is not None for clip in clips):
            loaded = [self._load("audio", clip.audio) for clip in clips if clip.audio is not None]
            audio = pack_audio(to_device(torch.stack([item["latents"] for item in loaded]), self.device).float())
            learned = to_device(torch.stack([item["learned"] for item in loaded]), self.device)
        return Batch(
            video=None if video is None else pack_video(to_device(video, self.device).float()),
            audio=audio,
            audio_learned=learned,
            text=TextEmbedding.stack(texts),
            grid=(1, 1, 1) if picture is None else _grid(picture),
            fps=torch.tensor([clip.sample.fps for clip in clips], dtype=torch.float32),
            bucket=clips[0].sample.bucket.label,
            masks=self._masks(clips),
            reference=self._reference(clips),
            sigma_offset=clips[0].sample.treatment.sigma_offset,
            gives_first_frame=clips[0].sample.treatment.gives_first_frame,
            features=self._features(clips, training=draw is not None),
        )

    def _features(self, clips: Sequence[CachedClip], *, training: bool) -> Tensor | None:
        """Only for training: nothing is aligned where a loss is measured."""
        names = [clip.features for clip in clips if clip.features is not None]
        if not training or len(names) < len(clips):
            return None
        return to_device(torch.stack([self._load("features", name)["features"] for name in names]), self.device)

    def _masks(self, clips: Sequence[CachedClip]) -> Tensor | None:
        picture = clips[0].sample.picture
        if picture is None or all(clip.mask is None for clip in clips):
            return None
        nothing = torch.zeros(math.prod(_grid(picture)), dtype=torch.bool)
        return torch.stack([nothing if clip.mask is None else self._load("mask", clip.mask)["given"] for clip in clips])

    def _reference(self, clips: Sequence[CachedClip]) -> Reference | None:
        buckets = [clip.reference_bucket for clip in clips]
        loaded = [self._load("video", clip.reference)["latents"] for clip in clips if clip.reference is not None]
        if buckets[0] is None or len(loaded) < len(clips):
            return None
        tokens = pack_video(to_device(torch.stack(loaded), self.device).float())
        return Reference(tokens=tokens, grid=_grid(buckets[0]), seen=self.cached.references)

    def text(self, text: str) -> TextEmbedding:
        """The embedding of a caption or prompt that was cached: [T, D]."""
        return self.text_entry(self.cached.texts[text])

    def text_entry(self, name: str) -> TextEmbedding:
        tensors = self._load("text", name)
        return TextEmbedding(to_device(tensors["video"], self.device), to_device(tensors["audio"], self.device))

    def _caption(self, clip: CachedClip, draw: Generator | None, dropout: float) -> str:
        if draw is None:
            return clip.captions[0]
        chance, choice = torch.rand(2, generator=draw).tolist()
        return (
            self.cached.texts[""]
            if chance < dropout and not clip.sample.treatment.regularisation
            else clip.captions[int(choice * len(clip.captions))]
        )

    def _load(self, kind: Kind, name: str) -> dict[str, Tensor]:
        tensors = self.store.load(kind, name)
        if tensors is None:
            raise StorageError(
                f"{self.store.path(kind, name)} cannot be read any more.", fix="Run again with --resume: what is missing is made again."
            )
        return tensors


def clip_tokens(clip: CachedClip) -> int:
    """How many tokens of picture, sound and reference a clip is."""
    picture, other = clip.sample.picture, clip.reference_bucket
    count = 0 if picture is None else math.prod(_grid(picture))
    if clip.audio is not None:
        count += audio_steps_for(clip.sample.seconds)
    if clip.reference is not None and other is not None:
        count += math.prod(_grid(other))
    return count


def _grid(bucket: Bucket) -> tuple[int, int, int]:
    return latent_grid(width=bucket.width, height=bucket.height, frames=bucket.frames)


def _group(clip: CachedClip) -> str:
    sample, treatment = clip.sample, clip.sample.treatment
    if sample.picture is None:
        extras = " of sound"
    else:
        extras = f" {sample.fps:g}" + (" with audio" if clip.audio is not None else "") + (" with reference" if clip.reference else "")
    if treatment.sigma_offset:
        extras += f" sigma {treatment.sigma_offset:+g}"
    if treatment.gives_first_frame is not None:
        extras += f" first frame {treatment.gives_first_frame}"
    return sample.bucket.label + extras
