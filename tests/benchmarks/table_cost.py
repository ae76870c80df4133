"""What 100,000 clips cost the Dataset page: memory of their facts, sorting them, and a key pressed in their table.

python tests/benchmarks/table_cost.py [CLIPS]
"""

from __future__ import annotations

import asyncio
import json
import resource
import sys
import time

from textual.app import App, ComposeResult

from ltx2tui.clip_list import ClipFacts, ClipList
from ltx2tui.theme import DARK
from ltx2tui.widgets.clip_table import ClipTable


class TableApp(App[None]):
    """The table alone, in the place that it has on the page."""

    CSS_PATH = "../../ltx2tui/screens/dataset.tcss"

    def __init__(self, clips: ClipList) -> None:
        super().__init__()
        self.clips = clips
        self.register_theme(DARK)
        self.theme = DARK.name

    def compose(self) -> ComposeResult:
        yield ClipTable(self.clips)


async def main(count: int) -> None:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    clips = ClipList()
    begun = time.process_time()
    clips.put(
        ClipFacts(
            number,
            f"scene-{number % 97:03d}/clip-{number:06d}.mp4",
            1280,
            720,
            number % 300,
            25.0,
            number % 300 / 25,
            48000,
            60,
            "896x512@49",
            ("hard_cut",),
            "warning",
        )
        for number in range(count)
    )
    clips.arrange()
    filled = time.process_time() - begun
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    begun = time.process_time()
    clips.sort_by("frames")
    sorted_in = time.process_time() - begun
    app = TableApp(clips)
    async with app.run_test(size=(100, 40)) as pilot:
        table = app.query_one(ClipTable)
        table.show(clips)
        await pilot.pause()
        begun = time.process_time()
        for place in range(200):
            table.action_jump(place * (count // 200))
            for line in range(table.size.height):
                table.render_line(line)
        key = (time.process_time() - begun) / 200
    values = {"what": "table", "clips": count, "facts_mb": round(memory / 1024), "fill_seconds": round(filled, 2)}
    print(json.dumps(values | {"sort_seconds": round(sorted_in, 3), "milliseconds_a_key": round(1000 * key, 2)}))


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]) if len(sys.argv) > 1 else 100_000))
