"""Draws a clip and its sound from noise: the official schedule, Euler steps, guidance, and what is given instead of drawn.

A first frame that is given stays clean, at timestep 0, while the rest comes out of the noise beside it; a sound that is given is
clean throughout, at sigma 0, and the picture follows it. Both are what training does with given parts (training/conditions.py).
"""

from __future__ import annotations

import contextlib
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
from ltx2core.validation.guidance import Guidance, combine, perturbing, stg_blocks

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from diffusers import LTX2VideoTransformer3DModel

    from ltx2core.training.reference import Places, Reference
    from ltx2core.validation.guidance import Kind

_SHIFT = math.exp(2.05)  # of 4096 tokens, at any size: what the official pipelines use
_LAST_SIGMA = 0.1
_AUDIO_BINS = 16
DISTILLED_SIGMAS = (1.0, 0.99375, 0.9875, 0.98125, 0.975, 0.909375, 0.725, 0.421875, 0.0)
"""The levels that distilled weights were made for, 8 steps. Source: Lightricks' pipelines, constants."""


@dataclass(frozen=True, slots=True)
class SampledLatents:
    """Normalised latents: video [1, C, f, h, w], audio [1, Z, T, 16]; None for what was not drawn."""

    video: Tensor | None
    audio: Tensor | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Inputs:
    """What a sample is given beside its prompt; nothing by default.

    first_frame: tokens [1, h w, C] of the first latent frame. audio: tokens [1, T, C], the whole sound. reference: what is seen beside
    the noise, as official inference of an IC-LoRA has it. start: latents that noise is added to, of the first sigma, instead of noise.
    """

    first_frame: Tensor | None = None
    audio: Tensor | None = None
    reference: Reference | None = None
    start: SampledLatents | None = None


NOTHING = Inputs()


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
    seed: int,
    guidance: Guidance | float,
    steps: int = 30,
    sigmas: Sequence[float] | None = None,
    inputs: Inputs = NOTHING,
    apart: bool = False,
    on_step: Callable[[int, int], None] | None = None,
) -> SampledLatents:
    """A clip drawn from noise of `seed`; the same seed gives the same noise on every device, whatever is given.

    text, negative_text: single embeddings [T, D]. grid: latent frames, rows, columns, or None for sound alone. audio_steps: audio
    latents, or None for video alone. guidance: a number is plain guidance of both; each kind that is on costs a forward a step.
    steps: of the official schedule; sigmas: another one, from its first level down to 0. apart: one prediction a forward, which takes less
    memory than two. on_step(done, total) may raise to stop.
    """
    if grid is None and audio_steps is None:
        raise ValueError("expected a grid, audio steps or both")
    guidance = guidance if isinstance(guidance, Guidance) else Guidance.plain(guidance)
    levels = list(sigmas) if sigmas is not None else inference_sigmas(steps)
    device, dtype = next(transformer.parameters()).device, (transformer.audio_proj_in if grid is None else transformer.proj_in).weight.dtype
    generator = torch.Generator().manual_seed(seed)
    video = audio = None
    if grid is not None:
        video = _Stream(tokens=torch.randn(1, math.prod(grid), transformer.config.in_channels, generator=generator).to(device))
        video = _started(video, None if inputs.start is None else inputs.start.video, levels[0])
        video = _given_first(video, inputs.first_frame)
    if audio_steps is not None:
        audio = _Stream(tokens=torch.randn(1, audio_steps, transformer.config.audio_in_channels, generator=generator).to(device))
        audio = _started(audio, None if inputs.start is None else inputs.start.audio, levels[0])
        audio = _given_whole(audio, inputs.audio)
    drawn = frozenset({"video"} if video is not None else ()) | frozenset({"audio"} if audio is not None and not audio.frozen else ())
    kinds = guidance.kinds(negative=negative_text is not None, drawn=drawn, both=video is not None and audio is not None)
    blocks = stg_blocks(transformer, guidance.stg_blocks) if "perturbed" in kinds else ()
    predict = _Predict(
        transformer=transformer,
        given=text.to(device, dtype),
        without=None if negative_text is None else negative_text.to(device, dtype),
        kinds=kinds,
        blocks=blocks,
        apart=apart,
        grid=grid,
        fps=fps,
        reference=inputs.reference if grid is not None else None,
        places=None
        if inputs.reference is None or grid is None
        else places(transformer, inputs.reference, grid=grid, fps=torch.full((1,), fps)),
    )
    with perturbing(transformer, blocks) if blocks else contextlib.nullcontext():
        for index, (sigma, following) in enumerate(pairwise(levels)):
            found = predict(video, audio, sigma=sigma, dtype=dtype)
            if video is not None:
                video = video.moved({kind: pair[0] for kind, pair in found.items()}, sigma, following, guidance.video, guidance)
            if audio is not None:
                audio = audio.moved({kind: pair[1] for kind, pair in found.items()}, sigma, following, guidance.audio, guidance)
            if on_step is not None:
                on_step(index + 1, len(levels) - 1)
    return SampledLatents(
        video=None if video is None or grid is None else unpack_video(video.tokens, grid=grid),
        audio=None if audio is None else unpack_audio(audio.tokens, channels=transformer.config.audio_in_channels // _AUDIO_BINS),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Stream:
    """A modality on its way: tokens [1, L, C], float32; drawn [1, L], False where they are given, None where none are."""

    tokens: Tensor
    drawn: Tensor | None = None
    frozen: bool = False  # all are given: its sigma is 0

    def timesteps(self, level: Tensor) -> Tensor:
        """The level of each token, [B, L] or [B, 1] where all have one. level: [B]."""
        return level[:, None] if self.drawn is None else level[:, None] * self.drawn

    def moved(self, velocities: Mapping[Kind, Tensor | None], sigma: float, following: float, scale: float, guidance: Guidance) -> _Stream:
        """One Euler step on."""
        if self.frozen:
            return self
        there = {kind: velocity.float() for kind, velocity in velocities.items() if velocity is not None}
        if guidance.rescale:  # the contrast is that of clean tokens
            levels = sigma if self.drawn is None else sigma * self.drawn[..., None]
            there = {kind: self.tokens - levels * velocity for kind, velocity in there.items()}
        found = combine(there, guidance=scale, stg=guidance.stg, modality=guidance.modality, rescale=guidance.rescale)
        velocity = (self.tokens - found) / sigma if guidance.rescale else found
        if self.drawn is not None:
            velocity = velocity * self.drawn[..., None]
        return _Stream(tokens=self.tokens + (following - sigma) * velocity, drawn=self.drawn)


def _started(stream: _Stream, latents: Tensor | None, sigma: float) -> _Stream:
    """From latents [1, C, ...] with the stream's noise at `sigma`, where there are any."""
    if latents is None:
        return stream
    clean = latents.flatten(2).transpose(1, 2) if latents.ndim == 5 else latents.transpose(1, 2).flatten(2)
    return _Stream(tokens=(1 - sigma) * clean.to(stream.tokens) + sigma * stream.tokens)


def _given_first(stream: _Stream, frame: Tensor | None) -> _Stream:
    if frame is None:
        return stream
    drawn = (torch.arange(stream.tokens.shape[1], device=stream.tokens.device) >= frame.shape[1])[None].float()
    return _Stream(tokens=torch.cat([frame.to(stream.tokens), stream.tokens[:, frame.shape[1] :]], dim=1), drawn=drawn)


def _given_whole(stream: _Stream, tokens: Tensor | None) -> _Stream:
    if tokens is None:
        return stream
    if tokens.shape != stream.tokens.shape:
        raise ValueError(f"expected sound of {[*stream.tokens.shape]}, got {[*tokens.shape]}")
    return _Stream(tokens=tokens.to(stream.tokens), drawn=torch.zeros_like(stream.tokens[..., 0]), frozen=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Predict:
    """Asks the transformer for all that a step combines."""

    transformer: LTX2VideoTransformer3DModel
    given: TextEmbedding
    without: TextEmbedding | None
    kinds: tuple[Kind, ...]
    blocks: tuple[int, ...]
    apart: bool
    grid: tuple[int, int, int] | None
    fps: float
    reference: Reference | None
    places: Places | None  # of its tokens and of the clip's, [1, ...]: the same at every step

    def __call__(
        self, video: _Stream | None, audio: _Stream | None, *, sigma: float, dtype: torch.dtype
    ) -> dict[Kind, tuple[Tensor | None, Tensor | None]]:
        """The velocities of video and audio, [1, L, C], by kind. The first two kinds are one forward of two samples, unless `apart`."""
        found: dict[Kind, tuple[Tensor | None, Tensor | None]] = {}
        if "without" in self.kinds and self.without is not None and not self.apart:
            pair = self._forward(video, audio, sigma=sigma, dtype=dtype, text=TextEmbedding.stack([self.given, self.without]))
            given, without = ([None if part is None else part[index : index + 1] for part in pair] for index in (0, 1))
            found["given"], found["without"] = (given[0], given[1]), (without[0], without[1])
        alone = TextEmbedding.stack([self.given])
        for kind in self.kinds:
            if kind not in found:
                text = TextEmbedding.stack([self.without]) if kind == "without" and self.without is not None else alone
                found[kind] = self._forward(
                    video,
                    audio,
                    sigma=sigma,
                    dtype=dtype,
                    text=text,
                    isolated=kind == "isolated",
                    perturbed=self.blocks if kind == "perturbed" else (),
                )
        return found

    def _forward(
        self,
        video: _Stream | None,
        audio: _Stream | None,
        *,
        sigma: float,
        dtype: torch.dtype,
        text: TextEmbedding,
        isolated: bool = False,
        perturbed: tuple[int, ...] = (),
    ) -> tuple[Tensor | None, Tensor | None]:
        batch, device = text.video.shape[0], text.video.device
        level = torch.full((batch,), sigma, device=device)
        heard = None if audio is None else audio.tokens.expand(batch, -1, -1).to(dtype)
        heard_at = None if audio is None else audio.timesteps(level)
        heard_level = torch.zeros_like(level) if audio is not None and audio.frozen else level
        if video is None or self.grid is None:
            if heard is None or heard_at is None:
                raise ValueError("expected video, audio or both")
            return predict_velocity(
                self.transformer, audio=heard, audio_timesteps=heard_at, audio_sigma=heard_level, text=text, perturbed=perturbed
            )
        tokens, timesteps = video.tokens.expand(batch, -1, -1).to(dtype), video.timesteps(level)
        if self.reference is not None:
            tokens, timesteps = before(self.reference, tokens, timesteps)
        shown, sounding = predict_velocity(
            self.transformer,
            video=tokens,
            video_timesteps=timesteps,
            video_sigma=level,
            audio=heard,
            audio_timesteps=heard_at,
            audio_sigma=heard_level,
            text=text,
            grid=self.grid,
            fps=torch.full((batch,), self.fps),
            positions=None if self.places is None else self.places.positions.expand(batch, -1, -1, -1),
            keyframes=None if self.places is None else self.places.keyframes,
            isolated=isolated,
            perturbed=perturbed,
        )
        return shown[:, -video.tokens.shape[1] :], sounding
