"""What is predicted for a run reaches the warnings before it, and the run's own plan."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from ltx2core.config.load import look_at
from ltx2core.config.train import TrainConfig
from ltx2core.data.clip import Bucket, Clip, Sample, Times, Treatment
from ltx2core.hardware.cards import find_card, rates_of
from ltx2core.hardware.machine import Gpu, Machine
from ltx2core.planning.before_run import largest_batch, predicted_for, warnings_of
from ltx2core.planning.hardware import hardware_of

if TYPE_CHECKING:
    from ltx2core.config.load import LoadedConfig

GIB = 2**30
CARD = Gpu(
    index=0,
    name="NVIDIA GeForce RTX 4090",
    total_bytes=24 * GIB,
    free_bytes=23 * GIB,
    capability=(8, 9),
    percent=0,
    temperature_celsius=38,
    power_watts=22.0,
    pcie_generation=1,  # at rest
    pcie_width=16,
    best_pcie_generation=4,
    best_pcie_width=16,
)
MACHINE = Machine(
    gpus=(CARD,),
    driver="580.65",
    no_gpu_because=None,
    cpu_name="CPU",
    cores=8,
    machine_cores=8,
    ram_total_bytes=64 * GIB,
    ram_available_bytes=50 * GIB,
    ram_limited_by="machine",
    disk_path="/data",
    disk_total_bytes=1000 * GIB,
    disk_free_bytes=500 * GIB,
    system="Linux 6.8",
    python="3.12.4",
    pinned_limit_bytes=64 * GIB,
)


def settings(folder: Path, clip: dict[str, Any] | None = None, **values: Any) -> LoadedConfig:
    entry = {"id": "clips", "instance_data_dir": str(folder), "resolution": 512, "video": {"num_frames": 49}} | (clip or {})
    return look_at({"max_train_steps": 500} | values, base=folder, datasets=[entry])


def codes(machine: Machine, loaded: LoadedConfig, root: Path) -> set[str]:
    return {notice.code for notice in warnings_of(machine, loaded, root=root)}


def test_a_run_that_fits_is_started_without_a_word(tmp_path: Path) -> None:
    assert codes(MACHINE, settings(tmp_path), tmp_path) == set()


def test_samples_that_need_more_than_the_card_has_are_told_before_hours_of_training(tmp_path: Path) -> None:
    large = settings(tmp_path, validation_resolution="1088x1920", validation_num_video_frames=121)
    assert "samples_need_more" in codes(MACHINE, large, tmp_path)


def test_ram_that_does_not_suffice_and_clips_that_cannot_fit_are_told(tmp_path: Path) -> None:
    little = dataclasses.replace(MACHINE, ram_available_bytes=20 * GIB)
    assert "does_not_fit" in codes(little, settings(tmp_path), tmp_path)
    sound = settings(tmp_path, {"audio": {}})
    scarce = dataclasses.replace(MACHINE, ram_available_bytes=27 * GIB)  # enough for captions and blocks, not for the rest beside them
    assert {"little_ram", "does_not_fit"} & codes(scarce, sound, tmp_path)
    huge = settings(tmp_path, {"resolution": 2176, "video": {"num_frames": 497}}, train_batch_size=8)
    assert "does_not_fit" in codes(MACHINE, huge, tmp_path)


def test_a_cache_that_the_disk_cannot_hold_is_told(tmp_path: Path) -> None:
    for index in range(40):
        (tmp_path / f"{index}.mp4").touch()
    full = dataclasses.replace(MACHINE, disk_free_bytes=GIB // 2)
    assert "disk_full" in codes(full, settings(tmp_path), tmp_path)


def test_what_is_not_predicted_keeps_its_other_warnings(tmp_path: Path) -> None:
    nano = settings(tmp_path, pretrained_model_name_or_path="nano")
    assert predicted_for(hardware_of(MACHINE), nano) is None
    assert predicted_for(hardware_of(dataclasses.replace(MACHINE, gpus=())), settings(tmp_path)) is None
    assert codes(dataclasses.replace(MACHINE, gpus=(), no_gpu_because="No driver."), settings(tmp_path), tmp_path) == {"no_gpu"}


def test_measured_rates_go_before_the_datasheets_and_a_narrow_link_is_counted() -> None:
    card = find_card("RTX 4090")
    assert card is not None
    measured = dataclasses.replace(rates_of(card), source="measured", bf16_flops_per_second=1e14)
    here = hardware_of(dataclasses.replace(MACHINE, rates=measured))
    assert here is not None
    assert here.rates == measured
    narrow = hardware_of(dataclasses.replace(MACHINE, gpus=(dataclasses.replace(CARD, pcie_width=4),)))
    wide = hardware_of(MACHINE)
    assert narrow is not None
    assert wide is not None
    assert narrow.rates.to_device_bytes_per_second == pytest.approx((wide.rates.to_device_bytes_per_second or 0) / 4)


def test_a_slower_machine_than_predicted_is_corrected(tmp_path: Path) -> None:
    here = hardware_of(MACHINE)
    assert here is not None
    plain, slower = (predicted_for(dataclasses.replace(here, correction=factor), settings(tmp_path)) for factor in (1.0, 1.5))
    assert plain is not None
    assert slower is not None
    assert plain.step_seconds < slower.step_seconds <= 1.501 * plain.step_seconds


def test_a_run_plans_with_what_was_counted_for_its_release_and_estimates_for_another_shape() -> None:
    from ltx2core.planning.model_sizes import released_sizes, sizes_as_released

    sizes = released_sizes("2.0", joint=True)
    shape = sizes.shape(lambda name: 32 if "attn" in name else 0)
    assert sizes_as_released("2.0.0", shape, joint=True) == sizes
    fewer = dataclasses.replace(shape, blocks=shape.blocks[:-1])
    assert sizes_as_released("2.0.0", fewer, joint=True) is None
    assert sizes_as_released("2.0.0", shape, joint=False) is None
    assert sizes_as_released("9.9.9", shape, joint=True) is None


def sample(
    width: int, frames: int, *, dataset: str = "a", own: int | None = None, repeats: int = 0, weight: float = 1.0, seen: bool = False
) -> Sample:
    return Sample(
        reference=Path("y.mp4") if seen else None,
        clip=Clip(path=Path("x.mp4")),
        bucket=Bucket(width=width, height=512, frames=frames),
        fps=25.0,
        captions=("x",),
        repeats=repeats,
        treatment=Treatment(dataset=dataset, batch_size=own, times=Times(probability=weight)),
    )


@pytest.mark.parametrize(
    ("values", "samples", "shape", "count"),
    [
        ({}, [sample(768, 49), sample(512, 49)], (768, 49), 1),
        (
            {"train_batch_size": 4},
            [sample(768, 49), *[sample(512, 49)] * 4],
            (512, 49),
            4,
        ),  # four of 1,792 tokens are more than one of 2,688
        ({"train_batch_size": 4}, [sample(768, 49, repeats=2), *[sample(512, 49)] * 2], (768, 49), 3),
        ({}, [sample(768, 49), *[sample(512, 49, dataset="b", own=8)] * 9], (512, 49), 8),
        ({"train_batch_size": 8}, [*[sample(768, 49, dataset="b", own=1)] * 9, *[sample(512, 9)] * 9], (512, 9), 8),
        ({"max_tokens_per_batch": 6000}, [sample(768, 49), *[sample(512, 9)] * 40], (512, 9), 11),
        ({"train_batch_size": 2}, [sample(512, 49, dataset="a"), sample(512, 49, dataset="b")], (512, 49), 2),  # one batch of both
        ({"train_batch_size": 2}, [sample(512, 49, dataset="a", weight=0.5), sample(512, 49, dataset="b")], (512, 49), 1),
        ({"max_tokens_per_batch": 8000}, [sample(512, 49, seen=True)] * 9, (512, 49), 2),  # 1,792 tokens and 1,792 that they refer to
    ],
)
def test_the_largest_batch_is_that_of_the_most_tokens_as_training_groups_clips(
    values: dict[str, Any], samples: list[Sample], shape: tuple[int, int], count: int
) -> None:
    found = largest_batch(samples, TrainConfig.model_validate(values))
    assert found is not None
    assert ((found.clip.width, found.clip.frames), found.count) == (shape, count)


def test_what_is_predicted_is_the_largest_batch_that_a_scan_has_found(tmp_path: Path) -> None:
    here = hardware_of(MACHINE)
    largest = largest_batch([sample(512, 49, own=4)] * 4, TrainConfig())
    one, four = predicted_for(here, settings(tmp_path)), predicted_for(here, settings(tmp_path), largest=largest)
    assert one is not None
    assert four is not None
    assert (four.job.batch, four.job.clip.width) == (4, 512)
    assert four.step_seconds > 2 * one.step_seconds
