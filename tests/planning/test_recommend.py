"""What is recommended fits, is as good as an exhaustive search finds, and says why."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from ltx2core.config.load import look_at
from ltx2core.config.train import TrainConfig
from ltx2core.hardware.cards import card_names
from ltx2core.planning.clips import ClipShape
from ltx2core.planning.document import applied
from ltx2core.planning.hardware import hardware_named
from ltx2core.planning.job import job_of
from ltx2core.planning.levers import PRECISIONS
from ltx2core.planning.predict import predict_job
from ltx2core.planning.recommend import DAY, recommend

SMALL = ClipShape(width=768, height=512, frames=49)


def config(**values: object) -> TrainConfig:
    return TrainConfig.model_validate(values)


@settings(max_examples=8, deadline=None, phases=(Phase.explicit, Phase.generate))  # a case takes a second: none is shrunk
@given(
    card=st.sampled_from(card_names()),
    ram=st.sampled_from([24, 32, 64]),
    rank=st.sampled_from([8, 64]),
    frames=st.sampled_from([1, 49, 121]),
    each=st.sampled_from([(1, 1), (1, 4), (4, 1)]),
)
def test_every_recommendation_fits_and_keeps_what_is_not_its_own(
    card: str, ram: int, rank: int, frames: int, each: tuple[int, int]
) -> None:
    hardware = hardware_named(card, ram_gib=ram)
    given_config = config(lora_rank=rank, train_batch_size=each[0], gradient_accumulation_steps=each[1])
    for one in recommend(given_config, hardware, clip=replace(SMALL, frames=frames), clips=20):
        found = one.prediction
        assert found.fits
        assert found.vram_bytes <= hardware.free_bytes
        assert found.ram_bytes <= hardware.ram_bytes
        assert found.job.rank == rank
        assert found.job.batch * found.job.accumulation == each[0] * each[1]
        assert found.job.routed == () or one.goal == "fastest"
        assert bool(found.job.routed) == ("tread_config" in one.values)
        assert one.why
        assert "binds" in one.binds
        assert one.next_card
        if "within a day here" in one.why[0] and "No run" not in one.why[0]:
            assert found.total_seconds <= DAY
        if not hardware.fp8:
            assert found.job.wish.storage != "fp8"


@pytest.mark.parametrize("card", ["RTX 4060", "RTX 3090", "RTX 4090", "H100"])
def test_the_fastest_plan_is_as_fast_as_the_best_of_an_exhaustive_search(card: str) -> None:
    hardware = hardware_named(card, ram_gib=64)
    given_config = config(vae_enable_temporal_roll=True, vae_enable_patch_conv=True)
    job = job_of(given_config, clip=SMALL, clips=20)
    best = float("inf")
    for precision in PRECISIONS:
        for streamed in (0, 6, 12, 18, 24, 30, 36, 42, 48):
            for slots in (1, 2, 3):
                for to_host in (False, True):
                    if precision.needs_fp8 and not hardware.fp8:
                        continue
                    wish = replace(
                        job.wish,
                        storage=precision.storage,
                        precision=precision.products,
                        streamed=streamed,
                        slots=slots,
                        inputs_to_host=to_host,
                    )
                    found = predict_job(replace(job, wish=wish), hardware)
                    if found.fits:
                        best = min(best, found.step_seconds)
    fastest = recommend(given_config, hardware, clip=SMALL, clips=20)[0]
    assert fastest.prediction.step_seconds <= 1.05 * best


def test_where_a_config_does_not_fit_less_is_recommended_and_said() -> None:
    large = ClipShape(width=1920, height=1088, frames=241)
    (fastest, *_) = recommend(config(), hardware_named("RTX 4060", ram_gib=32), clip=large)
    assert fastest.prediction.fits
    assert fastest.of_datasets
    assert any("do not fit in any way" in line for line in fastest.why)


def test_nothing_is_recommended_where_nothing_fits() -> None:
    assert recommend(config(), hardware_named(None, gpu_memory_gib=4, ram_gib=8), clip=SMALL) == ()


def test_offloading_by_hand_is_taken_back() -> None:
    quickstart = config(enable_group_offload=True, group_offload_use_stream=True, musubi_blocks_to_swap=6)
    fastest = recommend(quickstart, hardware_named("H100"), clip=SMALL)[0]
    assert fastest.values["enable_group_offload"] is False
    assert fastest.values["musubi_blocks_to_swap"] == 0
    assert fastest.prediction.plan is not None
    assert fastest.prediction.plan.streamed == 0


def test_four_bits_are_recommended_only_where_nothing_else_fits() -> None:
    """8 GiB and RAM for half of the weights in 8 bits: what travels must wait somewhere."""
    little = recommend(TrainConfig(max_train_steps=500), hardware_named("RTX 4060", ram_gib=20))
    assert little
    assert {one.values.get("base_model_precision") for one in little} == {"nf4-bnb"}
    assert "nf4-bnb" not in {
        one.values.get("base_model_precision") for one in recommend(TrainConfig(max_train_steps=500), hardware_named("RTX 4060"))
    }


def test_tokens_that_skip_blocks_are_part_of_the_fastest_plan_alone_with_what_they_give_and_what_is_known() -> None:
    hardware = hardware_named("RTX 4090", ram_gib=64)
    fastest, *others = recommend(config(), hardware, clip=SMALL, clips=20)
    assert not any("tread_config" in one.values for one in others)
    taken = config(**fastest.values)
    job = replace(job_of(taken, clip=SMALL, clips=20), steps=2000)
    assert predict_job(job, hardware).step_seconds == pytest.approx(fastest.prediction.step_seconds)
    plain = predict_job(replace(job, routed=()), hardware)
    assert fastest.prediction.step_seconds < 0.97 * plain.step_seconds
    (line,) = [line for line in fastest.why if "TREAD" in line]
    assert f"without it {plain.step_seconds:.2f} s" in line
    assert "tread_config" in line
    again = recommend(taken, hardware, clip=SMALL, clips=20)[0]
    assert again.prediction.job.routed == fastest.prediction.job.routed
    assert "tread_config" not in again.values


@pytest.mark.parametrize("values", [{"crepa_enabled": True}, {"tread_config": {"routes": [{"start_layer_idx": 4, "end_layer_idx": 8}]}}])
def test_no_routes_are_put_where_features_are_aligned_or_routes_are_the_configs_own(values: dict[str, object]) -> None:
    fastest = recommend(config(**values), hardware_named("RTX 4090", ram_gib=64), clip=SMALL, clips=20)[0]
    assert "tread_config" not in fastest.values
    assert fastest.prediction.job.routed == job_of(config(**values)).routed


def test_a_recommended_batch_is_not_overruled_by_a_budget_of_tokens_or_a_dataset_of_its_own_size() -> None:
    hardware = hardware_named("RTX 4070", ram_gib=64)
    entry = {"id": "clips", "instance_data_dir": "clips", "resolution": 512, "video": {"num_frames": 121}, "train_batch_size": 4}
    for values, datasets in (({}, [entry]), ({"max_tokens_per_batch": 25_000}, [entry | {"train_batch_size": None}])):
        loaded = look_at(values, base=Path(), datasets=datasets)
        fastest = recommend(loaded.config, hardware, datasets=loaded.datasets, clips=20)[0]
        assert fastest.prediction.job.batch < 4
        written, entries = applied(fastest, values, datasets)
        again = look_at(written, base=Path(), datasets=entries)
        job = job_of(again.config, datasets=again.datasets, clips=20)
        assert (job.batch, job.accumulation) == (fastest.prediction.job.batch, fastest.prediction.job.accumulation)
