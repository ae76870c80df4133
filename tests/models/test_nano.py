"""The embedded model must really model: what it reconstructs, and whether what it draws is what was asked for."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch

from ltx2core.models import components, latents
from ltx2core.models.checkpoint import Checkpoint, open_checkpoint
from ltx2core.models.nano import clips, nano_checkpoint, nano_text_encoder
from ltx2core.models.nano.architecture import HEADER, build
from ltx2core.models.nano.measure import look, psnr
from ltx2core.models.nano.vocabulary import caption
from ltx2core.models.text import embed_captions, load_text_encoder
from ltx2core.validation.sampling import sample_latents

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

F32 = torch.float32


@pytest.fixture(scope="module")
def checkpoint() -> Checkpoint:
    return open_checkpoint(nano_checkpoint())


def to_frames(pixels: torch.Tensor) -> NDArray[np.uint8]:
    """uint8 [N, F, H, W, 3] of pixels [N, 3, F, H, W] in -1..1."""
    frames: NDArray[np.uint8] = ((pixels + 1) * 127.5).round().clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 4, 1).numpy()
    return frames


def test_nano_fits_in_24_megabytes_and_says_what_it_is(checkpoint: Checkpoint) -> None:
    files = [nano_checkpoint(), *nano_text_encoder().iterdir()]
    assert sum(path.stat().st_size for path in files) <= 24_000_000
    assert checkpoint.config == HEADER
    assert checkpoint.version.startswith("2.0")


def test_held_out_clips_are_reconstructed_at_28_decibels(checkpoint: Checkpoint) -> None:
    vae = components.load_video_vae(checkpoint, dtype=F32)
    generator = torch.Generator().manual_seed(2024)
    scenes = clips.scenes_of(clips.random_words(12, generator, held_out=True), generator)
    pixels = clips.render_video(scenes, width=128, height=128, frames=17, fps=25)
    found = latents.decode_video(vae, latents.encode_video(vae, pixels))
    assert psnr(to_frames(found), to_frames(pixels)) >= 28


def test_a_tone_keeps_its_pitch_through_audio_vae_and_vocoder(checkpoint: Checkpoint) -> None:
    audio_vae, vocoder = components.load_audio_vae(checkpoint, dtype=F32), components.load_vocoder(checkpoint, dtype=F32)
    generator = torch.Generator().manual_seed(5)
    words = [item for item in clips.random_words(40, generator) if item.sound == "humming"][:8]
    scenes = clips.scenes_of(words, generator)
    sound = clips.render_sound(scenes, seconds=0.68, sample_rate=latents.SAMPLE_RATE)
    found, rate = latents.decode_sound(audio_vae, vocoder, latents.encode_sound(audio_vae, sound))
    spectrum = torch.fft.rfft(found.mean(dim=1)).abs()
    heard = torch.fft.rfftfreq(found.shape[-1], 1 / rate)[spectrum.argmax(dim=1)]
    octaves = (heard / scenes.pitch).log2().abs()
    assert (octaves < 0.17).float().mean() >= 0.75, octaves  # two semitones


@pytest.fixture(scope="module")
def followed(checkpoint: Checkpoint) -> tuple[int, int]:
    """Of 50 held-out captions: how many clips have the colour, and how many both colour and direction. In four steps, all have both."""
    transformer = components.load_transformer(checkpoint, dtype=F32)
    vae = components.load_video_vae(checkpoint, dtype=F32)
    words = clips.random_words(50, torch.Generator().manual_seed(77), held_out=True)
    encoder, connectors = load_text_encoder(nano_text_encoder(), dtype=F32), components.load_connectors(checkpoint, dtype=F32)
    *texts, nothing = embed_captions([*(caption(item, index) for index, item in enumerate(words)), ""], encoder, connectors)
    colour = both = 0
    for index, (item, text) in enumerate(zip(words, texts, strict=True)):
        drawn = sample_latents(
            transformer, text=text, negative_text=nothing, grid=(3, 4, 4), audio_steps=17, fps=25, steps=4, guidance=3.0, seed=index
        )
        seen = look(to_frames(latents.decode_video(vae, drawn.video))[0])
        colour += seen.colour == item.colour
        both += (seen.colour, seen.direction) == (item.colour, item.direction)
    return colour, both


@pytest.mark.slow
def test_a_generated_clip_has_the_colour_of_its_caption(followed: tuple[int, int]) -> None:
    assert followed[0] >= 45, f"{followed[0]} of 50 colours right"


@pytest.mark.slow
def test_a_generated_clip_has_the_colour_and_the_direction_of_its_caption(followed: tuple[int, int]) -> None:
    assert followed[1] >= 40, f"{followed[1]} of 50 captions followed"


def test_fresh_weights_are_the_same_for_the_same_seed() -> None:
    first, second, other = (build(seed=seed).transformer.state_dict() for seed in (3, 3, 4))
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert not all(torch.equal(first[name], other[name]) for name in first)


def test_a_training_step_of_a_stage_is_the_same_twice() -> None:
    from ltx2core.models.nano.autoencoders import train_audio_vae

    def trained() -> dict[str, torch.Tensor]:
        modules = build(seed=0)
        train_audio_vae(modules, 2, torch.device("cpu"), batch=2)
        return modules.audio_vae.state_dict()

    first, second = trained(), trained()
    assert all(torch.equal(first[name], second[name]) for name in first)
