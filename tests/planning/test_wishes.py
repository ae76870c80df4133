"""What SimpleTuner's keys of memory and precision ask of the engine, and that the engine does it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from step_engine import CPU, F32, nano

from ltx2core.config.load import look_at
from ltx2core.config.model import Precision
from ltx2core.config.train import TrainConfig
from ltx2core.planning.hardware import hardware_named
from ltx2core.planning.job import job_of
from ltx2core.planning.predict import predict, predict_job
from ltx2core.planning.step_plan import StepWish
from ltx2core.planning.wishes import step_wish, text_settings
from ltx2core.training.fast_model import load_fast
from ltx2core.training.holding import hold
from ltx2core.training.settings import train_settings
from ltx2core.training.trainee import on_device


def config(**values: object) -> TrainConfig:
    return TrainConfig.model_validate(values)


@pytest.mark.parametrize(
    ("values", "wish"),
    [
        ({}, {}),
        ({"musubi_blocks_to_swap": 6}, {"streamed": 6}),
        ({"ramtorch": True}, {"streamed": 48}),
        ({"ramtorch": True, "ramtorch_transformer_percent": 25}, {"streamed": 12}),
        ({"enable_group_offload": True}, {"streamed": 48, "slots": 1}),
        ({"enable_group_offload": True, "group_offload_use_stream": True}, {"streamed": 48, "slots": 2}),
        ({"enable_group_offload": True, "group_offload_blocks_per_group": 3}, {"streamed": 48, "slots": 3}),
        (
            {"enable_group_offload": True, "group_offload_blocks_per_group": 3, "group_offload_use_stream": True},
            {"streamed": 48, "slots": 6},
        ),
        ({"gradient_checkpointing": False}, {"keep_all": True}),
        ({"recompute_all_blocks": True}, {"recompute_all": True}),
        ({"gradient_checkpointing_backend": "unsloth"}, {"inputs_to_host": True}),
    ],
)
def test_each_key_of_offloading_and_checkpointing_asks_for_what_it_says(values: dict[str, object], wish: dict[str, Any]) -> None:
    assert step_wish(config(**values)) == StepWish(**wish)


@pytest.mark.parametrize(
    ("precision", "storage", "products"),
    [
        ("no_change", "bf16", "dequant"),
        ("bf16", "bf16", "dequant"),
        ("int8", "int8", "dequant"),
        ("int8-quanto", "int8", "dequant"),
        ("int8-torchao", "int8", "dequant"),
        ("int8-sdnq", "int8", "dequant"),
        ("int8dq-torchao", "int8", "w8a8"),
        ("fp8", "fp8", "dequant"),
        ("fp8-quanto", "fp8", "dequant"),
        ("fp8-sdnq", "fp8", "dequant"),
        ("fp8wo-torchao", "fp8", "dequant"),
        ("fp8-torchao", "fp8", "w8a8"),
        ("fp8-native", "fp8", "w8a8"),
        ("fp8-transformerengine", "fp8", "w8a8"),
        ("nf4", "nf4", "dequant"),
        ("nf4-bnb", "nf4", "dequant"),
    ],
)
def test_each_name_of_a_precision_is_held_and_multiplied_as_it_says(precision: Precision, storage: str, products: str) -> None:
    wish = step_wish(config(base_model_precision=precision))
    assert (wish.storage, wish.precision) == (storage, products)
    for name in ("quantize_activations", "sdnq_use_quantized_matmul"):
        asked = step_wish(config(base_model_precision=precision, **{name: True}))
        assert asked.precision == ("w8a8" if storage in ("int8", "fp8") else "dequant")


def test_every_name_of_a_precision_is_looked_at_here() -> None:
    (here,) = test_each_name_of_a_precision_is_held_and_multiplied_as_it_says.pytestmark  # type: ignore[attr-defined]
    assert {one[0] for one in here.args[1]} == set(Precision.__args__)  # type: ignore[attr-defined]


def test_gradients_in_fp8_are_asked_for_with_products_in_fp8() -> None:
    assert step_wish(config(base_model_precision="fp8-torchao", fp8_gradients=True)).precision == "w8a8_full"
    assert step_wish(config(base_model_precision="fp8-quanto", fp8_gradients=True)).precision == "dequant"
    assert step_wish(config(base_model_precision="int8dq-torchao", fp8_gradients=True)).precision == "w8a8"


def test_either_program_s_key_streams_the_text_encoder() -> None:
    assert text_settings(config(ramtorch_text_encoder=True)).streamed
    assert text_settings(config(enable_group_offload=True, group_offload_text_encoder=True)).streamed
    assert not text_settings(config(group_offload_text_encoder=True)).streamed
    assert text_settings(config(text_encoder_1_precision="int8-quanto")).int8


@pytest.mark.parametrize(
    ("values", "streamed", "slots"),
    [
        ({}, 0, 0),
        ({"musubi_blocks_to_swap": 3}, 3, 2),
        ({"ramtorch": True}, 5, 2),
        ({"enable_group_offload": True}, 5, 1),
        ({"enable_group_offload": True, "group_offload_use_stream": True}, 5, 2),
        ({"enable_group_offload": True, "group_offload_use_stream": True, "group_offload_blocks_per_group": 2}, 5, 4),
    ],
)
def test_the_engine_has_as_many_blocks_in_its_ring_and_as_many_slots_as_the_keys_say(
    values: dict[str, object], streamed: int, slots: int
) -> None:
    settings = train_settings(config(pretrained_model_name_or_path="nano", lora_rank=4, **values), tokens=8)
    holding = hold(nano(), settings, audio=True, device=CPU, dtype=F32)
    fast = load_fast(
        nano(), settings=holding.settings(compiled=False, disk=None), adapter=settings.adapter, audio=True, seed=0, dtype=F32, device=CPU
    )
    ring = fast.blocks.ring
    assert (0 if ring is None else ring.streamed) == streamed
    if ring is not None:
        assert ring.slot_bytes == slots * fast.layout.matrix_bytes
        assert ring.loads_per_step() == 2 * (streamed - slots)
    fast.close()


def test_a_folder_on_disk_holds_the_blocks_that_travel(tmp_path: Path) -> None:
    values = {"pretrained_model_name_or_path": "nano", "lora_rank": 4, "musubi_blocks_to_swap": 2}
    settings = train_settings(config(**values, group_offload_to_disk_path=str(tmp_path / "blocks")), tokens=8)
    assert hold(nano(), settings, audio=True, device=CPU, dtype=F32).host.waiting == "disk"
    assert hold(nano(), replace(settings, disk=None), audio=True, device=CPU, dtype=F32).host.waiting == "locked"


def test_each_key_of_memory_moves_the_prediction() -> None:
    card, plain = hardware_named("H100", ram_gib=256), {"vae_batch_size": 2, "validation_disable": True}

    def of(**values: object) -> Any:
        return predict(config(**plain, **values), card, clips=8)

    before = of()
    assert of(musubi_blocks_to_swap=24).phase("train").ram_bytes > before.phase("train").ram_bytes + 12 * 2**30
    assert of(group_offload_to_disk_path="x", musubi_blocks_to_swap=24).phase("train").ram_bytes < 6 * 2**30
    assert of(vae_enable_slicing=True).phase("encode").vram_bytes < before.phase("encode").vram_bytes
    assert of(recompute_all_blocks=True).phase("train").vram_bytes < before.phase("train").vram_bytes
    host = of(recompute_all_blocks=True, gradient_checkpointing_backend="unsloth").phase("train")
    assert host.vram_bytes < of(recompute_all_blocks=True).phase("train").vram_bytes
    assert "inputs of blocks" in host.ram
    assert of(gpu_memory_limit_gib=24).phase("train").vram_bytes <= 24 * 2**30
    assert predict_job(job_of(config(ramtorch_text_encoder=True), clips=8), card).phase("text").vram_bytes < 6 * 2**30  # type: ignore[union-attr]


def test_a_card_without_fp8_units_is_planned_to_widen_and_holds_nothing_transposed() -> None:
    keys = config(base_model_precision="fp8-torchao", fp8_gradients=True, validation_disable=True)
    ampere, hopper = (predict(keys, hardware_named(card, ram_gib=128), clips=8) for card in ("A100 80GB", "H100"))
    assert ampere.plan is not None
    assert hopper.plan is not None
    assert (ampere.plan.precision, ampere.plan.turned) == ("dequant", False)
    assert (hopper.plan.precision, hopper.plan.turned) == ("w8a8_full", True)
    assert any("multiplies nothing in fp8" in line for line in ampere.because)
    assert not any("multiplies nothing in fp8" in line for line in hopper.because)


def test_products_that_a_device_has_not_are_widened_and_those_that_it_has_stay() -> None:
    for precision, expected in (("fp8-torchao", "dequant"), ("int8dq-torchao", "w8a8")):
        settings = train_settings(config(pretrained_model_name_or_path="nano", base_model_precision=precision), tokens=8)
        assert settings.wish.precision == "w8a8"
        assert on_device(settings, CPU).wish.precision == expected


def test_a_plan_knows_whether_parts_are_given() -> None:
    sound = {"type": "prefix", "probability": 0.5, "modality": "audio", "temporal_boundary": 4}
    frames = [{"id": "clips", "type": "local", "dataset_type": "video", "instance_data_dir": "clips", "video": {"is_i2v": True}}]
    for values, datasets, expected in (
        ({}, None, False),
        ({"ltx2_first_frame_conditioning_probability": 0.1}, None, True),
        ({"ltx2_intrinsic_conditioning": [sound]}, None, True),
        ({"ltx2_intrinsic_conditioning": [sound | {"probability": 0.0}]}, None, False),
        ({}, frames, True),
    ):
        job = job_of(config(**values), datasets=None if datasets is None else look_at({}, base=Path(), datasets=datasets).datasets)
        assert job.given is expected
