"""Runs that train the sound of clips without their pictures, alone and beside datasets with pictures."""

from __future__ import annotations

import json
import wave
from dataclasses import replace
from typing import TYPE_CHECKING

import av
import numpy as np
import pytest
from engine_fixtures import FPS, FRAMES, HEIGHT, MakeConfig, OpenRun, events_of, watch, write_clip
from safetensors import safe_open

from ltx2core.errors import ConfigError
from ltx2core.lora.info import lora_info
from ltx2core.lora.layers import modality_of
from ltx2core.lora.read import read_lora
from ltx2core.lora.verify import verify_lora
from ltx2core.models.checkpoint import open_checkpoint
from ltx2core.models.nano import nano_checkpoint
from ltx2core.runs.control import Control
from ltx2core.runs.events import Event, HeldOutMeasured, Notice, PhaseStarted, SampleReady, StepDone

if TYPE_CHECKING:
    from pathlib import Path

    from ltx2core.caching.ahead import Request
    from ltx2core.data.clip import Sample
    from ltx2core.training.session import TrainingSession

SOUND = {"audio": {"audio_only": True}}


@pytest.fixture(scope="module")
def sounds(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Five clips with sound, the last twice as long, and one without."""
    folder = tmp_path_factory.mktemp("sounds") / "clips"
    for seed in range(5):
        write_clip(folder / f"clip{seed}.mp4", seed=seed, frames=FRAMES if seed < 4 else 2 * FRAMES - 1)
    write_clip(folder / "silent.mp4", seed=5, sound=False)
    return folder


def _notices(session: TrainingSession) -> dict[str, str]:
    return {event.code: event.text for event in events_of(session) if isinstance(event, Notice)}


def _bytes(session: TrainingSession, step: int) -> dict[str, bytes]:
    folder = session.folder.checkpoints / f"step-{step:06d}"
    return {path.name: path.read_bytes() for path in folder.glob("*.safetensors")} | {"lora": session.folder.lora.read_bytes()}


def test_a_run_on_sound_alone_reads_nothing_of_pictures_and_ends_in_a_lora_of_sound(
    make_config: MakeConfig, open_run: OpenRun, sounds: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ltx2core.models.components.load_video_vae", None)
    monkeypatch.setattr("ltx2core.validation.media.load_video_vae", None)
    read: set[str] = set()
    from ltx2core.models.checkpoint import Checkpoint

    real = Checkpoint.tensors

    def note(self: Checkpoint, component: str, **keys: object) -> object:
        for name, tensor in real(self, component, **keys):  # type: ignore[arg-type]
            read.add(f"{component} {name}")
            yield name, tensor

    monkeypatch.setattr(Checkpoint, "tensors", note)
    session = open_run(
        make_config(
            folder=sounds,
            dataset=SOUND | {"video": {"num_frames": FRAMES, "bucket_strategy": "resolution_frames", "max_frames": 2 * FRAMES - 1}},
            validation_disable=False,
            validation_step_interval=4,
            eval_steps_interval=2,
            gradient_checkpointing=True,
            ltx2_first_frame_conditioning_probability=0.5,
        )
    )
    assert session.run() == "finished", session.failure
    assert not [name for name in read if name.startswith("video_vae")]
    assert not [
        name for name in read if name.startswith(("transformer transformer_blocks.0.attn1", "transformer proj_in", "transformer ff"))
    ]
    assert [name for name in read if name.startswith("transformer transformer_blocks.0.audio_attn1")]

    events = events_of(session)
    steps = [event for event in events if isinstance(event, StepDone)]
    assert len(steps) == 4
    assert all(event.video_loss is None and event.audio_loss == event.loss is not None for event in steps)
    measured = [event for event in events if isinstance(event, HeldOutMeasured)]
    assert [event.step for event in measured] == [0, 2, 4]
    assert all(event.video_loss is None and event.audio_loss == event.loss for event in measured)
    assert not [event for event in events if isinstance(event, PhaseStarted) and event.phase == "cache_video"]

    told = _notices(session)
    assert "silent.mp4 is left out: silent.mp4 has no sound" in told["clip_left_out"]
    assert "sound only" in told["adapter"]
    assert "first_frame" in told["no_effect"]
    assert "0.36s (4)" in told["dataset"]
    assert "0.68s (1)" in told["dataset"]
    assert {"sound_alone", "samples_of_sound"} <= told.keys()

    with safe_open(session.folder.lora, framework="np") as file:
        keys = list(file.keys())
        header = file.metadata()
    assert keys
    assert all("audio_attn" in key and "_to_" not in key.split(".")[3] for key in keys)
    assert header["trained"] == "audio"
    assert json.loads(header["buckets"])
    assert not {"resolutions", "frames", "frame_rate"} & header.keys()
    info = lora_info(session.folder.lora)
    assert (info.has_video, info.has_audio) == (False, True)
    report = verify_lora(session.folder.lora, open_checkpoint(nano_checkpoint()))
    assert report.usable
    assert not report.warnings
    assert {modality_of(layer) for layer in read_lora(session.folder.lora).pairs} == {"audio"}


def test_a_sample_of_sound_plays_shows_its_spectrogram_and_changes_with_training(
    make_config: MakeConfig, open_run: OpenRun, sounds: Path
) -> None:
    session = open_run(make_config(folder=sounds, dataset=SOUND, learning_rate=1e-2, validation_disable=False, validation_step_interval=4))
    assert session.run() == "finished", session.failure
    samples = [event for event in events_of(session) if isinstance(event, SampleReady)]
    assert [event.path for event in samples] == ["samples/step-000000/sample.mp4", "samples/step-000004/sample.mp4"]
    heard = []
    for sample in samples:
        path = session.folder.path / sample.path
        assert {item.name for item in path.parent.iterdir()} == {"sample.mp4", "sample.wav", "spectrogram.png"}
        with wave.open(str(path.with_suffix(".wav"))) as file:
            assert file.getnchannels() == 2
            assert file.getnframes() / file.getframerate() == pytest.approx(FRAMES / FPS, abs=0.05)
            heard.append(np.frombuffer(file.readframes(file.getnframes()), dtype="<i2"))
        with av.open(str(path)) as container:
            assert len(container.streams.audio) == 1
            frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
        assert len(frames) == FRAMES
        assert frames[0].shape == (HEIGHT, HEIGHT, 3)
        assert frames[-1].mean() > frames[0].mean()  # what has been played is brighter
    assert not np.array_equal(*heard)


def test_a_run_on_sound_alone_that_is_stopped_and_resumed_ends_with_the_same_bytes(
    make_config: MakeConfig, open_run: OpenRun, sounds: Path
) -> None:
    loaded = make_config(
        folder=sounds, dataset=SOUND, max_train_steps=6, gradient_accumulation_steps=2, train_batch_size=2, lora_dropout=0.1
    )
    whole = open_run(loaded, "whole")
    assert whole.run() == "finished", whole.failure
    control = Control()
    first = open_run(loaded, "parts", control=control)

    def stop_after_two(event: Event) -> None:
        if isinstance(event, StepDone) and event.step == 2:
            control.stop()

    watch(first, do=stop_after_two)
    assert first.outcome == "stopped"
    second = open_run(loaded, "parts", resume=True)
    assert second.run() == "finished"
    assert _bytes(second, 6) == _bytes(whole, 6)


def test_the_loss_of_sound_falls_when_two_clips_are_learned_by_heart(make_config: MakeConfig, open_run: OpenRun) -> None:
    session = open_run(make_config(dataset=SOUND, max_train_steps=40, learning_rate=3e-3, lora_rank=16, train_batch_size=2))
    assert session.run() == "finished", session.failure
    losses = [event.audio_loss or 0.0 for event in events_of(session) if isinstance(event, StepDone)]
    assert sum(losses[-10:]) < 0.9 * sum(losses[:10])


def test_a_list_of_sound_alone_and_of_pictures_trains_both_and_never_in_one_batch(
    make_config: MakeConfig, open_run: OpenRun, clips_folder: Path, sounds: Path
) -> None:
    other = {
        "id": "sounds",
        "dataset_type": "video",
        "instance_data_dir": str(sounds),
        "video": {"num_frames": FRAMES},
        **SOUND,
    }
    session = open_run(make_config(dataset={"audio": None}, others=[other], max_train_steps=8, train_batch_size=4))
    assert session.run() == "finished", session.failure
    steps = [event for event in events_of(session) if isinstance(event, StepDone)]
    kinds = {(event.bucket, event.video_loss is None, event.audio_loss is None) for event in steps}
    assert kinds == {("64x64@9", False, True), ("0.36s", True, False)}
    assert "video and audio" in _notices(session)["adapter"]
    assert "sound_alone" not in _notices(session)
    pairs = read_lora(session.folder.lora).pairs
    assert {modality_of(layer) for layer in pairs} == {"video", "audio", "both"}
    for kind in ("attn1", "audio_attn1"):  # both learn, each from its own batches
        assert float(pairs[f"transformer_blocks.0.{kind}.to_q"].up.abs().max()) > 0


def test_a_run_with_pictures_can_be_sampled_by_its_sound_alone(make_config: MakeConfig, open_run: OpenRun) -> None:
    session = open_run(make_config(max_train_steps=1, validation_disable=False, validation_step_interval=1, validation_audio_only=True))
    assert session.run() == "finished", session.failure
    assert (session.folder.samples / "step-000001" / "sample.wav").is_file()
    silent = open_run(
        make_config(
            dataset={"audio": None}, max_train_steps=1, validation_disable=False, validation_step_interval=1, validation_audio_only=True
        ),
        "silent",
    )
    assert silent.run() == "finished", silent.failure
    assert "validation_audio_only" in _notices(silent)["no_effect"]
    assert (silent.folder.samples / "step-000001" / "first.png").is_file()


def test_a_lora_of_sound_starts_a_run_on_sound_and_one_of_pictures_is_refused_by_name(
    make_config: MakeConfig, open_run: OpenRun, sounds: Path
) -> None:
    joint = open_run(make_config(max_train_steps=1), "joint")
    assert joint.run() == "finished", joint.failure
    refused = open_run(make_config(dataset=SOUND, max_train_steps=1, init_lora=str(joint.folder.lora)), "refused")
    assert refused.run() == "failed"
    assert refused.failure is not None
    assert "Train with pictures" in refused.failure.fix
    alone = open_run(make_config(folder=sounds, dataset=SOUND, max_train_steps=1), "alone")
    assert alone.run() == "finished", alone.failure
    again = open_run(make_config(folder=sounds, dataset=SOUND, max_train_steps=1, init_lora=str(alone.folder.lora)), "again")
    assert again.run() == "finished", again.failure
    wider = open_run(make_config(max_train_steps=1, init_lora=str(alone.folder.lora)), "wider")
    assert wider.run() == "finished", wider.failure


def test_settings_that_contradict_sound_alone_are_told(make_config: MakeConfig, open_run: OpenRun, sounds: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"audio\.auto_split = false: audio_only trains the clips' own sound"):
        make_config(dataset={"audio": {"audio_only": True, "auto_split": False}})
    masks = {"id": "m", "dataset_type": "conditioning", "conditioning_type": "mask", "instance_data_dir": str(tmp_path)}
    loaded = make_config(folder=sounds, dataset=SOUND | {"conditioning_data": "m"}, others=[masks], audio_loss_weight=0)
    assert any("conditioning_data" in notice.text and "audio_only" in notice.text for notice in loaded.notices)
    session = open_run(loaded)
    assert session.run() == "failed"
    assert session.failure is not None
    assert "nothing would be learned" in session.failure.text


def test_a_clip_whose_sound_cannot_be_decoded_is_left_out_of_sound_alone(
    make_config: MakeConfig, open_run: OpenRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ltx2core.caching import sounds

    (tmp_path / "broken.mp4").write_text("no sound at all")
    for seed in range(2):
        write_clip(tmp_path / "clips" / f"clip{seed}.mp4", seed=seed + 20)
    real = sounds.sound_request

    def broken(sample: Sample, sample_rate: int) -> Request:
        request = real(sample, sample_rate)
        return replace(request, path=str(tmp_path / "broken.mp4")) if sample.name == "clip0.mp4" else request

    monkeypatch.setattr(sounds, "sound_request", broken)
    session = open_run(make_config(folder=tmp_path / "clips", dataset=SOUND, max_train_steps=1))
    assert session.run() == "finished", session.failure
    assert "clip0.mp4 is left out" in _notices(session)["clip_left_out"]
