"""What is trained: the transformer with its adapter and optimizer, and the engine that steps it, as config and machine ask."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch

from ltx2core.config.optimizers import TITLES, Rule
from ltx2core.distributed.ranks import ALONE, Ranks
from ltx2core.hardware.matmul_rate import matmul_rate
from ltx2core.lora.shape import names_single_block
from ltx2core.models.attention_choice import AttentionKernels
from ltx2core.models.components import check_transformer, load_transformer
from ltx2core.models.quantised import has_fp8
from ltx2core.planning.flops import model_shape
from ltx2core.planning.wishes import within
from ltx2core.runs.events import EngineChosen, Notice
from ltx2core.training.adapter import AdapterSettings, add_adapter, module_names
from ltx2core.training.crepa import Crepa, CrepaSettings, check_blocks
from ltx2core.training.engine import Engine, FastEngine, ReferenceEngine
from ltx2core.training.fast_model import load_fast
from ltx2core.training.flat_optimizer import FlatOptimizer
from ltx2core.training.head_optimizer import WithHead
from ltx2core.training.holding import hold, rungs_of, tell_unlocked
from ltx2core.training.optimizer import AdapterOptimizer, Optimizer
from ltx2core.training.penalty import SQUARES, Penalty
from ltx2core.training.rules import RuleOptimizer, RuleSettings, check_package
from ltx2core.training.step import Model
from ltx2core.training.step_meter import StepMeter
from ltx2core.training.tread import Route, Router, add_routes, resolve

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from diffusers import LTX2VideoTransformer3DModel
    from torch import Tensor, nn

    from ltx2core.models.checkpoint import Checkpoint
    from ltx2core.models.quantised import Storage
    from ltx2core.planning.step_plan import StepPlan, StepWish
    from ltx2core.runs.events import Event
    from ltx2core.training.average import AverageSettings
    from ltx2core.training.flat_adapter import FlatAdapter
    from ltx2core.training.rollout import Rollouts
    from ltx2core.training.rounded_weights import RoundedStore


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainSettings:
    """How the trainee is built. tokens: video tokens of the largest batch. fast: None lets the device decide. routes: as written."""

    adapter: AdapterSettings
    rule: RuleSettings
    average: AverageSettings | None
    wish: StepWish
    fast: bool | None
    compile: bool
    checkpointing: bool
    audio_weight: float
    seed: int
    tokens: int
    batch_size: int
    disk: Path | None = None  # a folder for blocks that do not stay on the card
    rungs: Path | None = None  # the file that remembers what did not fit
    routes: tuple[Route, ...] = ()
    routed_share: float = 1.0  # of the run's steps, from its begin
    penalty: Penalty = SQUARES
    rollouts: Rollouts | None = None
    looks: float = 0.0  # forwards of these that a batch takes on average
    crepa: CrepaSettings | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Trainee:
    """parameters: the adapter's, by the names that files use. refresh: call it when their values were changed from outside."""

    model: Model
    parameters: dict[str, nn.Parameter]
    optimizer: Optimizer
    engine: Engine
    refresh: Callable[[], None]
    software: str  # a sentence about what computes
    rule: Rule  # of the optimizer
    meter: StepMeter
    chosen: EngineChosen  # the same for readers of the journal

    @property
    def shared(self) -> list[Tensor]:
        """What all ranks of a run hold alike, and learn or change: the adapter, and CREPA's head."""
        head = [] if self.model.crepa is None else list(self.model.crepa.state_dict().values())
        return [*self.parameters.values(), *head]


def build_trainee(
    checkpoint: Checkpoint,
    settings: TrainSettings,
    *,
    video: bool,
    audio: bool,
    device: torch.device,
    dtype: torch.dtype,
    emit: Callable[[Event], None],
    kept: RoundedStore | None = None,
    ranks: Ranks = ALONE,
) -> Trainee:
    """The step engine where it can be had, else the reference, with a Notice that says why. Raises CheckpointError, RunError.

    kept: where rounded weights lie between runs, if they are to be kept. ranks: which build the same, and share what waits in RAM.
    """
    reason = _against_fast(settings, device=device)
    if reason is None:
        if (able := on_device(settings, device)) != settings:
            text = f"8-bit products are asked for, and {_words_of(device)} has none in fp8: weights are widened for each product."
            fix = 'base_model_precision "int8-torchao" is nearer to the model and as fast.'
            emit(Notice(code="no_fp8_products", level="warning", text=text, fix=fix))
            settings = able
        return _fast(checkpoint, settings, video=video, audio=audio, device=device, dtype=dtype, emit=emit, kept=kept, ranks=ranks)
    if settings.fast or (settings.fast is None and device.type == "cuda"):
        text = f"Steps are computed by diffusers and PEFT as they are, several times slower: {reason}."
        emit(Notice(code="reference_engine", level="warning", text=text))
    if idle := _only_fast(settings):
        text = f"{', '.join(idle)}: no effect, since diffusers and PEFT hold all weights on the device, as they are: {reason}."
        emit(Notice(code="no_effect", level="warning", text=text, fix="Remove what you do not want."))
    return _reference(checkpoint, settings, video=video, audio=audio, device=device, dtype=dtype, emit=emit, ranks=ranks)


def check_trainee(
    checkpoint: Checkpoint, settings: TrainSettings, *, video: bool, audio: bool, device: torch.device, dtype: torch.dtype
) -> LTX2VideoTransformer3DModel:
    """The transformer on the meta device. Raises what `build_trainee` would raise, from headers alone: caching takes hours, and comes
    first. Routes of tread_config, too, are held against the model's blocks: ConfigError."""
    if _against_fast(settings, device=device) is not None:
        empty = check_transformer(checkpoint, dtype=dtype, device=device, video=video, audio=audio)
    else:
        hold(checkpoint, on_device(settings, device), video=video, audio=audio, device=device, dtype=dtype)
        empty = check_transformer(checkpoint, video=video, audio=audio)
    check_package(settings.rule.rule)
    num_blocks = len(empty.transformer_blocks)
    routes = resolve(settings.routes, num_blocks)
    if video and settings.crepa is not None:
        check_blocks(settings.crepa, num_blocks=num_blocks, backbone=settings.crepa.width is None, routes=routes)
    return empty


def on_device(settings: TrainSettings, device: torch.device) -> TrainSettings:
    """The settings with products that the device has."""
    fp8 = device.type == "cuda" and has_fp8(torch.cuda.current_device() if device.index is None else device.index)
    return replace(settings, wish=within(settings.wish, fp8=fp8))


def _words_of(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "a CPU"


def _against_fast(settings: TrainSettings, *, device: torch.device) -> str | None:
    """Why the step engine cannot, or should not, be used; None when it is."""
    if settings.fast is False:
        return "step_engine asks for it"
    if settings.adapter.dora:
        return "use_dora learns lengths and directions apart"
    if settings.adapter.lokr is not None:
        return "a LoKr is trained"
    if settings.adapter.dropout:
        return "lora_dropout is not 0"
    if any(_outside(target) for target in settings.adapter.targets or ()):
        return "peft_lora_target_modules names layers outside the blocks"
    patterns = settings.adapter.rank_pattern + settings.adapter.alpha_pattern + settings.adapter.rate_pattern
    if any(names_single_block(name) for name, _ in patterns):
        return "a pattern of ranks, alphas or learning rates names layers of single blocks"
    if not all(_in_every_block(target) for target in settings.adapter.targets or ()):
        return "peft_lora_target_modules names layers of single blocks"
    wanted = settings.wish.storage != "bf16" or settings.wish.streamed or settings.disk is not None
    if settings.fast is None and device.type != "cuda" and not wanted:
        return "there is no GPU"
    return None


def _only_fast(settings: TrainSettings) -> list[str]:
    """What is asked for, by the keys that ask, and the step engine alone can do."""
    wish = settings.wish
    found = {
        "base_model_precision": wish.storage != "bf16",
        "the offloading of blocks": bool(wish.streamed),
        "group_offload_to_disk_path": settings.disk is not None,
        "recompute_all_blocks": wish.recompute_all and not settings.checkpointing,
        "gradient_checkpointing_backend": wish.inputs_to_host,
    }
    return [name for name, asked in found.items() if asked]


def _outside(target: str) -> bool:
    from ltx2core.lora.layers import OUTSIDE_BLOCKS

    return any(name == target or name.endswith(f".{target}") for name in OUTSIDE_BLOCKS)


def _in_every_block(target: str) -> bool:
    from ltx2core.lora.layers import IN_A_BLOCK

    return any(name == target or name.endswith(f".{target}") for name in IN_A_BLOCK)


def _reference(
    checkpoint: Checkpoint,
    settings: TrainSettings,
    *,
    video: bool,
    audio: bool,
    device: torch.device,
    dtype: torch.dtype,
    emit: Callable[[Event], None],
    ranks: Ranks,
) -> Trainee:
    rate = matmul_rate(device, dtype)
    transformer = load_transformer(checkpoint, dtype=dtype, device=device, video=video, audio=audio)
    router = _router(transformer, settings, video=video, emit=emit)
    crepa = _crepa(transformer, settings, router, video=video, device=device, dtype=dtype, emit=emit)
    empty = check_transformer(checkpoint, video=video, audio=audio)
    model = Model(transformer=transformer, device=device, dtype=dtype, router=router, rollouts=settings.rollouts, crepa=crepa)
    parameters = add_adapter(transformer, settings.adapter, video=video, audio=audio, seed=settings.seed)
    if settings.checkpointing:
        transformer.enable_gradient_checkpointing()
    kept = "recomputed" if settings.checkpointing else "kept"
    shape = model_shape(empty, ranks={name: settings.adapter.shape_of(name).rank for name in module_names(parameters)})
    return Trainee(
        model=model,
        parameters=parameters,
        optimizer=_optimizer(parameters, settings) if crepa is None else WithHead(_optimizer(parameters, settings), crepa),
        engine=ReferenceEngine(model, audio_weight=settings.audio_weight, penalty=settings.penalty),
        refresh=lambda: None,
        software=f"PyTorch {torch.__version__}'s attention, {_rule_words(settings.rule)}, activations {kept}, not compiled",
        rule=settings.rule.rule,
        meter=StepMeter(shape, matmul_rate=rate, routes=model.routes),
        chosen=EngineChosen(
            engine="reference",
            attention="PyTorch's choice",
            products=_short(dtype),
            compiled=False,
            captured=False,
            num_blocks=len(shape.blocks),
            streamed=0,
            recomputed=len(shape.blocks) if settings.checkpointing else 0,
            matmul_tflops=round(rate / 1e12, 3),
            ranks=ranks.size,
        ),
    )


def _crepa(
    transformer: LTX2VideoTransformer3DModel,
    settings: TrainSettings,
    router: Router | None,
    *,
    video: bool,
    device: torch.device,
    dtype: torch.dtype,
    emit: Callable[[Event], None],
) -> Crepa | None:
    """What aligns features, with a Notice that says with what; after routes are in place. None where nothing is aligned."""
    if settings.crepa is None:
        return None
    if not video:
        emit(Notice(code="no_effect", level="warning", text="crepa_enabled has no effect, since sound is trained alone."))
        return None
    routes = () if router is None else router.routes
    crepa = Crepa(transformer, settings.crepa, routes=routes, seed=settings.seed, device=device, dtype=dtype)
    what = "an image encoder's, which are cached" if crepa.teacher is None else f"those of block {crepa.teacher}"
    emit(Notice(code="crepa", text=f"CREPA: features of block {crepa.block} are drawn to {what}, over frames, while training."))
    return crepa


def _optimizer(parameters: dict[str, nn.Parameter], settings: TrainSettings) -> AdapterOptimizer | RuleOptimizer:
    """Over parameters that are tensors of their own."""
    rates = settings.adapter.rates(parameters)
    if settings.rule.rule == "adamw":
        return AdapterOptimizer(parameters, settings.rule.adam, average=settings.average, rates=rates)
    return RuleOptimizer(parameters, settings.rule, average=settings.average, rates=rates)


def _flat_optimizer(adapter: FlatAdapter, settings: TrainSettings) -> FlatOptimizer | RuleOptimizer:
    """Over an adapter whose parameters are views of flat buffers."""
    if settings.rule.rule == "adamw":
        return FlatOptimizer(adapter, settings.rule.adam, average=settings.average)
    rates = settings.adapter.rates(adapter.parameters)
    return RuleOptimizer(adapter.parameters, settings.rule, average=settings.average, rates=rates, flat=adapter)


def _rule_words(rule: RuleSettings) -> str:
    words = "AdamW with 8-bit state" if rule.adam.eight_bit else TITLES[rule.rule]
    return words if rule.rule == "adamw" else f"{words} (which waits for the device once an update)"


def _fast(
    checkpoint: Checkpoint,
    settings: TrainSettings,
    *,
    video: bool,
    audio: bool,
    device: torch.device,
    dtype: torch.dtype,
    emit: Callable[[Event], None],
    kept: RoundedStore | None,
    ranks: Ranks,
) -> Trainee:
    holding = hold(checkpoint, settings, video=video, audio=audio, device=device, dtype=dtype, ranks=ranks)
    blocks, plan = holding.blocks, holding.plan
    rungs = rungs_of(settings, holding, device=device)
    emit(Notice(code="plan", text=f"Memory: {'; '.join(holding.because)}."))
    rate = matmul_rate(device, dtype)  # before the model: its operands need room
    fast = load_fast(
        checkpoint,
        settings=holding.settings(compiled=settings.compile and device.type == "cuda", disk=settings.disk),
        adapter=settings.adapter,
        video=video,
        audio=audio,
        seed=settings.seed,
        dtype=dtype,
        device=device,
        group=ranks if ranks.size > 1 else None,
        kept=kept,
    )
    attention = kernel = "PyTorch's choice"  # of sound, some hundred tokens
    kernels = None
    if video:
        kernels = AttentionKernels(heads=blocks.heads, head_dim=blocks.width // blocks.heads, dtype=dtype, device=device)
        choice = kernels.of(tokens=settings.tokens, batch=settings.batch_size)
        fast.blocks.use_attention(choice.backend)
        kernel, attention = choice.name, choice.words
    _tell_rounding(plan.storage, fast.rounding, emit)
    tell_unlocked(fast.masters, emit)
    router = _router(fast.transformer, settings, video=video, emit=emit)
    crepa = _crepa(fast.transformer, settings, router, video=video, device=device, dtype=dtype, emit=emit)
    model = Model(
        transformer=fast.transformer, device=device, dtype=dtype, mixed=False, router=router, rollouts=settings.rollouts, crepa=crepa
    )
    flat = _flat_optimizer(fast.adapter, settings)
    optimizer = flat if crepa is None else WithHead(flat, crepa)
    compiled = settings.compile and device.type == "cuda"
    chosen = EngineChosen(
        engine="fast",
        attention=kernel,
        products=f"{plan.storage} {_PRODUCTS[plan.precision]}" if plan.storage != "bf16" else _short(dtype),
        compiled=compiled,
        captured=device.type == "cuda" and fast.blocks.capturable,
        num_blocks=blocks.count,
        streamed=plan.streamed,
        recomputed=blocks.count - plan.kept,
        matmul_tflops=round(rate / 1e12, 3),
        ranks=ranks.size,
    )
    return Trainee(
        model=model,
        parameters=fast.adapter.parameters,
        optimizer=optimizer,
        engine=FastEngine(
            model,
            fast,
            optimizer,
            plan,
            audio_weight=settings.audio_weight,
            chosen=chosen,
            emit=emit,
            rungs=rungs,
            penalty=settings.penalty,
            attention=kernels,
        ),
        refresh=fast.adapter.refresh,
        software=_software(plan, attention, rule=settings.rule, compiled=compiled, captured=chosen.captured),
        rule=settings.rule.rule,
        meter=StepMeter(blocks.shape, matmul_rate=rate, routes=model.routes),
        chosen=chosen,
    )


def _router(
    transformer: LTX2VideoTransformer3DModel, settings: TrainSettings, *, video: bool, emit: Callable[[Event], None]
) -> Router | None:
    """What lets tokens skip blocks, with a Notice that says which; None without routes."""
    if not settings.routes:
        return None
    if not video:
        emit(Notice(code="no_effect", level="warning", text="tread_config has no effect, since sound is trained alone: it is not routed."))
        return None
    num_blocks = len(transformer.transformer_blocks)
    resolved = resolve(settings.routes, num_blocks)
    spans = " and ".join(f"{route.ratio:.0%} of them skip blocks {route.start} to {route.end}" for route in resolved)
    when = "" if settings.routed_share == 1 else f", in the first {settings.routed_share:.0%} of the steps"
    text = f"TREAD: video tokens are routed while training{when}: {spans} of 0 to {num_blocks - 1}, drawn anew in each step."
    emit(Notice(code="tread", text=f"{text} Given and reference tokens stay; samples and the held-out loss are computed with every token."))
    return add_routes(transformer, resolved)


def _software(plan: StepPlan, attention: str, *, rule: RuleSettings, compiled: bool, captured: bool) -> str:
    products = "" if plan.storage == "bf16" else f"{plan.storage} weights, "
    if plan.storage != "bf16":
        products += {
            "dequant": "widened for each product, ",
            "w8a8": "8-bit products forwards, ",
            "w8a8_full": "8-bit products both ways, ",
        }[plan.precision]
    how = f"{'blocks compiled' if compiled else 'not compiled'}, {'steps captured' if captured else 'steps not captured'}"
    return f"{products}attention by {attention}, {_rule_words(rule)} on flat buffers, {how}"


_PRODUCTS = {"dequant": "widened", "w8a8": "forwards", "w8a8_full": "both ways"}


def _short(dtype: torch.dtype) -> str:
    return {torch.bfloat16: "bf16", torch.float32: "float32"}.get(dtype, str(dtype).removeprefix("torch."))


def _tell_rounding(storage: Storage, rounding: dict[str, float], emit: Callable[[Event], None]) -> None:
    if not rounding:
        return
    worst = min(rounding, key=lambda name: rounding[name])
    mean = sum(rounding.values()) / len(rounding)
    text = f"Weights in {storage}: {mean:.1f} dB above their rounding error on average, {rounding[worst]:.1f} dB at worst ({worst})."
    emit(Notice(code="rounding", text=text))
