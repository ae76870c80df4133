"""The time of a block, measured by `probe --measure`, moves what is predicted of compute, and nothing else."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from ltx2core.config.train import TrainConfig
from ltx2core.hardware.cards import find_card, rates_of
from ltx2core.hardware.rates import BlockTime, Rates
from ltx2core.planning import block_time
from ltx2core.planning.block_time import compute_factor
from ltx2core.planning.hardware import hardware_named
from ltx2core.planning.predict import predict

if TYPE_CHECKING:
    from ltx2core.planning.predict import Prediction

FITTED_ON = block_time._FITTED_ON


def slower(rates: Rates, factor: float) -> Rates:
    assert FITTED_ON.block is not None
    return replace(rates, block=replace(FITTED_ON.block, seconds=factor * FITTED_ON.block.seconds))


def predicted(rates: Rates) -> Prediction:
    return predict(TrainConfig(), replace(hardware_named("H100"), rates=rates), clips=8)


def test_the_card_that_shares_were_fitted_on_and_one_without_a_measured_block_are_left_as_they_are() -> None:
    assert compute_factor(FITTED_ON) == pytest.approx(1.0)
    card = find_card("RTX 3090")
    assert card is not None
    assert compute_factor(rates_of(card)) == 1.0
    assert predicted(FITTED_ON).step_seconds == pytest.approx(predicted(replace(FITTED_ON, block=None)).step_seconds)


def test_a_block_that_took_longer_than_rates_say_makes_steps_longer_and_is_told() -> None:
    usual, slow = predicted(FITTED_ON), predicted(slower(FITTED_ON, 1.2))
    assert slow.step_seconds == pytest.approx(1.2 * usual.step_seconds, rel=0.01)
    assert slow.vram_bytes == usual.vram_bytes
    (line,) = [line for line in slow.because if "block of LTX-2 took" in line]
    assert "5.5 ms" in line
    assert "1.2 times" in line
    assert not any("block of LTX-2 took" in line for line in usual.because)


def test_a_card_of_half_the_rates_on_which_a_block_takes_twice_as_long_is_as_its_rates_say() -> None:
    half = replace(
        slower(FITTED_ON, 2.0),
        bf16_flops_per_second=FITTED_ON.bf16_flops_per_second / 2,
        memory_bytes_per_second=FITTED_ON.memory_bytes_per_second / 2,
    )
    assert compute_factor(half) == pytest.approx(1.0, abs=0.06)  # but for small kernels, which are no slower


@pytest.mark.parametrize(("factor", "bound"), [(4.0, 1.5), (0.5, 0.67)])
def test_what_a_block_says_has_bounds(factor: float, bound: float) -> None:
    assert compute_factor(slower(FITTED_ON, factor)) == bound


def test_a_block_of_another_width_says_nothing() -> None:
    small = BlockTime(video_tokens=256, audio_tokens=16, video_width=512, audio_width=256, seconds=0.1)
    assert compute_factor(replace(FITTED_ON, block=small)) == 1.0
