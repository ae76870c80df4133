"""What a config asks of memory, in the terms of the parts that see to it: step engine, text encoder, VAE. Loads no torch."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from ltx2core.config.model import EIGHT_BIT_PRODUCTS, INT8
from ltx2core.config.optimizers import has_eight_bit_state, rule_of
from ltx2core.models.text_memory import TextSettings
from ltx2core.models.vae_levers import VaeLevers
from ltx2core.planning import method_costs
from ltx2core.planning.step_plan import StepWish

if TYPE_CHECKING:
    from ltx2core.config.train import TrainConfig
    from ltx2core.models.quantised import EightBit, Storage

_AVERAGE = 4.0
_ENCODER_WIDTHS = {"dinov2_vits14": 384, "dinov2_vitb14": 768, "dinov2_vitl14": 1024, "dinov2_vitg14": 1536}


def step_wish(config: TrainConfig) -> StepWish:
    """What the keys of offloading, block swap, RamTorch, checkpointing and precision ask of the step engine.

    Group offload and RamTorch let every block travel, RamTorch as large a share as it names; block swap a number of them. A slot of the
    ring holds a block: two groups of them with streams, so that one is copied while the other computes, one without.
    """
    streamed = slots = None
    if config.musubi_blocks_to_swap:
        streamed = config.musubi_blocks_to_swap
    if config.ramtorch:
        streamed = max(1, round(48 * config.ramtorch_transformer_percent / 100))
    if config.enable_group_offload:
        streamed = 48
        slots = config.group_offload_blocks_per_group * (2 if config.group_offload_use_stream else 1)
    return StepWish(
        storage=storage_of(config.base_model_precision),
        precision=precision_of(config),
        streamed=streamed,
        slots=slots,
        recompute_all=config.recompute_all_blocks,
        keep_all=not config.gradient_checkpointing,
        inputs_to_host=config.gradient_checkpointing_backend.startswith("unsloth"),
    )


def gives_parts(config: TrainConfig, *, first_frame: bool, references: bool) -> bool:
    """Whether tokens are given now and then instead of learned. first_frame: where a dataset gives it; references: where clips have any."""
    named = (
        config.ltx2_first_frame_conditioning_probability,
        config.ltx2_prefix_conditioning_probability,
        config.ltx2_suffix_conditioning_probability,
        config.ltx2_mask_conditioning_probability,
    )
    return first_frame or references or any(named) or any(entry.probability > 0 for entry in config.ltx2_intrinsic_conditioning)


def within(wish: StepWish, *, fp8: bool) -> StepWish:
    """The wish on a device. fp8: whether that multiplies fp8; where it does not, such weights are widened for each product."""
    if wish.storage == "fp8" and wish.precision != "dequant" and not fp8:
        return replace(wish, precision="dequant")
    return wish


def storage_of(name: str) -> Storage:
    """The storage that SimpleTuner's name of a precision stands for."""
    few: tuple[Storage, ...] = ("int8", "fp8", "nf4")
    return next((storage for storage in few if name.startswith(storage)), "bf16")


def precision_of(config: TrainConfig) -> EightBit:
    """How 8-bit weights are multiplied: dynamic kinds of SimpleTuner's list multiply in 8 bits, the others widen the weight."""
    storage = storage_of(config.base_model_precision)
    low = config.quantize_activations or config.sdnq_use_quantized_matmul or config.base_model_precision in EIGHT_BIT_PRODUCTS
    if not low or storage not in ("int8", "fp8"):  # 4 bits are only ever widened
        return "dequant"
    return "w8a8_full" if config.fp8_gradients and storage == "fp8" else "w8a8"


def state_bytes(config: TrainConfig) -> float:
    """What lies on the card for each number of the LoRA beside what training it needs: the optimizer's state, a running average."""
    rank = int(min([config.lora_rank, *config.lora_rank_pattern.values()]))
    state = method_costs.state_bytes(rule_of(config.optimizer), eight_bit=has_eight_bit_state(config.optimizer), rank=rank)
    return state + (_AVERAGE if config.use_ema and config.ema_device != "cpu" else 0.0)


def aligned_width(config: TrainConfig) -> int | None:
    """The width of the features that CREPA compares a block's with: 0 for the model's own, None where nothing is aligned."""
    if not config.crepa_enabled:
        return None
    if config.crepa_from_backbone:
        return 0
    return _ENCODER_WIDTHS.get(config.crepa_encoder_name or "", max(_ENCODER_WIDTHS.values()))


def rollout_looks(config: TrainConfig) -> float:
    """How many forwards of rollouts a batch takes on average, at the end of their ramp."""
    return config.rollout_forwards * config.rollout_probability if config.scheduled_sampling_max_step_offset else 0.0


def text_settings(config: TrainConfig) -> TextSettings:
    return TextSettings(
        streamed=config.ramtorch_text_encoder or (config.enable_group_offload and config.group_offload_text_encoder),
        int8=config.text_encoder_1_precision in INT8,
    )


def vae_levers(config: TrainConfig) -> VaeLevers:
    return VaeLevers(
        tiling=config.vae_enable_tiling,
        slicing=config.vae_enable_slicing,
        patch_conv=config.vae_enable_patch_conv,
        temporal_roll=config.vae_enable_temporal_roll,
    )
