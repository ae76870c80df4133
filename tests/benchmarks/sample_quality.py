"""Samples of nano from pictures and from sounds, measured: does the first frame come back, does the picture follow the sound.

python tests/benchmarks/sample_quality.py [SEEDS] [FOLDER for contact sheets]
"""

from __future__ import annotations

import json
import math
import statistics
import sys
from pathlib import Path

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).parents[1] / "validation"))
from nano_world import FPS, FRAMES, as_frames, scenes, shape_size, world

from ltx2core.data.write import write_png
from ltx2core.models.nano import clips
from ltx2core.models.nano.measure import psnr
from ltx2core.validation.sampling import Inputs
from ltx2core.validation.sheet import contact_sheet


def main(seeds: int = 16, folder: Path | None = None) -> None:
    shown = scenes(seeds, seed=3)
    pixels = clips.render_video(shown, width=128, height=128, frames=FRAMES, fps=FPS)
    waveforms = clips.render_sound(shown, seconds=FRAMES / FPS, sample_rate=16000)
    first: dict[str, list[float]] = {"i2v": [], "t2v": []}
    sizes: dict[str, list[float]] = {"s2v": [], "t2v": []}
    for seed in range(seeds):
        one = slice(seed, seed + 1)
        inputs = {
            "t2v": Inputs(),
            "i2v": Inputs(first_frame=world().first_frame(pixels[one])),
            "s2v": Inputs(audio=world().sound(waveforms[one])),
        }
        for mode, given in inputs.items():
            frames = world().frames(world().draw(seed=seed, steps=12, inputs=given))
            if mode in first:
                first[mode].append(psnr(frames[0], as_frames(pixels[one])[0]))
            if mode in sizes:
                sizes[mode].append(shape_size(frames))
            if folder is not None and seed < 2:
                write_png(folder / f"{mode}-{seed}.png", contact_sheet(frames))
                write_png(folder / f"true-{seed}.png", contact_sheet(as_frames(pixels[one])))
    octaves = [math.log2(float(pitch)) for pitch in shown.pitch]
    result = {
        "bench": "sample_quality",
        "seeds": seeds,
        "threads": torch.get_num_threads(),
        "first_frame_psnr_db": {mode: round(statistics.median(values), 1) for mode, values in first.items()},
        "first_frame_psnr_db_worst": {mode: round(min(values), 1) for mode, values in first.items()},
        "correlation_of_pitch_and_size": {mode: round(float(np.corrcoef(octaves, values)[0, 1]), 3) for mode, values in sizes.items()},
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main(*(int(argument) for argument in sys.argv[1:2]), *(Path(argument) for argument in sys.argv[2:3]))
