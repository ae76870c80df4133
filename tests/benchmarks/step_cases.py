"""Ways of holding a training step that benchmarks measure, by name, each as a run would plan it for the memory that there is."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cache
from typing import TYPE_CHECKING

import torch

from ltx2core.hardware.bench import measure as measure_rates
from ltx2core.lora.layers import AUDIO_ATTENTIONS, CROSS_ATTENTIONS, PROJECTIONS, VIDEO_ATTENTIONS
from ltx2core.planning.flops import BatchShape
from ltx2core.planning.model_sizes import released_sizes
from ltx2core.planning.step_plan import StepNeed, StepPlan, StepWish, plan_step
from ltx2core.planning.step_time import STORED_BYTES, step_speed
from ltx2core.training.adam import BYTES_A_NUMBER
from ltx2core.training.adapter import AdapterSettings
from ltx2core.training.block_facts import facts_of
from ltx2core.training.fast_model import FastSettings
from ltx2core.training.optimizer import AdamSettings
from ltx2core.training.tread import Route
from tests.benchmarks.random_models import DEVICE, DTYPE, GIB, GRIDS, shapes_of, sound_tokens

if TYPE_CHECKING:
    from ltx2core.hardware.rates import Rates
    from ltx2core.offload.masters import Waiting

CONTEXT_GIB = 0.6
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
