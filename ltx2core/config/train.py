"""TrainConfig: every key of config.json, put together from the models of the single concerns. In the file the keys are flat."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

from ltx2core.config.adapter import AdapterKeys
from ltx2core.config.checkpoints import CheckpointKeys
from ltx2core.config.conditioning import ConditioningKeys
from ltx2core.config.crepa import CrepaKeys
from ltx2core.config.flow import FlowKeys
from ltx2core.config.held_out import HeldOutKeys
from ltx2core.config.keys import Keys, Later, key, later
from ltx2core.config.memory import MemoryKeys
from ltx2core.config.model import ModelKeys
from ltx2core.config.optimisation import OptimisationKeys
from ltx2core.config.parallelism import ParallelismKeys
from ltx2core.config.rollout import RolloutKeys
from ltx2core.config.validation import ValidationKeys

GLOBAL_DATA = Later(name="dataset settings for all datasets at once", instead="each entry of the dataset list has its own")


class DataKeys(Keys):
    """Where the clips are listed, and what all of them share."""

    group: ClassVar[str] = "Data"

    data_backend_config: Path | None = key(None, "Dataset list", "The JSON file that lists the datasets.")
    frame_rate: float = key(
        25.0,
        "Frame rate",
        "Frames a second that clips are trained and samples are made at. Clips of another rate are resampled.",
        aliases=("framerate",),
        gt=0,
        le=1000,
    )
    max_tokens_per_batch: int | None = key(
        None,
        "Tokens a batch",
        "Batches hold as many clips of their bucket as stay under so many tokens, so that short and small clips train in larger batches. "
        "A clip has width / 32 x height / 32 x (frames + 7) / 8 tokens, and 25 a second of sound. It takes the place of train_batch_size; "
        "a dataset's own train_batch_size goes before it.",
        ge=1,
        le=100_000_000,
    )
    resolution: float | None = later(None, GLOBAL_DATA, "Resolution", "A resolution for all datasets.")
    resolution_type: str | None = later(None, GLOBAL_DATA, "Resolution type", "The unit of that resolution.")
    minimum_image_size: float | None = later(None, GLOBAL_DATA, "Smallest size", "Leave out smaller clips of all datasets.")
    maximum_image_size: float | None = later(None, GLOBAL_DATA, "Largest size", "Shrink larger clips of all datasets.")
    target_downsample_size: float | None = later(None, GLOBAL_DATA, "Shrink to", "The size larger clips are shrunk to.")
    caption_strategy: str | None = later(None, GLOBAL_DATA, "Captions", "Where captions come from, for all datasets.")
    instance_prompt: str | None = later(None, GLOBAL_DATA, "Instance prompt", "One caption for all clips of all datasets.")
    skip_file_discovery: str | None = later(None, GLOBAL_DATA, "Skip discovery", "Do not look for new files.", built=("",))
    aspect_bucket_alignment: int = later(32, GLOBAL_DATA, "Alignment", "What sizes are a multiple of; LTX-2 needs 32.", built=(64,))
    aspect_bucket_rounding: int | None = later(
        None, GLOBAL_DATA, "Aspect rounding", "Decimals that aspect ratios are rounded to.", built=(2,)
    )


class TrainConfig(
    ParallelismKeys,
    RolloutKeys,
    CrepaKeys,
    ConditioningKeys,
    MemoryKeys,
    HeldOutKeys,
    ValidationKeys,
    CheckpointKeys,
    FlowKeys,
    OptimisationKeys,
    AdapterKeys,
    DataKeys,
    ModelKeys,
):
    """A whole config.json. pydantic collects fields from the last base to the first, so the model's keys come first."""


GROUPS: tuple[type[Keys], ...] = tuple(base for base in reversed(TrainConfig.__bases__) if issubclass(base, Keys))
