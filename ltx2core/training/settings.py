"""What the parts of a run need of the config, each in its own terms. The only place that knows both."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import torch

from ltx2core.caching.features import FeatureWish
from ltx2core.config.adjust import is_distilled
from ltx2core.config.lycoris import LokrSettings, read_lycoris
from ltx2core.config.optimizers import has_eight_bit_state, rule_of
from ltx2core.config.paths import from_here
from ltx2core.lora.layers import ATTENTIONS_AND_FEED_FORWARD
from ltx2core.models import text_source
from ltx2core.models.dino import find_encoder
from ltx2core.models.named_file import find_named_file
from ltx2core.planning.wishes import rollout_looks, step_wish, vae_levers
from ltx2core.training.adapter import AdapterSettings
from ltx2core.training.average import AverageSettings
from ltx2core.training.between import Schedule
from ltx2core.training.export import ExportSettings
from ltx2core.training.loop import LoopSettings
from ltx2core.training.objective_settings import crepa_of, given_parts, penalty_of, rollouts_of, sigma_sampler, tread_routes
from ltx2core.training.optimizer import AdamSettings
from ltx2core.training.rules import RuleSettings
from ltx2core.training.schedule import LearningRate
from ltx2core.training.trainee import TrainSettings
from ltx2core.validation.guidance import Guidance
from ltx2core.validation.media import SampleSettings
from ltx2core.validation.sampling import DISTILLED_SIGMAS

if TYPE_CHECKING:
    from collections.abc import Callable

    from ltx2core.config.load import LoadedConfig
    from ltx2core.config.train import TrainConfig
    from ltx2core.models.checkpoint import Checkpoint


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


def feature_wish(config: TrainConfig, *, base: Path) -> FeatureWish | None:
    """The image encoder that CREPA needs, None where it needs none. Raises ConfigError when it is not on this machine."""
    if (name := config.crepa_encoder_name) is None:
        return None
    folder = find_encoder(name, bases=(base,))
    return FeatureWish(folder=folder, side=config.crepa_encoder_image_size, frames_at_once=config.crepa_encoder_frames_batch_size)


def adapter_settings(config: TrainConfig) -> AdapterSettings:
    targets, ranks, alphas = config.peft_lora_target_modules, config.lora_rank_pattern, config.lora_alpha_pattern
    lokr = None
    if config.lora_type == "lycoris":
        lokr = LokrSettings() if config.lycoris_config is None else read_lycoris(Path(config.lycoris_config))
        if lokr.feed_forward and targets is None:
            targets = list(ATTENTIONS_AND_FEED_FORWARD)
    if config.lora_alpha is None:  # a layer's alpha is its rank, then
        alphas = {name: float(rank) for name, rank in ranks.items()} | alphas
    return AdapterSettings(
        rank=config.lora_rank,
        alpha=config.lora_alpha or float(config.lora_rank),
        dropout=config.lora_dropout,
        targets=tuple(targets) if targets else None,
        rank_pattern=tuple(sorted(ranks.items())),
        alpha_pattern=tuple(sorted(alphas.items())),
        rate_pattern=tuple(sorted(config.learning_rate_pattern.items())),
        audio_rate=1.0 if config.audio_learning_rate is None else config.audio_learning_rate / config.learning_rate,
        rank_stabilised=config.use_rslora,
        dora=config.use_dora,
        lokr=lokr,
    )


def adam_settings(config: TrainConfig) -> AdamSettings:
    return AdamSettings(
        beta1=config.adam_beta1,
        beta2=config.adam_beta2,
        weight_decay=config.adam_weight_decay,
        epsilon=config.adam_epsilon,
        eight_bit=has_eight_bit_state(config.optimizer),
    )


def rule_settings(config: TrainConfig) -> RuleSettings:
    return RuleSettings(rule=rule_of(config.optimizer), adam=adam_settings(config))


def average_settings(config: TrainConfig) -> AverageSettings | None:
    """None where no average of the LoRA is asked for."""
    if not config.use_ema:
        return None
    return AverageSettings(decay=config.ema_decay, every=config.ema_update_interval, on_host=config.ema_device == "cpu")


def export_settings(config: TrainConfig) -> ExportSettings:
    return ExportSettings(
        adapter=adapter_settings(config),
        layout="diffusers" if config.lora_format == "diffusers" else "official",
        dtype=torch.float32 if config.lora_dtype == "fp32" else torch.bfloat16,
    )


def train_settings(
    config: TrainConfig,
    *,
    tokens: int,
    batch_size: int | None = None,
    total_steps: int = 0,
    features: FeatureWish | None = None,
    rungs: Path | None = None,
) -> TrainSettings:
    """tokens, batch_size: video tokens of a clip, and clips, of the largest batch; None for as many as the config names. total_steps: 0
    for as many as the config names. features: what CREPA aligns with.

    rungs: the file that remembers what did not fit.
    """
    return TrainSettings(
        adapter=adapter_settings(config),
        rule=rule_settings(config),
        average=average_settings(config),
        wish=step_wish(config),
        fast={"auto": None, "fast": True, "reference": False}[config.step_engine],
        compile=config.compile_blocks,
        checkpointing=config.gradient_checkpointing,
        audio_weight=config.audio_loss_weight,
        seed=config.seed,
        tokens=tokens,
        batch_size=batch_size or config.train_batch_size,
        disk=from_here(Path(config.group_offload_to_disk_path)) if config.group_offload_to_disk_path else None,
        rungs=rungs,
        routes=tread_routes(config),
        routed_share=config.tread_share_of_steps,
        penalty=penalty_of(config),
        rollouts=rollouts_of(config),
        looks=rollout_looks(config),
        crepa=crepa_of(config, total_steps=total_steps or config.max_train_steps, width=None if features is None else features.width),
    )


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
        clip_by=config.grad_clip_method,
        audio_weight=config.audio_loss_weight,
        caption_dropout=config.caption_dropout_probability,
        routed_steps=round(total_steps * config.tread_share_of_steps),
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
        guidance=_guidance(config),
        sigmas=DISTILLED_SIGMAS if is_distilled(config) else None,
        seed=config.validation_seed,
        audio=audio,
        video=video and not (audio and config.validation_audio_only),
        levers=vae_levers(config),
    )


def find_upsampler(loaded: LoadedConfig, *, tell: Callable[[str], None] = lambda _: None) -> Path | None:
    """The file that samples are upsampled with; None where they are made in one stage. Raises CheckpointError without one."""
    config = loaded.config
    if config.ltx2_validation_pipeline_mode != "spatial-upscale":
        return None
    return find_named_file(
        config.ltx2_validation_spatial_upsampler_model,
        filename=config.ltx2_validation_spatial_upsampler_filename,
        base=loaded.base,
        key="ltx2_validation_spatial_upsampler_model",
        tell=tell,
    )


def _guidance(config: TrainConfig) -> Guidance:
    """Distilled weights have guidance in them: more of it burns their samples."""
    if is_distilled(config):
        return Guidance.plain(1.0)
    return Guidance(
        video=config.validation_guidance,
        audio=config.sound_guidance,
        stg=config.ltx2_validation_stg_scale,
        stg_blocks=config.ltx2_validation_stg_blocks,
        modality=config.ltx2_validation_modality_guidance,
        rescale=config.validation_guidance_rescale,
    )


def trigger_of(loaded: LoadedConfig) -> str:
    """The words that call the concept: what the datasets put into every caption; empty without any."""
    prompts = [one.instance_prompt for one in loaded.datasets.videos if one.instance_prompt and not one.is_regularisation_data]
    return next((prompt if isinstance(prompt, str) else prompt[0] for prompt in prompts), "")
