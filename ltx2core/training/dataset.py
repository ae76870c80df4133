"""From the dataset list to samples: scans each folder, gives every usable clip its bucket, and names every clip that is left out."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import TYPE_CHECKING, Literal

from ltx2core.config.datasets import linked_names
from ltx2core.data.buckets import place_all
from ltx2core.data.dataset import bucket_rule
from ltx2core.data.linked import link
from ltx2core.data.scan import scan_folder
from ltx2core.errors import DatasetError
from ltx2core.runs.events import Notice, PhaseStarted, Progress

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from ltx2core.config.datasets import DatasetList, VideoDataset
    from ltx2core.data.clip import Clip, Problem, Sample
    from ltx2core.runs.events import Event

_MOST_LINES = 20  # of clips named one by one; `ltx2tui check` shows all
_MOST_NAMES = 10  # in a line
_OF_SOUND = frozenset({"no_audio", "unknown_audio_codec", "audio_short", "audio_late"})


def find_samples(
    datasets: DatasetList, *, base: Path, frame_rate: float, emit: Callable[[Event], None], should_stop: Callable[[], bool]
) -> list[Sample]:
    """Every clip that can be trained on, in the order of datasets and paths. A clip whose sound is not trained on has no audio, one
    whose picture is not has a SoundBucket.

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
        rule = bucket_rule(dataset, frame_rate=frame_rate)
        clips = scan_folder(folder, on_clip=count, should_stop=should_stop, captions=rule.captions)
        placed, left_out = place_all(clips, rule)
        for other in _linked(datasets, dataset):
            where = other.instance_data_dir if other.instance_data_dir.is_absolute() else base / other.instance_data_dir
            kind: Literal["mask", "reference"] = "mask" if other.conditioning_type == "mask" else "reference"
            placed, missing = link(placed, root=folder, folder=where, kind=kind)
            _tell_missing(missing, kind=kind, folder=where, emit=emit)
        samples += placed if dataset.audio is not None and dataset.audio.auto_split else [_without_audio(sample) for sample in placed]
        rejected += left_out
    _tell_rejected(rejected, emit)
    _tell_changed(samples, emit)
    if not samples:
        raise DatasetError(
            f"Not one of {len(rejected)} clips can be trained on.",
            fix="`ltx2tui check FOLDER` says for each clip what is wrong and what would work.",
        )
    counts = Counter(sample.bucket.label for sample in samples)
    buckets = ", ".join(f"{label} ({number})" for label, number in counts.most_common())
    emit(Notice(code="dataset", text=f"{len(samples)} clips to train on, in buckets {buckets}."))
    return samples


def _linked(datasets: DatasetList, dataset: VideoDataset) -> list[VideoDataset]:
    names = [] if dataset.audio is not None and dataset.audio.audio_only else linked_names(dataset)
    return [other for other in datasets.conditioning if other.id in names]


def _tell_missing(samples: list[Sample], *, kind: str, folder: Path, emit: Callable[[Event], None]) -> None:
    if not samples:
        return
    names = ", ".join(sample.clip.path.name for sample in samples[:_MOST_NAMES])
    rest = f" and {len(samples) - _MOST_NAMES} more" if len(samples) > _MOST_NAMES else ""
    text = f"{len(samples)} clips have no {kind} in {folder} and train without one: {names}{rest}."
    fix = "Give each a picture or video of the same name there."
    emit(Notice(code=f"no_{kind}", level="warning", text=text, fix=fix))


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


def _tell_changed(samples: list[Sample], emit: Callable[[Event], None]) -> None:
    """One line for each thing that is done to clips, or is unwise about them, with the clips' names."""
    found: dict[str, list[tuple[Clip, Problem]]] = {}
    for sample in samples:
        for problem in sample.clip.problems:
            if problem.code not in _OF_SOUND or sample.clip.audio is not None:  # clips without sound are named while caching
                found.setdefault(problem.code, []).append((sample.clip, problem))
    for code, ((_, first), *others) in found.items():
        names = ", ".join(clip.path.name for clip, _ in others[:_MOST_NAMES])
        rest = f" and {len(others) - _MOST_NAMES} more" if len(others) > _MOST_NAMES else ""
        text = f"{first.text} So it is with {names}{rest}." if others else first.text
        emit(Notice(code=code, level=first.level, text=text, fix=first.fix))
