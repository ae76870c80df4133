"""Reference clips (IC-LoRA): clean tokens that the transformer sees before the noisy ones, at places in time and space of their own.

They have timestep 0 and no loss, and what the model says of them is cut off: in training and in samples alike. Source: the official
trainer's reference condition.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from ltx2core.models.forward import first_frame
from ltx2core.models.rope import video_positions
from ltx2core.training.objective import to_device

if TYPE_CHECKING:
    from diffusers import LTX2VideoTransformer3DModel
    from torch import Tensor

    from ltx2core.caching.passes import References


@dataclass(frozen=True, slots=True, kw_only=True)
class Reference:
    """The references of a batch: tokens [B, Lr, C], clean, of `grid` latent frames, rows and columns; `seen`: their scale."""

    tokens: Tensor
    grid: tuple[int, int, int]
    seen: References


@dataclass(frozen=True, slots=True, kw_only=True)
class Places:
    """Where reference tokens and a clip's lie: positions [B, 3, Lr + L, 2]; keyframes [1, Lr + L, 1] for models that mark those."""

    positions: Tensor
    keyframes: Tensor | None


def places(transformer: LTX2VideoTransformer3DModel, reference: Reference, *, grid: tuple[int, int, int], fps: Tensor) -> Places:
    """Places of the reference tokens and then of the clip's, on the reference's device. grid, fps [B]: the clip's."""
    return Places(
        positions=to_device(joint_positions(transformer, reference, grid=grid, fps=fps), reference.tokens.device),
        keyframes=joint_keyframes(transformer, reference, grid=grid),
    )


def before(reference: Reference, tokens: Tensor, timesteps: Tensor) -> tuple[Tensor, Tensor]:
    """Tokens [B, Lr + L, C] and timesteps [B, Lr + L] with the reference's, clean and at 0, before the clip's."""
    clean = reference.tokens.to(tokens.dtype).expand(tokens.shape[0], -1, -1)
    of_each = timesteps.expand(tokens.shape[:2])
    return torch.cat([clean, tokens], dim=1), torch.cat([timesteps.new_zeros(clean.shape[:2]), of_each], dim=1)


def joint_positions(transformer: LTX2VideoTransformer3DModel, reference: Reference, *, grid: tuple[int, int, int], fps: Tensor) -> Tensor:
    """Positions of the reference tokens and then of the clip's: [B, 3, Lr + L, 2].

    A reference s times smaller is stretched over the same pixels, one S times slower over the same seconds: its frames lie at
    t - (S - 1) / fps, not before 0, as the first latent frame stands for one frame in both.
    """
    smaller, slower = reference.seen.smaller, reference.seen.slower
    places = video_positions(transformer, reference.grid, fps / slower)
    places[:, 1:] *= smaller
    if slower > 1:
        places[:, 0] = (places[:, 0] - (slower - 1) / fps.float()[:, None, None]).clamp(min=0)
    return torch.cat([places, video_positions(transformer, grid, fps)], dim=2)


def joint_keyframes(transformer: LTX2VideoTransformer3DModel, reference: Reference, *, grid: tuple[int, int, int]) -> Tensor | None:
    """[1, Lr + L, 1] for models that mark tokens of a single frame: the first latent frame of both; None for the others."""
    if not transformer.config.use_keyframes_abs_pos_embedding:
        return None
    device = reference.tokens.device
    return torch.cat([first_frame(reference.grid, device=device), first_frame(grid, device=device)], dim=1)
