"""A prediction fits where it says so, more memory is never slower, and what does not fit says what would."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ltx2core.config.load import load_config_dict, look_at
from ltx2core.config.sources import preset_files
from ltx2core.config.train import TrainConfig
from ltx2core.errors import ConfigError
from ltx2core.hardware.cards import card_names
from ltx2core.planning.clips import ClipShape
from ltx2core.planning.hardware import hardware_named, next_larger
from ltx2core.planning.job import job_of
from ltx2core.planning.predict import Prediction, forecast_of, predict, predict_job
from ltx2core.planning.vae_sizes import reserve

if TYPE_CHECKING:
    from ltx2core.planning.job import Version

GIB = 2**30
SIZES = ((512, 288), (768, 512), (1280, 704))
SHAPES = [ClipShape(width=width, height=height, frames=frames) for width, height in SIZES for frames in (1, 25, 49, 121)]


def config(**values: object) -> TrainConfig:
    return TrainConfig.model_validate({"max_train_steps": 2000, "eval_split": 0.0} | values)


configs = st.builds(
    config,
    base_model_precision=st.sampled_from(["no_change", "int8-torchao", "fp8-torchao"]),
    lora_rank=st.sampled_from([4, 32, 128]),
    train_batch_size=st.sampled_from([1, 2, 4]),
    vae_enable_temporal_roll=st.booleans(),
    vae_enable_patch_conv=st.booleans(),
    vae_enable_tiling=st.booleans(),
    gradient_checkpointing=st.booleans(),
    recompute_all_blocks=st.booleans(),
    text_encoder_1_precision=st.sampled_from(["no_change", "int8-torchao"]),
)


@settings(max_examples=60, deadline=None)
@given(config=configs, clip=st.sampled_from(SHAPES), card=st.sampled_from(card_names()), ram=st.sampled_from([16, 32, 64, 256]))
def test_what_is_said_to_fit_fits_and_what_does_not_says_what_would(config: TrainConfig, clip: ClipShape, card: str, ram: int) -> None:
    hardware = hardware_named(card, ram_gib=ram)
    found = predict(config, hardware, clip=clip, clips=20)
    if found.fits:
        assert found.vram_bytes <= hardware.free_bytes
        assert found.ram_bytes <= hardware.ram_bytes
        assert found.plan is not None
        assert found.plan.seconds is not None
        assert found.seconds_range[0] < found.total_seconds < found.seconds_range[1]
    else:
        assert found.misfit is not None
        assert "then it fits" in found.misfit or "No single change" in found.misfit
        assert found.over_bytes > 0


@settings(max_examples=40, deadline=None)
@given(
    config=configs,
    clip=st.sampled_from(SHAPES),
    smaller=st.floats(6, 90),
    more=st.floats(0, 60),
)
def test_more_memory_is_never_slower(config: TrainConfig, clip: ClipShape, smaller: float, more: float) -> None:
    card = hardware_named("H100", ram_gib=256)
    small, large = (replace(card, free_bytes=int(size * GIB)) for size in (smaller, smaller + more))
    first, second = (predict_job(job_of(config, clip=clip, clips=20), hardware) for hardware in (small, large))
    if first.fits:
        assert second.fits
        assert second.step_seconds <= first.step_seconds * 1.002  # a layout is not changed for a thousandth


@pytest.mark.parametrize("version", ["2.0", "2.3", "2.5"])
def test_every_released_version_can_be_planned_for(version: Version) -> None:
    found = predict(config(), hardware_named("H100"), clips=16, version=version)
    assert found.fits
    assert 0.3 < found.step_seconds < 0.6


def test_the_measured_run_is_predicted_phase_by_phase() -> None:
    """docs/BENCHMARKS.md, a run: H100, 16 clips of 768x512, 49 frames, with sound, bf16."""
    found = predict(config(max_train_steps=20, validation_step_interval=20, disable_benchmark=True), hardware_named("H100"), clips=16)
    step, sample, decode = found.step_seconds, found.phase("sample"), found.phase("decode")
    assert step == pytest.approx(0.41, rel=0.1)
    assert sample is not None
    assert decode is not None
    assert sample.seconds is not None
    assert sample.seconds == pytest.approx(22.7, rel=0.1)
    assert decode.vram_bytes / GIB - 0.9 == pytest.approx(42.1, rel=0.03)  # without the context and what the allocator holds
    train = found.phase("train")
    assert train is not None
    assert train.seconds == pytest.approx(51.5 + 20 * 0.41 + 5, rel=0.2)


def test_samples_that_cannot_be_decoded_as_asked_are_planned_as_a_run_decodes_them() -> None:
    samples = config(validation_resolution="704x1280", validation_num_video_frames=121)
    found = predict(samples, hardware_named("RTX 4090", ram_gib=128), clip=SHAPES[6])
    assert found.fits
    assert "vae_enable_temporal_roll" in found.decoded
    assert any(found.decoded in sentence for sentence in found.because)
    decode, asked = found.phase("decode"), found.decode_bytes or 0
    assert decode is not None
    assert decode.vram_bytes < 23.8 * GIB < asked == forecast_of(found).sample_peak_bytes
    with_it = predict(
        config(
            validation_resolution="704x1280", validation_num_video_frames=121, vae_enable_temporal_roll=True, vae_enable_patch_conv=True
        ),
        hardware_named("RTX 4090", ram_gib=128),
        clip=SHAPES[6],
    )
    assert with_it.decoded == ""
    assert with_it.phase("decode") == decode


def test_weights_leave_the_card_for_a_sample_only_where_ram_has_room_for_them() -> None:
    huge = config(validation_resolution="1088x1920", validation_num_video_frames=113, base_model_precision="fp8-torchao")
    card = hardware_named("RTX 4070", ram_gib=128)
    found = predict(huge, card, clip=SHAPES[6])
    decode = found.phase("decode")
    assert decode is not None
    assert "wait in RAM meanwhile" in found.decoded
    assert not {"blocks", "ring"} & decode.vram.keys()
    assert decode.ram["weights meanwhile"] == next(phase for phase in found.phases if phase.name == "train").vram["blocks"]
    short = predict(huge, replace(card, ram_bytes=decode.ram_bytes - 1), clip=SHAPES[6])
    assert "wait in RAM meanwhile" not in short.decoded


def test_a_way_of_decoding_that_a_run_tries_in_any_case_may_fill_the_card() -> None:
    """Where a card is full the allocator gives back what lies idle: runs on 8 GB decoded so, up to the limit."""
    preset = json.loads(preset_files()["8gb-audio-video"].read_text(encoding="utf-8"))
    samples = {"validation_resolution": "512x768", "validation_num_video_frames": 49}
    loaded = look_at(preset["config"] | samples, base=Path(), datasets=preset["datasets"])
    card, full = hardware_named("RTX 4060", ram_gib=64), []
    for free in range(int(7.2 * GIB), int(8.4 * GIB), GIB // 50):
        found = predict(loaded.config, replace(card, free_bytes=free), datasets=loaded.datasets, clips=5)
        decode = found.phase("decode")
        if found.fits and decode is not None and decode.vram["reserve"] < reserve("decode", decode.vram["activations"]):
            assert "wait in RAM meanwhile" in found.decoded or "tiling" in found.decoded
            full.append(decode.vram_bytes == free)
    assert full
    assert all(full)


def test_where_ram_cannot_take_the_weights_parts_fill_the_card_before_tiles_are_tried() -> None:
    samples = config(validation_resolution="704x1280", validation_num_video_frames=121, base_model_precision="fp8-torchao")
    card, said = hardware_named("RTX 4070", ram_gib=128), []
    for free in range(int(10.4 * GIB), int(11.4 * GIB), GIB // 25):
        alone = predict(samples, replace(card, free_bytes=free), clip=SHAPES[6])
        decode = alone.phase("decode")
        if decode is None or "wait in RAM" not in alone.decoded:
            continue
        short = predict(samples, replace(card, free_bytes=free, ram_bytes=decode.ram_bytes - 1), clip=SHAPES[6])
        beside = short.phase("decode")
        if short.decoded and "tiling" not in short.decoded:
            assert beside is not None
            said.append(beside.vram["reserve"] < reserve("decode", beside.vram["activations"]))
    assert said
    assert all(said)


def test_a_plan_that_does_not_fit_names_the_change_and_the_gap() -> None:
    found = predict(config(), hardware_named("RTX 4070", ram_gib=128), clip=SHAPES[-1])
    assert not found.fits
    assert found.misfit is not None
    assert "Encoding clips needs" in found.misfit
    assert "GiB more than the 11.8 GiB that are free" in found.misfit
    assert "vae_enable_temporal_roll" in found.misfit


def test_the_next_size_of_card_is_no_slower_for_what_was_measured_of_this_one() -> None:
    """A card that computes faster here than its datasheet says would else be compared with the datasheet of the other."""
    sheet = hardware_named("RTX 4090", ram_gib=64)
    fast = replace(
        sheet,
        correction=0.8,
        rates=replace(
            sheet.rates,
            source="measured",
            bf16_flops_per_second=1.3 * sheet.rates.bf16_flops_per_second,
            memory_bytes_per_second=1.1 * sheet.rates.memory_bytes_per_second,
        ),
    )
    plain, larger = next_larger(sheet), next_larger(fast)
    assert plain is not None
    assert larger is not None
    assert larger.card == plain.card
    assert larger.correction == 0.8
    assert larger.rates.bf16_flops_per_second == pytest.approx(1.3 * plain.rates.bf16_flops_per_second)
    assert larger.rates.memory_bytes_per_second == pytest.approx(1.1 * plain.rates.memory_bytes_per_second)
    assert larger.rates.to_device_bytes_per_second == plain.rates.to_device_bytes_per_second
    steps = [predict(config(), hardware, clip=SHAPES[6]).step_seconds for hardware in (fast, larger)]
    assert steps[1] <= steps[0]


def test_too_little_ram_is_said_with_what_would_do() -> None:
    found = predict(config(), hardware_named("RTX 4070", ram_gib=32))
    assert not found.fits
    assert found.misfit is not None
    assert "base_model_precision" in found.misfit


def test_what_a_dataset_list_says_is_planned() -> None:
    clips = {"id": "clips", "instance_data_dir": "clips", "resolution": 704, "video": {"num_frames": 121}}
    loaded = look_at({"base_model_precision": "int8-torchao"}, base=Path(), datasets=[clips])
    job = job_of(loaded.config, datasets=loaded.datasets)
    assert (job.clip.width, job.clip.height, job.clip.frames, job.audio) == (1056, 704, 121, False)
    assert not any("audio" in name for name in job.targets)


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"pretrained_model_name_or_path": "nano"}, "needs no plan"),
        ({"step_engine": "reference"}, "only the step engine is predicted"),
        ({"lora_dropout": 0.1}, "only the step engine is predicted"),
        ({"mixed_precision": "no"}, "only bf16 is predicted"),
    ],
)
def test_what_is_not_predicted_is_refused_in_a_line(values: dict[str, object], said: str) -> None:
    with pytest.raises(ConfigError, match=said) as caught:
        predict(config(**values), hardware_named("H100"))
    assert "\n" not in caught.value.text


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"card": "Voodoo 2"}, "no such card is known"),
        ({"card": "RTX 4099"}, "use GeForce RTX 409"),
        ({"card": None}, "No card is named"),
        ({"card": None, "gpu_memory_gib": 10_485_760}, "GiB from 4 to 1,024"),
        ({"card": None, "gpu_memory_gib": float("nan")}, "GiB from 4 to 1,024"),
        ({"card": "H100", "ram_gib": -3}, "--ram-gib = -3"),
    ],
)
def test_nonsense_about_a_card_is_refused_in_a_line(arguments: dict[str, object], said: str) -> None:
    with pytest.raises(ConfigError, match=said) as caught:
        hardware_named(**arguments)  # type: ignore[arg-type]
    assert "\n" not in caught.value.text


@pytest.mark.parametrize(
    ("values", "dataset", "said"),
    [
        ({"validation_num_video_frames": 0}, {}, "validation_num_video_frames = 0"),
        ({"lora_rank": 0}, {}, "lora_rank = 0"),
        ({"gpu_memory_limit_gib": 10_485_760}, {}, "gpu_memory_limit_gib"),
        ({}, {"video": {"num_frames": 0}}, "num_frames = 0"),
        ({}, {"resolution": 0}, "resolution = 0"),
    ],
)
def test_nonsense_in_a_config_is_refused_in_a_line(values: dict[str, object], dataset: dict[str, object], said: str) -> None:
    entry = {"id": "clips", "instance_data_dir": "."} | dataset
    with pytest.raises(ConfigError, match=said) as caught:
        load_config_dict({"pretrained_model_name_or_path": "Lightricks/LTX-2"} | values, base=Path(), datasets=[entry])
    assert len(caught.value.problems) == 1


def test_a_card_of_the_next_size_is_larger_and_the_largest_has_none() -> None:
    hardware, sizes = hardware_named("RTX 4060"), []
    while (larger := next_larger(hardware)) is not None:
        assert larger.memory_bytes > hardware.memory_bytes
        hardware = larger
        sizes.append(hardware.card)
    assert len(sizes) > 6


def test_warnings_get_the_peaks_of_their_phases() -> None:
    told = forecast_of(predict(config(), hardware_named("RTX 4090"), clips=100))
    assert told.train_peak_bytes is not None
    assert told.sample_peak_bytes is not None
    assert told.sample_peak_bytes < told.train_peak_bytes < 24 * GIB
    assert told.pinned_bytes is not None
    assert told.cache_bytes == 100 * (2688 * 256 + 15_728_640)


def test_tread_makes_a_step_faster_and_accumulation_slower() -> None:
    card = hardware_named("H100")
    plain = predict(config(), card).step_seconds
    routes = {"routes": [{"selection_ratio": 0.5, "start_layer_idx": 2, "end_layer_idx": -2}]}
    half, whole = (predict(config(tread_config=routes, tread_share_of_steps=share), card).step_seconds for share in (0.5, 1.0))
    assert whole < half < plain
    assert predict(config(gradient_accumulation_steps=4), card).step_seconds == pytest.approx(4 * plain)


def test_what_rollouts_cost_is_in_the_plan_and_said() -> None:
    card, keys = hardware_named("H100"), {"scheduled_sampling_max_step_offset": 4, "scheduled_sampling_probability": 1.0}
    plain, rolled = predict(config(), card), predict(config(**keys), card)
    assert 1.6 < rolled.step_seconds / plain.step_seconds < 2.1  # 2.5 forwards beside a step of 3 to 4, and its small parts
    said = next(text for text in rolled.because if "heduled sampling" in text)
    assert f"{rolled.step_seconds:.2f} s a batch" in said
    assert not any("heduled sampling" in text for text in plain.because)
    assert rolled.phase("sample").seconds == plain.phase("sample").seconds  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("keys", "gib"),
    [
        ({"optimizer": "prodigy"}, 1.6),  # 214 million numbers of LoRA, 8 bytes more of each
        ({"optimizer": "adafactor"}, -1.5),
        ({"optimizer": "adamw_8bit"}, -1.2),
        ({"lora_rank_pattern": {"attn1": 64}}, 0.84),
        ({"crepa_enabled": True}, 0.3),
        ({"crepa_enabled": True, "crepa_feature_source": "backbone"}, 0.6),
    ],
)
def test_what_methods_hold_is_in_the_plan(keys: dict[str, object], gib: float) -> None:
    def held(found: Prediction) -> float:
        parts = found.phase("train").vram  # type: ignore[union-attr]
        return (parts["LoRA and optimizer"] + parts.get("feature alignment", 0)) / GIB

    card = hardware_named("H100")
    assert held(predict(config(**keys), card)) - held(predict(config(), card)) == pytest.approx(gib, abs=0.1)


@pytest.mark.parametrize("keys", [{"use_dora": True}, {"lora_type": "lycoris"}, {"lora_rank_pattern": {"transformer_blocks.3": 8}}])
def test_adapters_that_the_reference_trains_are_not_predicted(keys: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match=next(iter(keys))):
        predict(config(**keys), hardware_named("H100"))


def test_planning_loads_no_torch() -> None:
    code = (
        "import sys; from ltx2core.planning import predict, remedies; from ltx2core.config.train import TrainConfig; "
        "predict.predict(TrainConfig(), predict.hardware_named('RTX 4060')); "
        "sys.exit(1 if {'torch', 'diffusers', 'transformers', 'numpy', 'textual'} & set(sys.modules) else 0)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
