"""What the parts of a run need of the config, each in its own terms. The only place that knows both."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import torch

from ltx2core.config.model import EIGHT_BIT_PRODUCTS, INT8
from ltx2core.config.paths import from_here
from ltx2core.models import text_source
from ltx2core.models.text_memory import TextSettings
from ltx2core.models.vae_levers import VaeLevers
from ltx2core.planning.step_plan import StepWish
from ltx2core.training.adapter import AdapterSettings
from ltx2core.training.average import AverageSettings
from ltx2core.training.between import Schedule
from ltx2core.training.export import ExportSettings
from ltx2core.training.loop import LoopSettings
from ltx2core.training.objective_settings import given_parts, sigma_sampler, tread_routes
from ltx2core.training.optimizer import AdamSettings
from ltx2core.training.schedule import LearningRate
from ltx2core.training.trainee import TrainSettings
from ltx2core.validation.media import SampleSettings

if TYPE_CHECKING:
    from collections.abc import Callable

    from ltx2core.config.load import LoadedConfig
    from ltx2core.config.train import TrainConfig
    from ltx2core.models.checkpoint import Checkpoint
    from ltx2core.models.quantised import EightBit, Storage


def pick_device(config: TrainConfig) -> tuple[torch.device, torch.dtype]:
    """Where to compute, and in what: bf16 on a GPU unless `mixed_precision` is "no", float32 on the CPU, which is slower in bf16."""
    if torch.cuda.is_available():
        return torch.device("cuda"), torch.float32 if config.mixed_precision == "no" else torch.bfloat16
    return torch.device("cpu"), torch.float32


def find_text_encoder(config: TrainConfig, checkpoint: Checkpoint, *, base: Path, tell: Callable[[str], None] = lambda _: None) -> Path:
    """The text encoder that is named, or that belongs to the model; downloaded if it must be. Raises CheckpointError without one."""
    return text_source.find_text_encoder(
        named=config.pretrained_gemma_model_name_or_path,
        model_name=config.pretrained_model_name_or_path,
        checkpoint=checkpoint.path,
        revision=config.revision,
        base=base,
        tell=tell,
    )


def text_settings(config: TrainConfig) -> TextSettings:
    return TextSettings(
        streamed=config.ramtorch_text_encoder or (config.enable_group_offload and config.group_offload_text_encoder),
        int8=config.text_encoder_1_precision in INT8,
    )


def adapter_settings(config: TrainConfig) -> AdapterSettings:
    targets = config.peft_lora_target_modules
    return AdapterSettings(
        rank=config.lora_rank,
        alpha=config.lora_alpha or float(config.lora_rank),
        dropout=config.lora_dropout,
        targets=tuple(targets) if targets else None,
    )


def adam_settings(config: TrainConfig) -> AdamSettings:
    return AdamSettings(
        beta1=config.adam_beta1, beta2=config.adam_beta2, weight_decay=config.adam_weight_decay, epsilon=config.adam_epsilon
    )


def average_settings(config: TrainConfig) -> AverageSettings | None:
    """None where no average of the LoRA is asked for."""
    return AverageSettings(decay=config.ema_decay, every=config.ema_update_interval) if config.use_ema else None


def export_settings(config: TrainConfig) -> ExportSettings:
    adapter = adapter_settings(config)
    return ExportSettings(
        rank=adapter.rank,
        alpha=adapter.alpha,
        layout="diffusers" if config.lora_format == "diffusers" else "official",
        dtype=torch.float32 if config.lora_dtype == "fp32" else torch.bfloat16,
    )


def train_settings(config: TrainConfig, *, tokens: int, rungs: Path | None = None) -> TrainSettings:
    """tokens: video tokens of the longest clip. rungs: the file that remembers what did not fit."""
    return TrainSettings(
        adapter=adapter_settings(config),
        adam=adam_settings(config),
        average=average_settings(config),
        wish=step_wish(config),
        fast={"auto": None, "fast": True, "reference": False}[config.step_engine],
        compile=config.compile_blocks,
        checkpointing=config.gradient_checkpointing,
        audio_weight=config.audio_loss_weight,
        seed=config.seed,
        tokens=tokens,
        batch_size=config.train_batch_size,
        disk=from_here(Path(config.group_offload_to_disk_path)) if config.group_offload_to_disk_path else None,
        rungs=rungs,
        routes=tread_routes(config),
    )


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
    return "int8" if name.startswith("int8") else "fp8" if name.startswith("fp8") else "bf16"


def precision_of(config: TrainConfig) -> EightBit:
    """How 8-bit weights are multiplied: dynamic kinds of SimpleTuner's list multiply in 8 bits, the others widen the weight."""
    low = config.quantize_activations or config.sdnq_use_quantized_matmul or config.base_model_precision in EIGHT_BIT_PRODUCTS
    if not low:
        return "dequant"
    return "w8a8_full" if config.fp8_gradients else "w8a8"


def loop_settings(config: TrainConfig, total_steps: int) -> LoopSettings:
    return LoopSettings(
        total_steps=total_steps,
        seed=config.seed,
        learning_rate=LearningRate(
            shape=config.lr_scheduler,
            peak=config.learning_rate,
            total_steps=total_steps,
            warmup_steps=config.lr_warmup_steps,
            end=config.lr_end,
            cycles=config.lr_num_cycles,
            power=config.lr_power,
        ),
        sampler=sigma_sampler(config),
        accumulation=config.gradient_accumulation_steps,
        max_grad_norm=config.max_grad_norm,
        audio_weight=config.audio_loss_weight,
        caption_dropout=config.caption_dropout_probability,
        parts=given_parts(config),
        reference_probability=config.ltx2_reference_conditioning_probability,
    )


def schedule_of(config: TrainConfig, total_steps: int) -> Schedule:
    return Schedule(
        total_steps=total_steps,
        save_every=config.checkpoint_step_interval,
        keep=config.checkpoints_total_limit,
        sample_every=0 if config.validation_disable else config.validation_step_interval,
        sample_base=not config.disable_benchmark,
        measure_every=config.eval_steps_interval,
        patience=config.eval_patience,
        save_best=config.lora_checkpoint == "best",
    )


def sample_settings(config: TrainConfig, *, audio: bool, video: bool = True) -> SampleSettings:
    """How samples look. audio, video: what the model was loaded with, all of which is drawn unless `validation_audio_only` says less."""
    height, width = config.validation_size
    return SampleSettings(
        width=width,
        height=height,
        frames=config.validation_num_video_frames,
        fps=config.frame_rate,
        steps=config.validation_num_inference_steps,
        guidance=config.validation_guidance,
        seed=config.validation_seed,
        audio=audio,
        video=video and not (audio and config.validation_audio_only),
        levers=vae_levers(config),
    )


def vae_levers(config: TrainConfig) -> VaeLevers:
    return VaeLevers(
        tiling=config.vae_enable_tiling,
        slicing=config.vae_enable_slicing,
        patch_conv=config.vae_enable_patch_conv,
        temporal_roll=config.vae_enable_temporal_roll,
    )


def trigger_of(loaded: LoadedConfig) -> str:
    """The words that call the concept: what the datasets put into every caption; empty without any."""
    prompts = [one.instance_prompt for one in loaded.datasets.videos if one.instance_prompt and not one.is_regularisation_data]
    return next((prompt if isinstance(prompt, str) else prompt[0] for prompt in prompts), "")
