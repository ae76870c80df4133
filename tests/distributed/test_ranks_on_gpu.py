"""Two ranks on two cards, over NCCL: what they learn, and that one that is killed ends the run."""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING

import pytest
import torch
from engine_fixtures import events_of, watch

from ltx2core.caching.tensors import read_tensors
from ltx2core.distributed import launch
from ltx2core.runs.events import EngineChosen, RunFailed, StepDone

if TYPE_CHECKING:
    import subprocess
    from pathlib import Path

    from engine_fixtures import MakeConfig, OpenRun

    from ltx2core.runs.events import Event
    from ltx2core.training.session import TrainingSession

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two GPUs")]


def adapter(run: TrainingSession, step: int) -> dict[str, torch.Tensor]:
    found = read_tensors(run.folder.checkpoints / f"step-{step:06d}" / "adapter.safetensors")
    assert found is not None
    return found


def test_two_cards_learn_what_one_learns_from_the_same_batches_also_captured(make_config: MakeConfig, open_run: OpenRun) -> None:
    keys: dict[str, object] = {"max_train_steps": 8, "musubi_blocks_to_swap": 2, "mixed_precision": "no"}
    one = open_run(make_config(gradient_accumulation_steps=2, **keys), "one")
    two = open_run(make_config(num_processes=2, **keys), "two")
    assert one.run() == "finished", one.failure
    assert two.run() == "finished", two.failure
    expected = adapter(one, 8)
    assert all(float((value - expected[name]).abs().max()) <= 1e-3 for name, value in adapter(two, 8).items())
    losses = [[event.loss for event in events_of(run) if isinstance(event, StepDone)] for run in (one, two)]
    assert losses[1] == pytest.approx(losses[0], rel=1e-3)
    (chosen,) = (event for event in events_of(two) if isinstance(event, EngineChosen))
    assert chosen.ranks == 2


def test_a_rank_that_is_killed_in_the_middle_ends_the_run_with_a_line(
    make_config: MakeConfig, open_run: OpenRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[subprocess.Popen[bytes]] = []
    spawn = launch.spawn

    def noted(rank: int, size: int, *, log: Path) -> launch.Process:
        process = spawn(rank, size, log=log)
        started.append(process)  # type: ignore[arg-type]
        return process

    monkeypatch.setattr(launch, "spawn", noted)
    run = open_run(make_config(num_processes=2, max_train_steps=2000))

    def kill_after_four(event: Event) -> None:
        if isinstance(event, StepDone) and event.step == 4:
            os.kill(started[0].pid, signal.SIGKILL)

    watch(run, do=kill_after_four)
    assert run.outcome == "failed"
    (failed,) = (event for event in events_of(run) if isinstance(event, RunFailed))
    assert "Rank 1 of 2 was ended by signal 9" in failed.text
