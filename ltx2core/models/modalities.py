"""Leaves one modality out of a transformer, so that training on the other never loads it: video alone is 31 % fewer weights.

diffusers' model always runs both streams. Where one is left out it gets a single token of zeros and, in place of each of its modules,
something without weights that answers in the right shape. Nothing of that token reaches the other stream as long as the model is called
with `isolate_modalities`, so what is left is bit-equal to the official model without that modality (tests/models/test_reference.py).
The few scale-shift tables that belong to a block itself (5 MB in the 19B) stay.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from diffusers import LTX2VideoTransformer3DModel

Modality = Literal["video", "audio"]

_CROSS_BLOCK = ("audio_to_video_attn", "video_to_audio_attn")
_CROSS = (
    "av_cross_attn_video_scale_shift",
    "av_cross_attn_audio_scale_shift",
    "av_cross_attn_video_a2v_gate",
    "av_cross_attn_audio_v2a_gate",
)
_OWN_BLOCK = ("attn1", "attn2", "ff")
_OWN = ("proj_in", "proj_out", "caption_projection", "time_embed", "prompt_adaln")


def leave_out(transformer: LTX2VideoTransformer3DModel, modality: Modality) -> None:
    """Take a modality's modules out of the transformer, and what ties the two together."""
    prefix = "audio_" if modality == "audio" else ""
    for block in transformer.transformer_blocks:
        for name in (*_CROSS_BLOCK, *(f"{prefix}{name}" for name in _OWN_BLOCK)):
            setattr(block, name, _Nothing())
    for name in (*_CROSS, *(f"{prefix}{name}" for name in _OWN)):
        module = getattr(transformer, name, None)  # 2.0 has no prompt_adaln, later versions no caption_projection
        if module is None:
            continue
        linear = [layer for layer in module.modules() if isinstance(layer, nn.Linear)]
        is_modulation = hasattr(module, "num_mod_params")
        setattr(transformer, name, _NoModulation(linear[-1]) if is_modulation else _NoProjection(linear[-1]))
    if modality == "video" and hasattr(transformer, "keyframes_abs_pos_embedding"):
        del transformer.keyframes_abs_pos_embedding


def has(transformer: LTX2VideoTransformer3DModel, modality: Modality) -> bool:
    """Whether the transformer was loaded with that modality."""
    return not isinstance(transformer.audio_proj_in if modality == "audio" else transformer.proj_in, _NoProjection)


class _Nothing(nn.Module):
    """Stands where an attention or feed-forward was: adds nothing to what it is given."""

    def forward(self, hidden_states: Tensor, *_args: object, **_kwargs: object) -> Tensor:
        return torch.zeros_like(hidden_states)


class _NoProjection(nn.Module):
    """Stands where a projection of tokens was: zeros as wide as its answers."""

    def __init__(self, last: nn.Linear) -> None:
        super().__init__()
        self.width = last.out_features

    def forward(self, tokens: Tensor) -> Tensor:
        return tokens.new_zeros(()).expand(*tokens.shape[:-1], self.width)


class _NoModulation(nn.Module):
    """Stands where timesteps became modulation: zeros as wide as its two answers, (modulation, embedded timestep)."""

    def __init__(self, last: nn.Linear) -> None:
        super().__init__()
        self.modulation, self.width = last.out_features, last.in_features

    def forward(
        self, timestep: Tensor, *_args: object, hidden_dtype: torch.dtype | None = None, **_kwargs: object
    ) -> tuple[Tensor, Tensor]:
        zero = timestep.new_zeros((), dtype=hidden_dtype)
        return zero.expand(timestep.shape[0], self.modulation), zero.expand(timestep.shape[0], self.width)
