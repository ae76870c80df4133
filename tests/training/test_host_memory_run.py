"""Whole runs on nano whose blocks wait in unusual places: the same losses, and told where."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from engine_fixtures import events_of

from ltx2core.planning.host_plan import GIB
from ltx2core.runs.events import Notice, StepDone
from ltx2core.training import holding

if TYPE_CHECKING:
    from pathlib import Path

    import pytest
    from engine_fixtures import MakeConfig, OpenRun

    from ltx2core.training.session import TrainingSession


def losses(run: TrainingSession) -> list[float | None]:
    assert run.run() == "finished", run.failure
    return [event.loss for event in events_of(run) if isinstance(event, StepDone)]


def told(run: TrainingSession) -> dict[str, str]:
    return {event.code: event.text for event in events_of(run) if isinstance(event, Notice)}


def test_losses_are_the_same_wherever_blocks_wait_and_the_place_is_told(
    make_config: MakeConfig, open_run: OpenRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "blocks"
    usual, on_disk, short = (
        open_run(make_config(step_engine="fast", max_train_steps=2, musubi_blocks_to_swap=blocks, **keys), name)
        for name, blocks, keys in (("usual", 0, {}), ("disk", 3, {"group_offload_to_disk_path": str(folder)}), ("short", 3, {}))
    )
    expected = losses(usual)
    assert losses(on_disk) == expected
    assert "wait on disk, as asked" in told(on_disk)["plan"]
    assert len(list(folder.glob("*/block-*.safetensors"))) == 3
    monkeypatch.setattr(holding, "available_memory", lambda: GIB)
    assert losses(short) == expected
    assert "blocks wait in RAM that is not locked" in told(short)["plan"]


def test_a_folder_for_blocks_that_all_stay_is_told_to_have_no_use(make_config: MakeConfig, open_run: OpenRun, tmp_path: Path) -> None:
    run = open_run(make_config(max_train_steps=1, group_offload_to_disk_path=str(tmp_path / "blocks")))
    assert len(losses(run)) == 1
    assert "no block waits on disk" in told(run)["plan"]


def test_a_limit_of_gpu_memory_is_told_to_have_no_effect_without_a_gpu(make_config: MakeConfig, open_run: OpenRun) -> None:
    run = open_run(make_config(max_train_steps=1, gpu_memory_limit_gib=8))
    assert len(losses(run)) == 1
    if not torch.cuda.is_available():
        assert "no effect: there is no GPU" in told(run)["gpu_memory_limit"]
