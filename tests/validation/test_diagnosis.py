"""Each fault of a sample is found in a video that has just that fault, and none in videos that are healthy."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import av
import numpy as np
import pytest
import torch
from engine_fixtures import events_of
from nano_world import FPS, FRAMES, as_frames, scenes, world

from ltx2core.caching.passes import CachedClip
from ltx2core.caching.store import Store
from ltx2core.data.clip import Bucket, Clip, Sample
from ltx2core.models.latents import encode_video
from ltx2core.models.nano import clips
from ltx2core.runs.events import Notice, SampleReady
from ltx2core.runs.folder import RunFolder
from ltx2core.validation.diagnosis import Circumstances, Nearest, diagnose, diagnose_losses
from ltx2core.validation.examine import Examiner
from ltx2core.validation.inputs import Take
from ltx2core.validation.measures import cells_of, difference, measure_frames, measure_sound
from ltx2core.validation.media import Media, SampleSettings, write_media
from ltx2core.validation.sampling import SampledLatents
from ltx2core.validation.shots import Shot

if TYPE_CHECKING:
    from pathlib import Path

    from engine_fixtures import MakeConfig, OpenRun
    from numpy.typing import NDArray

    Frames = NDArray[np.uint8]

SETTINGS = SampleSettings(width=128, height=128, frames=FRAMES, fps=FPS, steps=2, guidance=5.0, seed=0, audio=False)
PLAIN = Circumstances(step=200, prompt="a circle moves right", guidance=5.0)


def rendered(*, frames: int = 25, seed: int = 3) -> Frames:
    """A healthy clip: a circle that moves over a plain background."""
    return as_frames(clips.render_video(scenes(1, seed=seed), width=128, height=128, frames=frames, fps=FPS))


def codes(frames: Frames | None, around: Circumstances = PLAIN, *, sound: NDArray[np.float32] | None = None) -> list[str]:
    seen = None if frames is None else measure_frames(frames)
    heard = None if sound is None else measure_sound(sound, sample_rate=24000)
    return [notice.code for notice in diagnose(seen, heard, around)]


def tone(level: float, seconds: float = 1.0) -> NDArray[np.float32]:
    wave = level * np.sin(2 * np.pi * 440 * np.arange(round(24000 * seconds)) / 24000)
    return np.stack([wave, wave]).astype(np.float32)


def lit(frames: Frames, levels: NDArray[np.float64]) -> Frames:
    """The frames with something added to each: [F] or [F, 3]."""
    added = levels[:, None, None, None] if levels.ndim == 1 else levels[:, None, None, :]
    return np.clip(frames.astype(np.float64) + added, 0, 255).round().astype(np.uint8)


@pytest.mark.parametrize("seed", range(6))
def test_nothing_is_said_about_rendered_clips(seed: int) -> None:
    assert codes(rendered(seed=seed), sound=tone(0.5)) == []


def test_nothing_is_said_about_what_nano_draws() -> None:
    for seed in range(4):
        assert codes(world().frames(world().draw(seed=seed))) == []


@pytest.mark.parametrize("name", ["bikes.mp4", "bigbuckbunny.mp4"])
def test_nothing_is_said_about_filmed_and_drawn_clips(real_clips: Path, name: str) -> None:
    with av.open(str(real_clips / name)) as container:
        found = [
            frame.reformat(width=384, height=256, format="rgb24").to_ndarray()
            for _, frame in zip(range(98), container.decode(video=0), strict=False)
        ]
    assert codes(np.stack(found[:49])) == []
    assert codes(np.stack(found[49:])) == []


def test_a_black_sample_is_found_and_so_is_its_guidance() -> None:
    black = np.full((17, 64, 64, 3), 3, dtype=np.uint8)
    assert codes(black) == ["sample_black"]
    (notice,) = diagnose(measure_frames(black), None, replace(PLAIN, guidance=9.0))
    assert "Guidance is 9, outside 2 to 6" in notice.text
    assert "validation_guidance" in notice.fix


def test_noise_is_found_and_told_from_wild_latents_and_a_wrong_decoder() -> None:
    noise = np.random.default_rng(0).integers(0, 255, (17, 64, 64, 3)).astype(np.uint8)
    assert codes(noise) == ["sample_noise"]
    (wild,) = diagnose(measure_frames(noise), None, replace(PLAIN, spread=8.0))
    assert "latents spread by 8.0" in wild.text
    (decoder,) = diagnose(measure_frames(noise), None, replace(PLAIN, step=0))
    assert "VAE statistics" in decoder.text


def test_frames_that_have_nothing_to_do_with_each_other_are_noise() -> None:
    cells = np.random.default_rng(1).integers(0, 255, (17, 8, 8, 3)).astype(np.uint8)
    assert codes(cells.repeat(16, axis=1).repeat(16, axis=2)) == ["sample_noise"]


def test_latents_that_are_no_numbers_are_found() -> None:
    assert codes(rendered(), replace(PLAIN, finite=False)) == ["sample_not_finite"]


def test_a_sample_in_which_nothing_moves_is_static_and_its_prompt_may_be_why() -> None:
    still = rendered()[:1].repeat(25, axis=0)
    assert codes(still) == ["sample_static"]
    (with_motion,), (without,) = (
        diagnose(measure_frames(still), None, replace(PLAIN, prompt=prompt)) for prompt in ("a dog runs", "a red vase on a table")
    )
    assert "clips in which things move" in with_motion.fix
    assert "no word of motion" in without.text


def test_camera_noise_is_no_motion() -> None:
    still = rendered()[:1].repeat(25, axis=0).astype(np.float64)
    noisy = still + np.random.default_rng(0).normal(0, 3, still.shape)
    assert codes(np.clip(noisy, 0, 255).astype(np.uint8)) == ["sample_static"]


def test_repeated_frames_are_jitter_and_clips_of_another_rate_are_named() -> None:
    stuttering = rendered(frames=49)[::2].repeat(2, axis=0)
    assert codes(stuttering) == ["sample_jitter"]
    (notice,) = diagnose(measure_frames(stuttering), None, replace(PLAIN, odd_rates=("a.mp4 (12 fps)",)))
    assert "a.mp4 (12 fps)" in notice.text
    assert "25 fps" in notice.fix


def test_motion_that_goes_back_and_forth_is_jitter() -> None:
    steady = rendered(frames=33)
    shaken = steady[[index + (4 if index % 2 else 0) for index in range(25)]]
    assert codes(shaken) == ["sample_jitter"]


def test_a_pause_is_no_jitter() -> None:
    moving = rendered()
    assert codes(np.concatenate([moving, moving[-1:].repeat(12, axis=0)])) == []


def test_light_that_comes_and_goes_is_flicker_and_a_fade_is_not() -> None:
    frames = rendered()
    alternating = np.where(np.arange(len(frames)) % 2 == 0, 6.0, 0.0)
    assert codes(lit(frames, alternating)) == ["sample_flicker"]
    assert codes(lit(frames, np.linspace(0, 12, len(frames)))) == []


def test_colours_that_go_one_way_are_drift() -> None:
    frames = rendered()
    redder = np.stack([np.linspace(0, 60, len(frames)), np.zeros(len(frames)), np.linspace(0, -20, len(frames))], axis=1)
    assert codes(lit(frames, redder)) == ["sample_drift"]


@pytest.mark.parametrize(
    ("sound", "code"),
    [(tone(0.0), "sample_silent"), (tone(1e-4), "sample_silent"), (np.clip(tone(3.0), -1, 1), "sample_clipped")],
    ids=["nothing", "nearly nothing", "cut off"],
)
def test_silent_and_clipped_sound_is_found(sound: NDArray[np.float32], code: str) -> None:
    assert codes(None, sound=sound) == [code]
    assert codes(None, sound=tone(0.99)) == []


def against(base: Frames, found: Frames, *, step: int = 200) -> list[str]:
    around = replace(PLAIN, step=step, base=measure_frames(base), difference=difference(cells_of(found), cells_of(base)))
    return codes(found, around)


def test_a_lora_without_effect_is_found_by_the_base_s_sample() -> None:
    base = rendered()
    noisy = np.clip(base.astype(np.float64) + np.random.default_rng(0).normal(0, 2, base.shape), 0, 255).astype(np.uint8)  # as a codec does
    assert against(base, noisy) == ["lora_no_effect"]
    assert against(base, noisy, step=20) == []  # it has hardly begun
    assert against(base, rendered(seed=4)) == []


def test_a_lora_that_is_too_strong_is_found_by_the_base_s_sample() -> None:
    base = rendered()
    burnt = np.clip((base.astype(np.float64) - 60) * 6, 0, 255).astype(np.uint8)
    assert against(base, burnt) == ["lora_too_strong"]
    texture = np.random.default_rng(0).integers(-30, 30, (1, 64, 64, 1)).repeat(2, axis=1).repeat(2, axis=2)
    hard = np.clip(base.astype(np.float64) + texture, 0, 255).astype(np.uint8)
    assert against(base, hard) == ["lora_too_strong"]


def test_a_held_out_loss_that_rises_is_overfitting_and_a_rough_one_is_not() -> None:
    (notice,) = diagnose_losses([(0, 1.0), (100, 0.8), (200, 0.7), (300, 0.73), (400, 0.76)])
    assert notice.code == "overfit_loss"
    assert "step 200" in notice.fix
    assert diagnose_losses([(0, 1.0), (100, 0.8), (200, 0.7), (300, 0.76), (400, 0.7)]) == []
    assert diagnose_losses([(0, 1.0), (100, 1.2)]) == []


def test_a_sample_that_copies_a_clip_names_it() -> None:
    near, far = (replace(PLAIN, nearest=Nearest(clip="clip7.mp4", distance=distance)) for distance in (0.1, 0.9))
    (notice,) = diagnose(measure_frames(rendered()), None, near)
    assert notice.code == "overfit_copy"
    assert "clip7.mp4" in notice.text
    assert codes(rendered(), far) == []


def test_a_run_says_what_is_wrong_beside_the_sample(make_config: MakeConfig, open_run: OpenRun) -> None:
    loaded = make_config(max_train_steps=1, validation_disable=False, validation_step_interval=1, validation_guidance=60.0,
                         learning_rate=1e-9)  # fmt: skip
    session = open_run(loaded, "wild")
    assert session.run() == "finished", session.failure
    events = events_of(session)
    samples = {event.path for event in events if isinstance(event, SampleReady)}
    about = [event for event in events if isinstance(event, Notice) and event.sample]
    assert about
    assert {event.sample for event in about} <= samples
    assert all(event.fix for event in about)


@pytest.fixture
def six_clips(tmp_path: Path) -> tuple[Store, list[CachedClip]]:
    """Latents of nano's encoder as the cache holds them, of six clips."""
    store, kept = Store(tmp_path / "cache"), []
    for number in range(6):
        latents = encode_video(world().vae, clips.render_video(scenes(1, seed=number), width=128, height=128, frames=FRAMES, fps=FPS))
        name = f"{number:032x}"
        store.save("video", name, {"latents": latents[0].to(torch.bfloat16)}, source=f"clip{number}.mp4")
        clip = Clip(path=tmp_path / f"clip{number}.mp4", frames=FRAMES, fps=12.0 if number == 5 else FPS)
        sample = Sample(clip=clip, bucket=Bucket(width=128, height=128, frames=FRAMES), fps=FPS, captions=("x",))
        kept.append(CachedClip(sample=sample, source=name, video=name, audio=None, captions=(name,)))
    return store, kept


def test_a_sample_with_the_latents_of_a_training_clip_is_a_copy_and_another_is_not(
    six_clips: tuple[Store, list[CachedClip]], tmp_path: Path
) -> None:
    store, kept = six_clips
    examiner = Examiner(store=store, clips=kept, folder=RunFolder(tmp_path / "run"), fps=FPS)
    take = Take(shot=Shot(name="", prompt="a circle moves", width=128, height=128, seed=0), settings=SETTINGS)

    def said(pixels: torch.Tensor) -> list[Notice]:
        latents = SampledLatents(video=encode_video(world().vae, pixels), audio=None)
        return examiner.examine(50, take, latents, Media(frames=as_frames(pixels)), path="samples/a.mp4")

    (copy,) = said(clips.render_video(scenes(1, seed=2), width=128, height=128, frames=FRAMES, fps=FPS))
    assert copy.code == "overfit_copy"
    assert "clip2.mp4" in copy.text
    assert copy.sample == "samples/a.mp4"
    assert said(clips.render_video(scenes(1, seed=77), width=128, height=128, frames=FRAMES, fps=FPS)) == []
    assert examiner._odd_rates() == ("clip5.mp4 (12 fps)",)


def test_a_resumed_run_compares_with_the_sample_file_of_step_0(six_clips: tuple[Store, list[CachedClip]], tmp_path: Path) -> None:
    store, kept = six_clips
    folder = RunFolder(tmp_path / "run")
    base = rendered(frames=FRAMES)
    write_media(folder.step_folder(folder.samples, 0), Media(frames=base), SETTINGS)
    examiner = Examiner(store=store, clips=kept[:1], folder=folder, fps=FPS)
    take = Take(shot=Shot(name="", prompt="a circle moves", width=128, height=128, seed=0), settings=SETTINGS)
    latents = SampledLatents(video=torch.randn(1, 128, 3, 4, 4), audio=None)
    found = examiner.examine(500, take, latents, Media(frames=base), path="samples/a.mp4")
    assert [notice.code for notice in found] == ["lora_no_effect"]
