"""Measures the video pass of the cache: how busy the encoder is, clips a second, and how much of the time went by waiting for decoders.

    python tests/benchmarks/cache_speed.py --device cuda          # 720p clips of 121 frames, a VAE of the released shape
    python tests/benchmarks/cache_speed.py                        # a few small clips and nano

The VAE has random weights, in a checkpoint that is written for it. Clips are drawn, panned and encoded by as many processes as there are
cores; those of one run are all different. `busy` is the time between CUDA events around each encode over the wall time of the pass, its
first decode counted in. Prints one JSON line.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKLLTX2Video

from ltx2core.caching.fingerprint import Digests
from ltx2core.caching.passes import CachePass
from ltx2core.caching.pictures import encode_pictures
from ltx2core.caching.store import Store
from ltx2core.caching.tensors import write_tensors
from ltx2core.data.clip import Bucket, Clip, Sample
from ltx2core.data.write import write_video
from ltx2core.hardware.limits import usable_cores
from ltx2core.models import header
from ltx2core.models.checkpoint import Checkpoint, open_checkpoint
from ltx2core.models.names import to_official
from ltx2core.models.nano import nano_checkpoint, nano_text_encoder
from ltx2core.models.released import released_config
from ltx2core.models.safetensors_header import read_header
from ltx2core.models.vae_levers import VaeLevers
from ltx2core.runs.events import Event, Notice, PassMeasured

FPS = 25
LEVERS = ("tiling", "slicing", "patch_conv", "temporal_roll")


def draw(path: Path, *, seed: int, width: int, height: int, frames: int) -> None:
    """A clip of soft shapes under a camera that pans, with a little grain: about 4 Mbit/s at 720p, as filmed material has."""
    random = np.random.default_rng(seed)
    margin = 2 * frames
    small = random.integers(0, 256, ((height // 40) + 2, ((width + margin) // 40) + 2, 3)).astype(np.float32)
    rows, columns = np.arange(height) / 40, np.arange(width + margin) / 40
    top, left = rows.astype(int), columns.astype(int)
    down, across = (rows - top)[:, None, None], (columns - left)[None, :, None]
    upper = small[top][:, left] * (1 - across) + small[top][:, left + 1] * across
    lower = small[top + 1][:, left] * (1 - across) + small[top + 1][:, left + 1] * across
    scene = (upper * (1 - down) + lower * down + random.normal(0, 3, (height, width + margin, 1))).clip(0, 255).astype(np.uint8)
    write_video(path, np.stack([scene[:, 2 * index : 2 * index + width] for index in range(frames)]), fps=FPS)


def draw_all(folder: Path, options: argparse.Namespace) -> None:
    """Draw every clip, with as many processes as there are cores."""
    waiting = list(range(options.clips))
    running: list[subprocess.Popen[bytes]] = []
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    while waiting or running:
        while waiting and len(running) < usable_cores():
            command = [sys.executable, __file__, "--draw", str(folder / f"{waiting[0]:04}.mp4"), "--seed", str(waiting.pop(0))]
            sizes = ["--width", str(options.width), "--height", str(options.height), "--frames", str(options.frames)]
            running.append(subprocess.Popen(command + sizes, env=env))
        for process in [one for one in running if one.poll() is not None]:
            if process.returncode:
                raise SystemExit(f"drawing a clip failed with {process.returncode}")
            running.remove(process)
        time.sleep(0.05)


def write_checkpoint(path: Path, version: str, device: str) -> Checkpoint:
    """A file with a release's header and its video VAE, in bf16 with random weights."""
    config = released_config(version)
    torch.manual_seed(0)
    with torch.device(device):
        vae = AutoencoderKLLTX2Video(**header.video_vae_arguments(config)).to(torch.bfloat16)
    blocks = len(config["vae"]["encoder_blocks"])
    tensors = {to_official(name, "video_vae", num_encoder_blocks=blocks): tensor for name, tensor in vae.state_dict().items()}
    write_tensors(path, tensors, metadata={"config": json.dumps(config), "model_version": version})
    metadata, entries = read_header(path)
    return Checkpoint(path=path, metadata=metadata, entries=entries)  # open_checkpoint would ask for a transformer


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--version", help="of the VAE's shape, such as 2.0.0; nano without it on the CPU")
    parser.add_argument("--clips", type=int)
    parser.add_argument("--width", type=int, help="of the clips; they are encoded at the multiple of 32 below")
    parser.add_argument("--height", type=int)
    parser.add_argument("--frames", type=int)
    parser.add_argument("--bucket", help="another size to encode at, such as 768x512@49")
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--decoders", type=int, default=0, help="processes; 0: one a core")
    parser.add_argument("--levers", nargs="*", choices=LEVERS, default=[])
    parser.add_argument("--folder", type=Path, help="where clips are kept for the next run")
    parser.add_argument("--draw", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--seed", type=int, default=0, help=argparse.SUPPRESS)
    options = parser.parse_args()
    on_gpu = options.device == "cuda"
    options.clips = options.clips or (48 if on_gpu else 8)
    options.width, options.height = options.width or (1280 if on_gpu else 256), options.height or (720 if on_gpu else 192)
    options.frames = options.frames or (121 if on_gpu else 25)
    if options.draw:
        draw(options.draw, seed=options.seed, width=options.width, height=options.height, frames=options.frames)
        return
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.folder or Path(temporary) / "clips"
        if not folder.exists():
            folder.mkdir(parents=True)
            draw_all(folder, options)
        measure(options, folder, Path(temporary))


def measure(options: argparse.Namespace, folder: Path, temporary: Path) -> None:
    version = options.version or ("2.0.0" if options.device == "cuda" else None)
    checkpoint = write_checkpoint(temporary / "vae.safetensors", version, options.device) if version else open_checkpoint(nano_checkpoint())
    size = Bucket(width=options.width // 32 * 32, height=options.height // 32 * 32, frames=(options.frames - 1) // 8 * 8 + 1)
    bucket = Bucket.from_label(options.bucket) if options.bucket else size
    samples = [
        Sample(clip=Clip(path=path, width=options.width, height=options.height), bucket=bucket, fps=FPS, captions=("a clip",))
        for path in sorted(folder.glob("*.mp4"))[: options.clips]
    ]
    events: list[Event] = []
    work = CachePass(
        store=Store(temporary / "cache"),
        checkpoint=checkpoint,
        text_encoder=nano_text_encoder(),
        device=torch.device(options.device),
        dtype=torch.bfloat16 if options.device == "cuda" else torch.float32,
        emit=events.append,
        levers=VaeLevers(**dict.fromkeys(options.levers, True)),
        vae_batch=options.batch,
        **({"decoders": options.decoders} if options.decoders else {}),
    )
    if options.device == "cuda":
        torch.cuda.reset_peak_memory_stats()
    broken = encode_pictures(work, work._name(samples, Digests(temporary / "digests.json"), audio=False))
    for notice in (event for event in events if isinstance(event, Notice)):
        print(f"{notice.code}: {notice.text}", file=sys.stderr)
    measured = next(event for event in events if isinstance(event, PassMeasured))
    wall, busy, waited = measured.seconds, measured.busy_seconds, measured.waited_seconds
    line = {
        "benchmark": "cache_speed",
        "busy": round(busy / wall, 3),
        "clips_per_second": round(len(samples) / wall, 3),
        "seconds": round(wall, 2),
        "encode_seconds_per_clip": round(busy / len(samples), 3),
        "waited_for_decoders": round(waited / wall, 3),
        "peak_gib": round(torch.cuda.max_memory_allocated() / 2**30, 2) if options.device == "cuda" else None,
        "clips": len(samples),
        "broken": len(broken),
        "clip": f"{options.width}x{options.height}, {options.frames} frames",
        "clip_mib": round(sum(sample.clip.path.stat().st_size for sample in samples) / len(samples) / 2**20, 2),
        "bucket": bucket.label,
        "batch": options.batch,
        "levers": options.levers,
        "decoders": work.decoders,
        "cores": usable_cores(),
        "vae": version or "nano",
        "device": torch.cuda.get_device_name() if options.device == "cuda" else "cpu",
    }
    print(json.dumps(line))


if __name__ == "__main__":
    main()
