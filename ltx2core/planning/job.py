"""What a config trains, in numbers: the largest clip, what is trained of it, how it is held, how samples look. Loads no torch.

Clips are looked at later, by the scan; until then a clip is taken to have the shape of the sample's picture, brought to the dataset's size.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from ltx2core.data.crops import bucket_size
from ltx2core.data.segments import snap_frames
from ltx2core.errors import ConfigError
from ltx2core.lora.layers import (
    AUDIO_ATTENTIONS,
    CROSS_ATTENTIONS,
    IN_A_BLOCK,
    OUTSIDE_BLOCKS,
    PROJECTIONS,
    VIDEO_ATTENTIONS,
    modality_of,
)
from ltx2core.lora.shape import Pattern, names_single_block, value_for
from ltx2core.planning.clips import ClipShape
from ltx2core.planning.samples import SampleShape, sample_shape
from ltx2core.planning.wishes import aligned_width, gives_parts, rollout_looks, state_bytes, step_wish, text_settings, vae_levers

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ltx2core.config.datasets import DatasetList, VideoDataset
    from ltx2core.config.train import TrainConfig
    from ltx2core.models.text_memory import TextSettings
    from ltx2core.models.vae_levers import VaeLevers
    from ltx2core.planning.step_plan import StepWish

Version = Literal["2.0", "2.3", "2.5"]
CROSS = re.compile(r"audio_|video_to_audio_")  # layers of a block that video alone does not have
_VERSION = re.compile(r"ltx-?2[._]([035])", re.IGNORECASE)
_REFERENCE = "then diffusers and PEFT compute as they are, and only the step engine is predicted"


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """What is trained. routed: (first block, last block, share of video tokens that go through them), as TREAD says, in `routed_share` of
    the steps; held_out: how often the held-out loss is measured; clips: None when they are not counted; steps: None when epochs decide and
    they are not. ranks: of layers whose rank is another; aligned: the width of the features that CREPA compares a block's with, 0 for the
    model's own, None without; looks: forwards of rollouts that a batch takes on average."""

    version: Version
    clip: ClipShape
    audio: bool
    batch: int
    accumulation: int
    rank: int
    ranks: Pattern
    targets: tuple[str, ...]
    state_bytes: float
    routed: tuple[tuple[int, int, float], ...]
    wish: StepWish
    disk: bool
    text: TextSettings
    levers: VaeLevers
    encoded_together: int
    sample: SampleShape | None
    held_out: int
    held_out_share: float
    clips: int | None
    steps: int | None
    limit_bytes: int | None
    routed_share: float = 1.0
    aligned: int | None = None
    looks: float = 0.0
    given: bool = False  # parts of clips are, now and then, instead of learned
    processes: int = 1  # one a GPU; batch and accumulation are those of each

    @property
    def clips_an_update(self) -> int:
        """How many clips an update learns from, over all processes."""
        return self.batch * self.accumulation * self.processes

    def rank_of(self, layer: str) -> int:
        """The rank of the LoRA of a layer of a block, by diffusers' name in it; 0 where it has none."""
        return int(value_for(layer, self.ranks, self.rank)) if layer in self.targets else 0

    @property
    def most_rank(self) -> int:
        return max([self.rank, *(int(rank) for _, rank in self.ranks)])


def job_of(
    config: TrainConfig,
    *,
    datasets: DatasetList | None = None,
    clips: int | None = None,
    clip: ClipShape | None = None,
    batch: int | None = None,
    version: Version | None = None,
    blocks: int = 48,
) -> Job:
    """The numbers of a config. clip, batch: those of the largest batch, version: the checkpoint's, where they are known; else version is
    told by names.
    Without datasets, clips are as large and long as samples, with sound.

    Raises ConfigError for what is not predicted, with the reason.
    """
    _check(config, datasets)
    trained = () if datasets is None else datasets.videos
    clip = clip or _largest(config, trained)
    audio = datasets is None or any(dataset.audio is not None or dataset.s2v_datasets for dataset in trained)
    batch = batch or _batch(config, trained, clip, audio=audio)
    steps = config.max_train_steps or None
    if steps is None and clips is not None:
        batches = config.num_train_epochs * -(-clips // batch)
        steps = max(1, -(-batches // (config.gradient_accumulation_steps * config.num_processes)))
    interval = config.eval_steps_interval
    references = datasets is not None and any(one.conditioning_type == "reference_strict" for one in datasets.conditioning)
    pictures = datasets is None or any(one.dataset_type != "audio" and not one.s2v_datasets for one in trained)  # as shots.py has it
    measured = bool(interval and (config.eval_split or (datasets is not None and datasets.evals)))
    return Job(
        version=version or version_of(config),
        clip=clip,
        audio=audio,
        batch=batch,
        accumulation=config.gradient_accumulation_steps,
        rank=config.lora_rank,
        ranks=tuple(sorted(config.lora_rank_pattern.items())),
        targets=_targets(config, audio=audio),
        state_bytes=state_bytes(config),
        routed=_routed(config, blocks),
        wish=step_wish(config),
        disk=bool(config.group_offload_to_disk_path),
        text=text_settings(config),
        levers=vae_levers(config),
        encoded_together=config.vae_batch_size,
        sample=sample_shape(config, steps, audio=audio, references=references, pictures=pictures),
        held_out=(steps or 0) // interval + 1 if measured else 0,
        held_out_share=config.eval_split,
        clips=clips,
        steps=steps,
        limit_bytes=None if config.gpu_memory_limit_gib is None else int(config.gpu_memory_limit_gib * 2**30),
        routed_share=config.tread_share_of_steps,
        aligned=aligned_width(config),
        looks=rollout_looks(config),
        given=gives_parts(
            config,
            first_frame=any(dataset.video.is_i2v for dataset in trained if dataset.dataset_type == "video"),
            references=references,
        ),
        processes=config.num_processes,
    )


def version_of(config: TrainConfig) -> Version:
    """The version by the names of files and flavour."""
    for name in (config.ltx2_checkpoint_filename, config.pretrained_model_name_or_path):
        match = _VERSION.search(name or "")
        if match:
            return {"0": "2.0", "3": "2.3", "5": "2.5"}[match[1]]  # type: ignore[return-value]
    flavour = config.model_flavour
    return "2.3" if flavour.startswith("2.3") else "2.5" if flavour.startswith("2.5") else "2.0"


def _check(config: TrainConfig, datasets: DatasetList | None) -> None:
    """Raises ConfigError with what is not predicted: every reason."""
    problems = []
    if config.pretrained_model_name_or_path == "nano":
        problems.append("pretrained_model_name_or_path = nano: it needs no plan, for it trains on any machine; plans are for LTX-2.")
    if config.step_engine == "reference":
        problems.append(f"step_engine = reference: {_REFERENCE}.")
    if config.lora_dropout:
        problems.append(f"lora_dropout = {config.lora_dropout:g}: {_REFERENCE}.")
    if config.use_dora:
        problems.append(f"use_dora = true: {_REFERENCE}.")
    if config.lora_type == "lycoris":
        problems.append(f"lora_type = lycoris: {_REFERENCE}.")
    problems += [
        f"{key} names {name}, a layer of single blocks: {_REFERENCE}."
        for key in ("lora_rank_pattern", "lora_alpha_pattern", "learning_rate_pattern")
        for name in getattr(config, key)
        if names_single_block(name)
    ]
    if config.mixed_precision == "no":
        problems.append("mixed_precision = no: only bf16 is predicted; float32 needs twice the memory.")
    if datasets is not None and datasets.videos and all(_sound_alone(dataset) for dataset in datasets.videos):
        problems.append("This config trains sound alone, which is not predicted: it needs far less than any picture.")
    problems += [
        f"peft_lora_target_modules names {target}, outside the blocks: {_REFERENCE}."
        for target in config.peft_lora_target_modules or ()
        if any(name == target or name.endswith(f".{target}") for name in OUTSIDE_BLOCKS)
    ]
    if problems:
        raise ConfigError(problems)


def _sound_alone(dataset: VideoDataset) -> bool:
    return dataset.dataset_type == "audio" or (dataset.audio is not None and dataset.audio.audio_only)


def _largest(config: TrainConfig, trained: Sequence[VideoDataset]) -> ClipShape:
    shapes = [_shape(config, dataset) for dataset in trained if not _sound_alone(dataset)]
    height, width = config.validation_size
    of_sample = ClipShape(width=width, height=height, frames=snap_frames(config.validation_num_video_frames), fps=config.frame_rate)
    return max(shapes, key=lambda shape: shape.tokens, default=of_sample)


def _shape(config: TrainConfig, dataset: VideoDataset) -> ClipShape:
    height, width = config.validation_size
    if dataset.crop and dataset.crop_aspect == "square":
        width = height
    width, height = bucket_size(width, height, resolution=dataset.resolution, resolution_type=dataset.resolution_type)
    still = dataset.dataset_type == "image"
    fps = dataset.video.frame_rate or config.frame_rate
    return ClipShape(width=width, height=height, frames=1 if still else snap_frames(dataset.video.num_frames), fps=fps)


def _batch(config: TrainConfig, trained: Sequence[VideoDataset], clip: ClipShape, *, audio: bool) -> int:
    """Clips in the batch of the largest clip."""
    own = [dataset.train_batch_size for dataset in trained if dataset.train_batch_size]
    if own:
        return max(own)
    if config.max_tokens_per_batch:
        return max(1, config.max_tokens_per_batch // (clip.tokens + (clip.sound_tokens if audio else 0)))
    return config.train_batch_size


def _targets(config: TrainConfig, *, audio: bool) -> tuple[str, ...]:
    """Layers of a block that get a LoRA, by default the projections of all attentions of what is trained."""
    attentions = VIDEO_ATTENTIONS + (AUDIO_ATTENTIONS + CROSS_ATTENTIONS if audio else ())
    wanted = config.peft_lora_target_modules or [f"{attention}.{projection}" for attention in attentions for projection in PROJECTIONS]
    allowed = {"video", "audio", "both"} if audio else {"video"}
    chosen = (name for name in IN_A_BLOCK if modality_of(name) in allowed)
    return tuple(name for name in chosen if any(name == one or name.endswith(f".{one}") for one in wanted))


def _routed(config: TrainConfig, blocks: int) -> tuple[tuple[int, int, float], ...]:
    routes = () if config.tread_config is None else config.tread_config.routes

    def at(index: int) -> int:
        return min(blocks - 1, max(0, index + blocks if index < 0 else index))

    return tuple((at(route.start_layer_idx), at(route.end_layer_idx), 1 - route.selection_ratio) for route in routes)
