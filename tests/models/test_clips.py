from __future__ import annotations

import numpy as np
import torch

from ltx2core.models.nano import clips
from ltx2core.models.nano.measure import look, share_of_colour
from ltx2core.models.nano.vocabulary import COLOURS, caption


def frames_of(scenes: clips.Scenes) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    pixels = clips.render_video(scenes, width=128, height=128, frames=17, fps=25)
    return ((pixels + 1) * 127.5).round().clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 4, 1).numpy()


def test_the_measure_sees_in_a_rendered_clip_what_its_caption_says() -> None:
    generator = torch.Generator().manual_seed(1)
    words = clips.random_words(60, generator)
    seen = [look(frames) for frames in frames_of(clips.scenes_of(words, generator))]
    assert [(item.colour, item.direction) for item in seen] == [(item.colour, item.direction) for item in words]
    assert all(item.colour in caption(item, 0) and item.direction in caption(item, 0) for item in words)


def test_the_measure_sees_nothing_in_an_empty_clip_and_no_motion_in_a_still() -> None:
    assert look(np.zeros((17, 64, 64, 3), dtype=np.uint8)).colour is None
    still = np.zeros((17, 64, 64, 3), dtype=np.uint8)
    still[:, 20:40, 20:40] = COLOURS["green"]
    assert (look(still).colour, look(still).direction) == ("green", None)
    assert share_of_colour(still, COLOURS["green"]) == (20 / 64) ** 2


def test_training_and_held_out_combinations_never_meet() -> None:
    generator = torch.Generator().manual_seed(2)
    seen = {(item.colour, item.shape, item.direction) for item in clips.random_words(500, generator)}
    held = {(item.colour, item.shape, item.direction) for item in clips.random_words(100, generator, held_out=True)}
    assert not seen & held


def test_the_same_seed_draws_the_same_clip_and_sound() -> None:
    def draw() -> tuple[torch.Tensor, torch.Tensor]:
        generator = torch.Generator().manual_seed(3)
        scenes = clips.scenes_of(clips.random_words(2, generator), generator)
        video = clips.render_video(scenes, width=64, height=96, frames=9, fps=25)
        return video, clips.render_sound(scenes, seconds=0.4, sample_rate=16000)

    (video, sound), (again, heard) = draw(), draw()
    assert video.shape == (2, 3, 9, 96, 64)
    assert sound.shape == (2, 2, 6400)
    assert torch.equal(video, again)
    assert torch.equal(sound, heard)


def test_a_smaller_shape_sounds_higher() -> None:
    pitches = clips.pitch_of(torch.tensor([clips.MIN_SIZE, 20.0, clips.MAX_SIZE]))
    assert pitches.tolist() == sorted(pitches.tolist(), reverse=True)
