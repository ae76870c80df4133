"""Milliseconds to draw the loss chart at 120x40, as JSON lines: a whole drawing, and what one more batch of steps changes.

python tests/benchmarks/chart_cost.py
"""

from __future__ import annotations

import json
import random
import time

from ltx2tui.series import Series
from ltx2tui.widgets.chart import LossChart


def main() -> None:
    for points in (2_000, 100_000):
        drawn = random.Random(1)
        values = [0.1 + drawn.random() for _ in range(points)]
        chart = LossChart()
        chart.losses = chart.smooth = Series(values)
        before = chart._drawn(120, 40)
        started = time.process_time()
        for _ in range(10):
            chart._drawn(120, 40)
        milliseconds = (time.process_time() - started) * 100
        for _ in range(4):
            chart.losses = chart.smooth = chart.losses.appended(0.5)
        after = chart._drawn(120, 40)
        changed = sum(a != b for row, other in zip(before, after, strict=True) for a, b in zip(row, other, strict=True))
        print(json.dumps({"bench": "chart", "points": points, "milliseconds": round(milliseconds, 2), "cells_changed_by_4_steps": changed}))


if __name__ == "__main__":
    main()
