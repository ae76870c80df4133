"""From the dataset list to samples: scans each folder, gives every usable clip its bucket, and names every clip that is left out."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import TYPE_CHECKING

from ltx2core.data.buckets import assign_buckets
from ltx2core.data.captions import CaptionRule
from ltx2core.data.scan import scan_folder
from ltx2core.errors import DatasetError
from ltx2core.runs.events import Notice, PhaseStarted, Progress

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from ltx2core.config.datasets import DatasetList, VideoDataset
    from ltx2core.data.clip import Clip, Sample
    from ltx2core.runs.events import Event

_MOST_LINES = 20  # of clips named one by one; `ltx2tui check` shows all


def find_samples(
    datasets: DatasetList, *, base: Path, frame_rate: float, emit: Callable[[Event], None], should_stop: Callable[[], bool]
) -> list[Sample]:
    """Every clip that can be trained on, in the order of datasets and paths. A clip whose sound is not trained on has no audio.

    Raises DatasetError when nothing is left, Stopped when asked to.
    """
    emit(PhaseStarted(phase="scan", total=0, unit="clips"))
    samples: list[Sample] = []
    rejected: list[Clip] = []
    seen = 0

    def count(clip: Clip) -> None:
        nonlocal seen
        seen += 1
        emit(Progress(phase="scan", done=seen, total=0, item=clip.path.name))

    for dataset in datasets.videos:
        folder = dataset.instance_data_dir if dataset.instance_data_dir.is_absolute() else base / dataset.instance_data_dir
        rule = caption_rule(dataset)
        clips = scan_folder(folder, on_clip=count, should_stop=should_stop, captions=rule)
        placed, left_out = _assign(clips, dataset, rule, frame_rate)
        samples += placed if dataset.audio is not None and dataset.audio.auto_split else [_without_audio(sample) for sample in placed]
        rejected += left_out
    _tell_rejected(rejected, emit)
    if not samples:
        raise DatasetError(
            f"Not one of {len(rejected)} clips can be trained on.",
            fix="`ltx2tui check FOLDER` says for each clip what is wrong and what would work.",
        )
    counts = Counter(sample.bucket.label for sample in samples)
    buckets = ", ".join(f"{label} ({number})" for label, number in counts.most_common())
    emit(Notice(code="dataset", text=f"{len(samples)} clips to train on, in buckets {buckets}."))
    return samples


def caption_rule(dataset: VideoDataset) -> CaptionRule:
    """The dataset's caption settings, as the scan and the buckets take them."""
    prompts = dataset.instance_prompt
    return CaptionRule(
        strategy=dataset.caption_strategy,
        instance_prompts=() if prompts is None else (prompts,) if isinstance(prompts, str) else tuple(prompts),
        prepend_instance_prompt=dataset.prepend_instance_prompt,
        only_instance_prompt=dataset.only_instance_prompt,
        split_lines=not dataset.disable_multiline_split,
    )


def _assign(clips: list[Clip], dataset: VideoDataset, rule: CaptionRule, frame_rate: float) -> tuple[list[Sample], list[Clip]]:
    video = dataset.video
    return assign_buckets(
        clips,
        resolution=dataset.resolution,
        resolution_type=dataset.resolution_type,
        num_frames=video.num_frames,
        min_frames=video.min_frames,
        max_frames=video.max_frames,
        frame_rate=video.frame_rate or frame_rate,
        bucket_strategy=video.bucket_strategy,
        repeats=dataset.repeats,
        captions=rule,
    )


def _without_audio(sample: Sample) -> Sample:
    return replace(sample, clip=replace(sample.clip, audio=None))


def _tell_rejected(rejected: list[Clip], emit: Callable[[Event], None]) -> None:
    for clip in rejected[:_MOST_LINES]:
        problem = next(problem for problem in clip.problems if problem.level == "error")
        emit(Notice(code="clip_left_out", level="warning", text=f"{clip.path.name} is left out: {problem.text}", fix=problem.fix))
    if len(rejected) > _MOST_LINES:
        kinds = Counter(next(p.code for p in clip.problems if p.level == "error") for clip in rejected[_MOST_LINES:])
        text = f"{len(rejected) - _MOST_LINES} more clips are left out: " + ", ".join(f"{n} {code}" for code, n in kinds.most_common())
        emit(Notice(code="clips_left_out", level="warning", text=text, fix="`ltx2tui check FOLDER` names each of them."))
