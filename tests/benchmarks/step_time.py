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
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from diffusers import LTX2VideoTransformer3DModel
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from ltx2core.hardware.bench import measure as measure_rates
from ltx2core.lora.layers import AUDIO_ATTENTIONS, CROSS_ATTENTIONS, PROJECTIONS, VIDEO_ATTENTIONS
from ltx2core.models import header
from ltx2core.models.attention_choice import choose_attention
from ltx2core.models.forward import follow_official_code
from ltx2core.models.modalities import leave_out
from ltx2core.models.released import released_config
from ltx2core.models.text import TextEmbedding
from ltx2core.planning.flops import BatchShape
from ltx2core.planning.model_sizes import released_sizes
from ltx2core.planning.step_plan import StepNeed, StepPlan, StepWish, plan_step
from ltx2core.planning.step_time import STORED_BYTES, step_speed
from ltx2core.training.adam import BYTES_A_NUMBER
from ltx2core.training.adapter import AdapterSettings, add_adapter, target_modules
from ltx2core.training.captured_step import StepRunner
from ltx2core.training.data import Batch
from ltx2core.training.fast_model import FastModel, FastSettings, build_fast, facts_of, turn
from ltx2core.training.flat_optimizer import FlatOptimizer
from ltx2core.training.optimizer import AdamSettings
from ltx2core.training.sigma import ShiftedLogitNormal
from ltx2core.training.step import Drawn, Model, draw, losses_of
from ltx2core.training.tread import Route, add_routes, resolve

if TYPE_CHECKING:
    from ltx2core.hardware.rates import Rates
    from ltx2core.offload.masters import Waiting
    from ltx2core.offload.shared_memory import Group

GIB = 2**30
DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
DTYPE = torch.bfloat16
GRIDS = {32: (2, 4, 4), 1024: (4, 16, 16), 2688: (7, 16, 24), 6144: (16, 16, 24), 14080: (16, 22, 40)}
CONTEXT_GIB = 0.6
SMALL = {  # another model, for trying a benchmark out on a CPU
    "num_attention_heads": 4,
    "attention_head_dim": 32,
    "cross_attention_dim": 128,
    "audio_num_attention_heads": 4,
    "audio_attention_head_dim": 16,
    "audio_cross_attention_dim": 64,
    "caption_channels": 64,
}
TREAD = (Route(ratio=0.5, start=2, end=-2),)  # as SimpleTuner's quickstart has it


@dataclass(frozen=True, kw_only=True)
class Case:
    tokens: int = 2688
    wish: StepWish = field(default_factory=StepWish)
    cap_gib: float | None = None
    audio: bool = True
    beside: bool = True  # the sound's kernels beside the picture's
    capture: bool = True
    usual: bool = False  # diffusers' model with PEFT, eager, each block checkpointed
    rank: int = 32
    batch: int = 1
    routes: tuple[Route, ...] = ()  # of TREAD
    waiting: Waiting = "locked"  # where blocks that travel wait
    adam: AdamSettings = field(default_factory=AdamSettings)
    small: bool = False  # a model of small width instead
    grid: tuple[int, int, int] | None = None  # latent frames, rows and columns, where they are not those of GRIDS

    @property
    def latents(self) -> tuple[int, int, int]:
        """Frames, rows and columns of a clip."""
        return self.grid or GRIDS[self.tokens]


FP8 = StepWish(storage="fp8", precision="w8a8")
FP8_BOTH_WAYS = StepWish(storage="fp8", precision="w8a8_full")
INT8 = StepWish(storage="int8")
NF4 = StepWish(storage="nf4")
EIGHT_BIT_ADAM = AdamSettings(eight_bit=True)


def cases() -> dict[str, Case]:
    """By name. What is not said is planned as a run plans it: by the memory that there is."""
    found = {"usual-2688": Case(usual=True), "usual-6144": Case(usual=True, tokens=6144)}
    for tokens in (2688, 6144, 14080):
        found[f"resident-{tokens}"] = Case(tokens=tokens)
        found[f"recomputed-{tokens}"] = Case(tokens=tokens, wish=StepWish(recompute_all=True))
        found[f"one-stream-{tokens}"] = Case(tokens=tokens, beside=False)
        found[f"tread-{tokens}"] = Case(tokens=tokens, routes=TREAD)
    for tokens in (2688, 6144):
        for name, wish in (("int8", INT8), ("nf4", NF4), ("fp8-w8a8", FP8), ("fp8-both-ways", FP8_BOTH_WAYS)):
            found[f"{name}-{tokens}"] = Case(tokens=tokens, wish=wish)
        for cap in (24, 16, 12, 8):
            found[f"cap{cap}-{tokens}"] = Case(tokens=tokens, wish=FP8_BOTH_WAYS, cap_gib=cap)
            found[f"cap{cap}-int8-{tokens}"] = Case(tokens=tokens, wish=INT8, cap_gib=cap)
            found[f"cap{cap}-nf4-{tokens}"] = Case(tokens=tokens, wish=NF4, cap_gib=cap)
            found[f"cap{cap}-nf4-adam8-{tokens}"] = Case(tokens=tokens, wish=NF4, cap_gib=cap, adam=EIGHT_BIT_ADAM)
            found[f"cap{cap}-bf16-{tokens}"] = Case(tokens=tokens, cap_gib=cap)
    found["adam8-2688"] = Case(adam=EIGHT_BIT_ADAM)
    found["half-streamed-2688"] = Case(wish=StepWish(streamed=24, slots=3, recompute_all=True))
    found["half-streamed-kept-attention-2688"] = Case(wish=StepWish(streamed=24, slots=3))
    found["all-streamed-2688"] = Case(wish=StepWish(streamed=48, slots=2, recompute_all=True))
    found["all-streamed-video-only-2688"] = Case(audio=False, wish=StepWish(streamed=48, slots=2, recompute_all=True))
    found["all-streamed-not-locked-2688"] = Case(wish=StepWish(streamed=48, slots=2, recompute_all=True), waiting="memory")
    found["video-only-2688"] = Case(audio=False)
    return found


def planned(case: Case, *, layers: int, rates: Rates | None = None) -> tuple[FastSettings, StepPlan, StepNeed]:
    """How a run would hold the model on this card, under the case's cap. rates: of the card, measured here where they are not given."""
    adapter = AdapterSettings(rank=case.rank)
    shapes = shapes_of(audio=case.audio, layers=layers, small=case.small)
    facts = facts_of(shapes, storage=case.wish.storage, adapter=adapter, audio=case.audio, dtype=DTYPE)
    grid = case.latents
    sound = sound_tokens(grid) if case.audio else 1
    sizes = released_sizes("2.0", joint=case.audio)
    lengths = {name: each * case.batch for name, each in (("video", case.tokens), ("audio", sound), ("text", 1024))}
    need = StepNeed(
        tokens=case.tokens * case.batch,
        width=facts.width,
        itemsize=DTYPE.itemsize,
        num_blocks=facts.count,
        block_bytes=facts.block_bytes,
        outside_bytes=facts.outside_bytes,
        lora_numbers=facts.lora_numbers,
        joint=case.audio,
        kept=None if case.small else sizes.kept.bytes(**lengths, rank=case.rank),
        inputs=None if case.small else sizes.inputs_bytes(video=lengths["video"], audio=lengths["audio"]),
        rounded=0 if case.small else sizes.rounded_bytes(case.wish.storage),
        packed=not case.small and case.wish.storage == "nf4",
        state_bytes=BYTES_A_NUMBER[case.adam.eight_bit],
    )
    free, speed = None, None
    if DEVICE.type == "cuda":
        free = torch.cuda.mem_get_info()[0]
        if case.cap_gib is not None:
            free = int(min(free, (case.cap_gib - CONTEXT_GIB) * GIB))
        batch = BatchShape(count=case.batch, video=case.tokens, audio=sound, text=1024)
        rates = rates or device_rates()
        speed = step_speed(facts.shape, batch, rates, width=facts.width, storage=case.wish.storage, precision=case.wish.precision)
    plan = plan_step(need, case.wish, free_bytes=free, speed=speed)
    settings = FastSettings(
        storage=plan.storage,
        precision=plan.precision,
        streamed=plan.streamed,
        slots=plan.slots,
        kept=plan.kept,
        attention=plan.attention,
        turned=plan.turned,
        inputs_to_host=plan.inputs_to_host,
        compile=DEVICE.type == "cuda",
        waiting=case.waiting,
        beside=case.beside,
    )
    return settings, plan, need


def released_need(case: Case) -> StepNeed:
    """What the case's step is made of, by the released sizes alone: `planned` finds the same on the model."""
    sizes, sound = released_sizes("2.0", joint=case.audio), sound_tokens(case.latents) if case.audio else 0
    attentions = VIDEO_ATTENTIONS + (AUDIO_ATTENTIONS + CROSS_ATTENTIONS if case.audio else ())
    targets = {f"{attention}.{projection}" for attention in attentions for projection in PROJECTIONS}
    return StepNeed(
        tokens=case.tokens * case.batch,
        width=sizes.width,
        itemsize=DTYPE.itemsize,
        num_blocks=sizes.blocks,
        block_bytes=int(sizes.block_numbers * STORED_BYTES[case.wish.storage]),
        outside_bytes=sizes.outside_numbers * DTYPE.itemsize + sizes.blocks * sizes.small_bytes,
        lora_numbers=sizes.lora_numbers(lambda name: case.rank if name in targets else 0),
        joint=case.audio,
        kept=sizes.kept.bytes(video=case.tokens * case.batch, audio=sound * case.batch, text=1024 * case.batch, rank=case.rank),
        inputs=sizes.inputs_bytes(video=case.tokens * case.batch, audio=sound * case.batch),
        rounded=sizes.rounded_bytes(case.wish.storage),
        packed=case.wish.storage == "nf4",
        state_bytes=BYTES_A_NUMBER[case.adam.eight_bit],
    )


@cache
def device_rates() -> Rates:
    """Measured once, in some seconds."""
    return measure_rates(DEVICE).rates


def sound_tokens(grid: tuple[int, int, int]) -> int:
    """25 a second, as many as frames at 25 fps."""
    return 8 * grid[0] - 7


def shapes_of(*, audio: bool, layers: int, small: bool = False) -> LTX2VideoTransformer3DModel:
    """The 2.0 transformer on meta."""
    config = released_config("2.0.0")
    config["transformer"]["num_layers"] = layers
    with torch.device("meta"):
        model = LTX2VideoTransformer3DModel(**header.transformer_arguments(config) | (SMALL if small else {}))
    if not audio:
        leave_out(model, "audio")
    return model


def random_model(
    settings: FastSettings, *, audio: bool, layers: int, rank: int = 32, small: bool = False, group: Group | None = None
) -> FastModel:
    """The 2.0 transformer with random weights of a fresh model's spread. group: of processes that build the same, from the same seed."""
    shapes = shapes_of(audio=audio, layers=layers, small=small)
    outside = shapes_of(audio=audio, layers=0, small=small)
    outside = outside.to(DTYPE).to_empty(device=DEVICE).eval().requires_grad_(False)
    for parameter in outside.parameters():
        nn.init.normal_(parameter, std=0.02)
    follow_official_code(outside)
    targets = target_modules(shapes, audio=audio)
    fast = build_fast(
        outside,
        shapes,
        targets=targets,
        settings=settings,
        adapter=AdapterSettings(rank=rank),
        seed=0,
        dtype=DTYPE,
        device=DEVICE,
        group=group,
    )
    for weights in fast.blocks.weights:
        for name, member in fast.layout.members.items():
            place = fast.layout.matrices.get(member.name) or fast.layout.rest[member.name]
            shape = (member.rows, *place.shape[1:]) if place.shape else ()
            shape = fast.layout.shape_of(name) if fast.layout.is_rounded(name) else shape
            value = torch.randn(shape, device=DEVICE, dtype=DTYPE)
            value = (
                value * shape[1] ** -0.5
                if len(shape) == 2 and "table" not in name
                else 1 + 0.01 * value
                if "norm" in name
                else 0.01 * value
            )
            weights.put(name, value)
    fast.masters.wait()
    turn(fast)
    fast.blocks.weights_changed()
    if fast.blocks.ring is not None:
        fast.blocks.ring.reload()
    return fast


def usual_model(*, layers: int) -> tuple[Model, dict[str, nn.Parameter]]:
    """diffusers' transformer with PEFT adapters in bf16, each block checkpointed."""
    transformer = shapes_of(audio=True, layers=layers)
    transformer = transformer.to(DTYPE).to_empty(device=DEVICE).train().requires_grad_(False)
    for parameter in transformer.parameters():
        nn.init.normal_(parameter, std=0.02)
    follow_official_code(transformer)
    parameters = add_adapter(transformer, AdapterSettings(), audio=True, seed=0)
    for parameter in parameters.values():
        parameter.data = parameter.data.to(DTYPE)
    transformer.enable_gradient_checkpointing()
    return Model(transformer=transformer, device=DEVICE, dtype=DTYPE, mixed=False), parameters


def make_batch(grid: tuple[int, int, int], *, audio: bool, count: int = 1, caption_width: int = 3840) -> Batch:
    tokens, steps = grid[0] * grid[1] * grid[2], sound_tokens(grid)
    return Batch(
        video=torch.randn(count, tokens, 128, device=DEVICE),
        audio=torch.randn(count, steps, 128, device=DEVICE) if audio else None,
        audio_learned=torch.ones(count, steps, dtype=torch.bool, device=DEVICE) if audio else None,
        text=TextEmbedding(*(torch.randn(count, 1024, caption_width, device=DEVICE, dtype=DTYPE) for _ in range(2))),
        grid=grid,
        fps=torch.tensor([25.0] * count),
        bucket="",
    )


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
