"""Whole runs of two ranks on nano: they learn what one process learns from the same batches, resume, and end with a line when one ends."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

import pytest
import torch
from engine_fixtures import events_of, watch
from rank_threads import ThreadRank
from step_engine import same
from test_places import machine

from ltx2core.caching.tensors import read_tensors
from ltx2core.distributed import launch
from ltx2core.runs.control import Control
from ltx2core.runs.events import CheckpointSaved, EngineChosen, HeldOutMeasured, LossByLevel, Notice, PhaseStarted, RunFailed, StepDone
from ltx2core.training import between, follower
from ltx2core.training.batches import Entry
from ltx2core.training.course import trainee_of
from ltx2core.training.engine import ReferenceEngine, TryAgain
from ltx2core.training.loop import Loop
from ltx2core.training.scheduled import make_order
from ltx2core.validation import held_out as held_out_module
from ltx2core.validation.held_out import HeldOutLoss

if TYPE_CHECKING:
    from pathlib import Path

    from engine_fixtures import MakeConfig, OpenRun
    from torch import Tensor

    from ltx2core.runs.events import Event
    from ltx2core.training.loop import Between
    from ltx2core.training.objective import Losses
    from ltx2core.training.session import TrainingSession
    from ltx2core.training.step import Drawn
    from ltx2core.training.trainee import Trainee


@pytest.fixture(autouse=True)
def _ranks_are_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(launch, "spawn", ThreadRank)


def tensors(run: TrainingSession, step: int, name: str) -> dict[str, Tensor]:
    found = read_tensors(run.folder.checkpoints / f"step-{step:06d}" / f"{name}.safetensors")
    assert found is not None
    return found


def adapter(run: TrainingSession, step: int) -> dict[str, Tensor]:
    return tensors(run, step, "adapter")


def held_out(folder: Path, *, clips: int) -> dict[str, object]:
    """An eval dataset of so many of the clips, which are not trained on."""
    entry: dict[str, object] = {"id": "seen", "dataset_type": "eval", "instance_data_dir": str(folder), "resolution": 64, "audio": {}}
    return entry | {"video": {"num_frames": 9}, "max_num_samples": clips}


def steps(run: TrainingSession) -> list[StepDone]:
    return [event for event in events_of(run) if isinstance(event, StepDone)]


def _again_at_the_second_part(*arguments: Any, **keys: Any) -> Trainee:
    """A trainee that runs out of memory once, in an update's second batch, after gradients of it were added to those of the first."""
    trainee, again = trainee_of(*arguments, **keys), []
    compute = trainee.engine.run

    def run(drawn: Drawn, *, part: int, parts: int) -> Losses:
        losses = compute(drawn, part=part, parts=parts)
        if part == 1 and not again:
            again.append(part)
            raise TryAgain
        return losses

    trainee.engine.run = run  # type: ignore[method-assign]
    return trainee


def test_two_ranks_learn_to_the_last_bit_what_one_process_learns_from_the_same_batches_and_resume(
    make_config: MakeConfig, open_run: OpenRun
) -> None:
    """One of the three clips has no sound, so ranks reach different layers in one update. Blocks that travel lie in memory of both."""
    keys: dict[str, object] = {"step_engine": "fast", "musubi_blocks_to_swap": 2, "base_model_precision": "int8-torchao"}
    keys |= {"max_train_steps": 3, "caption_dropout_probability": 0.3}
    one = open_run(make_config(gradient_accumulation_steps=2, **keys), "one")
    assert one.run() == "finished", one.failure
    control = Control()
    first = open_run(make_config(num_processes=2, **keys), "two", control=control)

    def stop_after_one(event: Event) -> None:
        if isinstance(event, StepDone) and event.step == 1:
            control.stop()

    watch(first, do=stop_after_one)
    assert first.outcome == "stopped"
    (saved,) = (event for event in events_of(first) if isinstance(event, CheckpointSaved))
    assert saved.step < 3
    two = open_run(make_config(num_processes=2, **keys), "two", resume=True)
    assert two.run() == "finished", two.failure
    assert same(adapter(two, 3), adapter(one, 3))
    assert [(step.step, step.loss, step.samples) for step in steps(two)] == [(step.step, step.loss, step.samples) for step in steps(one)]
    (*_, chosen) = (event for event in events_of(two) if isinstance(event, EngineChosen))
    assert chosen.ranks == 2
    told = {event.code: event.text for event in events_of(two) if isinstance(event, Notice)}
    assert told["ranks"] == "2 ranks train together: an update learns from 1 batch on each of them."
    assert "data_changed" not in told


def test_the_losses_told_are_those_of_all_ranks_and_the_head_of_crepa_learns_from_all(
    make_config: MakeConfig, open_run: OpenRun, clips_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second rank runs out of memory in the middle of an update, and does its batches again while the first waits."""
    monkeypatch.setattr(follower, "trainee_of", _again_at_the_second_part)
    keys: dict[str, object] = {"step_engine": "fast", "crepa_enabled": True, "crepa_use_backbone_features": True}
    keys |= {"crepa_block_index": 1, "max_train_steps": 2, "eval_steps_interval": 1, "others": [held_out(clips_folder, clips=2)]}
    one = open_run(make_config(gradient_accumulation_steps=4, **keys), "one")
    two = open_run(make_config(num_processes=2, gradient_accumulation_steps=2, **keys), "two")
    assert one.run() == "finished", one.failure
    assert two.run() == "finished", two.failure
    for name in ("adapter", "optimizer"):
        expected = tensors(one, 2, name)
        assert all(float((value - expected[key]).abs().max()) <= 1e-5 for key, value in tensors(two, 2, name).items())
    assert max(float(value.abs().max()) for key, value in adapter(two, 2).items() if ".lora_B." in key) > 1e-3, "from 0, in two steps"
    for mine, theirs in zip(steps(one), steps(two), strict=True):
        assert mine.samples == theirs.samples == 4
        for name in ("loss", "video_loss", "audio_loss", "similarity", "grad_norm"):
            assert getattr(mine, name) == pytest.approx(getattr(theirs, name), rel=1e-5)
    measured = [[event for event in events_of(run) if isinstance(event, HeldOutMeasured)] for run in (one, two)]
    assert [(each.step, each.clips) for each in measured[1]] == [(0, 2), (1, 2), (2, 2)], "a clip on each rank"
    assert [each.loss for each in measured[1]] == pytest.approx([each.loss for each in measured[0]], rel=1e-5)
    assert measured[1][2].loss_band == pytest.approx(measured[0][2].loss_band, rel=1e-2)
    levels = [[event for event in events_of(run) if isinstance(event, LossByLevel)] for run in (one, two)]
    assert [(each.video_counts, each.audio_counts) for each in levels[0]] == [(each.video_counts, each.audio_counts) for each in levels[1]]


def test_nothing_is_written_down_of_an_exchange_that_a_rank_has_left(
    make_config: MakeConfig, open_run: OpenRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A rank that ends between two steps, a checkpoint being asked for: the weights may be no mean of anything."""

    class Leaving(Loop):
        def _wait_and_obey(self, step: int, control: Control, between: Between) -> bool:
            if step == 2:
                raise ValueError("power lost")
            return super()._wait_and_obey(step, control, between)

    monkeypatch.setattr(follower, "Loop", Leaving)
    control = Control()
    run = open_run(make_config(max_train_steps=5, num_processes=2), control=control)

    def save_after_two(event: Event) -> None:
        if isinstance(event, StepDone) and event.step == 1:  # told while the second step is done
            control.save()

    watch(run, do=save_after_two)
    assert run.outcome == "failed"
    assert run.failure is not None
    assert run.failure.text == "Rank 1 of 2: ValueError: power lost"
    assert not any(isinstance(event, CheckpointSaved) for event in events_of(run))


def test_a_rank_that_fails_ends_the_run_with_its_words_and_the_run_goes_on_from_its_checkpoint(
    make_config: MakeConfig, open_run: OpenRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    """There is one clip for two ranks: each learns from it in every update. The run goes on in one process with twice the batches."""

    class Failing(Loop):
        def _step(self, step: int):  # type: ignore[no-untyped-def]
            if step == 2:
                raise ValueError("the card fell off the bus")
            return super()._step(step)

    keys: dict[str, object] = {"max_train_steps": 3, "checkpoint_step_interval": 1, "dataset": {"max_num_samples": 1}}
    monkeypatch.setattr(follower, "Loop", Failing)
    run = open_run(make_config(num_processes=2, **keys))
    assert run.run() == "failed"
    (failed,) = (event for event in events_of(run) if isinstance(event, RunFailed))
    assert failed.text == "Rank 1 of 2: ValueError: the card fell off the bus"
    assert "--resume" in failed.fix
    resumed = open_run(make_config(gradient_accumulation_steps=2, **keys), resume=True)
    assert resumed.run() == "finished", resumed.failure
    assert "data_changed" not in {event.code for event in events_of(resumed) if isinstance(event, Notice)}
    assert [(step.step, step.samples) for step in steps(resumed)][-1] == (3, 2)


def test_the_first_rank_measures_and_draws_and_ends_a_run_early_while_the_other_waits(
    make_config: MakeConfig, open_run: OpenRun, clips_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    losses, drawn = iter([1.0, 0.8, 0.9]), []

    def measure(*_: object, **__: object) -> HeldOutLoss:
        loss = next(losses)
        return HeldOutLoss(loss=loss, video=loss, audio=None, clips={"loss": {"a": loss}, "video": {"a": loss}, "audio": {}})

    monkeypatch.setattr(between, "measure_held_out", measure)
    monkeypatch.setattr(between.Milestones, "_draw", lambda _self, step, *_, **__: drawn.append(step))
    keys: dict[str, object] = {"eval_steps_interval": 1, "eval_patience": 1, "use_ema": True}
    keys |= {"validation_disable": False, "validation_step_interval": 2, "disable_benchmark": True}
    run = open_run(make_config(num_processes=2, max_train_steps=6, others=[held_out(clips_folder, clips=1)], **keys))
    assert run.run() == "finished", run.failure
    assert "early_stop" in {event.code for event in events_of(run) if isinstance(event, Notice)}
    assert [step.step for step in steps(run)] == [1, 2]
    assert drawn == [2]


def test_a_rank_that_has_no_room_to_measure_beside_its_steps_makes_some(
    make_config: MakeConfig, open_run: OpenRun, clips_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys: dict[str, object] = {"max_train_steps": 1, "eval_steps_interval": 1, "others": [held_out(clips_folder, clips=2)]}
    usual = open_run(make_config(num_processes=2, **keys), "usual")
    assert usual.run() == "finished", usual.failure
    measured, parked, missed = held_out_module.losses_at, [], []

    def losses_at(*given: Any, **named: Any) -> Losses:
        if threading.current_thread() is not threading.main_thread() and not missed:
            missed.append("once")
            raise torch.OutOfMemoryError("the steps' memory is in the way")
        return measured(*given, **named)

    park = ReferenceEngine.park

    def noted(engine: ReferenceEngine) -> None:
        parked.append(threading.current_thread())
        park(engine)

    monkeypatch.setattr(ReferenceEngine, "park", noted)
    monkeypatch.setattr(held_out_module, "losses_at", losses_at)
    run = open_run(make_config(num_processes=2, **keys), "tight")
    assert run.run() == "finished", run.failure
    assert missed
    assert threading.main_thread() not in parked
    assert len(parked) == 1
    found = [[event.loss for event in events_of(one) if isinstance(event, HeldOutMeasured)] for one in (usual, run)]
    assert found[0] == found[1]
    assert len(found[0]) == 2


def test_an_epoch_ends_after_as_many_updates_as_all_ranks_need_together_for_its_batches() -> None:
    order = make_order([Entry(group="a")] * 5, batch_size=1, seed=0, accumulation=4)
    assert -(-order.batches_in(3) // 4) == 4
    shares = [[order.batch(4 * step + rank) for step in range(4)] for rank in range(4)]
    seen = [clip for step in range(4) for share in shares for clip in share[step]]
    assert seen[:15] == [clip for index in range(15) for clip in order.batch(index)]
    assert all(sorted(seen[5 * epoch : 5 * epoch + 5]) == [0, 1, 2, 3, 4] for epoch in range(3))


def test_more_processes_than_cards_are_refused_before_a_clip_is_looked_at(
    make_config: MakeConfig, open_run: OpenRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = open_run(make_config(num_processes=4))
    monkeypatch.setattr(run, "_probe", lambda: machine(visible=2))
    assert run.run() == "failed"
    assert run.failure is not None
    assert run.failure.text == "num_processes = 4: each process trains on a GPU of its own, and 2 can be used."
    assert not any(isinstance(event, PhaseStarted) for event in events_of(run))
