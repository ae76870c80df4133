"""What samples are given, made ready for the model: a first frame and a sound as latents. Loads torch.

Encoded once, before training: the encoders are in memory then, one at a time, and not beside the transformer.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch

from ltx2core.data.clip import Bucket
from ltx2core.data.decode import decode_frames
from ltx2core.data.media import PICTURES
from ltx2core.data.sound import read_sound
from ltx2core.data.stills import decode_still
from ltx2core.errors import DatasetError
from ltx2core.hardware.free_memory import free_memory
from ltx2core.lora.read import read_lora
from ltx2core.models.components import load_audio_vae, load_video_vae
from ltx2core.models.latents import SAMPLE_RATE, audio_steps_for, encode_sound, encode_video, pack_audio, pack_video
from ltx2core.validation.adapters import Extra
from ltx2core.validation.sampling import NOTHING, Inputs

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from ltx2core.models.checkpoint import Checkpoint
    from ltx2core.training.reference import Reference
    from ltx2core.validation.media import SampleSettings
    from ltx2core.validation.shots import Moment, Shot


@dataclass(frozen=True, slots=True, kw_only=True)
class Take:
    """A shot that is ready to be drawn: its settings, and what it is given, on the device."""

    shot: Shot
    settings: SampleSettings
    inputs: Inputs = NOTHING
    small: Inputs = NOTHING  # the same at half the size, for a first stage
    extras: tuple[Extra, ...] = ()  # LoRAs beside the trained one


def make_takes(
    checkpoint: Checkpoint, shots: Sequence[Shot], settings: SampleSettings, *, device: torch.device, dtype: torch.dtype
) -> tuple[Take, ...]:
    """The shots with what they are given. settings: of all but size and seed. Raises DatasetError when a file has gone since the check."""
    sizes = (1,) if settings.upsampler is None else (1, 2)
    frames = {_frame_key(shot, less): shot.first_frame for shot in shots for less in sizes if shot.first_frame is not None}
    sounds = {shot.sound: shot.sound for shot in shots if shot.sound is not None}
    first = _encode_frames(checkpoint, frames, settings, device=device, dtype=dtype) if frames and settings.video else {}
    heard = _encode_sounds(checkpoint, list(sounds), settings, device=device) if sounds and settings.audio else {}
    loras = {file.path: read_lora(file.path) for shot in shots for file in shot.adapters}
    return tuple(
        Take(
            shot=shot,
            extras=tuple(Extra(lora=loras[file.path], strength=file.strength, stage=file.stage) for file in shot.adapters),
            settings=replace(settings, width=shot.width, height=shot.height, seed=shot.seed),
            inputs=Inputs(first_frame=first.get(_frame_key(shot)), audio=None if shot.sound is None else heard.get(shot.sound)),
            small=Inputs(first_frame=first.get(_frame_key(shot, 2)), audio=None if shot.sound is None else heard.get(shot.sound)),
        )
        for shot in shots
    )


def beside(takes: Sequence[Take], references: dict[tuple[int, int], Reference]) -> tuple[Take, ...]:
    """The takes with the reference of their size, (width, height), and of half of it for a first stage."""
    return tuple(
        replace(
            take,
            inputs=replace(take.inputs, reference=references.get((take.shot.width, take.shot.height))),
            small=replace(take.small, reference=references.get((take.shot.width // 2, take.shot.height // 2))),
        )
        for take in takes
    )


def sizes_of(shots: Sequence[Shot], settings: SampleSettings) -> list[tuple[int, int]]:
    """(width, height) of everything that is drawn, first stages included."""
    sizes = [(shot.width, shot.height) for shot in shots]
    return sizes if settings.upsampler is None else sizes + [(width // 2, height // 2) for width, height in sizes]


def _frame_key(shot: Shot, less: int = 1) -> tuple[Moment | None, int, int]:
    return shot.first_frame, shot.width // less, shot.height // less


def _encode_frames(
    checkpoint: Checkpoint,
    wanted: dict[tuple[Moment | None, int, int], Moment],
    settings: SampleSettings,
    *,
    device: torch.device,
    dtype: torch.dtype,
) -> dict[tuple[Moment | None, int, int], Tensor]:
    """Tokens [1, h w, C] of first frames, each scaled until it covers its size, then cropped to the middle."""
    vae = load_video_vae(checkpoint, dtype=dtype, device=device, half="encoder")
    found = {}
    for key, moment in wanted.items():
        bucket = Bucket(width=key[1], height=key[2], frames=1)
        if moment.path.suffix.lower() in PICTURES:
            pixels = decode_still(moment.path, bucket=bucket)
        else:
            pixels = decode_frames(moment.path, bucket=bucket, fps=settings.fps, start=moment.start)
        latents = encode_video(vae, torch.from_numpy(pixels).permute(3, 0, 1, 2)[None], levers=settings.levers)
        found[key] = pack_video(latents)
    del vae
    free_memory(device)
    return found


def _encode_sounds(
    checkpoint: Checkpoint, wanted: Sequence[Moment], settings: SampleSettings, *, device: torch.device
) -> dict[Moment, Tensor]:
    """Tokens [1, T, C] of the sounds, as long as the samples."""
    audio_vae = load_audio_vae(checkpoint, dtype=torch.float32, device=device)
    seconds = settings.frames / settings.fps
    found = {}
    for moment in wanted:
        sound = read_sound(moment.path, seconds=seconds, sample_rate=SAMPLE_RATE, begin=moment.start)
        if sound is None:
            raise DatasetError(f"{moment.path} has no sound any more.", fix="Put it back.")
        found[moment] = pack_audio(encode_sound(audio_vae, torch.from_numpy(sound.samples)[None], steps=audio_steps_for(seconds)))
    del audio_vae
    free_memory(device)
    return found
