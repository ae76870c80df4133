"""Seconds from typing `ltx2tui` to the first words, and to the whole screen that answers keys, on a real pseudo-terminal: a JSON line.

python tests/benchmarks/first_paint.py [TIMES]

`import_textual` is `python -c "import textual.app"` alone: no Textual app is up sooner. The rounds alternate, so all meet the same load.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from tests.app.terminals import Screen


def main(times: int = 10) -> None:
    seconds: dict[str, list[float]] = {"first_words": [], "whole_screen": [], "import_textual": []}
    with tempfile.TemporaryDirectory() as folder:
        for _ in range(times + 1):  # the first warms the disk cache
            for name, value in _round(Path(folder)).items():
                seconds[name].append(value)
    result: dict[str, object] = {"bench": "first_paint"}
    for name, values in seconds.items():
        result[f"{name}_seconds_median"] = round(statistics.median(values[1:]), 3)
        result[f"{name}_seconds_best"] = round(min(values[1:]), 3)
    print(json.dumps({**result, "times": times, "cores": os.cpu_count(), "load": round(os.getloadavg()[0], 2)}))


def _round(folder: Path) -> dict[str, float]:
    started = time.perf_counter()
    screen = Screen(str(Path(sys.executable).with_name("ltx2tui")), cwd=folder, env={"XDG_CONFIG_HOME": str(folder)})
    screen.wait_for("New run", "Quit")
    words = time.perf_counter() - started
    screen.wait_for("No runs yet")
    whole = time.perf_counter() - started
    screen.type("q")
    screen.end()
    started = time.perf_counter()
    subprocess.run([sys.executable, "-c", "import textual.app"], check=True)
    return {"first_words": words, "whole_screen": whole, "import_textual": time.perf_counter() - started}


if __name__ == "__main__":
    main(*(int(argument) for argument in sys.argv[1:]))
