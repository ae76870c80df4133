"""How fast blocks reach the card from locked memory, from memory that is not locked, and from a disk: one JSON line.

    python tests/benchmarks/staging_speed.py [--disk FOLDER] [--blocks N] [--mib SIZE]

Sweeps forwards and backwards through a ring of two slots, with nothing computed in between. Files are read once before, so a disk's own
speed shows only where RAM does not keep them: give more blocks than fit, or drop the page cache.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path

import torch

from ltx2core.offload.block_files import BlockFiles
from ltx2core.offload.layout import Layout
from ltx2core.offload.masters import Masters, Waiting
from ltx2core.offload.ring import Ring
from ltx2core.offload.staging import Staging

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")


def sweep(ring: Ring) -> None:
    for index in range(ring.streamed):
        ring.acquire(index)
        ring.release(index, following=ring.forward_follower(index))
    for index in reversed(range(ring.streamed)):
        ring.acquire(index)
        ring.release(index, following=ring.backward_follower(index))


def gigabytes_a_second(waiting: Waiting, *, folder: Path, blocks: int, nbytes: int) -> float:
    layout = Layout("bf16", {}, {}, {}, nbytes, 0)
    masters = Masters(nbytes, waiting=waiting, lock=DEVICE.type == "cuda", files=BlockFiles(folder, layout))
    for index in range(blocks):
        content = torch.full((nbytes,), index, dtype=torch.uint8)
        if masters.files is not None:
            masters.files.write(index, content, {}, {})
            masters.add(index)
        else:
            masters.add(index).tensor.copy_(content)
    ring = Ring(list(masters.found.values()), slots=2, device=DEVICE, staging=Staging(device=DEVICE) if masters.staged else None)
    ring.settle()
    sweep(ring)
    ring.settle()
    before, begin = ring.loads, time.perf_counter()
    for _ in range(3):
        sweep(ring)
    ring.settle()
    rate = (ring.loads - before) * nbytes / (time.perf_counter() - begin) / 1e9
    ring.close()
    masters.close()
    return round(rate, 2)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--disk", type=Path, help="a folder on the disk to measure; a temporary one without")
    parser.add_argument("--blocks", type=int, default=8)
    parser.add_argument("--mib", type=int, default=736, help="size of a block; those of LTX-2 2.0 have 736 MiB in bf16")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.disk) as folder:
        rates = {
            waiting: gigabytes_a_second(waiting, folder=Path(folder), blocks=options.blocks, nbytes=options.mib << 20)
            for waiting in ("locked", "memory", "disk")
        }
    device = torch.cuda.get_device_name() if DEVICE.type == "cuda" else "cpu"
    print(json.dumps({"device": device, "blocks": options.blocks, "block_mib": options.mib, "gb_per_second": rates}))


if __name__ == "__main__":
    main()
