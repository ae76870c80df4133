"""Seconds and memory of a training step of the 19B at its true size, with random weights: every way of holding it, beside the usual path.

    python tests/benchmarks/step_time.py                        # the whole table: half an hour on an H100
    python tests/benchmarks/step_time.py --cases resident-2688,int8-2688 --profile resident-2688

A step is forward, backward, clipping and AdamW on a LoRA of rank 32 on all six attentions, batch 1, with sound. One JSON line a case.
A cap is the process's whole CUDA memory, context included, held by `set_per_process_memory_fraction`.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import json
import statistics
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from ltx2core.models.attention_choice import choose_attention
from ltx2core.training.captured_step import StepRunner
from ltx2core.training.flat_optimizer import FlatOptimizer
from ltx2core.training.sigma import ShiftedLogitNormal
from ltx2core.training.step import Drawn, Model, draw, losses_of
from ltx2core.training.tread import add_routes, resolve
from tests.benchmarks.random_models import DEVICE, DTYPE, GIB, make_batch, random_model, usual_model
from tests.benchmarks.step_cases import CONTEXT_GIB, Case, cases, device_rates, planned


@dataclass
class Measured:
    """A case under way: what a step does, and what is told of it."""

    step: Any
    result: dict[str, object]
    close: Any = lambda: None
    blocks: Any = None  # of the step engine
    model: Model | None = None
    park: Any = lambda: None  # give back what only steps need
    lend: Any = contextlib.nullcontext  # inside it, the weights are away from the card


def prepare_fast(case: Case, layers: int) -> Measured:
    settings, plan, _ = planned(case, layers=layers)
    fast = random_model(settings, audio=case.audio, layers=layers, rank=case.rank)
    grid = case.latents
    choice = choose_attention(tokens=case.tokens, heads=32, head_dim=128, batch=case.batch, dtype=DTYPE, device=DEVICE)
    fast.blocks.use_attention(choice.backend)
    router = add_routes(fast.transformer, resolve(case.routes, layers)) if case.routes else None
    model = Model(transformer=fast.transformer, device=DEVICE, dtype=DTYPE, mixed=False, router=router)
    optimizer = FlatOptimizer(fast.adapter, case.adam)

    def compute(drawn: Drawn) -> Tensor:
        losses = losses_of(model, drawn, audio_weight=1.0)
        losses.total.backward()
        return torch.stack([losses.total.detach(), losses.video.detach()])

    ring = fast.blocks.ring
    runner = StepRunner(
        compute,
        capture=case.capture and DEVICE.type == "cuda" and fast.blocks.capturable,
        before=fast.blocks.settle,
        join=fast.blocks.join,
        holds=fast.graph_memory,
    )
    batch, generator = make_batch(grid, audio=case.audio, count=case.batch), torch.Generator().manual_seed(0)

    def step() -> Tensor:
        values = runner.run(draw(batch, sampler=ShiftedLogitNormal(), generator=generator, routes=model.routes))
        optimizer.step(1e-4, finite=torch.isfinite(optimizer.clip(1.0)))
        return values

    result: dict[str, object] = {
        "routes": [f"{route.ratio:.0%} of the tokens skip blocks {route.start} to {route.end}" for route in model.routes],
        "attention": choice.name,
        "attention_ms": choice.milliseconds,
        "storage": settings.storage,
        "precision": settings.precision,
        "streamed": settings.streamed,
        "slots": settings.slots if ring else 0,
        "kept": settings.kept,
        "attention_kept": settings.attention,
        "inputs_to_host": settings.inputs_to_host,
        "loads_per_step": ring.loads_per_step() if ring else 0,
        "because": plan.because,
        "planned_gib": None if plan.bytes is None else round(plan.bytes / GIB + CONTEXT_GIB, 2),
        "planned_seconds": None if plan.seconds is None else round(plan.seconds, 4),
        "streamed_gb_per_step": round(ring.loads_per_step() * fast.layout.matrix_bytes / 1e9, 2) if ring else 0,
    }

    def park() -> None:
        runner.forget()
        fast.blocks.settle()
        gc.collect()
        if DEVICE.type == "cuda":
            torch.cuda.empty_cache()

    return Measured(step, result, fast.close, fast.blocks, model, park, fast.put_away)


def prepare_usual(case: Case, layers: int) -> Measured:
    model, parameters = usual_model(layers=layers)
    optimizer = torch.optim.AdamW(parameters.values(), lr=1e-4, fused=True)
    batch, generator = make_batch(case.latents, audio=True), torch.Generator().manual_seed(0)

    def step() -> Tensor:
        losses = losses_of(model, draw(batch, sampler=ShiftedLogitNormal(), generator=generator), audio_weight=1.0)
        losses.total.backward()
        torch.nn.utils.clip_grad_norm_(parameters.values(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        return losses.total.detach()[None]

    return Measured(step, {"path": "diffusers and PEFT, eager, blocks checkpointed"})


def measure(name: str, case: Case, *, steps: int, layers: int, profile: bool) -> None:
    cap_memory(case)
    begun = time.perf_counter()
    measured = prepare_usual(case, layers) if case.usual else prepare_fast(case, layers)
    synchronize()
    built = time.perf_counter()
    losses = [measured.step() for _ in range(2)]  # the first compiles, the second is captured
    synchronize()
    ready = time.perf_counter()
    if DEVICE.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
    times = []
    for _ in range(steps):
        begin = time.perf_counter()
        losses.append(measured.step())
        synchronize()
        times.append(time.perf_counter() - begin)
    result: dict[str, object] = {
        "case": name,
        "tokens": case.tokens,
        "audio": case.audio,
        "cap_gib": case.cap_gib,
        "seconds": round(statistics.median(times), 4),
        "spread": [round(min(times), 4), round(max(times), 4)],
        "build_seconds": round(built - begun, 1),
        "first_steps_seconds": round(ready - built, 1),
        "losses": [round(float(loss[0]), 4) for loss in losses[:3]],
        **measured.result,
    }
    if DEVICE.type == "cuda":
        result["allocated_gib"] = round(torch.cuda.max_memory_allocated() / GIB, 2)
        result["reserved_gib"] = round(torch.cuda.memory_reserved() / GIB, 2)
        free, total = torch.cuda.mem_get_info()
        result["process_gib"] = round((total - free) / GIB, 2)
    print(json.dumps(result), flush=True)
    if profile:
        show_kernels(measured)
    measured.close()


def show_kernels(measured: Measured) -> None:
    """Where the card's time goes: kernels by their total, and what is between them."""
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profiler:
        begin = time.perf_counter()
        measured.step()
        synchronize()
        seconds = time.perf_counter() - begin
    found = sorted(profiler.key_averages(), key=lambda item: -item.device_time_total)
    total = sum(item.device_time_total for item in found)
    print(
        json.dumps(
            {"profiled_seconds": round(seconds, 4), "kernel_seconds": round(total / 1e6, 4), "kernels": sum(item.count for item in found)}
        )
    )
    for item in found[:45]:
        print(f"{item.device_time_total / 1e3:9.2f} ms {item.count:6d} x {item.device_time_total / item.count:8.1f} us  {item.key[:110]}")


def cap_memory(case: Case) -> None:
    """Give back what the case before held, and hold this one to its cap."""
    free_memory()
    if case.cap_gib is not None:
        fraction = (case.cap_gib - CONTEXT_GIB) * GIB / torch.cuda.get_device_properties(0).total_memory
        torch.cuda.set_per_process_memory_fraction(fraction)


def free_memory() -> None:
    torch._dynamo.reset()
    gc.collect()
    if DEVICE.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.set_per_process_memory_fraction(1.0)


def synchronize() -> None:
    if DEVICE.type == "cuda":
        torch.cuda.synchronize()


def link_rate() -> float:
    """GB/s of a copy from page-locked host memory."""
    host = torch.empty(2**30, dtype=torch.uint8, pin_memory=True)
    card = torch.empty_like(host, device=DEVICE)
    card.copy_(host, non_blocking=True)
    synchronize()
    begin = time.perf_counter()
    for _ in range(5):
        card.copy_(host, non_blocking=True)
    synchronize()
    return 5 * host.nbytes / (time.perf_counter() - begin) / 1e9


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cases", default="", help="names, separated by commas; all without")
    parser.add_argument("--profile", default="", help="cases to show the kernels of")
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--layers", type=int, default=48)
    options = parser.parse_args()
    known = cases()
    wanted = options.cases.split(",") if options.cases else list(known)
    if unknown := [name for name in wanted if name not in known]:
        sys.exit(f"no case {', '.join(unknown)}; there are {', '.join(known)}")
    if DEVICE.type == "cuda":
        rate = link_rate()
        print(
            json.dumps(
                {
                    "device": torch.cuda.get_device_name(),
                    "torch": torch.__version__,
                    "link_gb_per_second": round(rate, 1),
                    "rates": device_rates().as_json(),
                }
            ),
            flush=True,
        )
    for name in wanted:
        run_case(name, known[name], steps=options.steps, layers=options.layers, profile=name in options.profile.split(","))


def run_case(name: str, case: Case, *, steps: int, layers: int, profile: bool = False) -> None:
    """Measure a case; one that does not fit must not end the table."""
    try:
        measure(name, case, steps=steps, layers=layers, profile=profile)
    except Exception as error:  # noqa: BLE001
        import traceback

        print(json.dumps({"case": name, "error": f"{type(error).__name__}: {error}"[:600]}), flush=True)
        traceback.print_exc(limit=4)


if __name__ == "__main__":
    main()
