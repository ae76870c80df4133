"""Draws a clip and its sound from noise: the official schedule, Euler steps, classifier-free guidance."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ltx2core.models.forward import predict_velocity
from ltx2core.models.latents import unpack_audio, unpack_video
from ltx2core.models.text import TextEmbedding
from ltx2core.training.reference import before, places

if TYPE_CHECKING:
    from collections.abc import Callable

    from diffusers import LTX2VideoTransformer3DModel

    from ltx2core.training.reference import Places, Reference

_SHIFT = math.exp(2.05)  # of 4096 tokens, at any size: what the official pipelines use
_LAST_SIGMA = 0.1
_AUDIO_BINS = 16


@dataclass(frozen=True, slots=True)
class SampledLatents:
    """Normalised latents: video [1, C, f, h, w], audio [1, Z, T, 16]; None for what was not drawn."""

    video: Tensor | None
    audio: Tensor | None


def inference_sigmas(steps: int) -> list[float]:
    """steps + 1 noise levels from 1 to 0: evenly spaced, shifted to exp(mu) / (exp(mu) + 1/s - 1), stretched so that the last
    one before 0 is 0.1. Source: the scheduler of Lightricks' pipelines (mu = 2.05 at every size)."""
    if steps < 1:
        raise ValueError(f"expected at least one step, got {steps}")
    even = [1 - index / steps for index in range(steps)]
    shifted = [min(1.0, _SHIFT / (_SHIFT + 1 / sigma - 1)) for sigma in even]
    stretch = (1 - shifted[-1]) / (1 - _LAST_SIGMA) if steps > 1 else 1.0
    return [*(1 - (1 - sigma) / stretch for sigma in shifted), 0.0]


@torch.no_grad()
def sample_latents(
    transformer: LTX2VideoTransformer3DModel,
    *,
    text: TextEmbedding,
    negative_text: TextEmbedding | None,
    grid: tuple[int, int, int] | None,
    audio_steps: int | None,
    fps: float,
    steps: int,
    guidance: float,
    seed: int,
    reference: Reference | None = None,
    on_step: Callable[[int, int], None] | None = None,
) -> SampledLatents:
    """A clip drawn from noise of `seed`; the same seed gives the same noise on every device.

    text, negative_text: single embeddings [T, D]; without a negative one, or with guidance 1, each step costs one forward instead
    of two. grid: latent frames, rows, columns, or None for sound alone. audio_steps: audio latents, or None for video alone.
    reference: one clip that is seen beside the noise at every step, as official inference of an IC-LoRA has it, with the prompt and
    without. on_step(done, total) may raise to stop.
    """
    if grid is None and audio_steps is None:
        raise ValueError("expected a grid, audio steps or both")
    device, dtype = next(transformer.parameters()).device, (transformer.audio_proj_in if grid is None else transformer.proj_in).weight.dtype
    guided = negative_text is not None and guidance != 1
    texts = TextEmbedding.stack([text, negative_text] if guided and negative_text is not None else [text]).to(device, dtype)
    batch = texts.video.shape[0]
    generator = torch.Generator().manual_seed(seed)
    video = None if grid is None else torch.randn(1, math.prod(grid), transformer.config.in_channels, generator=generator).to(device)
    channels = transformer.config.audio_in_channels
    audio = None if audio_steps is None else torch.randn(1, audio_steps, channels, generator=generator).to(device)
    rates = torch.full((batch,), fps)
    beside = None
    if reference is not None and grid is not None:
        beside = _Beside(reference, places(transformer, reference, grid=grid, fps=rates))
    sigmas = inference_sigmas(steps)
    for index, (sigma, following) in enumerate(pairwise(sigmas)):
        level = torch.full((batch,), sigma, device=device)
        shown, heard = (None if tokens is None else tokens.expand(batch, -1, -1).to(dtype) for tokens in (video, audio))
        velocities = _velocities(transformer, shown, heard, level=level, text=texts, grid=grid, fps=rates, beside=beside)
        video, audio = (
            tokens if tokens is None or velocity is None else tokens + (following - sigma) * _guide(velocity, guidance)
            for tokens, velocity in zip((video, audio), velocities, strict=True)
        )
        if on_step is not None:
            on_step(index + 1, steps)
    return SampledLatents(
        video=None if video is None or grid is None else unpack_video(video, grid=grid),
        audio=None if audio is None else unpack_audio(audio, channels=channels // _AUDIO_BINS),
    )


@dataclass(frozen=True, slots=True)
class _Beside:
    """A reference and where it lies, which is the same at every step."""

    reference: Reference
    places: Places


def _velocities(
    transformer: LTX2VideoTransformer3DModel,
    video: Tensor | None,
    audio: Tensor | None,
    *,
    level: Tensor,
    text: TextEmbedding,
    grid: tuple[int, int, int] | None,
    fps: Tensor,
    beside: _Beside | None,
) -> tuple[Tensor | None, Tensor | None]:
    """The velocities of noisy tokens that are all at one level, [B]; None for what is not there."""
    heard = None if audio is None else level[:, None]
    if video is not None and grid is not None:
        tokens, timesteps = video, level[:, None]
        if beside is not None:
            tokens, timesteps = before(beside.reference, tokens, timesteps)
        shown, sounding = predict_velocity(
            transformer,
            video=tokens,
            video_timesteps=timesteps,
            video_sigma=level,
            audio=audio,
            audio_timesteps=heard,
            audio_sigma=level,
            text=text,
            grid=grid,
            fps=fps,
            positions=None if beside is None else beside.places.positions,
            keyframes=None if beside is None else beside.places.keyframes,
        )
        return shown[:, -video.shape[1] :], sounding
    if audio is None or heard is None:
        raise ValueError("expected video, audio or both")
    return predict_velocity(transformer, audio=audio, audio_timesteps=heard, audio_sigma=level, text=text)


def _guide(velocity: Tensor, guidance: float) -> Tensor:
    """[1, L, C] of [conditional, unconditional]: conditional + (guidance - 1) (conditional - unconditional), in float32."""
    velocity = velocity.float()
    if velocity.shape[0] == 1:
        return velocity
    given, without = velocity.chunk(2)
    return given + (guidance - 1) * (given - without)
