"""Whole runs with CREPA on nano: features cached once, resumed to the same bytes in either engine, refused before anything is cached."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

import pytest
from engine_fixtures import events_of, watch
from tiny_dino import save_tiny_dino

from ltx2core.caching.store import Store
from ltx2core.lora.read import read_lora
from ltx2core.runs.events import Notice, PhaseStarted, StepDone

if TYPE_CHECKING:
    from pathlib import Path

    from engine_fixtures import MakeConfig, OpenRun

    from ltx2core.training.session import TrainingSession


def steps(run: TrainingSession) -> list[StepDone]:
    assert run.run() == "finished", run.failure
    return [event for event in events_of(run) if isinstance(event, StepDone)]


@pytest.fixture(scope="module")
def dino(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_dino(tmp_path_factory.mktemp("encoders") / "dino")


def _keys(dino: Path) -> dict[str, object]:
    return {"crepa_enabled": True, "crepa_block_index": 1, "crepa_encoder": str(dino), "crepa_encoder_image_size": 56}


def test_features_are_made_once_and_a_resumed_run_ends_with_the_same_bytes(
    make_config: MakeConfig, open_run: OpenRun, root: Path, dino: Path
) -> None:
    keys = _keys(dino) | {
        "step_engine": "fast",
        "max_train_steps": 3,
        "checkpoint_step_interval": 2,
        "crepa_scheduler": "linear",
        "crepa_similarity_threshold": 2.5,
        "tread_config": {"routes": [{"selection_ratio": 0.5, "start_layer_idx": 1, "end_layer_idx": 2}]},
    }
    whole = open_run(make_config(**keys), "whole")
    found = steps(whole)
    assert all(event.similarity is not None for event in found)
    assert len([1 for kind, _ in Store(root / "cache").entries() if kind == "features"]) == 3
    assert "image encoder" in next(event.text for event in events_of(whole) if isinstance(event, Notice) and event.code == "crepa")
    part = open_run(make_config(**keys), "part")
    shutil.copytree(
        whole.folder.path, part.folder.path, ignore=shutil.ignore_patterns("step-000003*", "*.sock", "run.lock", "journal.jsonl")
    )
    again = open_run(make_config(**keys), "part", resume=True)
    assert steps(again)[-1].similarity == found[-1].similarity
    for name in ("adapter", "optimizer"):
        file = f"step-000003/{name}.safetensors"
        assert (again.folder.checkpoints / file).read_bytes() == (whole.folder.checkpoints / file).read_bytes()
    assert [event.total for event in events_of(again) if isinstance(event, PhaseStarted) and event.phase == "cache_features"] == [0]
    assert set(read_lora(whole.folder.lora).metadata) == set(read_lora(again.folder.lora).metadata)


def test_both_engines_have_the_same_losses_and_similarity_from_the_model_s_own_features(make_config: MakeConfig, open_run: OpenRun) -> None:
    """With accumulation, rollouts and a clip without sound."""
    keys: dict[str, object] = {
        "crepa_enabled": True, "crepa_block_index": 1, "crepa_use_backbone_features": True, "crepa_lambda": 0.1,
        "gradient_accumulation_steps": 2, "scheduled_sampling_max_step_offset": 2, "scheduled_sampling_probability": 0.5,
    }  # fmt: skip
    keys["max_train_steps"] = 2
    runs = {engine: open_run(make_config(step_engine=engine, **keys), engine) for engine in ("reference", "fast")}
    found = {engine: steps(run) for engine, run in runs.items()}
    for one, other in zip(found["reference"], found["fast"], strict=True):
        assert other.loss == pytest.approx(one.loss, rel=1e-3)
        assert other.similarity == pytest.approx(one.similarity, rel=1e-3)
        assert one.loss is not None
        assert one.loss > 0  # of velocities alone: what alignment adds is below 0


def test_an_encoder_or_a_block_that_is_not_there_is_refused_before_anything_is_cached(
    make_config: MakeConfig, open_run: OpenRun, dino: Path
) -> None:
    for keys, said in (
        ({"crepa_encoder": "dinov2_vits14"}, "facebook/dinov2-small is not in the hub's cache"),
        ({"crepa_block_index": 8}, "crepa_block_index = 8"),
    ):
        run = open_run(make_config(**(_keys(dino) | keys)), said.split()[0].replace("/", "-"))
        phases: list[str] = []
        watch(run, do=lambda event, phases=phases: phases.append(event.phase) if isinstance(event, PhaseStarted) else None)  # type: ignore[misc]
        assert run.outcome == "failed"
        assert run.failure is not None
        assert said in run.failure.text
        assert not any(phase.startswith("cache") for phase in phases)
