"""Draws predicted against measured, memory and seconds of a step, from the lines that plan_grid prints.

    python -m tests.benchmarks.plan_scatter LINES [LINES ...] [--out docs/plan-scatter.png] [--title "H100 80GB"]

A point is a case that was predicted and ran. The line is a prediction that came true; the bands are 3 and 10 percent to either side. Cases
outside the outer band are named, and so are those that failed, below. Prints one JSON line: how many points lie within which band.
"""

from __future__ import annotations

import argparse
import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from PIL import Image, ImageDraw, ImageFont

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

NARROW, WIDE = 0.03, 0.10
SCALE = 2  # drawn twice as large and brought down, for smooth edges
PANEL, LEFT, TOP, BOTTOM, GAP = 520, 74, 64, 74, 40
INK, QUIET, GRID = (33, 38, 47), (103, 100, 88), (226, 223, 213)
PAPER, OUTER, INNER, LINE = (251, 250, 247), (233, 238, 240), (205, 222, 229), (18, 99, 126)
COLOURS = {"bf16": (18, 99, 126), "fp8": (154, 91, 0), "int8": (91, 73, 173), "nf4": (160, 60, 90), "other": (44, 115, 56)}


@dataclass(frozen=True, slots=True)
class Point:
    """A case: its name, what was predicted and what was measured."""

    case: str
    predicted: float
    measured: float

    @property
    def error(self) -> float:
        return self.predicted / self.measured - 1


@dataclass(frozen=True, slots=True)
class Panel:
    """One of the two: its heading, unit, points, and whether its axes are logarithmic."""

    heading: str
    unit: str
    points: tuple[Point, ...]
    logarithmic: bool


def read_lines(paths: Iterable[Path]) -> tuple[tuple[Point, ...], tuple[Point, ...], tuple[str, ...]]:
    """Memory in GiB, seconds of a step, and the names of cases that failed. A case that is there twice counts as it came last."""
    cases: dict[str, dict[str, Any]] = {}
    for path in paths:
        for line in path.read_text().splitlines():
            if line.startswith("{"):
                value = json.loads(line)
                if "case" in value and ("seconds" in value or "error" in value):
                    cases[str(value["case"])] = value
    memory = tuple(_points(cases, "planned_gib", "process_gib"))
    seconds = tuple(_points(cases, "planned_seconds", "seconds"))
    return memory, seconds, tuple(name for name, value in cases.items() if "error" in value)


def _points(cases: dict[str, dict[str, Any]], predicted: str, measured: str) -> Iterable[Point]:
    for name, value in cases.items():
        if value.get(predicted) and value.get(measured):
            yield Point(name, float(value[predicted]), float(value[measured]))


def within(points: Sequence[Point]) -> dict[str, float]:
    """How many points there are, how many lie in each band, and the largest errors to either side."""
    errors = [point.error for point in points] or [0.0]
    return {
        "points": len(points),
        "within_3_percent": sum(abs(point.error) <= NARROW for point in points),
        "within_10_percent": sum(abs(point.error) <= WIDE for point in points),
        "least_percent": round(100 * min(errors), 1),
        "most_percent": round(100 * max(errors), 1),
    }


def draw(memory: Sequence[Point], seconds: Sequence[Point], failed: Sequence[str] = (), *, title: str = "") -> Image.Image:
    """Both panels beside each other."""
    panels = (
        Panel("GPU memory at its peak", "GiB", tuple(memory), logarithmic=False),
        Panel("Seconds of a step", "s", tuple(seconds), logarithmic=True),
    )
    width, height = 2 * (LEFT + PANEL) + GAP + 20, TOP + PANEL + BOTTOM
    picture = Image.new("RGB", (width * SCALE, height * SCALE), PAPER)
    pen = ImageDraw.Draw(picture)
    for number, panel in enumerate(panels):
        _draw_panel(pen, panel, left=LEFT + number * (PANEL + LEFT + GAP // 2), top=TOP)
    _legend(pen, panels, failed, title=title, width=width, height=height)
    return picture.resize((width, height), Image.Resampling.LANCZOS)


def _draw_panel(pen: ImageDraw.ImageDraw, panel: Panel, *, left: int, top: int) -> None:
    low, high = bounds(panel)
    at = _scale(low, high, logarithmic=panel.logarithmic)

    def place(measured: float, predicted: float) -> tuple[float, float]:
        """Pixels, kept inside the panel."""
        x, y = (min(1.0, max(0.0, at(value))) for value in (measured, predicted))
        return (left + x * PANEL) * SCALE, (top + (1 - y) * PANEL) * SCALE

    steps = [low * (high / low) ** (i / 80) if panel.logarithmic else low + (high - low) * i / 80 for i in range(81)]
    for share, colour in ((WIDE, OUTER), (NARROW, INNER)):
        above = [place(value, value * (1 + share)) for value in steps]
        below = [place(value, value * (1 - share)) for value in reversed(steps)]
        pen.polygon([*above, *below], fill=colour)
    for value in ticks(low, high, logarithmic=panel.logarithmic):
        _tick(pen, value, place, panel, left=left, top=top)
    pen.line([place(low, low), place(high, high)], fill=LINE, width=SCALE)
    pen.rectangle([left * SCALE, top * SCALE, (left + PANEL) * SCALE, (top + PANEL) * SCALE], outline=QUIET, width=SCALE)
    taken: list[float] = []
    for point in sorted(panel.points, key=lambda point: point.measured):
        x, y = place(point.measured, point.predicted)
        radius = 3.5 * SCALE
        pen.ellipse([x - radius, y - radius, x + radius, y + radius], fill=COLOURS[kind_of(point.case)], outline=PAPER)
        if abs(point.error) > WIDE:
            line = _free_line(y, taken)
            away = point.error > 0 and x > (left + PANEL * 0.4) * SCALE  # from the line, where points crowd
            anchor, shift = ("rm", -6 * SCALE) if away or x > (left + PANEL * 0.75) * SCALE else ("lm", 6 * SCALE)
            pen.text((x + shift, line), f"{point.case} {point.error:+.0%}", fill=INK, font=_font(10), anchor=anchor)
    pen.text((left * SCALE, (top - 12) * SCALE), panel.heading, fill=INK, font=_font(15), anchor="ls")
    stats = within(panel.points)
    text = f"{stats['points']:.0f} cases, {stats['within_3_percent']:.0f} within 3 %, {stats['within_10_percent']:.0f} within 10 %"
    pen.text(((left + PANEL) * SCALE, (top - 12) * SCALE), text if panel.points else "no cases", fill=QUIET, font=_font(11), anchor="rs")
    pen.text(((left + PANEL / 2) * SCALE, (top + PANEL + 38) * SCALE), f"measured, {panel.unit}", fill=INK, font=_font(12), anchor="ms")
    pen.text(((left + 8) * SCALE, (top + 8) * SCALE), f"predicted, {panel.unit}", fill=INK, font=_font(12), anchor="la")


def _tick(
    pen: ImageDraw.ImageDraw, value: float, place: Callable[[float, float], tuple[float, float]], panel: Panel, *, left: int, top: int
) -> None:
    x, y = place(value, value)
    pen.line([x, top * SCALE, x, (top + PANEL) * SCALE], fill=GRID, width=1)
    pen.line([left * SCALE, y, (left + PANEL) * SCALE, y], fill=GRID, width=1)
    pen.text((x, (top + PANEL + 6) * SCALE), f"{value:g}", fill=QUIET, font=_font(11), anchor="mt" if x else "lt")
    pen.text(((left - 8) * SCALE, y), f"{value:g}", fill=QUIET, font=_font(11), anchor="rm")


def _free_line(y: float, taken: list[float]) -> float:
    """The nearest height for a label that lies on no other."""
    step = 13 * SCALE
    tried = (y + sign * step * number for number in range(40) for sign in (1, -1))
    found = next(line for line in tried if all(abs(line - other) >= step for other in taken))
    taken.append(found)
    return found


def _legend(pen: ImageDraw.ImageDraw, panels: Sequence[Panel], failed: Sequence[str], *, title: str, width: int, height: int) -> None:
    kinds = [kind for kind in COLOURS if any(kind_of(point.case) == kind for panel in panels for point in panel.points)]
    x = LEFT
    for kind in kinds:
        pen.ellipse([x * SCALE, (height - 24) * SCALE, (x + 8) * SCALE, (height - 16) * SCALE], fill=COLOURS[kind])
        pen.text(((x + 13) * SCALE, (height - 20) * SCALE), kind, fill=INK, font=_font(12), anchor="lm")
        x += 70
    bands = "line: predicted as measured · bands: 3 % and 10 % to either side"
    if failed:
        bands += f" · failed: {', '.join(failed[:4])}{' …' if len(failed) > 4 else ''}"
    pen.text(((x + 10) * SCALE, (height - 20) * SCALE), bands, fill=QUIET, font=_font(12), anchor="lm")
    heading = "Predicted against measured" + (f", {title}" if title else "")
    pen.text((LEFT * SCALE, 24 * SCALE), heading, fill=INK, font=_font(17), anchor="ls")


def bounds(panel: Panel) -> tuple[float, float]:
    """The ends of both axes: all points lie between them."""
    values = [value for point in panel.points for value in (point.predicted, point.measured)] or [1.0, 10.0]
    if panel.logarithmic:
        return min(values) / 1.25, max(values) * 1.25
    return 0.0, max(values) * 1.08


def ticks(low: float, high: float, *, logarithmic: bool) -> list[float]:
    """Round numbers between the ends, four to twelve of them."""
    if logarithmic:
        decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
        fine = [digit * 10.0**decade for decade in decades for digit in (1, 2, 5)]
        return [round(value, 9) for value in fine if low <= value <= high]
    step = next(size for size in (1, 2, 5, 10, 20, 50, 100) if (high - low) / size <= 10)
    return [step * number for number in range(math.ceil(low / step), int(high / step) + 1)]


def kind_of(case: str) -> str:
    """How a case's weights are held, by its name."""
    return next((kind for kind in ("bf16", "fp8", "int8", "nf4") if case.startswith(kind)), "other")


def _scale(low: float, high: float, *, logarithmic: bool) -> Callable[[float], float]:
    if logarithmic:
        return lambda value: math.log(max(value, low / 2) / low) / math.log(high / low)
    return lambda value: (value - low) / (high - low)


def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size * SCALE)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("lines", nargs="+", type=Path)
    parser.add_argument("--out", type=Path, default=Path(__file__).parents[2] / "docs" / "plan-scatter.png")
    parser.add_argument("--title", default="")
    options = parser.parse_args()
    memory, seconds, failed = read_lines(options.lines)
    if not memory and not seconds:
        parser.error("no line of these files has a case that was predicted and measured")
    draw(memory, seconds, failed, title=options.title).save(options.out, optimize=True)
    print(json.dumps({"picture": str(options.out), "memory": within(memory), "seconds": within(seconds), "failed": list(failed)}))


if __name__ == "__main__":
    main()
