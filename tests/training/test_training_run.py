"""Whole runs on nano: stopped and resumed, killed and resumed, asked for things while running, and failing cleanly."""

from __future__ import annotations

import os
import random
import shutil
import subprocess
import sys
import threading
import time
from typing import TYPE_CHECKING

import pytest
from engine_fixtures import MakeConfig, OpenRun, events_of, watch, write_clip
from processes import ForkedPython

from ltx2core.config.load import load_config, save_config
from ltx2core.errors import RunError, StorageError
from ltx2core.hardware.telemetry import Telemetry
from ltx2core.runs.control import Control, ask
from ltx2core.runs.events import (
    CheckpointSaved,
    Event,
    HeldOutMeasured,
    LoraExported,
    MemorySampled,
    Notice,
    PhaseStarted,
    RunFailed,
    RunFinished,
    RunStarted,
    SampleReady,
    StepDone,
)
from ltx2core.runs.folder import RunFolder
from ltx2core.training.session import TrainingSession

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


def _files(session: TrainingSession, step: int) -> dict[str, bytes]:
    folder = session.folder.checkpoints / f"step-{step:06d}"
    files = {name: (folder / name).read_bytes() for name in ("adapter.safetensors", "optimizer.safetensors")}
    return files | {"lora": session.folder.lora.read_bytes()}


def test_a_run_goes_from_clips_to_a_lora_file_with_samples_on_the_way(make_config: MakeConfig, open_run: OpenRun, tmp_path: Path) -> None:
    folder = tmp_path / "clips"
    for seed in range(5):
        write_clip(folder / f"clip{seed}.mp4", seed=seed)
    (folder / "broken.mp4").write_text("not a video")
    (folder / "broken.txt").write_text("a caption")
    session = open_run(
        make_config(
            folder=folder,
            max_train_steps=4,
            validation_disable=False,
            validation_step_interval=2,
            eval_steps_interval=2,
            checkpoint_step_interval=3,
        )
    )
    assert session.run() == "finished"
    events = events_of(session)
    assert isinstance(events[0], RunStarted)
    assert isinstance(events[-1], RunFinished)
    assert [event.step for event in events if isinstance(event, StepDone)] == [1, 2, 3, 4]
    assert [event.step for event in events if isinstance(event, SampleReady)] == [0, 2, 4]
    assert [event.step for event in events if isinstance(event, HeldOutMeasured)] == [0, 2, 4]
    assert [event.step for event in events if isinstance(event, CheckpointSaved)] == [3, 4]
    assert [event.path for event in events if isinstance(event, LoraExported)] == ["lora/run.safetensors"]
    for event in events:
        if isinstance(event, SampleReady | CheckpointSaved | LoraExported):
            assert (session.folder.path / event.path).exists()
    assert any(isinstance(event, Notice) and "broken.mp4" in event.text for event in events)
    sample = session.folder.samples / "step-000000"
    assert {path.name for path in sample.iterdir()} == {"sample.mp4", "first.png", "middle.png", "last.png", "sheet.png"}
    assert load_config(session.folder.config).config.seed == 0
    assert not session.folder.is_alive()
    assert not session.folder.control_socket.exists()


def test_the_untrained_model_is_not_sampled_when_the_config_says_so(make_config: MakeConfig, open_run: OpenRun) -> None:
    session = open_run(make_config(max_train_steps=2, validation_disable=False, validation_step_interval=2, disable_benchmark=True))
    assert session.run() == "finished"
    assert [event.step for event in events_of(session) if isinstance(event, SampleReady)] == [2]


def test_a_stopped_and_resumed_run_ends_with_the_same_bytes_as_one_that_was_not(make_config: MakeConfig, open_run: OpenRun) -> None:
    loaded = make_config(
        max_train_steps=6, lr_scheduler="cosine", gradient_accumulation_steps=2, lora_dropout=0.1, caption_dropout_probability=0.3
    )
    whole = open_run(loaded, "whole")
    assert whole.run() == "finished"
    control = Control()
    first = open_run(loaded, "parts", control=control)

    def stop_after_two(event: Event) -> None:
        if isinstance(event, StepDone) and event.step == 2:
            control.stop()

    watch(first, do=stop_after_two)
    assert first.outcome == "stopped"
    (saved,) = [event for event in events_of(first) if isinstance(event, CheckpointSaved)]
    assert 2 <= saved.step < 6
    second = open_run(loaded, "parts", resume=True)
    assert second.run() == "finished"
    resumed = [event for event in events_of(second) if isinstance(event, RunStarted)][-1]
    assert resumed.resumed_at_step == saved.step
    assert _files(second, 6) == _files(whole, 6)
    losses = {
        name: {e.step: e.loss for e in events_of(run) if isinstance(e, StepDone)} for name, run in (("whole", whole), ("parts", second))
    }
    assert losses["whole"] == losses["parts"]


@pytest.mark.parametrize("engine", ["fast", "reference"])
def test_a_run_with_its_optimizer_s_state_in_8_bits_resumes_to_the_same_bytes(
    make_config: MakeConfig, open_run: OpenRun, engine: str
) -> None:
    keys: dict[str, object] = {"optimizer": "bnb-adamw8bit", "step_engine": engine, "lora_rank": 3}
    whole = open_run(make_config(max_train_steps=4, **keys), "whole")
    assert whole.run() == "finished", whole.failure
    assert any("AdamW with 8-bit state" in event.text for event in events_of(whole) if isinstance(event, Notice))
    assert open_run(make_config(max_train_steps=2, **keys), "parts").run() == "finished"
    resumed = open_run(make_config(max_train_steps=4, **keys), "parts", resume=True)
    assert resumed.run() == "finished", resumed.failure
    assert _files(resumed, 4) == _files(whole, 4)


def test_levels_in_turn_and_mixflow_train_and_resume_to_the_same_bytes(make_config: MakeConfig, open_run: OpenRun) -> None:
    ways: dict[str, dict[str, object]] = {
        "turn": {"flow_custom_timesteps": [0.1, 0.5, 0.9], "flow_timesteps_mode": "round-robin", "train_batch_size": 2},
        "mixflow": {"mixflow_enabled": True},
        "plain": {"mixflow_enabled": True, "mixflow_gamma": 0.0},
    }
    last: dict[str, dict[str, bytes]] = {}
    for name, keys in ways.items():
        whole = open_run(make_config(max_train_steps=4, **keys), f"{name}-whole")
        assert whole.run() == "finished", whole.failure
        assert open_run(make_config(max_train_steps=2, **keys), name).run() == "finished"
        resumed = open_run(make_config(max_train_steps=4, **keys), name, resume=True)
        assert resumed.run() == "finished", resumed.failure
        last[name] = _files(resumed, 4)
        assert last[name] == _files(whole, 4)
    assert last["mixflow"]["lora"] != last["plain"]["lora"]


def test_a_run_killed_at_a_random_moment_and_resumed_ends_with_the_same_bytes(
    make_config: MakeConfig, open_run: OpenRun, root: Path
) -> None:
    loaded = make_config(max_train_steps=12, checkpoint_step_interval=3)
    whole = open_run(loaded, "whole")
    assert whole.run() == "finished"
    folder = RunFolder(root / "runs" / "killed")
    folder.create()
    save_config(folder, loaded)
    code = (
        "import sys; from pathlib import Path; from ltx2core.config.load import load_config;"
        "from ltx2core.training.session import TrainingSession;"
        f"TrainingSession(load_config(Path({str(folder.config)!r})), root=Path({str(root)!r}), name='killed', resume=False).run()"
    )
    process = ForkedPython(code)  # as many threads as here: sums of parts round by their number
    deadline = time.monotonic() + 120
    while not any(folder.checkpoints.glob("step-*")) and time.monotonic() < deadline and process.returncode is None:
        time.sleep(0.01)
    time.sleep(random.uniform(0, 0.4))
    process.kill()
    process.wait()
    assert not folder.is_alive()
    resumed = open_run(loaded, "killed", resume=True)
    assert resumed.run() == "finished"
    assert _files(resumed, 12) == _files(whole, 12)


def test_the_loss_falls_when_two_clips_are_learned_by_heart(make_config: MakeConfig, open_run: OpenRun) -> None:
    session = open_run(make_config(max_train_steps=40, learning_rate=3e-3, lora_rank=16, train_batch_size=2))
    assert session.run() == "finished"
    losses = [event.video_loss or 0.0 for event in events_of(session) if isinstance(event, StepDone)]
    assert sum(losses[-10:]) < 0.9 * sum(losses[:10])


def test_a_video_only_run_has_no_audio_anywhere(make_config: MakeConfig, open_run: OpenRun) -> None:
    from safetensors import safe_open

    session = open_run(make_config(dataset={"audio": None}))
    assert session.run() == "finished"
    events = events_of(session)
    assert all(event.audio_loss is None for event in events if isinstance(event, StepDone))
    assert not any(isinstance(event, PhaseStarted) and event.phase == "cache_audio" for event in events)
    with safe_open(session.folder.lora, framework="np") as file:
        keys = list(file.keys())
    assert keys
    assert not [key for key in keys if "audio" in key]


def test_clips_without_sound_train_video_only_and_are_named(make_config: MakeConfig, open_run: OpenRun) -> None:
    session = open_run(make_config(max_train_steps=6))
    assert session.run() == "finished"
    events = events_of(session)
    (notice,) = [event for event in events if isinstance(event, Notice) and event.code == "clips_without_audio"]
    assert "clip2.mp4" in notice.text
    steps = [event for event in events if isinstance(event, StepDone)]
    assert {event.audio_loss is None for event in steps} == {True, False}


def test_a_run_does_what_its_socket_asks_at_the_next_step(make_config: MakeConfig, open_run: OpenRun) -> None:
    session = open_run(make_config(max_train_steps=400, validation_disable=False, validation_step_interval=0))
    asked: list[str] = []

    def ask_for_things(event: Event) -> None:
        if isinstance(event, StepDone) and not asked:
            asked.append("save")
            assert ask(session.folder, "save")["ok"]
            assert ask(session.folder, "sample")["ok"]
            assert ask(session.folder, "pause")["paused"]
        if isinstance(event, Notice) and event.code == "paused":
            threading.Timer(0.05, lambda: ask(session.folder, "resume")).start()
        if isinstance(event, Notice) and event.code == "resumed":
            assert ask(session.folder, "stop")["stopping"]

    watch(session, do=ask_for_things)
    assert session.outcome == "stopped"
    events = events_of(session)
    kinds = [type(event).__name__ for event in events]
    assert kinds.index("CheckpointSaved") < kinds.index("SampleReady") < [getattr(e, "code", "") for e in events].index("paused")
    assert isinstance(events[-1], RunFinished)
    assert events[-1].stopped


def test_a_stop_while_caching_ends_the_run_and_keeps_what_was_encoded(make_config: MakeConfig, tmp_path: Path) -> None:
    control = Control()
    session = TrainingSession(make_config(), root=tmp_path / "cold", name="run", resume=False, control=control)

    def stop_at_first_clip(event: Event) -> None:
        if event.kind == "progress" and event.phase == "cache_video":  # type: ignore[union-attr]
            control.stop()

    watch(session, do=stop_at_first_clip)
    assert session.outcome == "stopped"
    assert len(list((tmp_path / "cold" / "cache" / "video").glob("*/*.safetensors"))) in (1, 2)  # the next may have been encoded already


def test_a_name_that_has_trained_is_not_trained_over(make_config: MakeConfig, open_run: OpenRun) -> None:
    loaded = make_config(max_train_steps=1)
    assert open_run(loaded).run() == "finished"
    with pytest.raises(RunError, match="exists already and has trained 1 steps"):
        open_run(loaded).run()


def test_a_finished_run_can_be_extended(make_config: MakeConfig, open_run: OpenRun) -> None:
    assert open_run(make_config(max_train_steps=2)).run() == "finished"
    longer = open_run(make_config(max_train_steps=4), resume=True)
    assert longer.run() == "finished"
    assert [event.step for event in events_of(longer) if isinstance(event, StepDone)] == [1, 2, 3, 4]


def test_a_start_reads_a_checkpoint_through_once(make_config: MakeConfig, open_run: OpenRun, monkeypatch: pytest.MonkeyPatch) -> None:
    from ltx2core.training import checkpoint

    assert open_run(make_config(max_train_steps=2)).run() == "finished"
    read: list[str] = []
    real = checkpoint._digest

    def note(path: Path) -> str:
        read.append(path.name)
        return real(path)

    monkeypatch.setattr(checkpoint, "_digest", note)
    again = open_run(make_config(max_train_steps=2), resume=True)  # trained already: nothing is saved, which would be read too
    assert again.run() == "finished"
    assert read == ["adapter.safetensors", "optimizer.safetensors"]
    read.clear()
    with pytest.raises(RunError, match="exists already"):
        open_run(make_config(max_train_steps=2)).run()
    assert read == ["adapter.safetensors", "optimizer.safetensors"]


def test_resuming_a_finished_run_repeats_nothing_and_says_how_to_train_on(make_config: MakeConfig, open_run: OpenRun) -> None:
    loaded = make_config(max_train_steps=2, validation_step_interval=2)
    assert open_run(loaded).run() == "finished"
    again = open_run(loaded, resume=True)
    before = len(events_of(again))
    assert again.run() == "finished"
    new = events_of(again)[before:]
    assert not [event for event in new if isinstance(event, StepDone | SampleReady | LoraExported | CheckpointSaved)]
    assert [event.fix for event in new if isinstance(event, Notice) and event.code == "already_finished"] == [
        "Raise max_train_steps to train on."
    ]


def test_resuming_with_other_clips_goes_on_and_says_so(
    make_config: MakeConfig, open_run: OpenRun, clips_folder: Path, tmp_path: Path
) -> None:
    folder = shutil.copytree(clips_folder, tmp_path / "clips")
    assert open_run(make_config(max_train_steps=1)).run() == "finished"
    same = open_run(make_config(folder=folder, max_train_steps=2), resume=True)  # moved, but the same clips
    assert same.run() == "finished", same.failure
    assert not [event for event in events_of(same) if isinstance(event, Notice) and event.code == "data_changed"]
    (folder / "clip0.mp4").unlink()
    fewer = open_run(make_config(folder=folder, max_train_steps=3), resume=True)
    assert fewer.run() == "finished", fewer.failure
    assert [event.level for event in events_of(fewer) if isinstance(event, Notice) and event.code == "data_changed"] == ["warning"]


def test_resuming_with_another_rank_is_refused_by_name(make_config: MakeConfig, open_run: OpenRun) -> None:
    assert open_run(make_config(max_train_steps=1)).run() == "finished"
    other = open_run(make_config(max_train_steps=2, lora_rank=8), resume=True)
    assert other.run() == "failed"
    assert other.failure is not None
    assert "another rank" in other.failure.text
    assert load_config(other.folder.config).config.lora_rank == 4  # --resume without --config still works
    assert isinstance(events_of(other)[-1], RunFailed)


def test_two_sessions_of_one_run_do_not_train_at_once(make_config: MakeConfig, open_run: OpenRun) -> None:
    loaded = make_config(max_train_steps=1)
    second: list[str] = []

    def try_again(event: Event) -> None:
        if isinstance(event, RunStarted):
            with pytest.raises(RunError, match="is training in another process"):
                open_run(loaded).run()
            second.append("refused")

    watch(open_run(loaded), do=try_again)
    assert second == ["refused"]


def test_a_disk_that_fills_up_while_training_fails_the_run_and_resumes_with_space(
    make_config: MakeConfig, open_run: OpenRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    import ltx2core.runs.files as files

    loaded = make_config(max_train_steps=4, checkpoint_step_interval=1)
    session = open_run(loaded)
    real = files.os.fsync

    def fill_up(event: Event) -> None:
        if isinstance(event, CheckpointSaved) and event.step == 2:
            monkeypatch.setattr(files.os, "fsync", _no_space)

    watch(session, do=fill_up)
    assert session.outcome == "failed"
    failed = events_of(session)[-1]
    assert isinstance(failed, RunFailed)
    assert "is full" in failed.text
    assert "Free some space" in failed.fix
    assert sorted(path.name for path in session.folder.checkpoints.iterdir()) == ["step-000001", "step-000002"]
    monkeypatch.setattr(files.os, "fsync", real)
    again = open_run(loaded, resume=True)
    assert again.run() == "finished"
    assert [event.resumed_at_step for event in events_of(again) if isinstance(event, RunStarted)] == [0, 2]


def _no_space(_descriptor: int) -> None:
    raise OSError(28, "No space left on device")


def test_an_unwritable_output_says_so(make_config: MakeConfig, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(StorageError, match="cannot be written"):
        TrainingSession(make_config(), root=tmp_path / "file", name="run", resume=False).run()


def test_a_session_starts_and_ends_with_its_own_lines_however_eager_the_telemetry(
    make_config: MakeConfig, open_run: OpenRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Eager(Telemetry):
        def __init__(self, emit: Callable[[MemorySampled], None]) -> None:
            super().__init__(emit, seconds=0.0005)

        def __enter__(self) -> Telemetry:
            super().__enter__()
            time.sleep(0.1)  # what a busy machine does to the thread that started it
            return self

    monkeypatch.setattr("ltx2core.training.session.Telemetry", Eager)
    session = open_run(make_config(pretrained_model_name_or_path="no/such/model"))
    assert session.run() == "failed"
    first, *between, last = events_of(session)
    assert isinstance(first, RunStarted)
    assert sum(isinstance(event, MemorySampled) for event in between) > 1
    assert isinstance(last, RunFailed)


def test_a_missing_model_fails_the_run_with_what_would_work(make_config: MakeConfig, open_run: OpenRun) -> None:
    session = open_run(make_config(pretrained_model_name_or_path="no/such/model"))
    assert session.run() == "failed"
    failed = events_of(session)[-1]
    assert isinstance(failed, RunFailed)
    assert "no/such/model" in failed.text
    assert "nano" in failed.fix
    assert "Traceback" in failed.detail


def test_a_loss_that_is_never_finite_fails_the_run_and_leaves_the_lora_as_it_was(make_config: MakeConfig, open_run: OpenRun) -> None:
    session = open_run(make_config(max_train_steps=50, audio_loss_weight=1000, learning_rate=1.0, max_grad_norm=0, adam_weight_decay=10))
    original = __import__("ltx2core.training.engine", fromlist=["engine"])
    real = original.losses_of

    def broken(*args: object, **kwargs: object) -> object:
        losses = real(*args, **kwargs)
        return type(losses)(total=losses.total * float("nan"), video=losses.video, audio=losses.audio)

    original.losses_of = broken
    try:
        assert session.run() == "failed"
    finally:
        original.losses_of = real
    events = events_of(session)
    assert sum(isinstance(event, Notice) and event.code == "non_finite" for event in events) == 1  # once for the row
    assert [event.loss for event in events if isinstance(event, StepDone)] == [None] * 10
    assert isinstance(events[-1], RunFailed)
    assert "10 steps in a row" in events[-1].text


def test_importing_the_session_loads_no_torch() -> None:
    code = "import sys, ltx2core.training.session; assert 'torch' not in sys.modules; assert 'diffusers' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_run_lets_the_gpu_s_segments_grow_unless_they_are_set_up(monkeypatch: pytest.MonkeyPatch) -> None:
    from ltx2core.training.session import _let_segments_grow

    monkeypatch.delenv("PYTORCH_CUDA_ALLOC_CONF", raising=False)
    monkeypatch.setenv("PYTORCH_ALLOC_CONF", "max_split_size_mb:64")
    _let_segments_grow()
    assert "PYTORCH_CUDA_ALLOC_CONF" not in os.environ
    monkeypatch.delenv("PYTORCH_ALLOC_CONF")
    _let_segments_grow()
    assert os.environ.get("PYTORCH_CUDA_ALLOC_CONF") == ("expandable_segments:True" if sys.platform == "linux" else None)
