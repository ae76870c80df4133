"""Measures loading a part of a checkpoint: seconds, GB/s beside what the disk gives a plain sequential read, and host memory.

    python tests/benchmarks/load_checkpoint.py ltx-2-19b-random.safetensors --device cuda
    python tests/benchmarks/load_checkpoint.py ltx-2-19b-random.safetensors --warm    # from the page cache, as a second start does

Each read starts with the file out of the page cache, unless --warm. Prints one JSON line; `host_peak_gib` is above what the process
held before the load, libraries and CUDA's own memory included in that.
"""

from __future__ import annotations

import argparse
import json
import os
import threading
import time
from pathlib import Path

import psutil
import torch

from ltx2core.models import components
from ltx2core.models.checkpoint import Checkpoint, open_checkpoint
from ltx2core.models.names import COMPONENTS, Component

PIECE_BYTES = 32 * 2**20
GIB = 2**30
LOADERS = {
    "transformer": components.load_transformer,
    "connectors": components.load_connectors,
    "video_vae": components.load_video_vae,
    "audio_vae": components.load_audio_vae,
    "vocoder": components.load_vocoder,
}


class MemoryPeak:
    """The most host memory that this process held while the block ran, sampled every 5 ms."""

    def __enter__(self) -> MemoryPeak:
        self._process = psutil.Process()
        self.before = self.bytes = self._process.memory_info().rss
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._sample, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()

    def _sample(self) -> None:
        while not self._done.wait(0.005):
            self.bytes = max(self.bytes, self._process.memory_info().rss)


def forget(path: Path) -> None:
    """Take a file out of the page cache, so that the next read comes from the disk."""
    with path.open("rb") as file:
        os.fsync(file.fileno())  # pages that wait to be written cannot be dropped
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def plain_read(checkpoint: Checkpoint, component: Component) -> tuple[int, float]:
    """Bytes and seconds of reading a component's stretch of the file from start to end into one buffer."""
    entries = [checkpoint.entries[key] for key in checkpoint.keys(component)]
    start, end = min(entry.start for entry in entries), max(entry.end for entry in entries)
    buffer = memoryview(bytearray(PIECE_BYTES))
    begun = time.perf_counter()
    with checkpoint.path.open("rb", buffering=0) as file:
        file.seek(start)
        left = end - start
        while left:
            left -= file.readinto(buffer[: min(left, PIECE_BYTES)])
    return end - start, time.perf_counter() - begun


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("path", type=Path)
    parser.add_argument("--component", choices=COMPONENTS, default="transformer")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", choices=("bfloat16", "float32"), default="bfloat16")
    parser.add_argument("--video-only", action="store_true", help="leave the audio modules out, unread")
    parser.add_argument("--warm", action="store_true", help="keep the file in the page cache")
    options = parser.parse_args()
    checkpoint = open_checkpoint(options.path)
    torch.zeros(1, device=options.device)  # CUDA's own memory is not the load's
    if not options.warm:
        forget(options.path)
    read_bytes, read_seconds = plain_read(checkpoint, options.component)
    if not options.warm:
        forget(options.path)
    arguments = {"audio": False} if options.video_only else {}
    begun = time.perf_counter()
    with MemoryPeak() as peak:
        model = LOADERS[options.component](checkpoint, dtype=getattr(torch, options.dtype), device=options.device, **arguments)
        if options.device != "cpu":
            torch.cuda.synchronize()
    seconds = time.perf_counter() - begun
    kept = sum(tensor.nbytes for tensor in model.state_dict().values())
    result = {
        "component": options.component,
        "device": torch.cuda.get_device_name() if options.device != "cpu" else "cpu",
        "seconds": round(seconds, 2),
        "kept_gib": round(kept / GIB, 2),
        "gb_per_second": round(kept / seconds / 1e9, 2),
        "plain_read_gb_per_second": round(read_bytes / read_seconds / 1e9, 2),
        "host_peak_gib": round((peak.bytes - peak.before) / GIB, 2),
        "warm": options.warm,
    }
    result["of_plain_read"] = round(result["gb_per_second"] / result["plain_read_gb_per_second"], 2)
    print(json.dumps(result))


if __name__ == "__main__":
    main()
