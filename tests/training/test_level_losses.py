"""Losses by noise level: each sample in its band, by either engine, whatever the batch and the accumulation."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
import torch
from engine_fixtures import MakeConfig, OpenRun, events_of
from step_engine import draw_batch, make_batch, reference_nano

from ltx2core.runs.events import LossByLevel, StepDone, from_json, to_json
from ltx2core.training.level_losses import EVERY, LevelLosses, band_of
from ltx2core.training.step import losses_of

if TYPE_CHECKING:
    from ltx2core.training.session import TrainingSession


def test_bands_hold_their_lower_edge_and_the_last_one_its_upper_too() -> None:
    assert [band_of(sigma) for sigma in (0.0, 0.19, 0.2, 0.5, 0.8, 0.999, 1.0)] == [0, 0, 1, 2, 4, 4, 4]


def test_means_and_counts_are_of_the_samples_since_the_last_line() -> None:
    losses = LevelLosses()
    assert losses.take(0) is None
    losses.add("video", [(0.1, 1.0), (0.15, 3.0), (0.9, 0.5), (0.5, float("nan"))])
    losses.add("audio", [(0.3, 2.0)])
    told = losses.take(7)
    assert told == LossByLevel(
        step=7,
        video=(2.0, None, None, None, 0.5),
        video_counts=(2, 0, 0, 0, 1),
        audio=(None, 2.0, None, None, None),
        audio_counts=(0, 1, 0, 0, 0),
    )
    assert told is not None
    assert from_json(json.loads(json.dumps(to_json(told, seconds_since_epoch=1.0)))) == told
    assert losses.take(8) is None
    assert [losses.step_done() for _ in range(EVERY)] == [False] * (EVERY - 1) + [True]


def test_each_samples_loss_is_its_own_and_their_mean_is_the_batchs() -> None:
    model, _ = reference_nano()
    drawn = draw_batch(make_batch(count=3))
    losses = losses_of(model, drawn, audio_weight=1.0)
    assert losses.video_each is not None
    assert losses.audio_each is not None
    assert losses.video is not None
    assert losses.video_each.shape == (3,)
    torch.testing.assert_close(losses.video_each.mean(), losses.video)
    assert len(set(losses.audio_each.tolist())) == 3


def _told(run: TrainingSession) -> list[LossByLevel]:
    return [event for event in events_of(run) if isinstance(event, LossByLevel)]


@pytest.mark.parametrize("engine", ["reference", "fast"])
def test_a_run_tells_every_sample_once_and_means_that_add_up_to_its_losses(engine: str, make_config: MakeConfig, open_run: OpenRun) -> None:
    keys = {"train_batch_size": 2, "gradient_accumulation_steps": 2, "checkpoint_step_interval": 2, "step_engine": engine}
    run = open_run(make_config(max_train_steps=3, dataset={"repeats": 3}, **keys))
    assert run.run() == "finished", run.failure
    told, steps = _told(run), [event for event in events_of(run) if isinstance(event, StepDone)]
    assert [event.step for event in told] == [2, 3]  # before a checkpoint, and at the end
    samples = sum(sum(event.video_counts) for event in told)
    total = sum((mean or 0) * count for event in told for mean, count in zip(event.video, event.video_counts, strict=True))
    assert 9 <= samples <= 12  # of 3 steps x 2 batches of 2: a batch of a bucket with few clips is smaller
    if samples == 12:
        assert total / samples == pytest.approx(sum(step.video_loss or 0 for step in steps) / 3, rel=1e-3)
    assert sum(sum(event.audio_counts) for event in told) > 0
