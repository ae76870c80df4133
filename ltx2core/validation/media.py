"""A sample as files: drawn by the model as it is now, decoded, written as mp4 with sound and as three pictures.

The decoders are loaded for the sample and dropped after it: they are needed for a minute in an hour.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from ltx2core.caching.passes import free_memory
from ltx2core.data.write import write_png, write_video
from ltx2core.models.components import load_audio_vae, load_video_vae, load_vocoder
from ltx2core.models.latents import NO_LEVERS, as_bytes, audio_steps_for, decode_sound, decode_video, latent_grid
from ltx2core.validation.sampling import sample_latents

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray

    from ltx2core.models.checkpoint import Checkpoint
    from ltx2core.models.text import TextEmbedding
    from ltx2core.models.vae_levers import VaeLevers
    from ltx2core.training.step import Model
    from ltx2core.validation.sampling import SampledLatents


@dataclass(frozen=True, slots=True, kw_only=True)
class SampleSettings:
    """What a sample looks like. The seed is the same at every step, so that samples compare."""

    width: int
    height: int
    frames: int
    fps: float
    steps: int
    guidance: float
    seed: int
    audio: bool
    levers: VaeLevers = NO_LEVERS


@dataclass(frozen=True, slots=True, kw_only=True)
class Media:
    """A decoded sample: frames uint8 [F, H, W, 3]; sound float32 [2, n] at sample_rate, or None."""

    frames: NDArray[np.uint8]
    sound: NDArray[np.float32] | None = None
    sample_rate: int = 48000


def write_sample(
    model: Model,
    checkpoint: Checkpoint,
    folder: Path,
    *,
    text: TextEmbedding,
    negative: TextEmbedding,
    settings: SampleSettings,
    on_step: Callable[[int, int], None] | None = None,
) -> Path:
    """Draw a sample and write sample.mp4 and first, middle and last .png into `folder`; the mp4's path.

    on_step(done, total) may raise to break it off; nothing is written then. Raises StorageError when `folder` cannot be written.
    """
    with model.evaluating():
        latents = sample_latents(
            model.transformer,
            text=text,
            negative_text=negative,
            grid=latent_grid(width=settings.width, height=settings.height, frames=settings.frames),
            audio_steps=audio_steps_for(settings.frames / settings.fps) if settings.audio else None,
            fps=settings.fps,
            steps=settings.steps,
            guidance=settings.guidance,
            seed=settings.seed,
            on_step=on_step,
        )
    media = decode(checkpoint, latents, device=model.device, dtype=model.dtype, levers=settings.levers)
    path = folder / "sample.mp4"
    write_video(path, media.frames, fps=settings.fps, sound=media.sound, sample_rate=media.sample_rate)
    for name, index in (("first", 0), ("middle", len(media.frames) // 2), ("last", -1)):
        write_png(folder / f"{name}.png", media.frames[index])
    return path


def decode(
    checkpoint: Checkpoint, latents: SampledLatents, *, device: torch.device, dtype: torch.dtype, levers: VaeLevers = NO_LEVERS
) -> Media:
    """The frames and the sound of normalised latents. One decoder is in memory at a time."""
    vae = load_video_vae(checkpoint, dtype=dtype, device=device, half="decoder")
    frames = as_bytes(decode_video(vae, latents.video, levers=levers)[0]).permute(1, 2, 3, 0).cpu().numpy()
    del vae
    free_memory(device)
    if latents.audio is None:
        return Media(frames=frames)
    audio_vae = load_audio_vae(checkpoint, dtype=torch.float32, device=device)
    vocoder = load_vocoder(checkpoint, dtype=torch.float32, device=device)
    waveform, sample_rate = decode_sound(audio_vae, vocoder, latents.audio)
    sound = waveform[0].cpu().numpy()
    del audio_vae, vocoder
    free_memory(device)
    return Media(frames=frames, sound=sound, sample_rate=sample_rate)
