"""Whole runs in bf16, as a GPU makes them, and on a GPU where there is one."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch
from engine_fixtures import events_of
from safetensors.torch import load_file

from ltx2core.runs.events import Notice, SampleReady, StepDone

if TYPE_CHECKING:
    from engine_fixtures import MakeConfig, OpenRun

KINDS: dict[str, dict[str, object]] = {"picture and sound": {}, "sound alone": {"audio": {"audio_only": True}}}


@pytest.mark.parametrize("dataset", KINDS.values(), ids=KINDS)
def test_a_bf16_run_trains_float32_adapters_close_to_the_float32_run(
    make_config: MakeConfig, open_run: OpenRun, monkeypatch: pytest.MonkeyPatch, dataset: dict[str, object]
) -> None:
    exact = open_run(make_config(max_train_steps=2, dataset=dataset), "float32")
    assert exact.run() == "finished"
    monkeypatch.setattr("ltx2core.training.prepare.pick_device", lambda _: (torch.device("cpu"), torch.bfloat16))
    loaded = make_config(
        max_train_steps=2, validation_disable=False, validation_step_interval=2, gradient_checkpointing=True, dataset=dataset
    )
    session = open_run(loaded, "bf16")
    assert session.run() == "finished", session.failure
    events = events_of(session)
    assert [event.step for event in events if isinstance(event, SampleReady)] == [0, 2]
    assert any(isinstance(event, Notice) and event.code == "engine" and "bfloat16" in event.text for event in events)
    adapter = load_file(session.folder.checkpoints / "step-000002" / "adapter.safetensors")
    assert {tensor.dtype for tensor in adapter.values()} == {torch.float32}
    losses = [[event.loss or 0.0 for event in events_of(run) if isinstance(event, StepDone)] for run in (exact, session)]
    assert losses[1] == pytest.approx(losses[0], rel=0.02)  # bf16 keeps 8 bits


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("dataset", KINDS.values(), ids=KINDS)
def test_a_run_on_the_gpu_never_waits_inside_a_step(
    make_config: MakeConfig, open_run: OpenRun, monkeypatch: pytest.MonkeyPatch, dataset: dict[str, object]
) -> None:
    from ltx2core.training.loop import Loop

    real = Loop._step

    def watched(self: Loop, step: int) -> object:
        torch.cuda.set_sync_debug_mode("error" if step >= 8 else "default")  # each shape is compiled, then captured, before
        try:
            return real(self, step)
        finally:
            torch.cuda.set_sync_debug_mode("default")

    monkeypatch.setattr(Loop, "_step", watched)
    session = open_run(make_config(max_train_steps=12, validation_disable=False, validation_step_interval=12, dataset=dataset))
    assert session.run() == "finished", session.failure
