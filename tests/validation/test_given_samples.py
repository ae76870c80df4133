"""What a sample is given decides what it shows: a first frame is its first frame, and its picture follows a sound."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from nano_world import AUDIO_STEPS, FPS, FRAMES, scenes, shape_size, world

from ltx2core.models.nano import clips
from ltx2core.models.nano.measure import psnr
from ltx2core.validation.sampling import Inputs, inference_sigmas, sample_latents

SEEDS = range(8)


def test_image_to_video_begins_with_the_given_frame_and_text_to_video_does_not() -> None:
    pixels = clips.render_video(scenes(3, seed=1), width=128, height=128, frames=FRAMES, fps=FPS)
    for index in range(3):
        given = pixels[index : index + 1]
        inputs = Inputs(first_frame=world().first_frame(given))
        wanted = ((given[0, :, 0] + 1) * 127.5).round().to(torch.uint8).permute(1, 2, 0).numpy()
        assert psnr(world().frames(world().draw(seed=index, inputs=inputs))[0], wanted) >= 25  # dB
        assert psnr(world().frames(world().draw(seed=index))[0], wanted) < 23


def test_a_given_first_frame_is_not_the_whole_clip() -> None:
    pixels = clips.render_video(scenes(1, seed=1), width=128, height=128, frames=FRAMES, fps=FPS)
    frames = world().frames(world().draw(inputs=Inputs(first_frame=world().first_frame(pixels))))
    assert psnr(frames[-1], frames[0]) < 25


@pytest.fixture(scope="module")
def followed() -> tuple[float, float]:
    """Correlations, over 8 seeds, of a sound's pitch in octaves with the size of the shape: where the sound is given, and where not.

    In nano's world the smaller a shape the higher its tone, and no caption says either (models/nano/clips.py).
    """
    sounding = scenes(len(SEEDS), seed=3)
    waveforms = clips.render_sound(sounding, seconds=FRAMES / FPS, sample_rate=16000)
    octaves = [math.log2(float(pitch)) for pitch in sounding.pitch]
    heard = [
        shape_size(world().frames(world().draw(seed=seed, inputs=Inputs(audio=world().sound(waveforms[seed : seed + 1])))))
        for seed in SEEDS
    ]
    unheard = [shape_size(world().frames(world().draw(seed=seed))) for seed in SEEDS]
    return float(np.corrcoef(octaves, heard)[0, 1]), float(np.corrcoef(octaves, unheard)[0, 1])


def test_sound_to_video_follows_the_given_sound(followed: tuple[float, float]) -> None:
    assert followed[0] <= -0.7, followed


def test_text_to_video_does_not_follow_a_sound_it_is_not_given(followed: tuple[float, float]) -> None:
    assert abs(followed[1]) < 0.5, followed


def test_a_given_sound_comes_out_as_it_went_in() -> None:
    waveform = clips.render_sound(scenes(1, seed=3), seconds=FRAMES / FPS, sample_rate=16000)
    tokens = world().sound(waveform)
    drawn = world().draw(steps=2, inputs=Inputs(audio=tokens))
    assert drawn.audio is not None
    assert torch.equal(drawn.audio.transpose(1, 2).flatten(2), tokens)


def test_a_sound_of_another_length_is_refused() -> None:
    with pytest.raises(ValueError, match=f"expected sound of \\[1, {AUDIO_STEPS}"):
        world().draw(inputs=Inputs(audio=torch.zeros(1, AUDIO_STEPS - 1, 128)))


def test_starting_latents_come_back_where_no_noise_is_added() -> None:
    first = world().draw(steps=2)
    given, nothing = world().texts
    again = sample_latents(
        world().transformer,
        text=given,
        negative_text=nothing,
        grid=(3, 4, 4),
        audio_steps=AUDIO_STEPS,
        fps=FPS,
        seed=1,
        guidance=1.0,
        sigmas=(0.02, 0.0),
        inputs=Inputs(start=first),
    )
    assert first.video is not None
    assert again.video is not None
    assert torch.nn.functional.mse_loss(again.video, first.video) < 0.01 * first.video.var()


def test_the_official_schedule_falls_from_one_to_a_tenth_and_then_to_nothing() -> None:
    sigmas = inference_sigmas(30)
    assert sigmas[0] == 1
    assert sigmas[-2] == pytest.approx(0.1)
    assert sigmas[-1] == 0
    assert all(a > b for a, b in pairwise(sigmas))
