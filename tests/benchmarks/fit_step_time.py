"""Fits the shares of planning/step_time.py to steps that were measured, and prints them with what is left over.

    python -m tests.benchmarks.fit_step_time tests/data/step_times.jsonl [GRID.jsonl ...] [--rounds 4000]

A share moves from what it is only as far as the points ask for it: each is held back by a tenth of an error of 4 percent for every fifth
that it changes. Random steps from one seed, each kept when it is better; no gradient, since a layout's seconds have corners.
"""

from __future__ import annotations

import argparse
import json
import math
import random
import statistics
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING

from ltx2core.planning.step_time import SHARES, Shares
from tests.benchmarks.step_points import Point, read_points

if TYPE_CHECKING:
    from collections.abc import Sequence

_ERROR = 0.04  # that a point may have without weighing much
_CHANGE = 0.2  # of a share, the same
_HELD = 0.1
_MOST = {"link": 1.0, "sound": 1.0, "products": 1.0, "attention": 0.95, "attention_back": 0.95}


def cost(points: Sequence[Point], shares: Shares) -> float:
    """Errors of points, and how far shares have moved."""
    errors = sum((math.log(point.predicted(shares) / point.seconds) / _ERROR) ** 2 for point in points)
    now, before = asdict(shares), asdict(SHARES)
    return errors + _HELD * sum((math.log(now[name] / before[name]) / _CHANGE) ** 2 for name in now)


def fit(points: Sequence[Point], *, rounds: int, seed: int = 0) -> Shares:
    """The best shares found."""
    drawn, best = random.Random(seed), SHARES
    least = cost(points, best)
    for index in range(rounds):
        width = _CHANGE * 0.5 ** (4 * index / rounds)
        names = drawn.sample(list(asdict(best)), 3)
        moved = {name: min(_MOST.get(name, math.inf), getattr(best, name) * math.exp(drawn.gauss(0, width))) for name in names}
        tried = replace(best, **moved)
        if (found := cost(points, tried)) < least:
            least, best = found, tried
    return best


def errors(points: Sequence[Point], shares: Shares) -> dict[str, float]:
    """Percent, by case."""
    return {point.case: round(100 * (point.predicted(shares) / point.seconds - 1), 1) for point in points}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("lines", nargs="+", type=Path)
    parser.add_argument("--rounds", type=int, default=4000)
    options = parser.parse_args()
    points = read_points(options.lines)
    if not points:
        parser.error("no line of these files has seconds after a line with rates")
    shares = fit(points, rounds=options.rounds)
    left = errors(points, shares)
    sizes = [abs(value) for value in left.values()]
    print(
        json.dumps(
            {
                "shares": {name: float(f"{value:.3g}") for name, value in asdict(shares).items()},
                "percent": left,
                "median": round(statistics.median(sizes), 1),
                "most": max(sizes),
                "before": {"median": round(statistics.median(map(abs, errors(points, SHARES).values())), 1)},
            },
            indent=1,
        )
    )


if __name__ == "__main__":
    main()
