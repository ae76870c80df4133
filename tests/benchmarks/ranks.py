"""What several GPUs of one host give: updates of the 19B at its true size, random weights, on 1 and on N ranks.

    python tests/benchmarks/ranks.py --ranks 2                         # the blocks on the cards
    python tests/benchmarks/ranks.py --ranks 2 --streamed 24           # half of them in RAM, once for all ranks
    python tests/benchmarks/ranks.py --ranks 2 --small                 # another model, on a CPU: tries this script out

Each rank is a process of its own, as in a run, and does a batch of one clip an update through the engine of runs: forward, backward, the
mean of all gradients, clipping, AdamW. First rank 0 alone, the others waiting; then all. One JSON line. seconds: of an update.
efficiency: 1 when N ranks take as long as one. host_gib: of all ranks together, what they share counted once; it is what `Pss` sums to.
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
from typing import TYPE_CHECKING

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from torch.distributed import FileStore

from ltx2core.distributed.places import environment_of, share_of_cores
from ltx2core.distributed.ranks import ALONE, Ranks, Together
from ltx2core.models.attention_choice import choose_attention
from ltx2core.planning.step_plan import StepWish
from ltx2core.runs.events import EngineChosen
from ltx2core.training.agreement import UpdateLosses, agree, bits_of, same_start
from ltx2core.training.engine import FastEngine
from ltx2core.training.flat_optimizer import FlatOptimizer
from ltx2core.training.sigma import ShiftedLogitNormal
from ltx2core.training.step import Model, draw
from tests.benchmarks.random_models import DEVICE, DTYPE, GIB, GRIDS, SMALL, make_batch, random_model
from tests.benchmarks.step_cases import FP8_BOTH_WAYS, INT8, Case, planned

if TYPE_CHECKING:
    from ltx2core.training.fast_model import FastModel

WISHES = {"bf16": StepWish(), "int8": INT8, "fp8": FP8_BOTH_WAYS}


class Trainer:
    """A rank's model, and updates of it."""

    def __init__(self, arguments: argparse.Namespace, ranks: Ranks) -> None:
        import dataclasses

        wish = dataclasses.replace(WISHES[arguments.storage], streamed=arguments.streamed)
        case = Case(tokens=arguments.tokens, wish=wish, small=arguments.small)
        settings, plan, _ = planned(case, layers=arguments.layers)
        torch.manual_seed(0)
        self.fast: FastModel = random_model(settings, audio=True, layers=arguments.layers, small=arguments.small, group=ranks)
        if not arguments.small:
            chosen = choose_attention(tokens=case.tokens, heads=32, head_dim=128, batch=1, dtype=DTYPE, device=DEVICE)
            self.fast.blocks.use_attention(chosen.backend)
        model = Model(transformer=self.fast.transformer, device=DEVICE, dtype=DTYPE, mixed=False)
        self.optimizer = FlatOptimizer(self.fast.adapter, case.adam)
        told = EngineChosen(
            engine="fast",
            attention="",
            products="",
            compiled=False,
            captured=False,
            num_blocks=arguments.layers,
            streamed=plan.streamed,
            recomputed=arguments.layers - plan.kept,
            matmul_tflops=0.0,
        )
        self.engine = FastEngine(model, self.fast, self.optimizer, plan, audio_weight=1.0, chosen=told, emit=lambda _: None)
        torch.manual_seed(1 + ranks.rank)  # a clip of its own
        width = SMALL["caption_channels"] if arguments.small else 3840
        self.batch = make_batch(GRIDS[arguments.tokens], audio=True, caption_width=width)
        self.generator = torch.Generator().manual_seed(100 + ranks.rank)
        self.steps = 0

    def update(self, ranks: Ranks) -> None:
        drawn = draw(self.batch, sampler=ShiftedLogitNormal(), generator=self.generator)
        losses = self.engine.run(drawn, part=0, parts=1)
        found = agree(ranks, UpdateLosses.of([losses], levels=(), samples=1), self.optimizer, step=self.steps)
        self.optimizer.step(1e-4, finite=torch.isfinite(found.total) & torch.isfinite(self.optimizer.clip(1.0)))
        self.steps += 1

    def seconds(self, ranks: Ranks, *, updates: int, warm: int = 0) -> float:
        """Of an update, the mean of so many."""
        for _ in range(warm):
            self.update(ranks)
        _device_done()
        begin = time.perf_counter()
        for _ in range(updates):
            self.update(ranks)
        _device_done()
        return (time.perf_counter() - begin) / updates


def _device_done() -> None:
    if DEVICE.type == "cuda":
        torch.cuda.synchronize()


def exchange_seconds(trainer: Trainer, ranks: Ranks, *, times: int) -> tuple[float, int]:
    """Of the mean of all gradients by itself, and its bytes."""
    gradients = trainer.optimizer.gradients()
    for count in (2, times):
        ranks.wait()
        _device_done()
        begin = time.perf_counter()
        for _ in range(count):
            ranks.average(gradients)
        _device_done()
    return (time.perf_counter() - begin) / times, sum(gradient.nbytes for gradient in gradients)


def own_memory() -> dict[str, float]:
    """GiB of this process: Pss, its share of what several have mapped, and Rss."""
    found = {}
    for line in Path("/proc/self/smaps_rollup").read_text().splitlines():
        name, _, rest = line.partition(":")
        if name in ("Pss", "Rss"):
            found[name] = int(rest.split()[0]) * 1024 / GIB
    return found


def measure(arguments: argparse.Namespace, ranks: Ranks) -> dict[str, object] | None:
    trainer = Trainer(arguments, ranks)
    same_start(ranks, list(trainer.fast.adapter.parameters.values()), course="")
    trainer.fast.adapter.refresh()
    weights = [parameter.detach().clone() for parameter in trainer.fast.adapter.parameters.values()]
    alone = trainer.seconds(ALONE, updates=arguments.updates, warm=arguments.warm) if ranks.owner else 0.0
    trainer.steps = 0  # rank 0 begins again, with the weights and state of the others
    with torch.no_grad():
        for parameter, value in zip(trainer.fast.adapter.parameters.values(), weights, strict=True):
            parameter.copy_(value)
    trainer.optimizer = trainer.engine._optimizer = FlatOptimizer(trainer.fast.adapter, Case().adam)
    trainer.fast.adapter.refresh()
    ranks.wait()
    together = trainer.seconds(ranks, updates=arguments.updates, warm=arguments.warm)
    exchange, nbytes = exchange_seconds(trainer, ranks, times=arguments.updates)
    bits = ranks.meet(str(bits_of(trainer.fast.adapter.parameters.values())))
    moved = max(
        float((parameter.detach() - value).abs().max())
        for parameter, value in zip(trainer.fast.adapter.parameters.values(), weights, strict=True)
    )
    memory = [json.loads(each) for each in ranks.meet(json.dumps(own_memory()))]  # while all hold what they share
    ranks.wait()
    if not ranks.owner:
        return None
    return {
        "benchmark": "ranks",
        "device": torch.cuda.get_device_name() if DEVICE.type == "cuda" else "CPU",
        "small": arguments.small,
        "ranks": ranks.size,
        "tokens": arguments.tokens,
        "storage": arguments.storage,
        "streamed": arguments.streamed,
        "updates": arguments.warm + arguments.updates,
        "seconds_1": round(alone, 4),
        "seconds_n": round(together, 4),
        "efficiency": round(alone / together, 3),
        "clips_a_second": [round(1 / alone, 3), round(ranks.size / together, 3)],
        "exchange_seconds": round(exchange, 5),
        "exchange_gib": round(nbytes / GIB, 3),
        "bus_gb_a_second": round(2 * (ranks.size - 1) / ranks.size * nbytes / exchange / 1e9, 1),
        "host_gib": round(sum(each["Pss"] for each in memory), 2),
        "host_gib_by_rank": [round(each["Pss"], 2) for each in memory],
        "shared_gib": round(arguments.streamed * trainer.fast.layout.matrix_bytes / GIB, 2),
        "moved": moved,
        "bit_equal": len(set(bits)) == 1,
    }


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ranks", type=int, default=2)
    parser.add_argument("--tokens", type=int, default=None, choices=GRIDS)
    parser.add_argument("--storage", default="bf16", choices=WISHES)
    parser.add_argument("--streamed", type=int, default=0, help="blocks that wait in RAM")
    parser.add_argument("--layers", type=int, default=None)
    parser.add_argument("--updates", type=int, default=10, help="that are timed")
    parser.add_argument("--warm", type=int, default=6, help="before those: compiling, capturing")
    parser.add_argument("--small", action="store_true")
    parser.add_argument("--rank", type=int, default=0, help=argparse.SUPPRESS)
    parser.add_argument("--store", default="", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    arguments.tokens = arguments.tokens or (32 if arguments.small else 2688)
    arguments.layers = arguments.layers or (4 if arguments.small else 48)
    return arguments


def main() -> None:
    arguments = parse()
    torch.set_num_threads(share_of_cores(arguments.ranks))
    others: list[subprocess.Popen[bytes]] = []
    with tempfile.TemporaryDirectory() as folder:
        store = arguments.store or str(Path(folder) / "store")
        if arguments.rank == 0:
            others = [
                subprocess.Popen(
                    [sys.executable, *sys.argv, "--rank", str(rank), "--store", store],
                    env=environment_of(rank, arguments.ranks, variables=os.environ),
                )
                for rank in range(1, arguments.ranks)
            ]
        try:
            ranks = Together(FileStore(store, arguments.ranks), rank=arguments.rank, size=arguments.ranks, device=DEVICE)
            ranks.connect_cards()
            found = measure(arguments, ranks)
            if found is not None:
                print(json.dumps(found), flush=True)
            for other in others:
                other.wait(60)
            ranks.close()
        finally:
            for other in others:
                other.kill()


if __name__ == "__main__":
    main()
