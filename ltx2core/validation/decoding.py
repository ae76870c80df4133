"""Decodes samples beside a model that fills the card: at once, else in parts, else with the model's weights out of the way.

Training takes the memory that there is, so what a decoder needs is seldom left, and an error there would end a run for the sake of a
picture. What has worked is what the next sample begins with.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING

import torch

from ltx2core.caching.passes import free_memory
from ltx2core.errors import RunError
from ltx2core.validation.media import decode

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager

    from ltx2core.models.checkpoint import Checkpoint
    from ltx2core.models.vae_levers import VaeLevers
    from ltx2core.validation.media import Media
    from ltx2core.validation.sampling import SampledLatents


@dataclass(frozen=True, slots=True)
class _Way:
    """How samples are decoded. alone: with the model's weights away from the card."""

    levers: VaeLevers
    alone: bool = False


@dataclass(kw_only=True)
class SampleDecoder:
    """Decodes each sample in the first way that fits. lend: inside it, the model's weights are away from the card.

    tell: is given a sentence when a way has not fitted and the next is taken.
    """

    checkpoint: Checkpoint
    device: torch.device
    dtype: torch.dtype
    levers: VaeLevers
    lend: Callable[[], AbstractContextManager[None]]
    tell: Callable[[str], None]
    _tried: int = 0  # ways that have not fitted

    def __call__(self, latents: SampledLatents) -> Media:
        """The decoded sample. Raises RunError when it fits in no way."""
        ways = _ways(self.levers)
        while True:
            media = self._attempt(latents, ways[self._tried])
            if media is not None:
                return media
            free_memory(self.device)  # outside the handler: its traceback would keep the decoder's tensors alive
            if self._tried + 1 == len(ways):
                raise RunError(
                    "Its decoder does not fit on the GPU, even in parts and with the transformer's weights in RAM.",
                    fix="Lower validation_resolution or validation_num_video_frames.",
                )
            self._tried += 1
            self.tell(f"Decoding a sample did not fit on the GPU: {_words(ways[self._tried], self.levers)} from now on.")

    def _attempt(self, latents: SampledLatents, way: _Way) -> Media | None:
        """None: it did not fit."""
        with self.lend() if way.alone else contextlib.nullcontext():
            try:
                return decode(self.checkpoint, latents, device=self.device, dtype=self.dtype, levers=way.levers)
            except torch.OutOfMemoryError:
                return None


def _ways(levers: VaeLevers) -> list[_Way]:
    """From the asked one down. Parts of time and rows give the same picture within rounding; tiles do not at their seams: they are last."""
    parts = replace(levers, temporal_roll=True, patch_conv=True)
    ways = [_Way(levers), _Way(parts), _Way(parts, alone=True), _Way(replace(parts, tiling=True), alone=True)]
    return [way for index, way in enumerate(ways) if way not in ways[:index]]


def _words(way: _Way, asked: VaeLevers) -> str:
    added = [f"vae_enable_{field.name}" for field in fields(way.levers) if getattr(way.levers, field.name) > getattr(asked, field.name)]
    words = [f"{' and '.join(added)} {'are' if len(added) > 1 else 'is'} on"] if added else []
    if way.alone:
        words.append("the transformer's weights wait in RAM meanwhile")
    return ", ".join(words)
