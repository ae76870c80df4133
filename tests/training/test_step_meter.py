"""What a run says of each step's cost, on the CPU, by both engines."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch
from engine_fixtures import MakeConfig, OpenRun, events_of
from step_engine import draw_batch, make_batch, nano

from ltx2core.models.components import check_transformer
from ltx2core.planning.flops import BatchShape, model_shape
from ltx2core.runs.events import EngineChosen, StepDone
from ltx2core.training.step import draw
from ltx2core.training.step_meter import StepClock, StepMeter, batch_shape
from ltx2core.training.tread import Route

if TYPE_CHECKING:
    from ltx2core.training.sigma import SigmaSampler


@pytest.mark.parametrize(
    "keys", [{"step_engine": "reference"}, {"step_engine": "fast", "musubi_blocks_to_swap": 2}], ids=["reference", "fast"]
)
def test_every_step_tells_what_it_cost(keys: dict[str, object], make_config: MakeConfig, open_run: OpenRun) -> None:
    run = open_run(make_config(max_train_steps=3, gradient_accumulation_steps=2, **keys))
    assert run.run() == "finished", run.failure
    events = events_of(run)
    steps = [event for event in events if isinstance(event, StepDone)]
    [chosen] = [event for event in events if isinstance(event, EngineChosen)]
    assert (chosen.engine, chosen.num_blocks, chosen.streamed) == (keys["step_engine"], 5, 2 if "musubi_blocks_to_swap" in keys else 0)
    assert chosen.matmul_tflops > 0
    for step in steps:
        assert step.compute_ms is not None
        assert 0 < step.compute_ms <= step.seconds * 1000 + 0.1
        assert (step.stall_ms, step.link_gb_per_s) == (0.0, None)  # copies within a CPU's memory are part of what it computes
        assert step.mfu is not None
        assert 0 < step.mfu < 1


def test_utilisation_is_the_operations_of_a_step_over_what_the_device_could_do_in_its_time() -> None:
    shape = model_shape(check_transformer(nano(), audio=True), ranks={})
    slow, fast = StepMeter(shape, matmul_rate=1e9), StepMeter(shape, matmul_rate=2e9)
    flops = slow.flops(draw_batch(make_batch()))
    assert slow.flops(draw_batch(make_batch(count=2))) == 2 * flops
    share = slow.utilisation(flops, 0.5)
    assert share == pytest.approx(flops / 0.5e9)
    assert fast.utilisation(flops, 0.5) == pytest.approx(flops / 1e9)
    assert slow.utilisation(flops, 0.0) is None


def test_routed_and_missing_tokens_are_told_from_what_was_drawn() -> None:
    from ltx2core.training.sigma import ShiftedLogitNormal

    sampler: SigmaSampler = ShiftedLogitNormal()
    routes = (Route(ratio=0.5, start=1, end=3),)
    drawn = draw(make_batch(count=2, audio=None), sampler=sampler, generator=torch.Generator().manual_seed(0), routes=routes)
    assert batch_shape(drawn, routes) == BatchShape(count=2, video=12, audio=0, text=16, routed=((1, 3, 6),))


def test_a_clock_adds_up_what_runs_within_it_and_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    monkeypatch.setattr("ltx2core.training.step_meter.time.perf_counter", lambda: now)
    clock = StepClock(torch.device("cpu"))
    for _ in range(3):
        with clock.running():
            now += 2
        now += 5
    assert clock.seconds() == 6
