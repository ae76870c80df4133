"""Memory and time of checking very many clips: hard links to eight small ones of nine frames, each read and kept by its own name.

python tests/benchmarks/scan_memory.py [CLIPS]
"""

from __future__ import annotations

import json
import os
import resource
import sys
import tempfile
import time
from pathlib import Path

from ltx2core.data.report import JsonReport, Summary
from ltx2core.data.results import Results
from ltx2core.data.survey import Survey

sys.path.insert(0, str(Path(__file__).parent))
from scan_speed import make_clips


def main(clips: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        make_clips(root / "kinds", 8, frames=9)
        (root / "clips").mkdir()
        for number in range(clips):
            os.link(root / "kinds" / f"{number % 8}.mp4", root / "clips" / f"{number:06d}.mp4")
            os.link(root / "kinds" / f"{number % 8}.txt", root / "clips" / f"{number:06d}.txt")
        for depth in ("header", "deep"):
            for round_name in ("first", "again"):
                check(root, depth, round_name, clips)


def check(root: Path, depth: str, round_name: str, clips: int) -> None:
    """One whole check, its JSON written to a file as `ltx2tui check --json` writes it. In a process of its own: memory has a peak."""
    child = os.fork()
    if child:
        assert os.waitpid(child, 0)[1] == 0
        return
    begun = time.perf_counter()
    summary = Summary()
    with Results(root / "kept.sqlite3") as results, (root / "out.json").open("w") as out:
        survey = Survey(root / "clips", results, depth=depth, processes=2)  # type: ignore[arg-type]
        survey.measure()
        measured = time.perf_counter() - begun
        report = JsonReport(out.write)
        for row in survey.rows():
            summary.add(row)
            report.add(row)
        report.close(summary)
    values = {
        "what": "memory",
        "clips": clips,
        "depth": depth,
        "round": round_name,
        "peak_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024),
        "readers_peak_mb": round(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024),
        "measure_seconds": round(measured, 1),
        "rows_seconds": round(time.perf_counter() - begun - measured, 1),
        "json_mb": round((root / "out.json").stat().st_size / 1e6),
        "named_copies": summary.to_json()["issues"].get("near_duplicate", 0),  # type: ignore[union-attr, attr-defined]
    }
    print(json.dumps(values), flush=True)
    os._exit(0)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 100_000)
