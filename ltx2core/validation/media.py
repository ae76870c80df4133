"""A sample as files: drawn by the model as it is now, decoded, written as mp4 with sound and as three pictures.

Sound alone is written as WAV, and as an mp4 that shows its spectrogram: players, thumbnails and `attach` open that as any sample.
The decoders are loaded for the sample and dropped after it: they are needed for a minute in an hour.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from ltx2core.data.write import write_png, write_video, write_wav
from ltx2core.hardware.free_memory import free_memory
from ltx2core.models.components import load_audio_vae, load_video_vae, load_vocoder
from ltx2core.models.latents import NO_LEVERS, as_bytes, audio_steps_for, decode_mel, decode_video, latent_grid, vocode
from ltx2core.validation.adapters import with_adapters
from ltx2core.validation.sampling import NOTHING, sample_latents
from ltx2core.validation.sheet import contact_sheet
from ltx2core.validation.spectrogram import draw_spectrogram, play_through

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor

    from ltx2core.models.checkpoint import Checkpoint
    from ltx2core.models.text import TextEmbedding
    from ltx2core.models.vae_levers import VaeLevers
    from ltx2core.training.step import Model
    from ltx2core.validation.adapters import Extra
    from ltx2core.validation.guidance import Guidance
    from ltx2core.validation.sampling import Inputs, SampledLatents


REFINING_SIGMAS = (0.909375, 0.725, 0.421875, 0.0)
"""The levels at which an upsampled sample is drawn on. Source: Lightricks' two-stage pipeline."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SampleSettings:
    """What a sample looks like. The seed is the same at every step, so that samples compare."""

    width: int
    height: int
    frames: int
    fps: float
    steps: int
    guidance: Guidance | float  # a number is plain guidance of both
    seed: int
    audio: bool
    video: bool = True
    levers: VaeLevers = NO_LEVERS
    sigmas: tuple[float, ...] | None = None  # noise levels instead of the official ones for `steps`
    apart: bool = False  # the predictions of a step, each in a forward of its own: slower, in less memory
    upsampler: Path | None = None  # the file that makes a sample of half the size this large; None draws in one stage

    @property
    def total_steps(self) -> int:
        """How many steps it is drawn in, over both stages."""
        steps = self.steps if self.sigmas is None else len(self.sigmas) - 1
        return steps if self.upsampler is None else steps + len(REFINING_SIGMAS) - 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Media:
    """A decoded sample: frames uint8 [F, H, W, 3]; sound float32 [2, n] at sample_rate, and its log mel [2, T, 64]. None: not drawn."""

    frames: NDArray[np.uint8] | None
    sound: NDArray[np.float32] | None = None
    mel: NDArray[np.float32] | None = None
    sample_rate: int = 48000


def write_sample(
    model: Model,
    checkpoint: Checkpoint,
    folder: Path,
    *,
    text: TextEmbedding,
    negative: TextEmbedding,
    settings: SampleSettings,
    inputs: Inputs = NOTHING,
    on_step: Callable[[int, int], None] | None = None,
) -> Path:
    """Draw a sample, decode it and write it; the mp4's path. on_step(done, total) may raise to break it off; nothing is written then."""
    latents = draw(model, text=text, negative=negative, settings=settings, inputs=inputs, on_step=on_step)
    return write_media(folder, decode(checkpoint, latents, device=model.device, dtype=model.dtype, levers=settings.levers), settings)


def draw(
    model: Model,
    *,
    text: TextEmbedding,
    negative: TextEmbedding,
    settings: SampleSettings,
    inputs: Inputs = NOTHING,
    extras: Sequence[Extra] = (),
    on_step: Callable[[int, int], None] | None = None,
) -> SampledLatents:
    """The latents of a sample, by the model as it is now. inputs: what is given beside the prompt. extras: further LoRAs."""
    with model.evaluating(), with_adapters(model.transformer, extras):
        return sample_latents(
            model.transformer,
            text=text,
            negative_text=negative,
            grid=latent_grid(width=settings.width, height=settings.height, frames=settings.frames) if settings.video else None,
            audio_steps=audio_steps_for(settings.frames / settings.fps) if settings.audio else None,
            fps=settings.fps,
            steps=settings.steps,
            sigmas=settings.sigmas,
            guidance=settings.guidance,
            seed=settings.seed,
            inputs=inputs,
            apart=settings.apart,
            on_step=on_step,
        )


def write_media(folder: Path, media: Media, settings: SampleSettings) -> Path:
    """Write sample.mp4, first, middle and last .png, and twelve frames in sheet.png into `folder`; the mp4's path.

    Sound alone: sample.wav, its spectrogram.png, and sample.mp4 with both. Raises StorageError when `folder` cannot be written.
    """
    path = folder / "sample.mp4"
    frames = media.frames
    if frames is None:
        frames = _write_sound(folder, media, settings)
    else:
        for name, index in (("first", 0), ("middle", len(frames) // 2), ("last", -1)):
            write_png(folder / f"{name}.png", frames[index])
        write_png(folder / "sheet.png", contact_sheet(frames))
    write_video(path, frames, fps=settings.fps, sound=media.sound, sample_rate=media.sample_rate)
    return path


def _write_sound(folder: Path, media: Media, settings: SampleSettings) -> NDArray[np.uint8]:
    """Write sound alone as WAV and as a picture; the frames of the mp4 that shows it."""
    assert media.sound is not None  # a sample has one of the two
    assert media.mel is not None
    picture = draw_spectrogram(media.mel, width=settings.width, height=settings.height)
    write_wav(folder / "sample.wav", media.sound, sample_rate=media.sample_rate)
    write_png(folder / "spectrogram.png", picture)
    return play_through(picture, frames=settings.frames)


def decode(
    checkpoint: Checkpoint, latents: SampledLatents, *, device: torch.device, dtype: torch.dtype, levers: VaeLevers = NO_LEVERS
) -> Media:
    """The frames and the sound of normalised latents. One decoder is in memory at a time."""
    frames = None if latents.video is None else _decode_frames(checkpoint, latents.video, device=device, dtype=dtype, levers=levers)
    if latents.audio is None:
        return Media(frames=frames)
    audio_vae = load_audio_vae(checkpoint, dtype=torch.float32, device=device)
    vocoder = load_vocoder(checkpoint, dtype=torch.float32, device=device)
    mel = decode_mel(audio_vae, latents.audio)
    waveform, sample_rate = vocode(vocoder, mel)
    del audio_vae, vocoder
    free_memory(device)
    return Media(frames=frames, sound=waveform[0].cpu().numpy(), mel=mel[0].float().cpu().numpy(), sample_rate=sample_rate)


def _decode_frames(
    checkpoint: Checkpoint, latents: Tensor, *, device: torch.device, dtype: torch.dtype, levers: VaeLevers
) -> NDArray[np.uint8]:
    vae = load_video_vae(checkpoint, dtype=dtype, device=device, half="decoder")
    frames: NDArray[np.uint8] = as_bytes(decode_video(vae, latents, levers=levers)[0]).permute(1, 2, 3, 0).cpu().numpy()
    del vae
    free_memory(device)
    return frames
