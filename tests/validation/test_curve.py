"""Best checkpoint and early stop: what a curve says, and what runs do with it, also after they were resumed."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch
from engine_fixtures import MakeConfig, OpenRun, events_of, write_clip
from safetensors.torch import load_file

from ltx2core.lora.read import read_lora
from ltx2core.runs.events import HeldOutMeasured, LoraExported, Notice, RunStarted, StepDone
from ltx2core.validation.curve import Curve, Point, curve_of
from ltx2core.validation.held_out import HeldOutLoss

if TYPE_CHECKING:
    from pathlib import Path

    from ltx2core.training.session import TrainingSession


def _measured(step: int, loss: float) -> HeldOutMeasured:
    return HeldOutMeasured(step=step, loss=loss, video_loss=loss, audio_loss=None, base_loss=1.0)


def _started(at: int) -> RunStarted:
    return RunStarted(name="x", total_steps=100, resumed_at_step=at, pid=1)


def test_the_best_is_the_first_of_the_lowest_and_never_the_base_model() -> None:
    curve = Curve().with_point(0, 0.1).with_point(10, 0.5).with_point(20, 0.4).with_point(30, 0.4)
    assert curve.best == Point(20, 0.4)
    assert (curve.since_best, curve.flat_for(1), curve.flat_for(2), curve.flat_for(0)) == (1, True, False, False)


def test_a_resumed_run_forgets_what_was_measured_after_its_checkpoint() -> None:
    before = [_started(0), _measured(0, 1.0), _measured(10, 0.8), _measured(20, 0.2), _started(10), _measured(20, 0.7), _measured(30, 0.9)]
    assert curve_of(before, until=30).points == (Point(10, 0.8), Point(20, 0.7), Point(30, 0.9))
    assert curve_of(before, until=20).best == Point(20, 0.7)


@pytest.fixture
def four_clips(tmp_path: Path) -> Path:
    for seed in range(4):
        write_clip(tmp_path / "clips" / f"clip{seed}.mp4", seed=seed, sound=False)
    return tmp_path / "clips"


@pytest.fixture
def losses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """What the next measurements find, instead of measuring; the test fills it."""
    script: list[float] = []

    def measure(*_: object, **__: object) -> HeldOutLoss:
        loss = script.pop(0)
        return HeldOutLoss(loss=loss, video=loss, audio=None, clips={"loss": {"a": loss}, "video": {"a": loss}, "audio": {}})

    monkeypatch.setattr("ltx2core.training.between.measure_held_out", measure)
    return script


KEYS: dict[str, object] = {"eval_steps_interval": 1, "eval_split": 0.25}


def test_the_lora_is_that_of_the_lowest_held_out_loss_where_that_is_asked_for(
    four_clips: Path, losses: list[float], make_config: MakeConfig, open_run: OpenRun
) -> None:
    losses += [1.0, 0.8, 0.5, 0.6, 0.7]
    keys = KEYS | {"lora_checkpoint": "best", "checkpoint_step_interval": 1, "checkpoints_total_limit": 1}
    run = open_run(make_config(folder=four_clips, max_train_steps=4, **keys))
    assert run.run() == "finished", run.failure
    assert sorted(path.name for path in run.folder.checkpoints.iterdir()) == ["step-000002", "step-000004"]  # the newest, and the best
    [exported] = [event for event in events_of(run) if isinstance(event, LoraExported)]
    assert exported.step == 2
    name, pair = next(iter(read_lora(run.folder.lora).pairs.items()))
    of_best, of_last = (
        load_file(run.folder.checkpoints / f"step-{step:06d}" / "adapter.safetensors")[f"{name}.lora_B.weight"] for step in (2, 4)
    )
    assert torch.equal(pair.up, of_best.to(pair.up.dtype))
    assert not torch.equal(pair.up, of_last.to(pair.up.dtype))
    marked = [event.step for event in events_of(run) if isinstance(event, HeldOutMeasured) and event.best]
    assert marked == [1, 2]


def test_a_lowest_loss_between_checkpoints_is_saved_where_its_lora_is_asked_for(
    four_clips: Path, losses: list[float], make_config: MakeConfig, open_run: OpenRun
) -> None:
    losses += [1.0, 0.5, 0.8, 0.7]
    run = open_run(make_config(folder=four_clips, max_train_steps=3, **KEYS, lora_checkpoint="best"))
    assert run.run() == "finished", run.failure
    assert sorted(path.name for path in run.folder.checkpoints.iterdir()) == ["step-000001", "step-000003"]
    assert [event.step for event in events_of(run) if isinstance(event, LoraExported)] == [1]


def test_a_run_ends_when_its_held_out_loss_has_not_fallen_for_long_enough_and_stays_ended(
    four_clips: Path, losses: list[float], make_config: MakeConfig, open_run: OpenRun
) -> None:
    losses += [1.0, 0.8, 0.9, 0.85]
    config = make_config(folder=four_clips, max_train_steps=9, **KEYS, eval_patience=2)
    run = open_run(config)
    assert run.run() == "finished", run.failure
    assert [event.step for event in events_of(run) if isinstance(event, StepDone)] == [1, 2, 3]
    [said] = [event.text for event in events_of(run) if isinstance(event, Notice) and event.code == "early_stop"]
    assert said == "Step 3: the held-out loss was no lower than 0.8000, at step 1, in the last 2 measurements, so the run ends here."
    assert [event.step for event in events_of(run) if isinstance(event, LoraExported)] == [3]
    again = open_run(config, resume=True)
    assert again.run() == "finished", again.failure
    assert [event.step for event in events_of(again) if isinstance(event, StepDone)] == [1, 2, 3]
    losses += [0.7, 0.75]
    patient = open_run(make_config(folder=four_clips, max_train_steps=5, **KEYS, eval_patience=3), resume=True)
    assert patient.run() == "finished", patient.failure
    assert [event.step for event in events_of(patient) if isinstance(event, StepDone)] == [1, 2, 3, 4, 5]


def test_where_the_best_has_no_checkpoint_the_next_best_is_taken_and_said(
    four_clips: Path, losses: list[float], make_config: MakeConfig, open_run: OpenRun
) -> None:
    losses += [1.0, 0.5, 0.7, 0.8]
    keys = KEYS | {"checkpoint_step_interval": 2}
    first = open_run(make_config(folder=four_clips, max_train_steps=3, **keys))  # not asked for the best: step 1 is not saved
    assert first.run() == "finished", first.failure
    losses += [0.9]
    run = open_run(make_config(folder=four_clips, max_train_steps=4, **keys, lora_checkpoint="best"), resume=True)
    assert run.run() == "finished", run.failure
    said = [event.text for event in events_of(run) if isinstance(event, Notice) and event.code in ("best_is_gone", "best_checkpoint")]
    assert said == [
        "Step 1 has the lowest held-out loss, 0.5000, but no whole checkpoint.",
        "The LoRA is that of step 2, whose held-out loss is 0.7000.",
    ]
    assert [event.step for event in events_of(run) if isinstance(event, LoraExported)] == [3, 2]


def test_keys_that_need_a_held_out_loss_say_so_where_none_is_measured(make_config: MakeConfig, open_run: OpenRun) -> None:
    run: TrainingSession = open_run(make_config(max_train_steps=1, eval_patience=2, lora_checkpoint="best"))
    assert run.run() == "finished", run.failure
    said = [event.text for event in events_of(run) if isinstance(event, Notice) and event.code == "no_effect"]
    assert [text.split()[0] for text in said] == ["eval_patience", "lora_checkpoint"]
