"""Memory and time of checking very many clips: hard links to eight small ones of nine frames, each kept by its own name.

Their headers are read, twice. Looking into all of them would take an hour of two cores, so what was found in the eight is put under
every name, and the whole report is made from that: copies are looked for among all of them, and nearly all are copies.

python tests/benchmarks/scan_memory.py [CLIPS]
"""

from __future__ import annotations

import json
import os
import resource
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

from ltx2core.data.children import Children
from ltx2core.data.report import JsonReport, Summary
from ltx2core.data.results import Results, Stamp
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
        check(root, "header", "first", clips)
        check(root, "header", "again", clips)
        fill(root, clips)
        check(root, "deep", "kept", clips)


def fill(root: Path, clips: int) -> None:
    """Put what is found in the eight kinds under every name."""
    with Children(1) as children:
        kinds = children.read([root / "kinds" / f"{number}.mp4" for number in range(8)], "deep").result()
    with Results(root / "kept.sqlite3") as results:
        for number in range(clips):
            path, kind = root / "clips" / f"{number:06d}.mp4", kinds[number % 8]
            results.put(Stamp.of(str(path)), replace(kind, clip=replace(kind.clip, path=path)), "deep")


def check(root: Path, depth: str, round_name: str, clips: int) -> None:
    """One whole check, its JSON written to a file as `ltx2tui check --json` writes it. In a process of its own: memory has a peak."""
    child = os.fork()
    if child:
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        if status:
            sys.exit(f"the check ended with {status}")
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
