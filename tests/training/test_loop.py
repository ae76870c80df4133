"""What a step's numbers say on a device that works behind the loop's back. Whole runs are in test_training_run.py."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import pytest
import torch

from ltx2core.planning.flops import ModelShape
from ltx2core.runs.control import Control
from ltx2core.runs.events import StepDone
from ltx2core.training import loop
from ltx2core.training.loop import Loop, LoopSettings
from ltx2core.training.schedule import LearningRate
from ltx2core.training.sigma import ShiftedLogitNormal
from ltx2core.training.step_meter import StepClock, StepMeter

if TYPE_CHECKING:
    from ltx2core.runs.events import Event


def test_seconds_of_steps_add_up_to_the_time_that_passed_though_the_device_lags(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    monkeypatch.setattr(loop, "time", SimpleNamespace(perf_counter=lambda: now))

    class Lagging:
        """A step's numbers, which the device has ready 2 s after they are asked for."""

        def tolist(self) -> list[float]:
            nonlocal now
            now += 2.0
            return [0.5, 0.5, 0.0, 0.0, 1.0]

    class OnADevice(Loop):
        def _step(self, step: int) -> Any:
            nonlocal now
            begin, now = now, now + 0.1  # giving the device its work takes that long
            return loop._Measured(
                step=step + 1,
                values=cast("Any", Lagging()),
                has_video=True,
                has_audio=False,
                has_similarity=False,
                learning_rate=0.0,
                begin=begin,
                bucket="",
                clock=StepClock(torch.device("cpu")),
                flops=10**12,
                parts=1,
                samples=1,
            )

    events: list[Event] = []
    settings = LoopSettings(
        total_steps=4, seed=0, learning_rate=LearningRate(shape="constant", peak=1.0, total_steps=4), sampler=ShiftedLogitNormal()
    )
    model = SimpleNamespace(transformer=SimpleNamespace(train=lambda: None))
    between = SimpleNamespace(due=lambda step: False)
    nothing = cast("Any", None)
    trained = OnADevice(
        model=cast("Any", model),
        engine=cast("Any", SimpleNamespace(traffic=lambda: None)),
        optimizer=nothing,
        reader=nothing,
        clips=(),
        order=nothing,
        settings=settings,
        meter=StepMeter(ModelShape(blocks=(), outside=()), matmul_rate=1e12),
        emit=events.append,
        parameters={},
    )
    assert trained.run(start=0, control=Control(), between=cast("Any", between)) == (4, False)
    seconds = [event.seconds for event in events if isinstance(event, StepDone)]
    assert len(seconds) == 4
    assert sum(seconds) == pytest.approx(now)
    assert seconds[1] == pytest.approx(2.1)
