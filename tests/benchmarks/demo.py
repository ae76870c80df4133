"""The demo from a warm install: its seconds, how far the held-out loss fell, and how much of the concept is in the samples.

python tests/benchmarks/demo.py
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from ltx2core.demo import judge
from ltx2core.runs.folder import list_runs


def main() -> None:
    with tempfile.TemporaryDirectory() as place:
        command = [str(Path(sys.executable).with_name("ltx2tui")), "demo", "--headless", "--out", place]
        started = time.perf_counter()
        code = subprocess.run(command, stdout=subprocess.DEVNULL, check=False).returncode
        seconds = time.perf_counter() - started
        verdict = judge(next(iter(list_runs(Path(place)))))
    result = {
        "bench": "demo",
        "exit_code": code,
        "seconds": round(seconds, 1),
        "held_out_base": verdict.base_loss,
        "held_out_after": verdict.loss,
        "held_out_fell_by": verdict.loss_fell_by and round(verdict.loss_fell_by, 3),
        "concept_share_before": verdict.share_before and round(verdict.share_before, 4),
        "concept_share_after": verdict.share_after and round(verdict.share_after, 4),
        "learned": verdict.learned,
    }
    print(json.dumps({**result, "cores": os.cpu_count(), "load": round(os.getloadavg()[0], 2)}))


if __name__ == "__main__":
    main()
