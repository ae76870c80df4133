"""Seconds and memory of a sample of the 19B at its true size in the middle of training: random weights, within a cap.

    python -m tests.benchmarks.sample_time                                # 121 frames of 768x512, 30 steps, guidance, within 24 GiB
    python -m tests.benchmarks.sample_time --case cap12-2688 --frames 49 --levers temporal_roll

A training step runs first, so that its memory is there to be given back. The model is held as `step_cases.py` plans it for that case. The
decoders are read from a file in the released layout, written for it with random weights. Prints one JSON line.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from dataclasses import asdict
from pathlib import Path

import torch

from ltx2core.models.checkpoint import Checkpoint, open_checkpoint
from ltx2core.models.released import released_config
from ltx2core.models.text import TextEmbedding
from ltx2core.models.vae_levers import VaeLevers
from ltx2core.validation.decoding import SampleDecoder
from ltx2core.validation.guidance import Guidance
from ltx2core.validation.media import SampleSettings, draw, write_media
from tests.benchmarks import step_time, write_true_size
from tests.benchmarks.random_models import DEVICE, DTYPE, GIB
from tests.benchmarks.step_cases import cases


def make_decoders(folder: Path) -> Checkpoint:
    """A file of the released layout: the transformer's part is a hole, everything else random."""
    config = released_config("2.0.0")
    path = folder / "ltx-2-19b-random.safetensors"
    planned = write_true_size.plan(config)
    hollow = ("model.diffusion_model.",)
    write_true_size.write(path, planned, write_true_size.checkpoint_metadata(config), holes=lambda item: item.key.startswith(hollow))
    return open_checkpoint(path)


def prompt() -> TextEmbedding:
    return TextEmbedding(*(torch.randn(1024, 3840, device=DEVICE, dtype=DTYPE) for _ in range(2)))


class Peak:
    """The most memory that was allocated and reserved since it was made, GiB."""

    def __init__(self) -> None:
        if DEVICE.type == "cuda":
            torch.cuda.reset_peak_memory_stats()
        self._begun = time.perf_counter()

    def read(self) -> dict[str, float]:
        step_time.synchronize()
        found = {"seconds": round(time.perf_counter() - self._begun, 2)}
        if DEVICE.type == "cuda":
            found["allocated_gib"] = round(torch.cuda.max_memory_allocated() / GIB, 2)
            found["reserved_gib"] = round(torch.cuda.max_memory_reserved() / GIB, 2)
        return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--case", default="cap24-6144", help="of step_cases.py: how the model is held")
    parser.add_argument("--width", type=int, default=768)
    parser.add_argument("--height", type=int, default=512)
    parser.add_argument("--frames", type=int, default=121)
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--guidance", type=float, default=5.0)
    parser.add_argument("--levers", default="", help="of the VAE, separated by commas")
    parser.add_argument("--layers", type=int, default=48)
    parser.add_argument("--out", type=Path, default=None, help="a folder to write the sample into, which needs PyAV")
    options = parser.parse_args()
    case = cases()[options.case]
    levers = VaeLevers(**dict.fromkeys(filter(None, options.levers.split(",")), True))
    result: dict[str, object] = {"case": options.case, "cap_gib": case.cap_gib, "size": [options.width, options.height, options.frames]}
    with tempfile.TemporaryDirectory() as folder:
        checkpoint = make_decoders(Path(folder))
        step_time.cap_memory(case)
        peak = Peak()
        measured = step_time.prepare_fast(case, options.layers)
        for _ in range(2):
            measured.step()
        result["training"] = peak.read()
        measured.park()
        assert measured.model is not None
        settings = SampleSettings(
            width=options.width,
            height=options.height,
            frames=options.frames,
            fps=25.0,
            steps=options.steps,
            guidance=Guidance.plain(options.guidance),
            seed=42,
            audio=True,
            levers=levers,
        )
        peak = Peak()
        latents = draw(measured.model, text=prompt(), negative=prompt(), settings=settings)
        result["sampling"] = peak.read() | {"steps": options.steps}
        peak, told = Peak(), list[str]()
        decoder = SampleDecoder(checkpoint=checkpoint, device=DEVICE, dtype=DTYPE, levers=levers, lend=measured.lend, tell=told.append)
        media = decoder(latents)
        assert media.frames is not None
        assert media.sound is not None
        result["decoding"] = peak.read() | {"levers": [name for name, on in asdict(levers).items() if on], "told": told}
        result["frames"], result["sound_seconds"] = list(media.frames.shape), round(media.sound.shape[-1] / media.sample_rate, 2)
        if options.out is not None:
            write_media(options.out, media, settings)
        peak = Peak()
        measured.step()
        result["step_after"] = peak.read()
        measured.close()
    if DEVICE.type == "cuda":
        free, total = torch.cuda.mem_get_info()
        result |= {"device": torch.cuda.get_device_name(), "process_gib": round((total - free) / GIB, 2)}
    print(json.dumps(result), flush=True)


if __name__ == "__main__":
    main()
