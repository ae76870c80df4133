"""Samples take what their number, their sizes and their guidance ask for."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from ltx2core.config.train import TrainConfig
from ltx2core.planning import samples
from ltx2core.planning.hardware import hardware_named
from ltx2core.planning.predict import predict
from ltx2core.planning.samples import SampleShape, sample_shape
from ltx2core.validation.media import REFINING_SIGMAS
from ltx2core.validation.sampling import DISTILLED_SIGMAS

if TYPE_CHECKING:
    from pathlib import Path


def shape(*, steps: int = 1000, audio: bool = True, **values: object) -> SampleShape:
    found = sample_shape(TrainConfig.model_validate({"validation_step_interval": 250} | values), steps, audio=audio)
    assert found is not None
    return found


def test_samples_are_counted_by_prompts_sizes_seeds_and_sets_of_loras(tmp_path: Path) -> None:
    assert shape().count == 5  # before the first step and four times
    assert shape(validation_resolution="512x768,768x512", num_validation_images=3).count == 5 * 2 * 3
    library = tmp_path / "prompts.json"
    library.write_text(json.dumps({"a": "a cat", "b": "a dog"}))
    assert shape(user_prompt_library=library, validation_prompt_library=True, validation_prompt="a fox").each == 2 + 10 + 1
    assert shape(validation_using_datasets=True, num_eval_images=6).each == 6
    assert shape(validation_adapter_path="a.safetensors", validation_adapter_mode="comparison").each == 2
    assert sample_shape(TrainConfig(validation_disable=True), 1000, audio=True) is None


def test_every_kind_of_guidance_costs_a_forward() -> None:
    size = shape().clip
    assert list(shape().forwards(size)) == [(size, 2, 30)]
    assert list(shape(validation_guidance=1).forwards(size)) == [(size, 1, 30)]
    guided = shape(ltx2_validation_stg_scale=1, ltx2_validation_modality_guidance=3)
    assert list(guided.forwards(size)) == [(size, 2, 30), (size, 1, 60)]
    assert shape(audio=False, ltx2_validation_modality_guidance=3).alone == 0  # there is nothing to hear


def test_distilled_samples_and_those_of_two_stages_take_the_steps_of_their_levels() -> None:
    assert (len(DISTILLED_SIGMAS) - 1, len(REFINING_SIGMAS) - 1) == (samples.DISTILLED_STEPS, samples.REFINING_STEPS)
    fast = shape(ltx2_validation_schedule="distilled")
    assert (fast.steps, fast.together) == (8, 1)
    large = shape(ltx2_validation_pipeline_mode="spatial-upscale", validation_resolution="768x1280")
    half, full = list(large.forwards(large.clip))
    assert (half[0].width, half[2], full) == (640, 30, (large.clip, 1, 3))


def test_a_run_with_more_samples_takes_longer_and_a_larger_one_needs_more() -> None:
    def sampled(**values: object) -> tuple[float, int]:
        found = predict(TrainConfig.model_validate({"max_train_steps": 500} | values), hardware_named("H100"), clips=20).phase("sample")
        assert found is not None
        assert found.seconds is not None
        return found.seconds, found.vram_bytes

    seconds, vram = sampled()
    assert sampled(num_validation_images=2)[0] == pytest.approx(2 * seconds, rel=0.01)
    two = sampled(validation_resolution="512x768,768x1280")
    assert two[0] > 2 * seconds
    assert two[1] > vram
