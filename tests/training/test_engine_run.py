"""Whole runs on nano by either way of computing steps: the same losses, and told when one stands in for the other."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest
from engine_fixtures import events_of

from ltx2core.lora.read import read_lora
from ltx2core.runs.events import Notice, StepDone

if TYPE_CHECKING:
    from engine_fixtures import MakeConfig, OpenRun

    from ltx2core.training.session import TrainingSession


def losses(run: TrainingSession) -> list[float]:
    assert run.run() == "finished", run.failure
    return [event.loss or 0.0 for event in events_of(run) if isinstance(event, StepDone)]


def told(run: TrainingSession) -> dict[str, str]:
    return {event.code: event.text for event in events_of(run) if isinstance(event, Notice)}


def test_both_ways_have_the_same_losses_with_and_without_sound_and_given_frames(make_config: MakeConfig, open_run: OpenRun) -> None:
    """One of the three clips has no sound, so batches of both kinds come, two of them to an update."""
    keys: dict[str, object] = {
        "max_train_steps": 6,
        "gradient_accumulation_steps": 2,
        "ltx2_first_frame_conditioning_probability": 0.5,
        "gradient_checkpointing": True,
    }
    found = {engine: losses(open_run(make_config(step_engine=engine, **keys), engine)) for engine in ("reference", "fast")}
    assert len(found["fast"]) == 6
    assert found["fast"] == pytest.approx(found["reference"], rel=1e-4)


def test_sound_alone_is_trained_and_drawn_either_way(make_config: MakeConfig, open_run: OpenRun) -> None:
    keys: dict[str, object] = {"max_train_steps": 3, "validation_disable": False, "validation_step_interval": 3, "disable_benchmark": True}
    runs = {
        engine: open_run(make_config(step_engine=engine, dataset={"audio": {"audio_only": True}}, **keys), engine)
        for engine in ("reference", "fast")
    }
    found = {engine: losses(run) for engine, run in runs.items()}
    assert len(found["fast"]) == 3
    assert found["fast"] == pytest.approx(found["reference"], rel=1e-4)
    assert "reference_engine" not in told(runs["fast"])
    assert "flat buffers" in told(runs["fast"])["engine"]
    layers = read_lora(runs["fast"].folder.lora).pairs
    assert layers.keys() == read_lora(runs["reference"].folder.lora).pairs.keys()
    assert all("audio" in name for name in layers)
    assert list(runs["fast"].folder.samples.glob("*/sample.wav"))


@pytest.mark.parametrize(
    ("precision", "storage", "decibels"), [("int8-torchao", "int8", 35), ("fp8-torchao", "fp8", 30), ("nf4-bnb", "nf4", 19)]
)
def test_a_run_on_rounded_weights_learns_and_says_how_far_they_are_from_their_file(
    make_config: MakeConfig, open_run: OpenRun, precision: str, storage: str, decibels: float
) -> None:
    run = open_run(make_config(base_model_precision=precision, max_train_steps=3))
    assert len(losses(run)) == 3
    found = re.search(r"Weights in (\w+): ([\d.]+) dB", told(run)["rounding"])
    assert found is not None
    assert found[1] == storage
    assert float(found[2]) > decibels
    assert f"{storage} weights, widened for each product" in told(run)["engine"]
    assert ("no_fp8_products" in told(run)) == (storage == "fp8")  # which a CPU has not


def test_layers_of_a_single_block_are_trained_by_the_reference_path_which_is_told(make_config: MakeConfig, open_run: OpenRun) -> None:
    keys: dict[str, object] = {"base_model_precision": "int8-torchao", "musubi_blocks_to_swap": 2, "max_train_steps": 1}
    run = open_run(make_config(step_engine="fast", peft_lora_target_modules=["transformer_blocks.1.attn1.to_q"], **keys))
    assert len(losses(run)) == 1
    assert "names layers of single blocks" in told(run)["reference_engine"]
    assert told(run)["no_effect"].startswith("base_model_precision, the offloading of blocks: no effect")  # which it cannot do
