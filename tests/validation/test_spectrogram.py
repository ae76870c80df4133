"""Sound as a picture."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from ltx2core.models.latents import SAMPLE_RATE, log_mel
from ltx2core.validation.spectrogram import draw_spectrogram, play_through


def _tone(hz: float, seconds: float = 1.0, level: float = 0.5) -> np.ndarray:
    wave = level * torch.sin(2 * torch.pi * hz * torch.arange(round(seconds * SAMPLE_RATE)) / SAMPLE_RATE)
    return log_mel(wave.expand(1, 2, -1))[0].numpy()


@pytest.mark.parametrize(("width", "height"), [(64, 64), (130, 96), (7, 200)])
def test_a_higher_tone_is_drawn_higher_and_a_louder_one_brighter(width: int, height: int) -> None:
    low, high = (draw_spectrogram(_tone(hz), width=width, height=height) for hz in (300, 3000))
    assert low.shape == (height, width, 3)
    middle = width // 2
    brightest = [int(picture[:, middle].sum(axis=1).argmax()) for picture in (low, high)]
    assert brightest[1] < brightest[0] < height
    assert draw_spectrogram(_tone(300, level=0.05), width=width, height=height).mean() < low.mean()


def test_silence_is_dark_and_numbers_that_are_none_are_silence() -> None:
    silent = draw_spectrogram(np.full((2, 10, 64), np.log(1e-5), dtype=np.float32), width=32, height=32)
    assert np.unique(silent.reshape(-1, 3), axis=0).tolist() == [[8, 8, 24]]
    assert np.array_equal(silent, draw_spectrogram(np.full((2, 10, 64), np.nan, dtype=np.float32), width=32, height=32))


def test_frames_show_how_far_the_sound_has_been_played() -> None:
    picture = np.full((4, 8, 3), 200, dtype=np.uint8)
    frames = play_through(picture, frames=4)
    assert [int((frame[0, :, 0] == 200).sum()) for frame in frames] == [2, 4, 6, 8]
    assert set(np.unique(frames)) == {80, 200}
    assert np.unique(picture).tolist() == [200]
