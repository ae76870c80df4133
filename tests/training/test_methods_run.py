"""Whole runs on nano with other optimizers and adapters: resumed to the same bytes, the same in both engines, exported as trained."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

import pytest
import torch
from engine_fixtures import events_of

from ltx2core.caching.tensors import read_tensors
from ltx2core.lora.read import read_lora
from ltx2core.runs.events import Notice, StepDone

if TYPE_CHECKING:
    from pathlib import Path

    from engine_fixtures import MakeConfig, OpenRun

    from ltx2core.training.session import TrainingSession


def losses(run: TrainingSession) -> list[float]:
    assert run.run() == "finished", run.failure
    return [event.loss or 0.0 for event in events_of(run) if isinstance(event, StepDone)]


def notice(run: TrainingSession, code: str) -> str:
    return next((event.text for event in events_of(run) if isinstance(event, Notice) and event.code == code), "")


@pytest.mark.parametrize(("optimizer", "engine"), [("adamw_schedulefree", "fast"), ("prodigy", "reference"), ("came", "fast")])
def test_a_run_with_another_optimizer_resumes_to_the_same_bytes(
    make_config: MakeConfig, open_run: OpenRun, optimizer: str, engine: str
) -> None:
    keys: dict[str, object] = {
        "optimizer": optimizer,
        "step_engine": engine,
        "lr_warmup_steps": 2,
        "checkpoint_step_interval": 2,
        "use_ema": engine == "reference",
        "learning_rate": 1.0 if optimizer == "prodigy" else 1e-3,
        "eval_steps_interval": 3,
        "eval_split": 0.3,
    }
    whole = open_run(make_config(max_train_steps=5, **keys), "whole")
    assert len(losses(whole)) == 5
    assert "waits for the device once an update" in notice(whole, "engine")
    part = open_run(make_config(max_train_steps=5, **keys), "part")
    shutil.copytree(
        whole.folder.path, part.folder.path, ignore=shutil.ignore_patterns("step-000004*", "step-000005*", "*.sock", "run.lock")
    )
    again = open_run(make_config(max_train_steps=5, **keys), "part", resume=True)
    assert again.run() == "finished", again.failure
    for name in ("adapter", "optimizer"):
        file = f"step-000005/{name}.safetensors"
        assert (again.folder.checkpoints / file).read_bytes() == (whole.folder.checkpoints / file).read_bytes()
    assert again.folder.lora.read_bytes().split(b"}}")[-1] == whole.folder.lora.with_name("whole.safetensors").read_bytes().split(b"}}")[-1]
    other = open_run(make_config(max_train_steps=6, **(keys | {"optimizer": "muon", "learning_rate": 1e-3})), "part", resume=True)
    assert other.run() == "failed"
    assert other.failure is not None
    assert "another optimizer" in other.failure.text


def test_schedule_free_exports_its_average_and_keeps_where_it_trains_for_a_resume(make_config: MakeConfig, open_run: OpenRun) -> None:
    run = open_run(make_config(optimizer="adamw_schedulefree", lora_dtype="fp32", max_train_steps=3))
    losses(run)
    adapter = read_tensors(run.folder.checkpoints / "step-000003" / "adapter.safetensors")
    state = read_tensors(run.folder.checkpoints / "step-000003" / "optimizer.safetensors")
    assert adapter is not None
    assert state is not None
    layer, pair = next(iter(read_lora(run.folder.lora).pairs.items()))
    name = f"{layer}.lora_B.weight"
    y, x = adapter[name], pair.up.float()
    torch.testing.assert_close(y, 0.1 * state[f"z.{name}"] + 0.9 * x, rtol=1e-4, atol=1e-7)
    assert not torch.equal(x, y)


def test_ranks_alphas_rates_and_rslora_are_the_same_in_both_engines_and_in_the_file(make_config: MakeConfig, open_run: OpenRun) -> None:
    keys: dict[str, object] = {
        "lora_rank_pattern": {"attn1": 2, "attn1.to_q": 6},
        "lora_alpha": 3,
        "lora_alpha_pattern": {"attn2": 5},
        "learning_rate_pattern": {"attn1.to_k": 0},
        "audio_learning_rate": 5e-4,
        "use_rslora": True,
        "lora_dtype": "fp32",
    }
    runs = {engine: open_run(make_config(step_engine=engine, **keys), engine) for engine in ("reference", "fast")}
    found = {engine: losses(run) for engine, run in runs.items()}
    assert found["fast"] == pytest.approx(found["reference"], rel=1e-4)
    assert not notice(runs["fast"], "reference_engine")
    files = {engine: read_lora(run.folder.lora).pairs for engine, run in runs.items()}
    for layer, pair in files["reference"].items():
        other = files["fast"][layer]
        torch.testing.assert_close(other.up, pair.up, rtol=1e-2, atol=2e-5)
        rank = 6 if "attn1.to_q" in layer and "audio" not in layer else 2 if ".attn1." in layer else 4
        assert pair.rank == other.rank == rank
        assert bool(pair.up.any()) == (".attn1.to_k" not in layer)
    trained = read_tensors(runs["fast"].folder.checkpoints / "step-000004" / "adapter.safetensors")
    assert trained is not None
    scale = 5 / 4**0.5  # alpha / sqrt(rank), folded into the file
    torch.testing.assert_close(
        files["fast"]["transformer_blocks.0.attn2.to_q"].up, scale * trained["transformer_blocks.0.attn2.to_q.lora_B.weight"]
    )


def test_patterns_of_single_blocks_train_by_the_reference_path_and_names_without_a_layer_are_refused(
    make_config: MakeConfig, open_run: OpenRun
) -> None:
    run = open_run(make_config(step_engine="fast", lora_rank_pattern={"transformer_blocks.1": 2}, max_train_steps=1))
    losses(run)
    assert "single blocks" in notice(run, "reference_engine")
    wrong = open_run(make_config(lora_rank_pattern={"attn9": 2}, learning_rate_pattern={"to_x": 0.1}), "wrong")
    assert wrong.run() == "failed"
    assert wrong.failure is not None
    assert "attn9" in wrong.failure.text
    assert "to_x" in wrong.failure.text


def test_a_resumed_run_with_other_ranks_is_refused(make_config: MakeConfig, open_run: OpenRun) -> None:
    losses(open_run(make_config(max_train_steps=1)))
    other = open_run(make_config(max_train_steps=2, lora_rank_pattern={"attn1": 2}), resume=True)
    assert other.run() == "failed"
    assert other.failure is not None
    assert "other ranks" in other.failure.text


@pytest.mark.parametrize("kind", ["dora", "lokr"])
def test_a_dora_and_a_lokr_train_by_the_reference_path_resume_exactly_and_are_exported(
    make_config: MakeConfig, open_run: OpenRun, tmp_path: Path, kind: str
) -> None:
    lycoris = tmp_path / "lycoris.json"
    lycoris.write_text('{"algo": "lokr", "linear_dim": 4, "linear_alpha": 4, "factor": 8}')
    keys: dict[str, object] = {"step_engine": "fast", "checkpoint_step_interval": 1, "use_ema": True, "validation_disable": False}
    keys |= {"use_dora": True} if kind == "dora" else {"lora_type": "lycoris", "lycoris_config": str(lycoris)}
    whole = open_run(make_config(max_train_steps=3, **keys), "whole")
    found = losses(whole)
    assert ("lengths and directions" if kind == "dora" else "LoKr") in notice(whole, "reference_engine")
    assert ("DoRA" if kind == "dora" else "LoKr") in notice(whole, "adapter")
    part = open_run(make_config(max_train_steps=3, **keys), "part")
    shutil.copytree(
        whole.folder.path, part.folder.path, ignore=shutil.ignore_patterns("step-000002*", "step-000003*", "*.sock", "run.lock")
    )
    again = open_run(make_config(max_train_steps=3, **keys), "part", resume=True)
    assert losses(again)[-2:] == found[-2:]
    file = "step-000003/adapter.safetensors"
    assert (again.folder.checkpoints / file).read_bytes() == (whole.folder.checkpoints / file).read_bytes()
    for path in (whole.folder.lora, whole.folder.lora.with_name("whole-ema.safetensors")):
        tensors = read_tensors(path)
        assert tensors is not None
        assert any(name.endswith(".dora_scale" if kind == "dora" else ".lokr_w2_b") for name in tensors)


@pytest.mark.parametrize("engine", ["fast", "reference"])
def test_a_run_with_rollouts_resumes_to_the_same_bytes_and_says_what_they_cost(
    make_config: MakeConfig, open_run: OpenRun, engine: str
) -> None:
    keys: dict[str, object] = {
        "step_engine": engine,
        "checkpoint_step_interval": 2,
        "scheduled_sampling_max_step_offset": 2,
        "scheduled_sampling_step_size": 0.2,
        "scheduled_sampling_ramp_steps": 3,
        "scheduled_sampling_prob_end": 1.0,
        "scheduled_sampling_reflexflow": engine == "fast",
    }
    whole = open_run(make_config(**keys), "whole")
    found = losses(whole)
    assert "more forwards on average" in notice(whole, "rollout_cost")
    part = open_run(make_config(**keys), "part")
    shutil.copytree(whole.folder.path, part.folder.path, ignore=shutil.ignore_patterns("step-000004*", "*.sock", "run.lock"))
    again = open_run(make_config(**keys), "part", resume=True)
    assert losses(again)[-2:] == found[-2:]
    file = "step-000004/adapter.safetensors"
    assert (again.folder.checkpoints / file).read_bytes() == (whole.folder.checkpoints / file).read_bytes()
    plain = losses(open_run(make_config(step_engine=engine), "plain"))
    assert plain[0] == found[0]  # the ramp begins at 0
    assert plain[3] != found[3]
