from __future__ import annotations

import math

from ltx2tui.series import Series


def test_a_series_keeps_its_values_when_another_grows_from_it() -> None:
    first = Series().appended(1.0)
    longer = first.appended(2.0)
    other = first.appended(3.0)
    assert list(first.values()) == [1.0]
    assert list(longer.values()) == [1.0, 2.0]
    assert list(other.values()) == [1.0, 3.0]


def test_placing_before_the_end_forgets_what_came_after_and_a_hole_is_a_gap() -> None:
    series = Series([1.0, 2.0, 3.0]).placed(1, 9.0)
    assert list(series.values()) == [1.0, 9.0]
    gap = series.placed(4, 5.0)
    assert [math.isnan(value) for value in gap.values()] == [False, False, True, True, False]


def test_the_last_value_skips_gaps() -> None:
    assert Series([0.5, math.nan]).last == 0.5
    assert Series([math.nan]).last is None
    assert Series().last is None
