"""Runs with tread_config: what they say, that they resume to the same bytes, and what is refused before anything is cached."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from engine_fixtures import MakeConfig, OpenRun, events_of

from ltx2core.runs.events import Notice, Progress, StepDone
from ltx2core.training.session import TrainingSession

if TYPE_CHECKING:
    from pathlib import Path

TREAD = {"routes": [{"selection_ratio": 0.5, "start_layer_idx": 1, "end_layer_idx": -2}]}


def _losses(run: TrainingSession) -> list[float]:
    assert run.run() == "finished", run.failure
    return [event.loss or 0.0 for event in events_of(run) if isinstance(event, StepDone)]


def _told(run: TrainingSession) -> dict[str, str]:
    return {event.code: event.text for event in events_of(run) if isinstance(event, Notice)}


def _files(run: TrainingSession, step: int) -> list[bytes]:
    folder = run.folder.checkpoints / f"step-{step:06d}"
    return [path.read_bytes() for path in (folder / "adapter.safetensors", folder / "optimizer.safetensors", run.folder.lora)]


def test_both_engines_route_the_same_tokens_until_their_share_of_the_steps_is_over(make_config: MakeConfig, open_run: OpenRun) -> None:
    keys: dict[str, object] = {
        "train_batch_size": 2,
        "ltx2_first_frame_conditioning_probability": 0.5,
        "max_train_steps": 3,
        "tread_config": TREAD,
    }
    runs = {
        name: open_run(make_config(tread_share_of_steps=share, step_engine=name.split()[0], **keys), name.replace(" ", "-"))
        for name, share in (("reference", 1.0), ("fast", 1.0), ("fast to step 1", 1 / 3))
    }
    losses = {name: _losses(run) for name, run in runs.items()}
    assert losses["fast"] == pytest.approx(losses["reference"], rel=1e-4)
    ended = losses["fast to step 1"]
    assert ended[0] == losses["fast"][0]
    assert ended[1:] != pytest.approx(losses["fast"][1:], rel=1e-3)
    for name, when in (("reference", "training:"), ("fast", "training:"), ("fast to step 1", "in the first 33% of the steps:")):
        assert f"{when} 50% of them skip blocks 1 to 3 of 0 to 4" in _told(runs[name])["tread"]
        assert "not_built_yet" not in _told(runs[name])


@pytest.mark.parametrize("engine", ["reference", "fast"])
def test_a_routed_run_resumes_to_the_same_bytes(engine: str, make_config: MakeConfig, open_run: OpenRun) -> None:
    keys: dict[str, object] = {
        "tread_config": TREAD,
        "tread_share_of_steps": 1.0,
        "step_engine": engine,
        "gradient_accumulation_steps": 2,
        "gradient_checkpointing": True,
        "caption_dropout_probability": 0.3,
    }
    whole = open_run(make_config(max_train_steps=4, **keys), "whole")
    assert len(_losses(whole)) == 4
    assert open_run(make_config(max_train_steps=2, **keys), "parts").run() == "finished"
    parts = open_run(make_config(max_train_steps=4, **keys), "parts", resume=True)
    assert parts.run() == "finished", parts.failure
    assert _files(parts, 4) == _files(whole, 4)


def test_routes_that_the_model_has_no_blocks_for_are_refused_before_anything_is_cached(make_config: MakeConfig, tmp_path: Path) -> None:
    tread = {"routes": [{"selection_ratio": 0.5, "start_layer_idx": 2, "end_layer_idx": 46}]}
    run = TrainingSession(make_config(tread_config=tread), root=tmp_path / "fresh", name="run", resume=False)
    assert run.run() == "failed"
    assert run.failure is not None
    assert "tread_config.routes[0].end_layer_idx = 46: this model's blocks are 0 to 4, or -5 to -1 from the end" in run.failure.text
    assert run.failure.fix
    assert not [event for event in events_of(run) if isinstance(event, Progress) and event.phase.startswith("cache_")]


def test_sound_alone_is_not_routed_and_says_so(make_config: MakeConfig, open_run: OpenRun) -> None:
    run = open_run(make_config(tread_config=TREAD, dataset={"audio": {"audio_only": True}}, max_train_steps=1))
    assert _losses(run)
    assert "since sound is trained alone" in _told(run)["no_effect"]
