"""Seconds from typing `ltx2tui` to the first whole screen, on a real pseudo-terminal, as a JSON line.

python tests/benchmarks/first_paint.py [TIMES]
"""

from __future__ import annotations

import json
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from tests.app.terminals import Screen


def main(times: int = 10) -> None:
    program = Path(sys.executable).with_name("ltx2tui")
    seconds = []
    with tempfile.TemporaryDirectory() as folder:
        for _ in range(times + 1):  # the first warms the disk cache
            started = time.perf_counter()
            screen = Screen(str(program), cwd=Path(folder), env={"XDG_CONFIG_HOME": folder})
            screen.wait_for("New run", "Quit")
            seconds.append(time.perf_counter() - started)
            screen.type("q")
            screen.end()
    seconds = sorted(seconds[1:])
    result = {"bench": "first_paint", "seconds_median": round(statistics.median(seconds), 3), "seconds_best": round(seconds[0], 3)}
    print(json.dumps({**result, "times": times, "cores": os.cpu_count(), "load": round(os.getloadavg()[0], 2)}))


if __name__ == "__main__":
    main(*(int(argument) for argument in sys.argv[1:]))
