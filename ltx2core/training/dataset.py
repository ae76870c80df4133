"""From the dataset list to samples: scans each folder, gives every usable clip its bucket, and names every clip that is left out."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Literal

from ltx2core.config.datasets import linked_names
from ltx2core.data.buckets import place_all
from ltx2core.data.dataset import MEDIA, bucket_rule
from ltx2core.data.linked import link
from ltx2core.data.media import SOUNDS
from ltx2core.data.scan import scan_folder
from ltx2core.errors import DatasetError
from ltx2core.runs.events import Notice, PhaseStarted, Progress
from ltx2core.training.selection import choose, with_linked_sound

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
    datasets: DatasetList, *, base: Path, frame_rate: float, emit: Callable[[Event], None], should_stop: Callable[[], bool], seed: int = 0
) -> list[Sample]:
    """Every sample that can be trained on or measured on, in the order of datasets and paths, those to train on first.

    A clip whose sound is not trained on has no audio, one whose picture is not has a SoundBucket. Raises DatasetError when nothing is
    left to train on, Stopped when asked to.
    """
    emit(PhaseStarted(phase="scan", total=0, unit="clips"))
    finder = _Finder(datasets, base, frame_rate, seed, emit, should_stop)
    samples = [sample for dataset in (*datasets.videos, *datasets.evals) for sample in finder.samples(dataset)]
    _tell_rejected(finder.rejected, emit)
    _tell_changed(samples, emit)
    trained = [sample for sample in samples if not sample.treatment.measured]
    if not trained:
        raise DatasetError(
            f"Not one of {len(finder.rejected)} clips can be trained on.",
            fix="`ltx2tui check FOLDER` says for each clip what is wrong and what would work.",
        )
    emit(Notice(code="dataset", text=f"{_counted(trained)} to train on, in buckets {_buckets(trained)}."))
    if measured := [sample for sample in samples if sample.treatment.measured]:
        emit(Notice(code="eval_dataset", text=f"{_counted(measured)} to measure the held-out loss on, in buckets {_buckets(measured)}."))
    return samples


@dataclass
class _Finder:
    """Goes through datasets; keeps what was left out."""

    datasets: DatasetList
    base: Path
    frame_rate: float
    seed: int
    emit: Callable[[Event], None]
    should_stop: Callable[[], bool]
    rejected: list[Clip] = field(default_factory=list)
    _seen: int = 0

    def samples(self, dataset: VideoDataset) -> list[Sample]:
        """The samples of one dataset, with all that belongs to them."""
        folder = self._place(dataset)
        rule = bucket_rule(dataset, frame_rate=self.frame_rate, seed=self.seed, texts=self.datasets.text_embeds)
        media = MEDIA[dataset.dataset_type]
        clips = scan_folder(folder, on_clip=self._count, should_stop=self.should_stop, captions=rule.captions, media=media)
        if dataset.dataset_type == "audio" and dataset.audio is not None and not dataset.audio.source_from_video:
            clips = [clip for clip in clips if clip.path.suffix.lower() in SOUNDS]
        placed, left_out = place_all(clips, rule)
        self.rejected += left_out
        placed, unused = choose(placed, most=dataset.max_num_samples, dataset=dataset.id, root=folder)
        if unused:
            text = f"{dataset.id}: {len(unused)} clips are not used, max_num_samples is {dataset.max_num_samples}: {_named(unused)}."
            self.emit(Notice(code="clips_not_chosen", text=text))
        if rule.captions.table is not None and (names := rule.captions.table.unused(clip.path for clip in clips)):
            text = f"{rule.captions.table.path.name}: {len(names)} rows belong to no file in {folder}: {_listed(names)}."
            self.emit(Notice(code="rows_without_file", text=text))
        for other in _linked(self.datasets, dataset):
            kind: Literal["mask", "reference"] = "mask" if other.conditioning_type == "mask" else "reference"
            placed, missing = link(placed, root=folder, folder=self._place(other), kind=kind)
            _tell_missing(missing, kind=kind, folder=self._place(other), emit=self.emit)
        return self._with_sound(placed, dataset, folder)

    def _with_sound(self, samples: list[Sample], dataset: VideoDataset, folder: Path) -> list[Sample]:
        audio = dataset.audio
        if audio is None or not (audio.auto_split or dataset.dataset_type == "audio"):
            samples = [_without_audio(sample) for sample in samples]
        if dataset.s2v_datasets:
            folders = [self._place(other) for other in self.datasets.sounds if other.id in dataset.s2v_datasets]
            samples, missing, broken = with_linked_sound(samples, root=folder, folders=folders)
            for name, said in broken.items():
                self.emit(Notice(code="sound_unreadable", level="warning", text=f"{name} is not used: {said}", fix="Encode it as WAV."))
            if missing:
                names = _named([sample.clip.path for sample in missing])
                text = f"{len(missing)} clips have no file of sound in {', '.join(dataset.s2v_datasets)}: {names}."
                fix = "Give each a sound file of its name; until then its own sound is used, if it has any and the dataset has `audio`."
                self.emit(Notice(code="no_linked_sound", level="warning", text=text, fix=fix))
        if audio is not None and audio.allow_zero_audio:
            samples = [replace(one, silent=True) if one.clip.audio is None and not one.clip.still else one for one in samples]
            if quiet := list(dict.fromkeys(sample.clip.path for sample in samples if sample.silent)):
                text = f"{len(quiet)} clips have no sound and are trained with silence: {_named(quiet)}."
                self.emit(Notice(code="trained_silent", text=text))
        return samples

    def _place(self, dataset: VideoDataset) -> Path:
        return dataset.instance_data_dir if dataset.instance_data_dir.is_absolute() else self.base / dataset.instance_data_dir

    def _count(self, clip: Clip) -> None:
        self._seen += 1
        self.emit(Progress(phase="scan", done=self._seen, total=0, item=clip.path.name))


def _counted(samples: list[Sample]) -> str:
    """`3 clips`, or `12 stretches of 3 clips`."""
    files = len({sample.clip.path for sample in samples})
    clips = f"{files} clip{'' if files == 1 else 's'}"
    return clips if len(samples) == files else f"{len(samples)} stretches of {clips}"


def _buckets(samples: list[Sample]) -> str:
    counts = Counter(sample.bucket.label for sample in samples)
    return ", ".join(f"{label} ({number})" for label, number in counts.most_common())


def _named(paths: list[Path]) -> str:
    return _listed([path.name for path in paths])


def _listed(names: list[str]) -> str:
    rest = f" and {len(names) - _MOST_NAMES} more" if len(names) > _MOST_NAMES else ""
    return ", ".join(names[:_MOST_NAMES]) + rest


def _linked(datasets: DatasetList, dataset: VideoDataset) -> list[VideoDataset]:
    names = [] if dataset.audio is not None and dataset.audio.audio_only else linked_names(dataset)
    return [other for other in datasets.conditioning if other.id in names]


def _tell_missing(samples: list[Sample], *, kind: str, folder: Path, emit: Callable[[Event], None]) -> None:
    if not samples:
        return
    paths = list(dict.fromkeys(sample.clip.path for sample in samples))
    text = f"{len(paths)} clips have no {kind} in {folder} and train without one: {_named(paths)}."
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
        text = f"{first.text} So it is with {_named([clip.path for clip, _ in others])}." if others else first.text
        emit(Notice(code=code, level=first.level, text=text, fix=first.fix))
