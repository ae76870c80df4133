"""From an entry of the dataset list to the rule its clips are placed by: the one place that knows both."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ltx2core.data.buckets import BucketRule
from ltx2core.data.captions import CaptionRule

if TYPE_CHECKING:
    from ltx2core.config.datasets import VideoDataset


def bucket_rule(dataset: VideoDataset, *, frame_rate: float) -> BucketRule:
    """What the dataset's settings ask of its clips. frame_rate: the config's, for a dataset that names none."""
    video = dataset.video
    return BucketRule(
        resolution=dataset.resolution,
        resolution_type=dataset.resolution_type,
        num_frames=video.num_frames,
        min_frames=video.min_frames,
        max_frames=video.max_frames,
        frame_rate=video.frame_rate or frame_rate,
        bucket_strategy=video.bucket_strategy,
        frame_interval=video.frame_interval,
        repeats=dataset.repeats,
        captions=_caption_rule(dataset),
        sound_only=dataset.audio is not None and dataset.audio.audio_only,
    )


def _caption_rule(dataset: VideoDataset) -> CaptionRule:
    prompts = dataset.instance_prompt
    return CaptionRule(
        strategy=dataset.caption_strategy,
        instance_prompts=() if prompts is None else (prompts,) if isinstance(prompts, str) else tuple(prompts),
        prepend_instance_prompt=dataset.prepend_instance_prompt,
        only_instance_prompt=dataset.only_instance_prompt,
        split_lines=not dataset.disable_multiline_split,
    )
