"""How long a plan takes: `ltx2tui plan` as a process, new and remembered, and a change of a lever in a process that has planned before.

    python tests/benchmarks/plan_speed.py [--trials 5]

Prints one JSON line: medians of seconds. The first needs everything but compiled bytecode; `replan` is a prediction alone, `recommend` all
three recommendations, each on a job that was not planned before.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time

from ltx2core.config.train import TrainConfig
from ltx2core.planning.hardware import hardware_named
from ltx2core.planning.predict import predict
from ltx2core.planning.recommend import recommend

CARDS = ("RTX 4060", "RTX 3090", "RTX 4090", "A100 80GB", "H100")


def process_seconds(card: str, cache: str) -> float:
    begin = time.perf_counter()
    call = [sys.executable, "-m", "ltx2tui.cli", "plan", "--card", card]
    subprocess.run(call, env={**os.environ, "XDG_CACHE_HOME": cache}, stdout=subprocess.DEVNULL, check=False)
    return time.perf_counter() - begin


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--trials", type=int, default=5)
    trials = parser.parse_args().trials
    found: dict[str, list[float]] = {"new": [], "remembered": [], "replan": [], "recommend": []}
    with tempfile.TemporaryDirectory() as cache:
        process_seconds("RTX 3060", cache)  # bytecode
        for card in CARDS[:trials]:
            found["new"].append(process_seconds(card, cache))
            found["remembered"].append(process_seconds(card, cache))
    for index, card in enumerate(CARDS[:trials]):
        hardware, config = hardware_named(card), TrainConfig(lora_rank=index + 3)
        begin = time.perf_counter()
        predict(config, hardware)
        found["replan"].append(time.perf_counter() - begin)
        begin = time.perf_counter()
        recommend(config, hardware)
        found["recommend"].append(time.perf_counter() - begin)
    print(json.dumps({"benchmark": "plan_speed", **{name: round(statistics.median(times), 4) for name, times in found.items()}}))


if __name__ == "__main__":
    main()
