"""How long a move of a lever takes on the Plan page: from the key to the page drawn anew, and the planning in it alone.

    python tests/benchmarks/replan_cost.py [--moves 60]

Prints one JSON line, in milliseconds: the median, what 95 in 100 stay below, and the longest, of moves of every lever; with recommendations
being looked for beside them, as for a user. Then how long those take. The page is the real one without a terminal, on a named card.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import statistics
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

from ltx2core.planning.hardware import hardware_named
from ltx2tui.draft import Draft
from ltx2tui.plan_sheet import Known, advice_for, levers_of, predicted, pulled
from ltx2tui.screens.plan import PlanScreen
from ltx2tui.widgets.levers import Levers
from tests.app.scenes import page_scene

if TYPE_CHECKING:
    from ltx2tui.plan_sheet import Lever

START = Draft(folder="clips", set_values={"pretrained_model_name_or_path": "Lightricks/LTX-2"})


async def page_moves(moves: int) -> list[float]:
    """Seconds of each move on the page: asked for, planned and drawn."""
    scene, found = page_scene("plan", Path()), []
    async with scene.app.run_test(size=(160, 48)) as pilot:
        await scene.complete(pilot)
        screen = scene.app.screen
        assert isinstance(screen, PlanScreen)
        levers = screen.query_one(Levers)
        for number in range(moves):
            lever, before = levers.levers[2 + number % 8], screen._number
            begin, drawn = time.perf_counter(), asyncio.Event()
            levers.post_message(Levers.Moved(lever.name, 1 if lever.at < len(lever.options) - 1 else -1))
            while screen._number == before:
                await asyncio.sleep(0)
            while screen._will_draw:
                await asyncio.sleep(0)
            screen.call_after_refresh(drawn.set)
            await drawn.wait()
            found.append(time.perf_counter() - begin)
            await asyncio.sleep(0.35)  # recommendations are being looked for when the next move comes
    return found


def planned_moves(moves: int) -> tuple[list[float], list[float]]:
    """Seconds of planning alone, and of looking for recommendations, on cards from small to large."""
    plans, advice = [], []
    for name in ("RTX 4060", "RTX 4090", "H100"):
        card, draft = hardware_named(name), START
        for number in range(moves // 3):
            lever = levers_of(draft, card)[number % 8]
            begin = time.perf_counter()
            draft = pulled(draft, lever, _other(lever, number))
            predicted(draft, card, Path(), Known(clips=20))
            plans.append(time.perf_counter() - begin)
        begin = time.perf_counter()
        advice_for(draft, card, Path(), Known(clips=20), misfit=None)
        advice.append(time.perf_counter() - begin)
    return plans, advice


def _other(lever: Lever, number: int) -> int:
    """A place of a lever that it is not at, another each time."""
    return (lever.at + 1 + number // 8) % len(lever.options)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--moves", type=int, default=64)
    moves = parser.parse_args().moves
    plans, advice = planned_moves(moves)
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        os.environ["XDG_CONFIG_HOME"] = folder
        pages = asyncio.run(page_moves(moves))
        os.chdir("/")

    def said(times: list[float]) -> dict[str, float]:
        nearly_all = statistics.quantiles(times, n=20)[-1] if len(times) > 1 else times[0]
        return {
            "median": round(1000 * statistics.median(times), 1),
            "95%": round(1000 * nearly_all, 1),
            "most": round(1000 * max(times), 1),
        }

    print(json.dumps({"benchmark": "replan_cost", "page_ms": said(pages), "plan_ms": said(plans), "recommend_ms": said(advice)}))


if __name__ == "__main__":
    main()
