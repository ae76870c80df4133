"""The sigma sampler against what the official one draws (group f of tests/data/reference, float32, tolerance 1e-6)."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file

from ltx2core.training.sigma import (
    BetaDraw,
    CurveDraw,
    FixedLevels,
    LevelsInTurn,
    MixFlowDraw,
    ShiftedLogitNormal,
    SigmaSampler,
    StaticShift,
    UniformDraw,
    at_sample,
    shift_for,
    with_offset,
)

REFERENCE = Path(__file__).parent.parent / "data" / "reference" / "ltx-2.0-tiny.io.safetensors"
CASES = [(tokens, 1.0, 1e-3, 0.1) for tokens in (1, 125, 576, 1024, 3570, 4096, 6120, 16384)] + [
    (3570, 1.0, 1e-3, 0.0),
    (3570, 0.5, 0.01, 0.3),
]


@pytest.mark.parametrize("case", range(10))
def test_the_official_draws_give_the_official_sigmas(case: int) -> None:
    tokens, std, eps, probability = CASES[case]
    reference = load_file(REFERENCE)
    draws = {name: reference[f"f.{case}.{name}"] for name in ("normal", "uniform", "choice")}
    sampler = ShiftedLogitNormal(std=std, eps=eps, uniform_probability=probability)
    torch.testing.assert_close(sampler.from_draws(**draws, tokens=tokens), reference[f"f.{case}.sigma"], atol=1e-6, rtol=0)


@pytest.mark.parametrize("case", range(10))
def test_the_draws_are_made_in_the_official_order(case: int) -> None:
    tokens, std, eps, probability = CASES[case]
    generator = torch.Generator().manual_seed(1100 + case)
    drawn = ShiftedLogitNormal(std=std, eps=eps, uniform_probability=probability).sample(64, tokens=tokens, generator=generator)
    torch.testing.assert_close(drawn, load_file(REFERENCE)[f"f.{case}.sigma"], atol=1e-6, rtol=0)


def test_mu_follows_the_official_table_without_a_limit() -> None:
    reference = load_file(REFERENCE)
    for tokens, mu in zip(reference["f.mu.tokens"].tolist(), reference["f.mu.value"].tolist(), strict=True):
        assert shift_for(tokens) == pytest.approx(mu, abs=1e-9)
    assert shift_for(16384) == pytest.approx(6.45, abs=1e-3)


def test_a_capped_token_count_keeps_long_clips_from_training_at_pure_noise() -> None:
    def average(sampler: ShiftedLogitNormal) -> float:
        return float(sampler.sample(4096, tokens=16384, generator=torch.Generator().manual_seed(0)).mean())

    capped = ShiftedLogitNormal(most_tokens=4096)
    same = ShiftedLogitNormal().sample(64, tokens=4096, generator=torch.Generator().manual_seed(1))
    assert torch.equal(capped.sample(64, tokens=16384, generator=torch.Generator().manual_seed(1)), same)
    assert average(capped) != pytest.approx(average(ShiftedLogitNormal()), abs=1e-3)


def test_a_static_shift_does_not_look_at_the_length() -> None:
    sampler = StaticShift(shift=3.0)
    short = sampler.sample(32, tokens=10, generator=torch.Generator().manual_seed(3))
    assert torch.equal(short, sampler.sample(32, tokens=10_000, generator=torch.Generator().manual_seed(3)))
    normal = torch.randn(32, generator=torch.Generator().manual_seed(3)).sigmoid()
    torch.testing.assert_close(short, 3 * normal / (1 + 2 * normal))


def test_uniform_and_beta_draws_have_their_own_shape_and_take_a_shift() -> None:
    def drawn(sampler: UniformDraw | BetaDraw) -> torch.Tensor:
        return sampler.sample(20_000, tokens=10, generator=torch.Generator().manual_seed(3))

    uniform, beta, shifted = drawn(UniformDraw()), drawn(BetaDraw(alpha=2, beta=2)), drawn(UniformDraw(shift=3.0))
    assert torch.histc(uniform, 10, 0, 1).std() < 60  # 2000 in each tenth, with a deviation of 42
    assert beta.mean() == pytest.approx(0.5, abs=0.01)
    assert beta.var() == pytest.approx(1 / 20, abs=0.002)
    torch.testing.assert_close(shifted, 3 * uniform / (1 + 2 * uniform))
    assert torch.equal(drawn(BetaDraw()), drawn(BetaDraw()))


def test_fixed_levels_are_drawn_equally_often_and_no_others() -> None:
    drawn = FixedLevels(levels=(0.25, 0.5, 0.9)).sample(3000, tokens=10, generator=torch.Generator().manual_seed(3))
    values, counts = drawn.unique(return_counts=True)
    torch.testing.assert_close(values, torch.tensor([0.25, 0.5, 0.9]))
    assert counts.min() > 900


def test_an_offset_moves_the_normal_and_leaves_other_ways_of_drawing_alone() -> None:
    def drawn(sampler: SigmaSampler) -> torch.Tensor:
        return sampler.sample(4000, tokens=1024, generator=torch.Generator().manual_seed(0))

    for sampler in (ShiftedLogitNormal(uniform_probability=0.0), StaticShift(shift=3.0)):
        low, middle, high = (drawn(with_offset(sampler, offset)) for offset in (-1.0, 0.0, 1.0))
        assert low.mean() < middle.mean() - 0.1 < high.mean() - 0.2
        assert torch.equal(middle, drawn(sampler))
    static = StaticShift(shift=1.0, scale=2.0, offset=0.5)
    normal = torch.randn(4000, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(drawn(static), torch.sigmoid(2.0 * (normal + 0.5)))
    uniform = UniformDraw()
    assert with_offset(uniform, 1.0) is uniform


def _drawn(sampler: CurveDraw | MixFlowDraw, count: int = 40_000) -> torch.Tensor:
    return sampler.sample(count, tokens=10, generator=torch.Generator().manual_seed(3))


def test_a_curve_of_one_height_is_uniform_and_one_of_two_is_a_straight_line() -> None:
    uniform = torch.rand(40_000, generator=torch.Generator().manual_seed(3), dtype=torch.float64).float()
    for heights in ((5.0,), (2.0, 2.0), (1.0, 1.0, 1.0, 1.0)):
        torch.testing.assert_close(_drawn(CurveDraw(heights=heights)), uniform, atol=1e-6, rtol=0)
    rising = _drawn(CurveDraw(heights=(0.0, 7.0)))  # density 2 sigma, whose distribution is sigma squared
    torch.testing.assert_close(rising, uniform.sqrt(), atol=2e-4, rtol=0)
    falling = _drawn(CurveDraw(heights=(7.0, 0.0), shift=3.0))
    line = 1 - (1 - uniform).sqrt()
    torch.testing.assert_close(falling, 3 * line / (1 + 2 * line), atol=5e-4, rtol=0)


def test_a_curve_draws_levels_as_often_as_it_is_high_there() -> None:
    heights = (1.0, 4.0, 0.0, 2.0, 2.0)
    drawn = _drawn(CurveDraw(heights=heights), 400_000)
    counted, _ = np.histogram(drawn.numpy(), bins=400, range=(0, 1), density=True)
    at_knots = [counted[:4].mean(), counted[98:102].mean(), counted[198:202].mean(), counted[298:302].mean(), counted[396:].mean()]
    scale = at_knots[3] / 2
    assert np.array(at_knots) / scale == pytest.approx(heights, abs=0.12)
    coarse, _ = np.histogram(drawn.numpy(), bins=50, range=(0, 1), density=True)  # 8,000 in a bin, with a deviation of 1 %
    assert coarse.max() / scale < 4.1  # smooth, and never above its highest knot


@given(heights=st.lists(st.floats(0, 1e6), min_size=1, max_size=12).filter(any))
def test_any_curve_gives_levels_from_0_to_1_that_rise_with_the_draw(heights: list[float]) -> None:
    drawn = CurveDraw(heights=tuple(heights)).sample(200, tokens=1, generator=torch.Generator().manual_seed(0))
    assert bool(((drawn >= 0) & (drawn <= 1)).all())
    order = torch.rand(200, generator=torch.Generator().manual_seed(0), dtype=torch.float64).argsort()
    assert bool((drawn[order].diff() >= 0).all())


def test_mixflow_favours_low_levels_and_shows_more_noise_than_it_tells() -> None:
    sampler = MixFlowDraw(gamma=0.4)
    told = _drawn(sampler)
    assert told.mean() == pytest.approx(1 / 3, abs=0.005)  # beta(1, 2)
    assert told.var() == pytest.approx(1 / 18, abs=0.002)
    shown = sampler.slowed(told, generator=torch.Generator().manual_seed(4))
    share = (shown - told) / (1 - told)
    assert 0 <= float(share.min()) <= 1e-3
    assert 0.399 <= float(share.max()) <= 0.4001
    assert share.mean() == pytest.approx(0.2, abs=0.005)
    assert torch.equal(MixFlowDraw(gamma=0.0).slowed(told, generator=torch.Generator()), told)
    torch.testing.assert_close(_drawn(MixFlowDraw(shift=3.0)), 3 * told / (1 + 2 * told))


def test_levels_in_turn_go_on_from_batch_to_batch() -> None:
    sampler = LevelsInTurn(levels=(0.25, 0.5, 0.9))
    first = [at_sample(sampler, start).sample(count, tokens=1, generator=torch.Generator()) for start, count in ((0, 2), (2, 3), (5, 1))]
    torch.testing.assert_close(torch.cat(first), torch.tensor([0.25, 0.5, 0.9, 0.25, 0.5, 0.9]))
    other = StaticShift(shift=3.0)
    assert at_sample(other, 7) is other
