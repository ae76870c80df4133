"""Samples take what their number, their sizes and their guidance ask for."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from ltx2core.config.load import look_at
from ltx2core.config.train import TrainConfig
from ltx2core.data.clip import Bucket
from ltx2core.data.linked import reference_bucket
from ltx2core.planning import samples
from ltx2core.planning.clips import ClipShape
from ltx2core.planning.hardware import hardware_named
from ltx2core.planning.job import job_of
from ltx2core.planning.predict import predict
from ltx2core.planning.samples import SampleShape, sample_shape
from ltx2core.validation.media import REFINING_SIGMAS
from ltx2core.validation.sampling import DISTILLED_SIGMAS

if TYPE_CHECKING:
    from ltx2core.planning.hardware import Hardware
    from ltx2core.planning.phases import Phase


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


def drawn(*, references: bool = False, hardware: Hardware | None = None, **values: object) -> Phase:
    """Drawing samples of 14,080 tokens on an H100."""
    video = {"id": "clips", "type": "local", "dataset_type": "video", "instance_data_dir": "clips", "resolution": 704}
    seen = {"id": "seen", "type": "local", "dataset_type": "conditioning", "conditioning_type": "reference_strict"}
    datasets: list[dict[str, Any]] = [video | {"video": {"num_frames": 121}} | ({"conditioning_data": ["seen"]} if references else {})]
    datasets += [seen | {"instance_data_dir": "seen"}] if references else []
    size = {"validation_resolution": "704x1280", "validation_num_video_frames": 121, "max_train_steps": 500}
    loaded = look_at(size | values, base=Path(), datasets=datasets)
    found = predict(loaded.config, hardware or hardware_named("H100"), datasets=loaded.datasets, clips=20).phase("sample")
    assert found is not None
    return found


def test_a_sample_that_starts_from_a_picture_needs_more_and_one_of_a_sound_no_more() -> None:
    from_text, from_clips = drawn().vram["scratch"], drawn(validation_using_datasets=True).vram["scratch"]
    assert from_clips - from_text == pytest.approx(14_080 * 41_000, rel=0.01)  # three rows of modulation a token, two samples' in turn
    assert drawn(validation_using_datasets=True, validation_dataset_gives="sound").vram["scratch"] == from_text


def test_samples_of_clips_that_are_linked_to_sound_start_from_that_and_not_from_a_picture() -> None:
    config = TrainConfig.model_validate({"validation_using_datasets": True, "max_train_steps": 500})
    local: dict[str, Any] = {"type": "local", "instance_data_dir": "clips"}
    video, audio = {"id": "clips", "dataset_type": "video"} | local, {"id": "voices", "dataset_type": "audio"} | local

    def given(*datasets: dict[str, Any]) -> bool:
        loaded = look_at(config.model_dump(exclude_unset=True), base=Path(), datasets=list(datasets))
        found = job_of(loaded.config, datasets=loaded.datasets).sample
        assert found is not None
        return found.given

    assert given(video)
    assert given(video, audio)
    assert not given(video | {"s2v_datasets": ["voices"]}, audio)


def test_a_reference_beside_a_sample_costs_what_its_tokens_do(tmp_path: Path) -> None:
    alone, beside = drawn(), drawn(references=True)
    assert alone.seconds is not None
    assert beside.seconds is not None
    assert beside.vram["scratch"] > 2 * alone.vram["scratch"]
    assert beside.seconds > 2 * alone.seconds
    smaller = drawn(references=True, ltx2_reference_spatial_scale_factor=2)
    assert alone.vram["scratch"] < smaller.vram["scratch"] < 0.7 * beside.vram["scratch"]
    assert drawn(references=True, ltx2_reference_conditioning_probability=0).vram == alone.vram
    named = tmp_path / "seen.mp4"
    named.touch()
    assert drawn(validation_ltx2_video_conditioning=[{"path": str(named)}]).vram["scratch"] == beside.vram["scratch"]


@pytest.mark.parametrize(("smaller", "slower"), [(1, 1), (2, 1), (3, 2), (16, 16)])
def test_references_are_as_large_as_they_are_encoded(smaller: int, slower: int) -> None:
    for width, height, frames in ((1280, 704, 121), (768, 512, 49), (32, 32, 1)):
        encoded = reference_bucket(Bucket(width=width, height=height, frames=frames), smaller=smaller, slower=slower)
        planned = ClipShape(width=width, height=height, frames=frames).as_reference(smaller=smaller, slower=slower)
        assert (planned.width, planned.height, planned.frames) == (encoded.width, encoded.height, encoded.frames)


def test_predictions_that_go_through_a_block_in_turn_are_launched_each() -> None:
    """That is what drawing takes with a host that launches more slowly than its card computes."""
    card = hardware_named("H100")
    slow = replace(card, rates=replace(card.rates, launch_seconds=1e-4))

    def seconds(guidance: float, **size: object) -> float:
        found = drawn(hardware=slow, validation_guidance=guidance, **size).seconds
        assert found is not None
        return found

    assert seconds(3.0) == pytest.approx(2 * seconds(1.0), rel=0.05)
    small = {"validation_resolution": "512x768", "validation_num_video_frames": 49}
    assert seconds(3.0, **small) == pytest.approx(seconds(1.0, **small), rel=0.05)
