"""A run whose max_train_steps was raised, against one that had them from the start.

The rate of a step is a function of the step and the total. Where the two totals give the steps that were done the same rates (in the
warm-up, and always for shapes without an end), the files are equal to the last bit; elsewhere the rest is trained at the new total's rates.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, get_args

import pytest
from engine_fixtures import MakeConfig, OpenRun, events_of

from ltx2core.runs.events import StepDone
from ltx2core.training.schedule import LearningRate, Shape

if TYPE_CHECKING:
    from ltx2core.training.session import TrainingSession


def _files(session: TrainingSession, step: int) -> list[bytes]:
    folder = session.folder.checkpoints / f"step-{step:06d}"
    return [path.read_bytes() for path in (folder / "adapter.safetensors", folder / "optimizer.safetensors", session.folder.lora)]


@pytest.mark.parametrize("shape", get_args(Shape))
def test_a_run_extended_in_its_warm_up_ends_with_the_bytes_of_one_that_was_as_long_from_the_start(
    shape: Shape, make_config: MakeConfig, open_run: OpenRun
) -> None:
    keys: dict[str, object] = {"lr_scheduler": shape, "lr_warmup_steps": 2}
    whole = open_run(make_config(max_train_steps=4, **keys), "whole")
    assert whole.run() == "finished", whole.failure
    assert open_run(make_config(max_train_steps=2, **keys), "parts").run() == "finished"
    parts = open_run(make_config(max_train_steps=4, **keys), "parts", resume=True)
    assert parts.run() == "finished", parts.failure
    assert _files(parts, 4) == _files(whole, 4)


def test_an_extended_run_has_the_rates_of_the_old_total_then_those_of_the_new_one(make_config: MakeConfig, open_run: OpenRun) -> None:
    assert open_run(make_config(max_train_steps=2, lr_scheduler="linear")).run() == "finished"
    longer = open_run(make_config(max_train_steps=5, lr_scheduler="linear"), resume=True)
    assert longer.run() == "finished", longer.failure
    rates = [event.learning_rate for event in events_of(longer) if isinstance(event, StepDone)]
    old, new = (LearningRate(shape="linear", peak=1e-3, total_steps=total) for total in (2, 5))
    assert rates == [old(0), old(1), new(2), new(3), new(4)]
