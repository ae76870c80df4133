"""Rollouts and CREPA on a card: captured, streamed and without waiting. nano only: pytest -m gpu tests/training/test_methods_on_gpu.py"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
import torch
from step_engine import CHOSEN, difference, draw_batch, fast_nano, gradients_of, make_batch

from ltx2core.planning.step_plan import StepPlan
from ltx2core.training.crepa import Crepa, CrepaSettings, WeightSchedule
from ltx2core.training.engine import FastEngine
from ltx2core.training.fast_model import FastSettings
from ltx2core.training.flat_optimizer import FlatOptimizer
from ltx2core.training.head_optimizer import WithHead
from ltx2core.training.optimizer import AdamSettings
from ltx2core.training.rollout import ReflexFlow, Rollouts

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import Tensor

    from ltx2core.training.step import Drawn

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")]
GPU = torch.device("cuda")
ROLLOUTS = Rollouts(most_steps=2, step_size=0.1, probability=1.0, reflexflow=ReflexFlow(beta1=0.5))
CREPA = CrepaSettings(width=8, block=1, weight=WeightSchedule(peak=0.5), threshold=2.5)
HELD = {"resident": FastSettings(compile=False), "streamed": FastSettings(compile=False, streamed=4, slots=2)}


class Steps:
    """A run's engine on nano, with rollouts and CREPA. capture: False for what it is compared with."""

    def __init__(self, settings: FastSettings, *, capture: bool) -> None:
        model, self.fast = fast_nano(settings, device=GPU)
        self.crepa = Crepa(model.transformer, CREPA, seed=0, device=GPU, dtype=torch.float32)
        self.crepa.set_step(0)
        self.model = replace(model, rollouts=ROLLOUTS, crepa=self.crepa)
        self.optimizer = WithHead(FlatOptimizer(self.fast.adapter, AdamSettings()), self.crepa)
        plan = StepPlan(
            storage="bf16", precision="dequant", streamed=settings.streamed, slots=settings.slots, kept=0, inputs_to_host=False, because=()
        )
        self.engine = FastEngine(self.model, self.fast, self.optimizer, plan, audio_weight=0.7, chosen=CHOSEN, emit=lambda _: None)
        self.engine._runner.capture = capture

    def gradients(self, drawn: Drawn) -> dict[str, Tensor]:
        self.engine.run(drawn, part=0, parts=1)
        head = {f"head.{name}": value.grad.clone() for name, value in self.crepa.named_parameters() if value.grad is not None}
        return gradients_of(self.fast) | head


def drawn_of(seed: int, *, rollout_steps: int) -> Drawn:
    batch = make_batch(count=2, grid=(3, 2, 2), seed=seed, device=GPU)
    features = torch.randn(2, 12, 8, generator=torch.Generator().manual_seed(seed)).to(GPU)
    return replace(draw_batch(replace(batch, features=features), seed=seed), rollout_steps=rollout_steps)


@pytest.mark.parametrize("settings", HELD.values(), ids=HELD)
def test_captured_rollouts_and_alignment_are_the_eager_ones(settings: FastSettings) -> None:
    """Lengths of rollouts come in turns; each has a graph of its own."""
    captured, eager = Steps(settings, capture=True), Steps(HELD["resident"], capture=False)
    for seed in range(15):
        drawn = drawn_of(seed, rollout_steps=seed % 3)
        assert difference(captured.gradients(drawn), eager.gradients(drawn)) < 1e-3
    assert captured.engine._runner.captured == 3
    torch.testing.assert_close(captured.crepa.average, eager.crepa.average, rtol=1e-4, atol=1e-6)


@pytest.fixture
def waiting_is_an_error() -> Iterator[None]:
    yield
    torch.cuda.set_sync_debug_mode("default")


def test_a_step_with_both_never_waits_for_the_device(waiting_is_an_error: None) -> None:
    steps = Steps(HELD["resident"], capture=False)
    batches = [drawn_of(seed, rollout_steps=2) for seed in range(3)]
    steps.gradients(batches[0])
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    for number, drawn in enumerate(batches[1:]):
        steps.crepa.set_step(number)
        losses = steps.engine.run(drawn, part=0, parts=1)
        norm = steps.optimizer.clip(1.0)
        steps.optimizer.step(1e-3, finite=torch.isfinite(losses.total) & torch.isfinite(norm))
