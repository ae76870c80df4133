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
from ltx2core.training.settings import train_settings
from ltx2core.training.trainee import _against_fast

if TYPE_CHECKING:
    from pathlib import Path

    from engine_fixtures import MakeConfig, OpenRun

    from ltx2core.training.session import TrainingSession


def losses(run: TrainingSession) -> list[float]:
    assert run.run() == "finished", run.failure
    return [event.loss or 0.0 for event in events_of(run) if isinstance(event, StepDone)]


def notice(run: TrainingSession, code: str) -> str:
    return next((event.text for event in events_of(run) if isinstance(event, Notice) and event.code == code), "")


def test_a_run_with_another_optimizer_resumes_to_the_same_bytes_and_exports_what_it_is_at_rest(
    make_config: MakeConfig, open_run: OpenRun
) -> None:
    """Schedule-free: it trains at one point, which checkpoints hold, and an average is measured and exported."""
    keys: dict[str, object] = {
        "optimizer": "adamw_schedulefree",
        "step_engine": "fast",
        "lr_warmup_steps": 1,
        "checkpoint_step_interval": 1,
        "eval_steps_interval": 2,
        "eval_split": 0.3,
        "lora_dtype": "fp32",
    }
    whole = open_run(make_config(max_train_steps=3, **keys), "whole")
    assert len(losses(whole)) == 3
    assert "waits for the device once an update" in notice(whole, "engine")
    part = open_run(make_config(max_train_steps=3, **keys), "part")
    shutil.copytree(
        whole.folder.path, part.folder.path, ignore=shutil.ignore_patterns("step-000002*", "step-000003*", "*.sock", "run.lock")
    )
    again = open_run(make_config(max_train_steps=3, **keys), "part", resume=True)
    assert again.run() == "finished", again.failure
    for name in ("adapter", "optimizer"):
        file = f"step-000003/{name}.safetensors"
        assert (again.folder.checkpoints / file).read_bytes() == (whole.folder.checkpoints / file).read_bytes()
    other = open_run(make_config(max_train_steps=4, **(keys | {"optimizer": "muon"})), "part", resume=True)
    assert other.run() == "failed"
    assert other.failure is not None
    assert "another optimizer" in other.failure.text
    adapter = read_tensors(whole.folder.checkpoints / "step-000003" / "adapter.safetensors")
    state = read_tensors(whole.folder.checkpoints / "step-000003" / "optimizer.safetensors")
    assert adapter is not None
    assert state is not None
    layer, pair = next(iter(read_lora(whole.folder.lora).pairs.items()))
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
    other = open_run(make_config(max_train_steps=5, **(keys | {"lora_rank_pattern": {"attn1": 2}})), "fast", resume=True)
    assert other.run() == "failed"
    assert other.failure is not None
    assert "other ranks" in other.failure.text


def test_patterns_of_single_blocks_train_by_the_reference_path_and_names_without_a_layer_are_refused(
    make_config: MakeConfig, open_run: OpenRun
) -> None:
    for pattern, reason in (({"transformer_blocks.1": 2}, "single blocks"), ({"ff.net.2": 2}, None)):
        config = make_config(step_engine="fast", lora_rank_pattern=pattern).config
        found = _against_fast(train_settings(config, tokens=48), device=torch.device("cpu"))
        assert (found is None) == (reason is None)
        assert (reason or "") in (found or "")
    wrong = open_run(make_config(lora_rank_pattern={"attn9": 2}, learning_rate_pattern={"to_x": 0.1}), "wrong")
    assert wrong.run() == "failed"
    assert wrong.failure is not None
    assert "attn9" in wrong.failure.text
    assert "to_x" in wrong.failure.text


@pytest.mark.parametrize("kind", ["dora", "lokr"])
def test_a_dora_and_a_lokr_train_by_the_reference_path_resume_exactly_and_are_exported(
    make_config: MakeConfig, open_run: OpenRun, tmp_path: Path, kind: str
) -> None:
    lycoris = tmp_path / "lycoris.json"
    lycoris.write_text('{"algo": "lokr", "linear_dim": 4, "linear_alpha": 4, "factor": 8}')
    keys: dict[str, object] = {"step_engine": "fast", "checkpoint_step_interval": 1, "use_ema": True, "max_train_steps": 2}
    keys |= {"use_dora": True} if kind == "dora" else {"lora_type": "lycoris", "lycoris_config": str(lycoris)}
    keys |= {"optimizer": "prodigy", "learning_rate": 1.0} if kind == "dora" else {"optimizer": "came"}
    whole = open_run(make_config(**keys), "whole")
    found = losses(whole)
    assert ("lengths and directions" if kind == "dora" else "LoKr") in notice(whole, "reference_engine")
    assert ("DoRA" if kind == "dora" else "LoKr") in notice(whole, "adapter")
    part = open_run(make_config(**keys), "part")
    shutil.copytree(whole.folder.path, part.folder.path, ignore=shutil.ignore_patterns("step-000002*", "*.sock", "run.lock"))
    again = open_run(make_config(**keys), "part", resume=True)
    assert losses(again)[-1] == found[-1]
    file = "step-000002/adapter.safetensors"
    assert (again.folder.checkpoints / file).read_bytes() == (whole.folder.checkpoints / file).read_bytes()
    for path in (whole.folder.lora, whole.folder.lora.with_name("whole-ema.safetensors")):
        tensors = read_tensors(path)
        assert tensors is not None
        assert any(name.endswith(".dora_scale" if kind == "dora" else ".lokr_w2_b") for name in tensors)
