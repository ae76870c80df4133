"""Modulation once a noise level instead of once a token: in training a token is at its sample's sigma or, when it is given, at 0.

diffusers' model embeds a timestep for every token; for 6,144 tokens that is a product with 6,144 equal rows and 303 MB of answers.
Here the two levels of a sample are embedded, and each token says which of them is its own.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from diffusers import LTX2VideoTransformer3DModel


@dataclass(slots=True)
class Levels:
    """Of the forward under way: which level each token is at, [B, T] of 0 (its sample's sigma) and 1 (clean); None where all are at one."""

    video: Tensor | None = None
    audio: Tensor | None = None


def use_levels(transformer: LTX2VideoTransformer3DModel) -> Levels:
    """Make the transformer embed levels instead of tokens; what comes back is set anew in every forward, before the blocks run.

    From then on a timestep is its sample's sigma, or 0: others are taken for sigma.
    """
    found = Levels()
    scaled: dict[str, Tensor] = {}

    def look(_module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        for modality, prefix in (("video", ""), ("audio", "audio_")):
            timesteps = kwargs[f"{prefix}timestep"]
            many = timesteps.ndim == 2 and timesteps.shape[1] > 1
            setattr(found, modality, (timesteps == 0).long() if many else None)
            scaled[modality] = torch.stack([kwargs[f"{prefix}sigma"], torch.zeros_like(kwargs[f"{prefix}sigma"])], dim=1).flatten()
        return args, kwargs

    transformer.register_forward_pre_hook(look, with_kwargs=True)
    for name, modality in (
        ("time_embed", "video"),
        ("audio_time_embed", "audio"),
        ("av_cross_attn_video_scale_shift", "video"),
        ("av_cross_attn_audio_scale_shift", "audio"),
    ):
        setattr(transformer, name, _OfLevels(getattr(transformer, name), found, scaled, modality))
    return found


class _OfLevels(nn.Module):
    """Stands where timesteps become modulation."""

    def __init__(self, inner: nn.Module, levels: Levels, scaled: dict[str, Tensor], modality: str) -> None:
        super().__init__()
        self.inner, self._levels, self._scaled, self._modality = inner, levels, scaled, modality

    def forward(self, timestep: Tensor, **options: Any) -> tuple[Tensor, Tensor]:
        level = getattr(self._levels, self._modality)
        if level is None:
            found: tuple[Tensor, Tensor] = self.inner(timestep, **options)
            return found
        # By `forward`: the hooks on `inner` (forward.py) would put the timesteps of all tokens in the place of the levels.
        modulation, embedded = self.inner.forward(self._scaled[self._modality], **options)
        # The blocks pick from the modulation; what the output layer takes is small and given for each token.
        return modulation, pick_levels(embedded.view(level.shape[0], 2, -1), level).flatten(0, 1)


def pick_levels(modulation: Tensor, level: Tensor) -> Tensor:
    """The modulation of each token, [B, T, D]: modulation is [B, 2, D], of the noise level and of 0; level [B, T] says which."""
    return torch.where(level[:, :, None] == 0, modulation[:, :1], modulation[:, 1:])
