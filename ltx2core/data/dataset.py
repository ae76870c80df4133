"""From an entry of the dataset list to samples: the one place where its settings meet the scan and the buckets."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from ltx2core.data.buckets import BucketRule, place
from ltx2core.data.captions import CaptionRule
from ltx2core.data.clip import Clip, Sample
from ltx2core.data.scan import scan_folder

if TYPE_CHECKING:
    from collections.abc import Callable

    from ltx2core.config.datasets import VideoDataset


@dataclass(frozen=True, slots=True, kw_only=True)
class ScannedDataset:
    """Every clip of a dataset is in one of the two, in the order of their paths."""

    samples: tuple[Sample, ...]
    rejected: tuple[Clip, ...]  # each with the error that says why


def read_dataset(
    dataset: VideoDataset,
    *,
    frame_rate: float,
    on_clip: Callable[[Clip], None] | None = None,
    should_stop: Callable[[], bool] | None = None,
) -> ScannedDataset:
    """Scan the dataset's folder and give every clip its bucket. frame_rate: the config's, where the dataset names none.

    on_clip is called with each clip as it was placed, all problems included. A dataset without one usable clip is no error here:
    the others may do. Raises DatasetError when the folder is missing or holds no video, Stopped when asked to.
    """
    rule = bucket_rule(dataset, frame_rate=frame_rate)
    placed: list[Sample | Clip] = []

    def on_found(clip: Clip) -> None:
        placed.append(item := place(clip, rule))
        if on_clip is not None:
            on_clip(item.clip if isinstance(item, Sample) else item)

    scan_folder(dataset.instance_data_dir, on_clip=on_found, should_stop=should_stop, captions=rule.captions)
    return ScannedDataset(
        samples=tuple(item for item in placed if isinstance(item, Sample)),
        rejected=tuple(item for item in placed if isinstance(item, Clip)),
    )


def bucket_rule(dataset: VideoDataset, *, frame_rate: float) -> BucketRule:
    """What the dataset's settings ask of its clips."""
    prompts = dataset.instance_prompt
    captions = CaptionRule(
        strategy=dataset.caption_strategy,
        instance_prompts=() if prompts is None else (prompts,) if isinstance(prompts, str) else tuple(prompts),
        prepend_instance_prompt=dataset.prepend_instance_prompt,
        only_instance_prompt=dataset.only_instance_prompt,
        split_lines=not dataset.disable_multiline_split,
    )
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
        captions=captions,
    )
