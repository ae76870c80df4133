"""The band around a change: paired, as wide as the spread of the clips' own changes makes it, and true as often as it says."""

from __future__ import annotations

import random

import pytest

from ltx2core.validation.paired import _quantile, paired_change


def test_clips_that_differ_from_each_other_but_change_alike_give_a_narrow_band() -> None:
    base = {"calm": 0.1, "busy": 2.0, "dark": 0.7}
    change = paired_change({"calm": 0.05, "busy": 1.94, "dark": 0.66, "new": 9.0}, base)
    assert change is not None
    assert change.mean == pytest.approx(-0.05)
    assert change.clips == 3  # one has nothing to compare with
    assert change.band is not None
    # differences -0.05, -0.06, -0.04: deviation 0.01, t with two degrees of freedom 4.303
    assert change.band == pytest.approx(4.303 * 0.01 / 3**0.5)


def test_one_clip_has_no_band_and_none_no_change() -> None:
    one = paired_change({"a": 1.0}, {"a": 1.5, "b": 2.0})
    assert one is not None
    assert (one.mean, one.band, one.clips) == (-0.5, None, 1)
    assert paired_change({"a": 1.0}, {}) is None


@pytest.mark.parametrize("count", [2, 4, 8])
def test_the_band_holds_the_true_change_in_95_of_100_draws(count: int) -> None:
    draw = random.Random(count)
    held = 0
    for _ in range(4000):
        change = paired_change({str(n): draw.gauss(-0.2, 0.3) for n in range(count)}, {str(n): 0.0 for n in range(count)})
        assert change is not None
        assert change.band is not None
        held += abs(change.mean + 0.2) <= change.band
    assert 0.935 < held / 4000 < 0.965  # three deviations of a share of 4000 are 0.010


def test_beyond_the_table_the_quantile_goes_on_smoothly() -> None:
    assert _quantile(30) == 2.042
    assert _quantile(31) == pytest.approx(2.0395, abs=1e-3)
    assert _quantile(1000) == pytest.approx(1.9623, abs=1e-3)
