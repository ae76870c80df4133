"""The smoothed loss of each band: what lines of the journal add up to."""

from __future__ import annotations

import math

import pytest

from ltx2core.runs import events
from ltx2core.runs.journal import Entry
from ltx2tui.levels import FORGETTING, Band, LevelCurves
from ltx2tui.state import RunState, reduce
from ltx2tui.widgets.level_table import course


def told(step: int, video: float | None, count: int = 1) -> events.LossByLevel:
    return events.LossByLevel(
        step=step, video=(None, None, video, None, None), video_counts=(0, 0, count, 0, 0), audio=(None,) * 5, audio_counts=(0,) * 5
    )


def test_samples_told_together_weigh_what_they_would_one_by_one() -> None:
    together = Band().with_samples(0.5, 3).with_samples(0.1, 2)
    single = Band()
    for loss in (0.5, 0.5, 0.5, 0.1, 0.1):
        single = single.with_samples(loss, 1)
    assert together.mean == pytest.approx(single.mean)
    assert together.mean == pytest.approx(sum(x * FORGETTING**age for age, x in enumerate([0.1, 0.1, 0.5, 0.5, 0.5])) / single.weight)
    assert together.with_samples(None, 0) == together


def test_a_band_without_samples_yet_is_a_gap_and_one_without_new_ones_stays() -> None:
    curves = LevelCurves().with_event(told(25, None, 0)).with_event(told(50, 0.4)).with_event(told(75, None, 0))
    means = curves.means("video", 2)
    assert math.isnan(means[0])
    assert list(means[1:]) == [pytest.approx(0.4)] * 2
    assert curves.has("video")
    assert not curves.has("audio")


def test_a_resumed_session_forgets_what_came_after_its_checkpoint() -> None:
    started = events.RunStarted(name="x", total_steps=100, resumed_at_step=0, pid=1)
    resumed = events.RunStarted(name="x", total_steps=100, resumed_at_step=50, pid=2)
    state = reduce(RunState(), [Entry(0.0, event) for event in (started, told(25, 0.5), told(50, 0.4), told(75, 0.3), resumed)])
    assert [point.step for point in state.levels.points] == [25, 50]


def test_a_course_goes_from_the_first_value_to_the_last_over_its_whole_width() -> None:
    heights = course([math.nan, 3.0, 2.0, 1.0], 8)
    assert heights == [0.0, 0.0, 1.0, 1.0, pytest.approx(0.56), pytest.approx(0.56), pytest.approx(0.12), pytest.approx(0.12)]
    assert course([1.0] * 500, 3) == [0.12] * 3
    assert course([math.nan], 2) == [0.0, 0.0]
    assert course([], 5) == course([1.0], 0) == []
