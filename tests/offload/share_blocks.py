"""A process of a group that trains nano on blocks which all share: run as RANK SIZE FOLDER, prints a JSON line, then waits to be killed."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from step_engine import CPU, F32, SETTINGS, adapter_values, draw_batch, fast_step, make_batch, nano
from torch.distributed import FileStore

from ltx2core.distributed.ranks import Together
from ltx2core.offload.shared_memory import Group, share_memory
from ltx2core.training.adapter import load_adapter
from ltx2core.training.fast_model import FastSettings, load_fast
from ltx2core.training.step import Model

if TYPE_CHECKING:
    from ltx2core.models.quantised import Storage
    from ltx2core.offload.masters import Waiting


def mapped_bytes() -> dict[str, int]:
    """What this process's mappings of shared blocks come to: resident, and its share of what several have mapped."""
    found = {"Rss": 0, "Pss": 0}
    inside = False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        name = line.split(":")[0]
        if "-" in line.split(" ", 1)[0]:
            inside = "memfd:ltx2-blocks" in line
        elif inside and name in found:
            found[name] += int(line.split()[1]) * 1024
    return found


def train(group: Group, *, storage: Storage, disk: Path | None) -> dict[str, float]:
    """A step on blocks that all share, and what the memory for them costs while all hold it."""
    waiting: Waiting = "locked" if disk is None else "disk"
    settings = FastSettings(compile=False, streamed=5, slots=2, storage=storage, waiting=waiting, disk=disk)
    fast = load_fast(nano(), settings=settings, adapter=SETTINGS, audio=True, seed=0, dtype=F32, device=CPU, group=group)
    load_adapter(fast.adapter.parameters, adapter_values())
    fast.adapter.refresh()
    model = Model(transformer=fast.transformer, device=CPU, dtype=F32, mixed=False)
    loss, gradients = fast_step(model, fast, draw_batch(make_batch()))
    group.wait()
    memory = mapped_bytes()
    group.wait()
    digest = float(torch.stack([value.double().abs().sum() for value in gradients.values()]).sum())
    return {"loss": float(loss), "gradients": digest, "weights": 5 * fast.layout.matrix_bytes, **memory}


def main() -> None:
    torch.set_num_threads(1)
    rank, size, folder = int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3])
    group = Together(FileStore(str(folder / "store"), size), rank=rank, size=size, device=CPU)
    results = {
        "bf16": train(group, storage="bf16", disk=None),
        "int8": train(group, storage="int8", disk=None),
        "disk": train(group, storage="bf16", disk=folder / "blocks"),
    }
    held = share_memory(group, count=2, nbytes=1 << 20)
    print(json.dumps(results), flush=True)
    time.sleep(600)
    del held


if __name__ == "__main__":
    main()
