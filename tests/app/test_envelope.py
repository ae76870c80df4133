from __future__ import annotations

import time

import numpy as np
import pytest

from ltx2tui.series import Series
from ltx2tui.widgets import envelope
from ltx2tui.widgets.chart import GUTTER, LossChart
from ltx2tui.widgets.memory import bar_row


def _drawn(values: list[float], width: int = 60, height: int = 12, *, log: bool = False) -> list[str]:
    chart = LossChart()
    chart.set_reactive(LossChart.log_scale, log)
    chart.losses = chart.smooth = Series(values)
    return ["".join(character for character, _ in row) for row in chart.drawn(width, height)]


@pytest.mark.parametrize("log", [False, True])
@pytest.mark.parametrize(
    "values", [[], [float("nan")], [0.5], [0.5] * 40, [0.0] * 5, [float("inf"), 0.1], [0.1, float("nan"), 0.3], [-1.0, 1.0], [1e-9, 1e9]]
)
def test_a_chart_of_anything_fills_exactly_its_cells(values: list[float], log: bool) -> None:
    for width, height in ((60, 12), (11, 3), (200, 40)):
        rows = _drawn(values, width, height, log=log)
        assert len(rows) == height
        assert {len(row) for row in rows} == {width}


def test_one_point_is_one_dot_and_a_constant_is_a_level_line() -> None:
    dots = [c for row in _drawn([0.5])[:-1] for c in row[GUTTER:] if c != " "]
    assert len(dots) == 1
    lines = [row for row in _drawn([0.5] * 300)[:-1] if row[GUTTER:].strip()]
    assert len(lines) == 1


def test_a_gap_stays_empty() -> None:
    values = [0.5] * 20 + [float("nan")] * 20 + [0.6] * 20
    row = [any(cells[GUTTER + x] != " " for cells in _drawn(values, 68, 12)[:-1]) for x in range(60)]
    assert row[2]
    assert not any(row[21:39])
    assert row[45]


def test_a_spike_is_seen_among_a_hundred_thousand_points() -> None:
    values = np.full(100_000, 0.1, dtype=np.float32)
    values[54_321] = 5.0
    columns, _, high = envelope.envelope(values, shift=envelope.column_shift(len(values), 200))
    assert high.max() == 5.0
    assert len(columns) <= 200


def test_old_columns_do_not_move_while_points_are_added() -> None:
    rng = np.random.default_rng(0)
    values = rng.uniform(0.1, 1.0, 900).astype(np.float32)
    shift = envelope.column_shift(900, 240)
    assert shift == envelope.column_shift(1, 240) - 5 or shift == -2
    before, _, _ = envelope.envelope(values[:800], shift=shift)
    after, _, _ = envelope.envelope(values, shift=shift)
    assert (after[: len(before)] == before).all()


def test_the_range_stays_while_values_fill_half_of_it() -> None:
    first = envelope.span_of(np.array([0.2, 0.8], dtype=np.float32), None, log=False)
    assert envelope.span_of(np.array([0.25, 0.79], dtype=np.float32), first, log=False) == first
    assert envelope.span_of(np.array([0.2, 1.8], dtype=np.float32), first, log=False) != first
    assert envelope.span_of(np.array([0.2, 0.25], dtype=np.float32), first, log=False) != first


def test_ticks_are_round_and_inside() -> None:
    assert envelope.ticks(envelope.Span(0.0, 1.0), many=5, log=False) == [0.0, 0.2, 0.4, 0.6, 0.8, 1.0]
    assert envelope.ticks(envelope.Span(0.09, 11.0), many=4, log=True) == [0.1, 1.0, 10.0]


def test_a_hundred_thousand_points_draw_in_milliseconds() -> None:
    chart = LossChart()
    values = np.random.default_rng(1).uniform(0.1, 1.0, 100_000).astype(np.float32)
    chart.losses = chart.smooth = Series(values.tolist())
    chart.drawn(120, 40)
    started = time.process_time()
    for _ in range(5):
        chart.drawn(120, 40)
    assert (time.process_time() - started) / 5 < 0.1  # 5 ms measured; the guard is for a loop over points


def test_bars_rise_by_eighths_and_a_sliver_is_seen() -> None:
    assert bar_row([0.0, 0.001, 0.5, 1.0], row=1, height=2) == " ▁██"
    assert bar_row([0.0, 0.5, 0.75, 1.0], row=0, height=2) == "  ▄█"
