"""Runs on several datasets at once: pictures and clips, lengths and shapes, captions of all kinds, what is measured and when."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

import numpy as np
import pytest
from engine_fixtures import FPS, MakeConfig, OpenRun, events_of, watch, write_clip

from ltx2core.config.load import load_config_dict
from ltx2core.data.write import write_png, write_video, write_wav
from ltx2core.errors import ConfigError
from ltx2core.runs.control import Control
from ltx2core.runs.events import HeldOutMeasured, Notice, StepDone
from ltx2core.training import pipeline
from ltx2core.training.settings import train_settings
from ltx2core.training.trainee import TrainSettings

if TYPE_CHECKING:
    from pathlib import Path

    from ltx2core.runs.events import Event
    from ltx2core.training.session import TrainingSession


def _clip(path: Path, *, width: int = 64, height: int = 64, frames: int = 9, seed: int = 0, sound: bool = False) -> Path:
    pictures = np.full((frames, height, width, 3), 20 + 30 * (seed % 7), dtype=np.uint8)
    for index in range(frames):
        pictures[index, 8:24, 2 + index : 18 + index] = (220, 40, 10 * seed % 255)
    tone = np.sin(np.arange(round(16000 * frames / FPS)) / (5 + seed)).astype(np.float32)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_video(path, pictures, fps=FPS, sound=np.stack([tone, tone]) if sound else None, sample_rate=16000)
    return path


def _picture(path: Path, *, width: int = 96, height: int = 64, seed: int = 0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    picture = np.random.default_rng(seed).integers(0, 255, (height, width, 3)).astype(np.uint8)
    write_png(path, picture)
    path.with_suffix(".txt").write_text(f"a picture of noise {seed}")
    return path


def _notices(run: TrainingSession) -> dict[str, str]:
    return {event.code: event.text for event in events_of(run) if isinstance(event, Notice)}


def _steps(run: TrainingSession) -> list[StepDone]:
    return [event for event in events_of(run) if isinstance(event, StepDone)]


def _bytes(run: TrainingSession) -> bytes:
    return run.folder.lora.read_bytes()


def test_pictures_two_lengths_two_shapes_a_csv_and_an_eval_dataset_train_in_one_run(
    make_config: MakeConfig, open_run: OpenRun, tmp_path: Path
) -> None:
    _clip(tmp_path / "clips" / "short.mp4", frames=9, seed=1, sound=True)
    _clip(tmp_path / "clips" / "long.mp4", frames=17, seed=2, sound=True)
    _clip(tmp_path / "clips" / "wide.mp4", width=96, frames=9, seed=3)
    rows = ["file,caption", "short.mp4,a short clip", '"long.mp4","a long, long clip"', "wide.mp4,a wide clip", "gone.mp4,nothing"]
    (tmp_path / "clips" / "captions.csv").write_text("\n".join(rows))
    for seed in range(2):
        _picture(tmp_path / "stills" / f"{seed}.png", seed=seed)
    write_clip(tmp_path / "eval" / "measured.mp4", seed=9)
    _picture(tmp_path / "eval" / "seen.png", seed=7)
    loaded = make_config(
        folder=tmp_path / "clips",
        dataset={"caption_strategy": "csv", "video": {"bucket_strategy": "resolution_frames"}},
        others=[
            {"id": "stills", "dataset_type": "image", "instance_data_dir": str(tmp_path / "stills"), "resolution": 64},
            {
                "id": "eval",
                "dataset_type": "eval",
                "instance_data_dir": str(tmp_path / "eval"),
                "resolution": 64,
                "video": {"num_frames": 9},
            },
        ],
        max_train_steps=10,
        eval_steps_interval=5,
    )
    run = open_run(loaded)
    assert run.run() == "finished", run.failure
    buckets = Counter(step.bucket for step in _steps(run))
    assert buckets == {"64x64@9": 2, "64x64@17": 2, "96x64@9": 2, "96x64@1": 4}  # two epochs of five clips, each in its bucket
    assert all((step.audio_loss is not None) == (step.bucket.startswith("64x64")) for step in _steps(run))
    assert [event.step for event in events_of(run) if isinstance(event, HeldOutMeasured)] == [0, 5, 10]
    said = _notices(run)
    assert "1 rows belong to no file" in said["rows_without_file"]
    assert "gone.mp4" in said["rows_without_file"]
    assert "measured.mp4, seen.png" in said["held_out"]
    assert "5 clips to train on" in said["dataset"]


def test_what_is_measured_is_never_trained_on_wherever_its_copies_lie(make_config: MakeConfig, open_run: OpenRun, tmp_path: Path) -> None:
    for seed in range(3):
        write_clip(tmp_path / "clips" / f"clip{seed}.mp4", seed=seed)
    write_clip(tmp_path / "eval" / "other name.mp4", seed=1)
    entry = {
        "id": "eval",
        "dataset_type": "eval",
        "instance_data_dir": str(tmp_path / "eval"),
        "resolution": 64,
        "video": {"num_frames": 9},
    }
    run = open_run(make_config(folder=tmp_path / "clips", others=[entry], max_train_steps=4, eval_steps_interval=4))
    assert run.run() == "finished", run.failure
    said = _notices(run)
    assert "clip1.mp4" in said["eval_not_trained"]
    assert "other name.mp4" in said["held_out"]


def test_stretches_of_a_long_clip_are_each_cached_and_trained_on(make_config: MakeConfig, open_run: OpenRun, tmp_path: Path) -> None:
    _clip(tmp_path / "clips" / "long.mp4", frames=29, sound=True)
    (tmp_path / "clips" / "long.txt").write_text("a long clip")
    run = open_run(make_config(folder=tmp_path / "clips", dataset={"video": {"num_frames": 9, "segments": "all"}}, max_train_steps=6))
    assert run.run() == "finished", run.failure
    assert "3 stretches of 1 clip to train on, in buckets 64x64@9 (3)" in _notices(run)["dataset"]
    losses = [step.video_loss for step in _steps(run)]
    assert len(set(losses[:3])) == 3


def test_stretches_that_take_turns_are_another_one_each_epoch(make_config: MakeConfig, open_run: OpenRun, tmp_path: Path) -> None:
    _clip(tmp_path / "clips" / "long.mp4", frames=60)
    (tmp_path / "clips" / "long.txt").write_text("a long clip")
    loaded = make_config(
        folder=tmp_path / "clips", dataset={"video": {"num_frames": 9, "segments": "random"}}, num_train_epochs=4, max_train_steps=0
    )
    run = open_run(loaded)
    assert run.run() == "finished", run.failure
    assert len(_steps(run)) == 4  # an epoch shows the clip once, whatever stretches it has
    assert "4 stretches of 9, up to 4, which take turns" in _notices(run)["segmented"]


def test_a_scheduled_run_that_was_stopped_and_resumed_ends_with_the_same_bytes(
    make_config: MakeConfig, open_run: OpenRun, tmp_path: Path
) -> None:
    for name, seeds in (("one", (1, 2)), ("two", (3, 4))):
        for seed in seeds:
            write_clip(tmp_path / name / f"{seed}.mp4", seed=seed, sound=False)
    entry = {"id": "two", "instance_data_dir": str(tmp_path / "two"), "resolution": 64, "video": {"num_frames": 9, "is_i2v": True}}
    loaded = make_config(
        folder=tmp_path / "one",
        dataset={"end_step": 5, "probability": 0.5, "timestep_sampling_offset": -0.5},
        others=[entry | {"start_step": 3, "train_batch_size": 2}],
        max_train_steps=8,
    )
    whole = open_run(loaded, "whole")
    assert whole.run() == "finished", whole.failure
    control = Control()
    first = open_run(loaded, "parts", control=control)

    def stop_after_four(event: Event) -> None:
        if isinstance(event, StepDone) and event.step == 4:
            control.stop()

    watch(first, do=stop_after_four)
    second = open_run(loaded, "parts", resume=True)
    assert second.run() == "finished", second.failure
    assert _bytes(second) == _bytes(whole)
    assert {step.step: step.loss for step in _steps(second)} == {step.step: step.loss for step in _steps(whole)}


def test_a_schedule_that_leaves_steps_without_data_is_told_before_training(make_config: MakeConfig, open_run: OpenRun) -> None:
    run = open_run(make_config(dataset={"end_step": 2}, max_train_steps=4))
    assert run.run() == "failed"
    assert run.failure is not None
    assert "at step 3, no dataset is trained on" in run.failure.text
    assert _steps(run) == []


def test_a_token_budget_sizes_the_batches_of_each_bucket(
    make_config: MakeConfig, open_run: OpenRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for seed in range(4):
        _clip(tmp_path / "clips" / f"{seed}.mp4", frames=9 if seed < 2 else 25, seed=seed)
        (tmp_path / "clips" / f"{seed}.txt").write_text("a clip")
    loaded = make_config(
        folder=tmp_path / "clips",
        dataset={"video": {"bucket_strategy": "resolution_frames"}},
        num_train_epochs=1,
        max_train_steps=0,
        max_tokens_per_batch=17,
    )
    run, held = open_run(loaded), list[TrainSettings]()
    monkeypatch.setattr(pipeline, "train_settings", lambda *given, **named: held.append(train_settings(*given, **named)) or held[-1])
    assert run.run() == "finished", run.failure
    assert {one.tokens * one.batch_size for one in held} == {16}  # what memory is planned for
    assert Counter(step.bucket for step in _steps(run)) == {"64x64@9": 1, "64x64@25": 2}  # 8 tokens a short clip, 16 a long one
    assert "1 of 64x64@25 (16 tokens), 2 of 64x64@9 (16 tokens)" in _notices(run)["batch_sizes"]


def test_sound_of_another_dataset_is_trained_with_the_clips_of_its_name(make_config: MakeConfig, open_run: OpenRun, tmp_path: Path) -> None:
    for seed in range(2):
        write_clip(tmp_path / "clips" / "in" / f"clip{seed}.mp4", seed=seed, sound=False)
    _clip(tmp_path / "sounds" / "in" / "clip0.mp4", sound=True)
    entry = {"id": "sounds", "dataset_type": "audio", "instance_data_dir": str(tmp_path / "sounds")}
    run = open_run(
        make_config(folder=tmp_path / "clips", dataset={"s2v_datasets": ["sounds"], "audio": None}, others=[entry], max_train_steps=2)
    )
    assert run.run() == "finished", run.failure
    assert sorted(step.audio_loss is not None for step in _steps(run)) == [False, True]
    assert "1 clips have no file of sound in sounds: clip1.mp4" in _notices(run)["no_linked_sound"]
    with pytest.raises(ConfigError, match='s2v_datasets = "sound": no audio dataset has this id; use sounds'):
        make_config(folder=tmp_path / "clips", dataset={"s2v_datasets": ["sound", "sounds"]}, others=[entry])


def test_clips_without_sound_are_trained_with_silence_when_asked_for(make_config: MakeConfig, open_run: OpenRun) -> None:
    run = open_run(make_config(dataset={"audio": {"allow_zero_audio": True}}, max_train_steps=3, num_train_epochs=0))
    assert run.run() == "finished", run.failure
    assert all(step.audio_loss is not None for step in _steps(run))
    assert "clip2.mp4" in _notices(run)["trained_silent"]


def test_files_of_sound_are_learned_alone_and_beside_clips(make_config: MakeConfig, open_run: OpenRun, tmp_path: Path) -> None:
    for seed, seconds in enumerate((1.0, 2.5, 4.2)):
        path = tmp_path / "sounds" / f"{seed}.wav"
        path.parent.mkdir(parents=True, exist_ok=True)
        tone = np.sin(np.arange(round(24000 * seconds)) / (5 + seed)).astype(np.float32)
        write_wav(path, np.stack([tone, tone]), sample_rate=24000)
        path.with_suffix(".txt").write_text(f"a tone {seed}")
    sounds = {"id": "sounds", "dataset_type": "audio", "instance_data_dir": str(tmp_path / "sounds"), "audio": {"duration_interval": 2.0}}
    both = open_run(make_config(dataset={"max_num_samples": 1}, others=[sounds], num_train_epochs=1, max_train_steps=0), "both")
    assert both.run() == "finished", both.failure
    assert Counter(step.bucket for step in _steps(both)) == {"1.00s": 1, "2.00s": 1, "4.00s": 1, "64x64@9": 1}
    assert all(step.video_loss is None for step in _steps(both) if step.bucket.endswith("s"))
    said = _notices(both)
    assert "1.wav lasts 2.50 s; 2.00 s from 0.00 s on are used" in said["trimmed"]
    assert "max_num_samples is 1" in said["clips_not_chosen"]
    loaded = make_config(max_train_steps=2)
    alone = open_run(load_config_dict(loaded.config.model_dump(exclude={"data_backend_config"}), base=tmp_path, datasets=[sounds]), "alone")
    assert alone.run() == "finished", alone.failure
    assert "sound_alone" in _notices(alone)
