"""What a config asks of memory, in the terms of the parts that see to it: step engine, text encoder, VAE. Loads no torch."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ltx2core.config.model import EIGHT_BIT_PRODUCTS, INT8
from ltx2core.config.optimisation import EIGHT_BIT_ADAM
from ltx2core.models.text_memory import TextSettings
from ltx2core.models.vae_levers import VaeLevers
from ltx2core.planning.step_plan import StepWish

if TYPE_CHECKING:
    from ltx2core.config.train import TrainConfig
    from ltx2core.models.quantised import EightBit, Storage

MOMENTS_BYTES, EIGHT_BIT_MOMENTS_BYTES = 8.0, 2 * (1 + 4 / 256)  # bytes a number; training/adam.py, which loads torch, has them, too
_AVERAGE = 4.0


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


def storage_of(name: str) -> Storage:
    """The storage that SimpleTuner's name of a precision stands for."""
    few: tuple[Storage, ...] = ("int8", "fp8", "nf4")
    return next((storage for storage in few if name.startswith(storage)), "bf16")


def precision_of(config: TrainConfig) -> EightBit:
    """How 8-bit weights are multiplied: dynamic kinds of SimpleTuner's list multiply in 8 bits, the others widen the weight."""
    low = config.quantize_activations or config.sdnq_use_quantized_matmul or config.base_model_precision in EIGHT_BIT_PRODUCTS
    if not low or storage_of(config.base_model_precision) == "nf4":  # which is only ever widened
        return "dequant"
    return "w8a8_full" if config.fp8_gradients else "w8a8"


def state_bytes(config: TrainConfig) -> float:
    """What lies on the card for each number of the LoRA beside what training it needs: the optimizer's state, a running average."""
    moments = EIGHT_BIT_MOMENTS_BYTES if config.optimizer in EIGHT_BIT_ADAM else MOMENTS_BYTES
    return moments + (_AVERAGE if config.use_ema and config.ema_device != "cpu" else 0.0)


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
