"""Penalties against their formulas in plain floats (double, relative 1e-5), and the step engine against PEFT with each of them."""

from __future__ import annotations

import math

import pytest
import torch
from step_engine import CHOSEN, draw_batch, fast_nano, make_batch, reference_nano

from ltx2core.planning.step_plan import StepPlan
from ltx2core.training.engine import FastEngine, ReferenceEngine
from ltx2core.training.flat_optimizer import FlatOptimizer
from ltx2core.training.objective import velocity_loss
from ltx2core.training.optimizer import AdamSettings
from ltx2core.training.penalty import Penalty, snr_weight

ERRORS = torch.tensor([0.001, -0.2, 3.0]).view(1, 1, 3)


def _width(schedule: str, c: float, sigma: float) -> float:
    return {"constant": c, "exponential": c**sigma, "snr": (1 - c) * (1 - sigma) ** 2 + c}[schedule]


@pytest.mark.parametrize("schedule", ["constant", "exponential", "snr"])
@pytest.mark.parametrize("sigma", [0.0, 0.3, 1.0])
def test_huber_and_smooth_l1_are_their_formulas_at_every_schedule(schedule: str, sigma: float) -> None:
    c = _width(schedule, 0.2, sigma)
    level = torch.tensor([sigma])
    huber = Penalty(shape="huber", width=0.2, schedule=schedule).of(ERRORS, level)
    smooth = Penalty(shape="smooth_l1", width=0.2, schedule=schedule).of(ERRORS, level)
    for index, error in enumerate(ERRORS.flatten().tolist()):
        assert float(huber[0, 0, index]) == pytest.approx(2 * c * (math.sqrt(error**2 + c**2) - c), rel=1e-4, abs=1e-7)
        assert float(smooth[0, 0, index]) == pytest.approx(2 * (math.sqrt(error**2 + c**2) - c), rel=1e-4, abs=1e-7)


def test_an_odd_clip_moves_huber_less_than_squares() -> None:
    far, near = torch.full((1, 1, 1), 10.0), torch.full((1, 1, 1), 0.01)
    sigma = torch.tensor([1.0])
    square, huber = Penalty(), Penalty(shape="huber", width=0.1)
    assert float(huber.of(near, sigma) / square.of(near, sigma)) == pytest.approx(1, rel=0.01)
    assert float(huber.of(far, sigma) / square.of(far, sigma)) < 0.03


def test_the_weight_of_a_velocity_is_min_snr_of_the_clean_clip_s_error() -> None:
    """min(SNR, gamma) times the error of x0, which is sigma times that of the velocity."""
    sigma = torch.tensor([0.05, 0.2, 0.31, 0.5, 0.9])
    snr = ((1 - sigma) / sigma) ** 2
    torch.testing.assert_close(snr_weight(sigma, 5.0), snr.clamp(max=5.0) * sigma**2)
    loss = velocity_loss(
        torch.zeros(5, 2, 3),
        torch.zeros(5, 2, 3),
        torch.ones(5, 2, 3),
        torch.ones(5, 2, dtype=torch.bool),
        sigma=sigma,
        penalty=Penalty(snr_gamma=5.0),
    )
    torch.testing.assert_close(loss, snr.clamp(max=5.0) * sigma**2)


def test_a_penalty_that_follows_sigma_is_refused_without_it() -> None:
    tensors = [torch.zeros(1, 2, 3)] * 3
    with pytest.raises(ValueError, match="sigma"):
        velocity_loss(*tensors, torch.ones(1, 2, dtype=torch.bool), penalty=Penalty(shape="huber"))


@pytest.mark.parametrize("penalty", [Penalty(shape="huber"), Penalty(shape="smooth_l1", schedule="exponential"), Penalty(snr_gamma=5.0)])
def test_both_engines_train_with_the_penalty(penalty: Penalty) -> None:
    drawn = draw_batch(make_batch(count=2))
    usual, parameters = reference_nano()
    flat, fast = fast_nano()
    engine = FastEngine(
        flat, fast, FlatOptimizer(fast.adapter, AdamSettings()), PLAN, audio_weight=0.7, chosen=CHOSEN, emit=lambda _: None, penalty=penalty
    )
    expected = ReferenceEngine(usual, audio_weight=0.7, penalty=penalty).run(drawn, part=0, parts=1)
    found = engine.run(drawn, part=0, parts=1)
    torch.testing.assert_close(found.total, expected.total, rtol=1e-5, atol=1e-6)
    for name, parameter in parameters.items():
        torch.testing.assert_close(fast.adapter.gradient_of(name), parameter.grad, rtol=1e-3, atol=1e-6)
    assert float(expected.total) != pytest.approx(
        float(ReferenceEngine(usual, audio_weight=0.7).run(drawn, part=0, parts=1).total), rel=0.01
    )


PLAN = StepPlan(storage="bf16", precision="dequant", streamed=0, slots=2, kept=0, inputs_to_host=False, because=())
