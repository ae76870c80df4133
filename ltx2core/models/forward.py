"""One call of the transformer, computed as Lightricks' code computes it today. The training objective and the sampler both go through here.

diffusers' model differs in one place: it feeds one timestep to both halves of the cross-modal modulation, where the official code
takes scale and shift from the modality's own per-token timestep and the gate from the other modality's sigma. Forward pre-hooks put
that right from outside (checked against the official outputs in tests/models).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, overload

import torch
from torch import Tensor, nn

from ltx2core.models.modalities import has
from ltx2core.models.rope import Positions, keep_tables

if TYPE_CHECKING:
    from collections.abc import Sequence

    from diffusers import LTX2VideoTransformer3DModel

    from ltx2core.models.text import TextEmbedding

STILL_FPS = 24.0


@overload
def predict_velocity(
    transformer: LTX2VideoTransformer3DModel,
    *,
    video: Tensor,
    video_timesteps: Tensor,
    video_sigma: Tensor,
    audio: Tensor | None,
    audio_timesteps: Tensor | None,
    audio_sigma: Tensor | None,
    text: TextEmbedding,
    grid: tuple[int, int, int],
    fps: Tensor,
    positions: Tensor | None = None,
    keyframes: Tensor | None = None,
    isolated: bool = False,
    perturbed: Sequence[int] = (),
) -> tuple[Tensor, Tensor | None]: ...


@overload
def predict_velocity(
    transformer: LTX2VideoTransformer3DModel,
    *,
    video: None = None,
    audio: Tensor,
    audio_timesteps: Tensor,
    audio_sigma: Tensor,
    text: TextEmbedding,
    perturbed: Sequence[int] = (),
) -> tuple[None, Tensor]: ...


def predict_velocity(
    transformer: LTX2VideoTransformer3DModel,
    *,
    video: Tensor | None = None,
    video_timesteps: Tensor | None = None,
    video_sigma: Tensor | None = None,
    audio: Tensor | None,
    audio_timesteps: Tensor | None,
    audio_sigma: Tensor | None,
    text: TextEmbedding,
    grid: tuple[int, int, int] = (1, 1, 1),
    fps: Tensor | None = None,
    positions: Tensor | None = None,
    keyframes: Tensor | None = None,
    isolated: bool = False,
    perturbed: Sequence[int] = (),
) -> tuple[Tensor | None, Tensor | None]:
    """The predicted velocities (noise - clean) of the video tokens [B, L, C] and of the audio tokens [B, La, Ca], where they are given.

    video: [B, L, C] noisy tokens, L = f * h * w of grid. audio: [B, La, Ca]. Without one of them the other is alone.
    video_timesteps, audio_timesteps: [B, L] and [B, La], noise level of each token, 0..1 (0 where a token is given clean); [B, 1] where
    all tokens have one, which saves a modulation for each.
    video_sigma, audio_sigma: [B], noise level of the modality. text: embeddings [B, T, D], dense, so there is no mask.
    fps: [B], frames a second of each sample, on the CPU: its values say whether the rotary tables are known. A still has none and is
    taken at 24, as inference takes it.
    positions: [B, 3, L, 2], for tokens that are no plain grid, instead of grid and fps; their tables are computed in each call.
    keyframes: [B, L, 1], not 0 for tokens that stand for a single frame. Models that mark those (2.5) get by default the first latent
    frame of the grid marked, as official inference has it; tokens that are no plain grid get no mark.
    isolated: picture and sound do not see each other. perturbed: blocks that skip their self-attention, made able to by
    validation/guidance.py. Both are what guidance points away from.
    Raises ValueError for a modality that the transformer was loaded without.
    """
    if (video is not None and not has(transformer, "video")) or (audio is not None and not has(transformer, "audio")):
        raise ValueError("this transformer was loaded without a modality that it is given")
    given = video if video is not None else audio
    if given is None:
        raise ValueError("expected video, audio or both")
    config, batch, alone = transformer.config, given.shape[0], isolated or video is None or audio is None
    if keyframes is None and video is not None and positions is None and config.use_keyframes_abs_pos_embedding:
        keyframes = first_frame(grid, device=given.device)
    rates = (STILL_FPS,) * batch if fps is None or grid[0] == 1 else tuple(fps.tolist())
    shown = _stream(video, video_timesteps, video_sigma, given=given, channels=config.in_channels)
    heard = _stream(audio, audio_timesteps, audio_sigma, given=given, channels=config.audio_in_channels)
    scale = float(config.timestep_scale_multiplier)
    video_velocity, audio_velocity = transformer(
        hidden_states=shown.tokens,
        audio_hidden_states=heard.tokens,
        encoder_hidden_states=text.video,
        audio_encoder_hidden_states=text.audio,
        timestep=shown.timesteps * scale,
        audio_timestep=heard.timesteps * scale,
        sigma=shown.sigma * scale,
        audio_sigma=heard.sigma * scale,
        video_coords=Positions(grid, rates, alone) if positions is None else positions,
        audio_coords=Positions((heard.tokens.shape[1],), (1.0,) * batch, alone),
        isolate_modalities=alone,
        spatio_temporal_guidance_blocks=list(perturbed) or None,
        use_cross_timestep=True,
        video_keyframes_mask=keyframes,
        return_dict=False,
    )
    return None if video is None else video_velocity, None if audio is None else audio_velocity


def first_frame(grid: tuple[int, int, int], *, device: torch.device | str = "cpu") -> Tensor:
    """[1, L, 1], 1 on the tokens of the first latent frame, which stands for one picture where the others stand for eight."""
    frames, height, width = grid
    return (torch.arange(frames * height * width, device=device) < height * width).float()[None, :, None]


@dataclass(frozen=True, slots=True)
class _Stream:
    """A modality as the model takes it: tokens [B, L, C], timesteps [B, L], sigma [B]."""

    tokens: Tensor
    timesteps: Tensor
    sigma: Tensor


def _stream(tokens: Tensor | None, timesteps: Tensor | None, sigma: Tensor | None, *, given: Tensor, channels: int) -> _Stream:
    """What is there, or one clean token of zeros: diffusers cannot leave a modality out, but a token cut off from the other modality
    is bit-equal to having none."""
    if tokens is None:
        none = torch.zeros(given.shape[0], 1, device=given.device)
        return _Stream(given.new_zeros(given.shape[0], 1, channels), none, none[:, 0])
    if timesteps is None or sigma is None:
        raise ValueError("expected timesteps and sigma with the tokens")
    return _Stream(tokens, timesteps, sigma)


def follow_official_code(transformer: LTX2VideoTransformer3DModel) -> None:
    """Make a transformer of diffusers ready for `predict_velocity`, by hooks on its own modules."""
    _correct_cross_timesteps(transformer)
    keep_tables(transformer)


def _correct_cross_timesteps(transformer: LTX2VideoTransformer3DModel) -> None:
    """Make `use_cross_timestep=True` mean what the official code does."""
    own: dict[str, Tensor] = {}

    def remember(_module: nn.Module, _args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        # Alone, a modality has no use for the answers, and a modulation for each token is work and memory: one a sample does.
        kinds = ("sigma", "audio_sigma") if kwargs.get("isolate_modalities") else ("timestep", "audio_timestep")
        own["video"], own["audio"] = (kwargs[kind].flatten() for kind in kinds)

    def give_video(_module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        return (own["video"], *args[1:]), kwargs

    def give_audio(_module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        return (own["audio"], *args[1:]), kwargs

    transformer.register_forward_pre_hook(remember, with_kwargs=True)
    transformer.av_cross_attn_video_scale_shift.register_forward_pre_hook(give_video, with_kwargs=True)
    transformer.av_cross_attn_audio_scale_shift.register_forward_pre_hook(give_audio, with_kwargs=True)
