"""One case of plan_grid, in the process that it is given: held as a run would hold it, stepped by the run's own engine, and measured.

Memory is the whole process's, CUDA's context counted in, at its peak from the first compiled step on. Where it runs out the engine takes
the next rung of its ladder, as in a run, and the rungs are told. Loads torch.
"""

from __future__ import annotations

import gc
import json
import resource
import statistics
import time
from dataclasses import asdict, replace
from typing import TYPE_CHECKING

import torch

from ltx2core.models.attention_choice import choose_attention
from ltx2core.offload.ahead import inputs_ahead
from ltx2core.planning.phases import host_bytes
from ltx2core.planning.step_memory import step_bytes
from ltx2core.runs.events import EngineChosen, Notice
from ltx2core.training.engine import FastEngine
from ltx2core.training.flat_optimizer import FlatOptimizer
from ltx2core.training.sigma import ShiftedLogitNormal
from ltx2core.training.step import Model, draw
from ltx2core.training.tread import add_routes, resolve
from tests.benchmarks.random_models import DEVICE, DTYPE, GIB, SMALL, make_batch, random_model, sound_tokens
from tests.benchmarks.step_cases import CONTEXT_GIB, Case, planned
from tests.benchmarks.step_time import cap_memory, synchronize

if TYPE_CHECKING:
    from ltx2core.hardware.rates import Rates
    from ltx2core.planning.step_plan import StepNeed, StepPlan
    from ltx2core.runs.events import Event
    from ltx2core.training.fast_model import FastModel, FastSettings

Line = dict[str, object]
_ONES_OWN = ("process_gib", "context_gib", "seconds", "spread", "stalled_seconds")  # of a case that has its card for itself
_OF_A_RUN = ("process", "compiler")  # parts of host memory that a benchmark, which has loaded less, has otherwise
_COMPILED_LAYERS = 4
HOST_BEFORE_GIB = {True: 1.66, False: 1.45}  # of a case in which nothing waits in host memory, with sound and without: of an H200


def run_case(name: str, case: Case, *, steps: int, layers: int, rates: Rates | None = None, shared: bool = False) -> Line:
    """What was planned, and what came of it; `error` where it did not run. shared: with other cases on its card, so that neither
    seconds nor what lies outside PyTorch's allocator can be told."""
    line: Line = {"case": name, **shape_of(case), "device": torch.cuda.get_device_name() if DEVICE.type == "cuda" else "cpu"}
    told: list[Event] = []
    try:
        cap_memory(case)
        settings, plan, need = planned(case, layers=layers, rates=rates)
        line |= predicted(plan, need, case)
        line |= _measured(case, settings, plan, told, steps=steps, layers=layers)
    except Exception as error:  # noqa: BLE001 - a case that fails is a line of the grid
        line["error"] = f"{type(error).__name__}: {error}"[:600]
        line |= memory()
    if shared:
        line = {key: value for key, value in line.items() if key not in _ONES_OWN} | {"shared": True}
    line["rungs"] = [event.text for event in told if isinstance(event, Notice) and event.code == "memory_rung"]
    line["notices"] = [event.text for event in told if isinstance(event, Notice) and event.code != "memory_rung"]
    return line


def shape_of(case: Case) -> Line:
    """What is trained, in numbers."""
    return {
        "tokens": case.tokens,
        "batch": case.batch,
        "audio": case.audio,
        "sound_tokens": sound_tokens(case.latents) if case.audio else 0,
        "rank": case.rank,
        "cap_gib": case.cap_gib,
        "storage": case.wish.storage,
        "precision": case.wish.precision,
        "adam8": case.adam.eight_bit,
        "wish": {name: value for name, value in asdict(case.wish).items() if name not in ("storage", "precision")},
    }


def predicted(plan: StepPlan, need: StepNeed, case: Case) -> Line:
    """How it is held, its bytes part by part, and its seconds."""
    host = host_bytes(need, plan, waiting=case.waiting)
    return {
        "plan": asdict(plan.layout),
        "because": plan.because,
        "block_bytes": need.block_bytes,
        "inputs_bytes": need.inputs_bytes,
        "inputs_ahead": inputs_ahead(need.inputs_bytes),
        "kept_bytes": need.kept_bytes,
        "planned_gib": None if plan.bytes is None else round(plan.bytes / GIB + CONTEXT_GIB, 3),
        "planned_parts_gib": {part: round(size / GIB, 3) for part, size in step_bytes(need, plan.layout).parts.items()},
        "planned_host_gib": round(HOST_BEFORE_GIB[case.audio] + sum(size for part, size in host.items() if part not in _OF_A_RUN) / GIB, 3),
        "planned_seconds": None if plan.seconds is None else round(plan.seconds, 4),
    }


def compile_kind(name: str, case: Case, *, rates: Rates | None = None) -> Line:
    """Have the compiler do for four blocks what a case needs for all of its own, whichever way its plan holds them."""
    begun = time.perf_counter()
    settings, plan, _ = planned(replace(case, cap_gib=None), layers=_COMPILED_LAYERS, rates=rates)
    ways = [replace(settings, streamed=1, slots=1, kept=1, attention=1, turned=False)]
    if settings.turned:
        ways.append(settings)
    for way in ways:
        told: list[Event] = []
        held = replace(plan, streamed=way.streamed, slots=way.slots, kept=way.kept, attention=way.attention, turned=way.turned)
        step, fast = _stepping(case, way, held, told, layers=_COMPILED_LAYERS)
        step()
        synchronize()
        fast.close()
        del step, fast
        gc.collect()
    return {"compiled": name, "ways": len(ways), "compile_seconds": round(time.perf_counter() - begun, 1)}


def _measured(case: Case, settings: FastSettings, plan: StepPlan, told: list[Event], *, steps: int, layers: int) -> Line:
    begun = time.perf_counter()
    step, fast = _stepping(case, settings, plan, told, layers=layers)
    synchronize()
    gc.collect()
    if DEVICE.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    built = time.perf_counter()
    losses = [step() for _ in range(3)]  # the first compiles, the second is captured, the third is the first replay
    synchronize()
    ready = time.perf_counter()
    times, stalls = [], []
    for _ in range(steps):
        begin = time.perf_counter()
        losses.append(step())
        synchronize()
        times.append(time.perf_counter() - begin)
        traffic = step.engine.traffic()
        stalls.append(0.0 if traffic is None else traffic.stalled_seconds)
    line: Line = {
        "seconds": round(statistics.median(times), 4),
        "spread": [round(min(times), 4), round(max(times), 4)],
        "stalled_seconds": round(statistics.median(stalls), 4),
        "loads_per_step": 0 if fast.blocks.ring is None else fast.blocks.ring.loads_per_step(),
        "build_seconds": round(built - begun, 1),
        "first_steps_seconds": round(ready - built, 1),
        "losses": [round(loss, 4) for loss in losses[:3]],
        **memory(),
    }
    fast.close()
    return line


class _Steps:
    """Steps of a run's engine on one batch."""

    def __init__(self, case: Case, fast: FastModel, plan: StepPlan, told: list[Event], *, layers: int) -> None:
        self.engine, self._optimizer, self._model = _engine(case, fast, plan, told, layers=layers)
        width = int(SMALL["caption_channels"]) if case.small else 3840
        self._batch = make_batch(case.latents, audio=case.audio, count=case.batch, caption_width=width)
        self._generator = torch.Generator().manual_seed(0)

    def __call__(self) -> float:
        drawn = draw(self._batch, sampler=ShiftedLogitNormal(), generator=self._generator, routes=self._model.routes)
        losses = self.engine.run(drawn, part=0, parts=1)
        self._optimizer.step(1e-4, finite=torch.isfinite(self._optimizer.clip(1.0)))
        return float(losses.total)


def _stepping(case: Case, settings: FastSettings, plan: StepPlan, told: list[Event], *, layers: int) -> tuple[_Steps, FastModel]:
    fast = random_model(settings, audio=case.audio, layers=layers, rank=case.rank, small=case.small)
    return _Steps(case, fast, plan, told, layers=layers), fast


def _engine(case: Case, fast: FastModel, plan: StepPlan, told: list[Event], *, layers: int) -> tuple[FastEngine, FlatOptimizer, Model]:
    """As a run makes them (training/trainee.py)."""
    heads = fast.transformer.config.num_attention_heads
    head_dim = fast.transformer.config.attention_head_dim
    choice = choose_attention(tokens=case.tokens, heads=heads, head_dim=head_dim, batch=case.batch, dtype=DTYPE, device=DEVICE)
    fast.blocks.use_attention(choice.backend)
    router = add_routes(fast.transformer, resolve(case.routes, layers)) if case.routes else None
    model = Model(transformer=fast.transformer, device=DEVICE, dtype=DTYPE, mixed=False, router=router)
    optimizer = FlatOptimizer(fast.adapter, case.adam)
    chosen = EngineChosen(
        engine="fast",
        attention=choice.name,
        products=plan.storage,
        compiled=DEVICE.type == "cuda",
        captured=DEVICE.type == "cuda" and fast.blocks.capturable,
        num_blocks=layers,
        streamed=plan.streamed,
        recomputed=layers - plan.kept,
        matmul_tflops=0.0,
    )
    return FastEngine(model, fast, optimizer, plan, audio_weight=1.0, chosen=chosen, emit=told.append), optimizer, model


def memory() -> Line:
    """GiB that this process holds. process: at its peak; context: what is not PyTorch's; host: most of RAM that it had, locked or not."""
    host = {"host_gib": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / GIB, 3)}
    if DEVICE.type != "cuda":
        return dict(host)
    free, total = torch.cuda.mem_get_info()
    context = (total - free) / GIB - torch.cuda.memory_reserved() / GIB
    most = torch.cuda.max_memory_reserved() / GIB
    return {
        "process_gib": round(context + most, 3),
        "context_gib": round(context, 3),
        "reserved_gib": round(most, 3),
        "allocated_gib": round(torch.cuda.max_memory_allocated() / GIB, 3),
        "allocations_retried": torch.cuda.memory_stats().get("num_alloc_retries", 0),
        **host,
    }


def print_line(line: Line) -> None:
    """For the process that started this one."""
    print(json.dumps(line), flush=True)
