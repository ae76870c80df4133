"""Which samples a config asks for, and what is said before training about what they start from."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import numpy as np
import pytest
from engine_fixtures import events_of

from ltx2core.data.tokens import TokenCounter
from ltx2core.errors import ConfigError, DatasetError
from ltx2core.runs.events import Notice, SampleReady
from ltx2core.training.dataset import find_samples
from ltx2core.validation.shots import Moment, Shot, check_inputs, check_prompts, plan_shots

if TYPE_CHECKING:
    from pathlib import Path

    from conftest import MakeClip
    from engine_fixtures import MakeConfig, OpenRun

    from ltx2core.config.load import LoadedConfig
    from ltx2core.runs.events import Event


def shots_of(loaded: LoadedConfig, *, audio: bool = True, told: list[Event] | None = None) -> tuple[Shot, ...]:
    samples = find_samples(loaded.datasets, base=loaded.base, frame_rate=25.0, emit=lambda _: None, should_stop=lambda: False)
    emit = (told if told is not None else []).append
    return plan_shots(loaded.config, loaded.datasets, samples, audio=audio, video=True, emit=emit)


def shot(*, first_frame: Path | None = None, sound: Path | None = None, width: int = 96, height: int = 64) -> Shot:
    return Shot(
        name="",
        prompt="x",
        width=width,
        height=height,
        seed=0,
        first_frame=None if first_frame is None else Moment(path=first_frame),
        sound=None if sound is None else Moment(path=sound),
    )


def test_one_prompt_is_one_sample_without_a_folder_of_its_own(make_config: MakeConfig) -> None:
    (only,) = shots_of(make_config(validation_seed=7))
    assert (only.name, only.mode, only.seed, only.width, only.height) == ("", "t2v", 7, 64, 64)


def test_every_prompt_is_drawn_in_every_size_from_every_seed(make_config: MakeConfig, tmp_path: Path) -> None:
    library = tmp_path / "prompts.json"
    library.write_text(json.dumps({"A dog!": "a dog runs", "cat": "a cat sleeps"}))
    loaded = make_config(user_prompt_library=str(library), num_validation_images=2, validation_resolution="64x96,96x64", validation_seed=5)
    shots = shots_of(loaded)
    assert len(shots) == 3 * 2 * 2
    assert len({one.name for one in shots}) == 12
    dog = [one for one in shots if one.prompt == "a dog runs"]
    assert [one.name for one in dog] == ["a-dog-96x64-1", "a-dog-96x64-2", "a-dog-64x96-1", "a-dog-64x96-2"]
    assert [one.seed for one in dog] == [5, 6, 5, 6]
    assert (dog[0].height, dog[0].width) == (64, 96)


def test_the_built_in_library_adds_its_prompts_to_the_config_s_own(make_config: MakeConfig) -> None:
    shots = shots_of(make_config(validation_prompt_library=True))
    assert len(shots) == 11
    assert shots[0].name == "prompt"


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("[]", "it holds prompts by name"),
        ('{"a": 1}', "a prompt is text"),
        ('{"a": ', "prompts.json line 1"),
        ('{"a": " "}', "a prompt is text"),
    ],
)
def test_a_library_that_holds_no_prompts_is_refused_when_the_config_is_read(
    make_config: MakeConfig, tmp_path: Path, content: str, said: str
) -> None:
    library = tmp_path / "prompts.json"
    library.write_text(content)
    with pytest.raises(ConfigError, match=said):
        make_config(user_prompt_library=str(library))


def test_a_library_that_is_not_there_is_named(make_config: MakeConfig) -> None:
    with pytest.raises(ConfigError, match=r'user_prompt_library = "nowhere.json": there is no such file'):
        make_config(user_prompt_library="nowhere.json")


def test_samples_from_a_dataset_start_from_its_first_frames_and_have_its_captions(make_config: MakeConfig) -> None:
    told: list[Event] = []
    shots = shots_of(make_config(validation_using_datasets=True, num_eval_images=2), told=told)
    assert [one.name for one in shots] == ["clip0", "clip1"]
    assert [one.mode for one in shots] == ["i2v", "i2v"]
    assert shots[0].prompt == "a square number 0 moves right"
    assert any(isinstance(event, Notice) and "validation_prompt" in event.text for event in told)


def test_a_dataset_can_give_its_sound_or_both(make_config: MakeConfig) -> None:
    sound = shots_of(make_config(validation_using_datasets=True, num_eval_images=1, validation_dataset_gives="sound"))
    both = shots_of(make_config(validation_using_datasets=True, num_eval_images=1, validation_dataset_gives="both"))
    assert [one.mode for one in (*sound, *both)] == ["s2v", "is2v"]


def test_sound_cannot_be_given_to_a_run_that_trains_none(make_config: MakeConfig) -> None:
    with pytest.raises(ConfigError, match="trains no sound") as caught:
        shots_of(make_config(validation_using_datasets=True, validation_dataset_gives="sound"), audio=False)
    assert "audio" in caught.value.fix


def test_an_unknown_dataset_for_samples_is_refused_with_the_nearest(make_config: MakeConfig) -> None:
    with pytest.raises(ConfigError, match=r'eval_dataset_id = "clipz": .*; use clips'):
        make_config(validation_using_datasets=True, eval_dataset_id="clipz")


def test_a_missing_reference_picture_is_said(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="there is no such file") as caught:
        check_inputs((shot(first_frame=tmp_path / "gone.png"),), seconds=0.36, emit=lambda _: None)
    assert caught.value.fix


def test_one_sample_that_cannot_be_made_leaves_the_others(tmp_path: Path, make_clip: MakeClip) -> None:
    told: list[Event] = []
    good = shot(first_frame=make_clip("good.mp4", width=96, height=64))
    kept = check_inputs((shot(first_frame=tmp_path / "gone.png"), good), seconds=0.36, emit=told.append)
    assert kept == (good,)
    assert [event.code for event in told if isinstance(event, Notice)] == ["sample_input"]


def test_a_picture_of_another_aspect_is_cropped_and_it_is_said(make_clip: MakeClip) -> None:
    told: list[Event] = []
    check_inputs(
        (shot(first_frame=make_clip(width=128, height=64)), shot(first_frame=make_clip("fit.mp4", width=96, height=64))),
        seconds=0.36,
        emit=told.append,
    )
    (notice,) = [event for event in told if isinstance(event, Notice)]
    assert notice.code == "sample_cropped"
    assert "128x64" in notice.text
    assert "the sides are cut off" in notice.text


@pytest.mark.parametrize(
    ("sound", "said"),
    [
        (None, "has no sound"),
        (np.zeros((2, 48000), dtype=np.float32), "silent"),
        (np.full((2, 4800), 0.5, dtype=np.float32), "its sound lasts 0.1"),
    ],
    ids=["none", "silent", "short"],
)
def test_a_sound_that_nothing_can_follow_is_refused_before_training(make_clip: MakeClip, sound: np.ndarray | None, said: str) -> None:
    clip = make_clip(frames=9, sound=sound)
    with pytest.raises(DatasetError, match=said) as caught:
        check_inputs((shot(sound=clip),), seconds=0.36, emit=lambda _: None)
    assert caught.value.fix


def test_a_prompt_longer_than_the_text_encoder_reads_is_said() -> None:
    counter = TokenCounter(lambda text: len(text.split()), 1024, exact=True)
    shots = (shot(), Shot(name="long", prompt="word " * 1100, width=64, height=64, seed=0))
    (notice,) = check_prompts(shots, "short", counter=counter)
    assert notice.text == "The prompt of sample long has 1100 tokens; LTX-2 reads 1024, so its end is cut off."


def test_a_run_writes_a_sample_of_each_clip_from_its_own_first_frame(make_config: MakeConfig, open_run: OpenRun) -> None:
    loaded = make_config(
        max_train_steps=1, validation_disable=False, validation_step_interval=1, validation_using_datasets=True, num_eval_images=2
    )
    session = open_run(loaded, "from-clips")
    assert session.run() == "finished", session.failure
    samples = [event for event in events_of(session) if isinstance(event, SampleReady)]
    assert [(event.step, event.name, event.mode) for event in samples] == [
        (0, "clip0", "i2v"),
        (0, "clip1", "i2v"),
        (1, "clip0", "i2v"),
        (1, "clip1", "i2v"),
    ]
    for event in samples:
        folder = (session.folder.path / event.path).parent
        assert {path.name for path in folder.iterdir()} == {"sample.mp4", "first.png", "middle.png", "last.png", "sheet.png"}


def test_a_run_whose_samples_cannot_start_fails_before_anything_is_cached(make_config: MakeConfig, open_run: OpenRun) -> None:
    loaded = make_config(
        max_train_steps=1,
        validation_disable=False,
        validation_using_datasets=True,
        validation_dataset_gives="sound",
        validation_num_video_frames=49,
    )
    session = open_run(loaded, "too-long")
    assert session.run() == "failed"
    assert session.failure is not None
    assert "its sound lasts" in session.failure.text
    assert not any(getattr(event, "phase", "") == "cache_video" for event in events_of(session))
