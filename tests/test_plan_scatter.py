"""The picture of predicted against measured is drawn from the lines that the grid prints."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import numpy as np
import pytest

from tests.benchmarks.plan_scatter import (
    COLOURS,
    INNER,
    LEFT,
    OUTER,
    PANEL,
    PAPER,
    TOP,
    Panel,
    Point,
    bounds,
    draw,
    read_lines,
    ticks,
    within,
)

if TYPE_CHECKING:
    from pathlib import Path

    from PIL import Image


def lines(path: Path, *cases: dict[str, object]) -> Path:
    path.write_text("\n".join(["not JSON, as warnings are", '{"rates": {"device": "H100"}}', *map(json.dumps, cases)]) + "\n")
    return path


def case(name: str, planned: float | None = 20.0, measured: float = 20.0, seconds: float = 1.0) -> dict[str, object]:
    return {"case": name, "planned_gib": planned, "process_gib": measured, "planned_seconds": 1.0, "seconds": seconds}


def pixels(picture: Image.Image, colour: tuple[int, int, int], *, left: int) -> int:
    """How many of a panel's pixels have a colour."""
    part = np.asarray(picture)[TOP : TOP + PANEL, left : left + PANEL].astype(int)
    return int((np.abs(part - np.array(colour)).max(axis=2) < 6).sum())


def test_cases_that_ran_are_points_and_those_that_failed_are_named(tmp_path: Path) -> None:
    first = lines(tmp_path / "a", case("bf16-1"), case("free", planned=None), {"case": "int8-8", "error": "out of memory"})
    second = lines(tmp_path / "b", case("bf16-1", planned=22.0))
    memory, seconds, failed = read_lines([first, second])
    assert memory == (Point("bf16-1", 22.0, 20.0),)  # the later one counts
    assert [point.case for point in seconds] == ["bf16-1", "free"]
    assert failed == ("int8-8",)


def test_errors_are_counted_by_band_and_by_sign() -> None:
    found = within([Point("a", 102, 100), Point("b", 92, 100), Point("c", 120, 100)])
    assert found == {"points": 3, "within_3_percent": 1, "within_10_percent": 2, "least_percent": -8.0, "most_percent": 20.0}


def test_a_point_is_drawn_where_its_numbers_are_against_line_and_bands() -> None:
    point = Point("fp8-a", 60.0, 100.0)  # predicted too low: below the line, outside the bands
    picture = draw([point], ())
    _, high = bounds(Panel("", "", (point,), logarithmic=False))

    def near(measured: float, predicted: float, colour: tuple[int, int, int]) -> int:
        """How many of nine pixels around a place have a colour. Places in the test lie between the grid's lines."""
        x, y = round(LEFT + PANEL * measured / high), round(TOP + PANEL * (1 - predicted / high))
        part = np.asarray(picture)[y - 1 : y + 2, x - 1 : x + 2].astype(int)
        return int((np.abs(part - np.array(colour)).max(axis=2) < 12).sum())

    assert near(100, 60, COLOURS["fp8"]) == 9
    assert near(97, 65, PAPER) == 9
    assert near(97, 97 * 1.07, OUTER) == 9
    assert near(97, 97 * 1.02, INNER) == 9
    assert pixels(picture, COLOURS["fp8"], left=LEFT + PANEL + LEFT + 20) == 0  # it has no seconds


@pytest.mark.parametrize("logarithmic", [True, False])
@pytest.mark.parametrize("values", [(0.03, 45.0), (6.0, 79.0), (1.0, 1.0)])
def test_axes_hold_every_point_and_have_round_numbers(values: tuple[float, float], logarithmic: bool) -> None:
    low, high = bounds(Panel("", "", (Point("a", values[0], values[1]), Point("b", values[1], values[0])), logarithmic))
    assert low <= min(values)
    assert high >= max(values)
    marks = ticks(low, high, logarithmic=logarithmic)
    assert 1 <= len(marks) <= 14
    assert all(low <= mark <= high for mark in marks)


def test_the_command_writes_the_picture_and_says_how_many_lie_within_the_bands(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from PIL import Image

    from tests.benchmarks import plan_scatter

    source, out = lines(tmp_path / "lines", case("bf16-1"), case("int8-2", planned=30.0, seconds=1.2)), tmp_path / "picture.png"
    monkeypatch.setattr("sys.argv", ["plan_scatter", str(source), "--out", str(out), "--title", "H100"])
    plan_scatter.main()
    said = json.loads(capsys.readouterr().out)
    assert (said["memory"]["points"], said["memory"]["within_10_percent"]) == (2, 1)
    with Image.open(out) as picture:
        assert picture.width > picture.height


def test_lines_without_a_case_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from tests.benchmarks import plan_scatter

    monkeypatch.setattr("sys.argv", ["plan_scatter", str(lines(tmp_path / "lines"))])
    with pytest.raises(SystemExit):
        plan_scatter.main()
