"""One call of the transformer, computed as Lightricks' code computes it today. The training objective and the sampler both go through here.

diffusers' model differs in one place: it feeds one timestep to both halves of the cross-modal modulation, where the official code
takes scale and shift from the modality's own per-token timestep and the gate from the other modality's sigma. Two forward
pre-hooks put that right from outside (checked against the official outputs in tests/models).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from diffusers import LTX2VideoTransformer3DModel

    from ltx2core.models.text import TextEmbedding

AUDIO_MODULES = ("audio_attn1", "audio_attn2", "audio_ff", "audio_to_video_attn", "video_to_audio_attn")


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
) -> tuple[Tensor, Tensor | None]:
    """The predicted velocities (noise - clean) of the video tokens [B, L, C] and, where audio is given, the audio tokens [B, La, Ca].

    video: [B, L, C] noisy tokens, L = f * h * w of grid. audio: [B, La, Ca], or None for video alone.
    video_timesteps, audio_timesteps: [B, L] and [B, La], noise level of each token, 0..1 (0 where a token is given clean).
    video_sigma, audio_sigma: [B], noise level of the modality. text: embeddings [B, T, D]. fps: [B], frames a second of each sample.
    """
    batch = video.shape[0]
    isolated = audio is None
    if audio is None or audio_timesteps is None or audio_sigma is None:
        # diffusers cannot leave audio out; one token, cut off from the video, is bit-equal to having none.
        audio = video.new_zeros(batch, 1, transformer.config.audio_in_channels)
        audio_timesteps, audio_sigma = video_timesteps.new_zeros(batch, 1), video_sigma.new_zeros(batch)
    scale = float(transformer.config.timestep_scale_multiplier)
    video_velocity, audio_velocity = transformer(
        hidden_states=video,
        audio_hidden_states=audio,
        encoder_hidden_states=text.video,
        audio_encoder_hidden_states=text.audio,
        timestep=video_timesteps * scale,
        audio_timestep=audio_timesteps * scale,
        sigma=video_sigma * scale,
        audio_sigma=audio_sigma * scale,
        video_coords=video_positions(transformer, grid, fps),
        audio_num_frames=audio.shape[1],
        isolate_modalities=isolated,
        use_cross_timestep=True,
        return_dict=False,
    )
    return video_velocity, None if isolated else audio_velocity


def video_positions(transformer: LTX2VideoTransformer3DModel, grid: tuple[int, int, int], fps: Tensor) -> Tensor:
    """[B, 3, L, 2]: start and end of every token: time in seconds by its own sample's fps, height and width in pixels."""
    frames, height, width = grid
    positions: Tensor = transformer.rope.prepare_video_coords(fps.shape[0], frames, height, width, fps.device, fps=1.0)
    positions = positions.float().clone()  # the clone: diffusers hands out an expanded view
    positions[:, 0] /= fps.float()[:, None, None]
    return positions


def correct_cross_timesteps(transformer: LTX2VideoTransformer3DModel) -> None:
    """Make `use_cross_timestep=True` mean what the official code does, by hooks on the model's own modules."""
    own: dict[str, Tensor] = {}

    def remember(_module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        own["video"], own["audio"] = kwargs["timestep"].flatten(), kwargs["audio_timestep"].flatten()

    def give_video(_module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        return (own["video"], *args[1:]), kwargs

    def give_audio(_module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        return (own["audio"], *args[1:]), kwargs

    transformer.register_forward_pre_hook(remember, with_kwargs=True)
    transformer.av_cross_attn_video_scale_shift.register_forward_pre_hook(give_video, with_kwargs=True)
    transformer.av_cross_attn_audio_scale_shift.register_forward_pre_hook(give_audio, with_kwargs=True)


class _NoAudio(nn.Module):
    """Stands where an audio module was: adds nothing to what it is given."""

    def forward(self, hidden_states: Tensor, *_args: object, **_kwargs: object) -> Tensor:
        return torch.zeros_like(hidden_states)


def remove_audio(transformer: LTX2VideoTransformer3DModel) -> None:
    """Take the audio modules out of every block: 30 % of the weights, and no LoRA can land on them.

    Bit-equal for the video as long as the model is called without audio (`isolate_modalities`).
    """
    for block in transformer.transformer_blocks:
        for name in AUDIO_MODULES:
            setattr(block, name, _NoAudio())
