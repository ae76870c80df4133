"""Measures a start on rounded weights: the first, which rounds a checkpoint's and writes them down, and the next, which reads them.

    python tests/benchmarks/rounded_weights.py ltx-2-19b-random.safetensors --storage int8 --device cuda
    python tests/benchmarks/rounded_weights.py ltx-2-19b-random.safetensors --streamed 24 --device cuda    # half of the blocks in RAM

Each load starts with the files out of the page cache. Prints one JSON line; `host_peak_gib` is above what the process held before, the
masters of streamed blocks (and without a GPU the whole model) included in that. The file is removed first, and left in the end.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parent))
from load_checkpoint import GIB, MemoryPeak, forget

from ltx2core.models.checkpoint import open_checkpoint
from ltx2core.training.adapter import AdapterSettings
from ltx2core.training.fast_model import FastSettings, load_fast
from ltx2core.training.rounded_weights import RoundedStore, place_beside


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("path", type=Path)
    parser.add_argument("--storage", choices=("int8", "fp8", "nf4"), default="int8")
    parser.add_argument("--streamed", type=int, default=0)
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args()
    checkpoint = open_checkpoint(options.path)
    file = place_beside(checkpoint, options.storage)
    file.unlink(missing_ok=True)
    torch.zeros(1, device=options.device)
    result: dict[str, object] = {"storage": options.storage, "streamed": options.streamed, "device": options.device}
    with tempfile.TemporaryDirectory() as folder:
        for name, kept in (("not_kept", False), ("written", True), ("read", True)):
            for path in (options.path, file):
                if path.exists():
                    forget(path)
            codes: list[str] = []
            store = RoundedStore(folder=Path(folder), emit=lambda event, codes=codes: codes.append(event.code))
            begun = time.perf_counter()
            with MemoryPeak() as peak:
                model = load_fast(
                    checkpoint,
                    settings=FastSettings(storage=options.storage, streamed=options.streamed, compile=False),
                    adapter=AdapterSettings(rank=32),
                    audio=True,
                    seed=0,
                    dtype=torch.bfloat16,
                    device=torch.device(options.device),
                    kept=store if kept else None,
                )
                if options.device != "cpu":
                    torch.cuda.synchronize()
            result[name] = {
                "seconds": round(time.perf_counter() - begun, 1),
                "host_peak_gib": round((peak.bytes - peak.before) / GIB, 2),
                "notices": codes,
            }
            model.close()
            del model
    blocks = sum(entry.end - entry.start for key, entry in checkpoint.entries.items() if ".transformer_blocks." in key)
    print(json.dumps(result | {"file_gb": round(file.stat().st_size / 1e9, 2), "of_the_blocks": round(file.stat().st_size / blocks, 3)}))


if __name__ == "__main__":
    main()
