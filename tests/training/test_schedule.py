"""The learning rate as a function of the step: the same with and without an interruption, for every shape."""

from __future__ import annotations

from typing import get_args

import pytest

from ltx2core.training.schedule import LearningRate, Shape

SHAPES: tuple[Shape, ...] = get_args(Shape)


@pytest.mark.parametrize("shape", SHAPES)
def test_a_resumed_run_has_the_rate_of_one_that_was_not_interrupted(shape: Shape) -> None:
    whole = LearningRate(shape=shape, peak=1e-4, total_steps=2000, warmup_steps=50, end=4e-7)
    resumed = LearningRate(shape=shape, peak=1e-4, total_steps=2000, warmup_steps=50, end=4e-7)
    assert [whole(step) for step in range(2000)][1000:] == [resumed(step) for step in range(1000, 2000)]


@pytest.mark.parametrize("shape", SHAPES)
def test_extending_a_finished_run_never_leaves_the_peak(shape: Shape) -> None:
    extended = LearningRate(shape=shape, peak=1e-4, total_steps=4000, warmup_steps=50, end=4e-7, cycles=3)
    assert all(0 < extended(step) <= 1e-4 for step in range(5000))


@pytest.mark.parametrize("shape", [shape for shape in SHAPES if shape != "constant"])
def test_the_rate_rises_over_the_warm_up(shape: Shape) -> None:
    rate = LearningRate(shape=shape, peak=1.0, total_steps=100, warmup_steps=10)
    assert [rate(step) for step in range(10)] == pytest.approx([0.1 * (step + 1) for step in range(10)])
    assert rate(10) == pytest.approx(1.0)


@pytest.mark.parametrize("shape", ["linear", "cosine", "polynomial", "cosine_with_restarts"])
def test_a_falling_rate_ends_at_its_end_and_stays_there(shape: Shape) -> None:
    rate = LearningRate(shape=shape, peak=1e-4, total_steps=1000, end=1e-6, cycles=2, power=0.8)
    assert rate(1000) == pytest.approx(1e-6)
    assert rate(1500) == pytest.approx(1e-6)


def test_linear_and_cosine_have_their_half_way_values() -> None:
    assert LearningRate(shape="linear", peak=1.0, total_steps=100)(50) == pytest.approx(0.5)
    assert LearningRate(shape="cosine", peak=1.0, total_steps=100)(25) == pytest.approx(0.853553, abs=1e-6)
    assert LearningRate(shape="cosine_with_restarts", peak=1.0, total_steps=100, cycles=2)(50) == pytest.approx(1.0)
    assert LearningRate(shape="sine", peak=1.0, total_steps=100)(50) == pytest.approx(0.0, abs=1e-9)
