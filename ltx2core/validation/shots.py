"""Which samples are made each time: prompts or clips, in each size, from each seed. What they start from is looked at before training.

Loads no torch: encoding is inputs.py's.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import product
from typing import TYPE_CHECKING, Literal

import numpy as np

from ltx2core.config.prompts import BUILT_IN, file_name, read_library
from ltx2core.data.media import PICTURES
from ltx2core.data.probe import probe_clip
from ltx2core.data.sound import read_sound
from ltx2core.data.stills import probe_still
from ltx2core.data.verdicts import SILENT_PEAK
from ltx2core.errors import ConfigError, DatasetError
from ltx2core.runs.events import Notice

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from ltx2core.config.datasets import DatasetList
    from ltx2core.config.train import TrainConfig
    from ltx2core.data.clip import Sample
    from ltx2core.data.tokens import TokenCounter
    from ltx2core.runs.events import Event

_OTHER_ASPECT = 1.02  # from here on a crop takes visible parts away
_SHORT_SECONDS = 0.1  # that a sound may lack at its end: encoders cut and pad by parts of that


@dataclass(frozen=True, slots=True, kw_only=True)
class Moment:
    """A file, and how many seconds into it what is taken begins."""

    path: Path
    start: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class AdapterFile:
    """A LoRA that is applied beside the trained one, and how much of it."""

    path: Path
    strength: float
    stage: Literal["both", "stage1", "stage2"] = "both"


@dataclass(frozen=True, slots=True, kw_only=True)
class AdapterSet:
    """LoRAs that are applied together. label: part of the names of the samples that have them; empty for none at all."""

    label: str = ""
    files: tuple[AdapterFile, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Shot:
    """A sample that is made each time. name: its folder's; empty for the only one. width, height: pixels."""

    name: str
    prompt: str
    width: int
    height: int
    seed: int
    first_frame: Moment | None = None
    sound: Moment | None = None
    adapters: tuple[AdapterFile, ...] = ()

    @property
    def mode(self) -> str:
        """t2v, i2v, s2v, or is2v where picture and sound are given."""
        return f"{'i' if self.first_frame else ''}{'s' if self.sound else ''}2v" if self.first_frame or self.sound else "t2v"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Scene:
    """What a shot shows, before sizes and seeds."""

    name: str
    prompt: str
    first_frame: Moment | None = None
    sound: Moment | None = None


def plan_shots(
    config: TrainConfig,
    datasets: DatasetList,
    samples: Sequence[Sample],
    *,
    audio: bool,
    video: bool,
    emit: Callable[[Event], None],
) -> tuple[Shot, ...]:
    """All samples of a validation. samples: that are trained or measured. audio, video: what samples are made of.

    Raises ConfigError and DatasetError, with what to do, where none could be made.
    """
    scenes = _from_datasets(config, datasets, samples, audio=audio, emit=emit) if config.validation_using_datasets else None
    if scenes is None:
        scenes = _from_prompts(config, samples)
    if not video and any(scene.first_frame for scene in scenes):
        raise ConfigError(
            ["validation_using_datasets: samples of sound alone cannot start from a picture."],
            fix='Set "validation_dataset_gives" to "sound", or "validation_using_datasets" to false.',
        )
    sizes, seeds = config.validation_sizes if video else config.validation_sizes[:1], range(config.num_validation_images)
    shots = [
        Shot(
            name=_name(
                scene.name,
                f"{width}x{height}" if len(sizes) > 1 else "",
                str(number + 1) if len(seeds) > 1 else "",
            ),
            prompt=scene.prompt,
            width=width,
            height=height,
            seed=config.validation_seed + number,
            first_frame=scene.first_frame,
            sound=scene.sound,
        )
        for scene, (height, width), number in product(scenes, sizes, seeds)
    ]
    return (replace(shots[0], name=""),) if len(shots) == 1 else _told_apart(shots)


def find_adapters(config: TrainConfig, *, find: Callable[[str], Path]) -> tuple[AdapterSet, ...]:
    """The sets of LoRAs that samples are made with, and first, where they are to be compared, none. find: the file that a name means."""
    sets = [
        AdapterSet(
            label=one.label or find(one.adapters[0].path).stem,
            files=tuple(AdapterFile(path=find(file.path), strength=file.strength, stage=file.target_stage) for file in one.adapters),
        )
        for one in config.sample_adapters
    ]
    if not sets or config.validation_adapter_mode == "comparison":
        sets.insert(0, AdapterSet())
    return tuple(sets)


def beside_adapters(shots: Sequence[Shot], sets: Sequence[AdapterSet]) -> tuple[Shot, ...]:
    """Every shot with every set of LoRAs; told apart by the sets' names where there are several."""
    if len(sets) == 1:
        return tuple(replace(shot, adapters=sets[0].files) for shot in shots)
    return _told_apart(
        [
            replace(shot, name="-".join(filter(None, (shot.name, file_name(one.label) if one.label else "without"))), adapters=one.files)
            for shot, one in product(shots, sets)
        ]
    )


def check_inputs(shots: Sequence[Shot], *, seconds: float, emit: Callable[[Event], None]) -> tuple[Shot, ...]:
    """The shots whose first frame and sound can be used, samples being `seconds` long; a Notice for each other, and for each crop.

    Raises DatasetError when none is left.
    """
    reasons: dict[Moment, str] = {}
    fixes: dict[Moment, str] = {}
    told: set[tuple[Moment, int, int]] = set()
    for shot in shots:
        if (frame := shot.first_frame) is not None and frame not in reasons:
            size = picture_size(frame.path)
            reasons[frame] = size if isinstance(size, str) else ""
            fixes[frame] = "Put a PNG, JPEG, WebP or a video there."
            if not isinstance(size, str) and (frame, shot.width, shot.height) not in told:
                told.add((frame, shot.width, shot.height))
                _tell_crop(frame.path, size, shot, emit)
        if (sound := shot.sound) is not None and sound not in reasons:
            reasons[sound], fixes[sound] = _against_sound(sound, seconds=seconds)
    bad = {moment: reason for moment, reason in reasons.items() if reason}
    for moment, reason in bad.items():
        emit(Notice(code="sample_input", level="warning", text=f"No sample is made from {reason}", fix=fixes[moment]))
    kept = tuple(shot for shot in shots if shot.first_frame not in bad and shot.sound not in bad)
    if not kept:
        moment, reason = next(iter(bad.items()))
        raise DatasetError(f"No sample can be made: {reason}", fix=fixes[moment])
    return kept


def check_prompts(shots: Sequence[Shot], negative: str, *, counter: TokenCounter) -> list[Notice]:
    """A line for each prompt of which the text encoder would not read all."""
    named = {shot.prompt: f"The prompt of sample {shot.name}" if shot.name else "The sample's prompt" for shot in shots}
    notices = []
    for prompt, whose in {negative: "validation_negative_prompt", **named}.items():
        if (count := counter.count(prompt)) > counter.limit:
            about = "" if counter.exact else "about "
            text = f"{whose} has {about}{count} tokens; LTX-2 reads {counter.limit}, so its end is cut off."
            notices.append(Notice(code="prompt_long", level="warning", text=text, fix="Shorten it."))
    return notices


def picture_size(path: Path) -> tuple[int, int] | str:
    """(width, height) of a picture or of a clip's frames, as shown; a sentence when there is none."""
    if not path.is_file():
        return f"{path}: there is no such file."
    clip = probe_still(path) if path.suffix.lower() in PICTURES else probe_clip(path)
    wrong = [problem for problem in clip.problems if problem.level == "error" and problem.code not in ("missing_caption", "empty_caption")]
    if wrong or not clip.width:
        return wrong[0].text if wrong else f"{path.name} holds no picture."
    return clip.width, clip.height


def _from_prompts(config: TrainConfig, samples: Sequence[Sample]) -> list[_Scene]:
    scenes: list[_Scene] = []
    if config.validation_prompt:
        scenes.append(_Scene(name="prompt", prompt=config.validation_prompt))
    if config.user_prompt_library is not None:
        problems: list[str] = []
        own = read_library(config.user_prompt_library, file="config", key="user_prompt_library", problems=problems, notes=[])
        if problems:  # it was right when the config was read
            raise ConfigError(problems)
        scenes += [_Scene(name=name, prompt=prompt) for name, prompt in own.items()]
    if config.validation_prompt_library:
        scenes += [_Scene(name=name, prompt=prompt) for name, prompt in BUILT_IN.items()]
    return scenes or [_Scene(name="caption", prompt=samples[0].captions[0])]


def _from_datasets(
    config: TrainConfig, datasets: DatasetList, samples: Sequence[Sample], *, audio: bool, emit: Callable[[Event], None]
) -> list[_Scene]:
    if config.validation_prompt or config.validation_prompt_library or config.user_prompt_library:
        text = "Samples start from clips of a dataset and have the clips' captions, so validation_prompt and prompt libraries are not used."
        emit(Notice(code="no_effect", text=text, fix="Set validation_using_datasets to false for samples of prompts."))
    measured = [dataset.id for dataset in datasets.evals]
    chosen = [config.eval_dataset_id] if config.eval_dataset_id else measured or [dataset.id for dataset in datasets.videos]
    found = list({sample.clip.path: sample for sample in samples if sample.treatment.dataset in chosen}.values())
    if not found:
        raise DatasetError(
            f"Samples are to start from clips of {', '.join(chosen)}, and not one of them can be used.",
            fix="Name another dataset in eval_dataset_id, or set validation_using_datasets to false.",
        )
    sounding = {dataset.id for dataset in (*datasets.videos, *datasets.evals) if dataset.dataset_type == "audio" or dataset.s2v_datasets}
    scenes = [_scene(sample, _gives(config, sample, linked=sample.treatment.dataset in sounding)) for sample in _spread(found, config)]
    if not audio and any(scene.sound for scene in scenes):
        raise ConfigError(
            ["Samples are to follow a given sound, and this run trains no sound: the model is loaded without what hears it."],
            fix='Add "audio": {} to a dataset, or set "validation_dataset_gives" to "picture".',
        )
    return scenes


def _spread(samples: Sequence[Sample], config: TrainConfig) -> list[Sample]:
    """So many of them, evenly from the first to the last."""
    count = min(config.num_eval_images, len(samples))
    return [samples[index * len(samples) // count] for index in range(count)]


def _gives(config: TrainConfig, sample: Sample, *, linked: bool) -> frozenset[str]:
    wanted = config.validation_dataset_gives
    if wanted == "auto":
        wanted = "sound" if linked or sample.picture is None else "picture"
    return frozenset({"picture", "sound"} if wanted == "both" else {wanted})


def _scene(sample: Sample, gives: frozenset[str]) -> _Scene:
    if "picture" in gives and sample.picture is None:
        raise ConfigError(
            [f"validation_dataset_gives: {sample.clip.path.name} is sound and has no first frame."], fix='Use "sound" or "auto".'
        )
    return _Scene(
        name=sample.clip.path.stem,
        prompt=sample.captions[0],
        first_frame=Moment(path=sample.clip.path, start=sample.start) if "picture" in gives else None,
        sound=Moment(path=sample.sound or sample.clip.path, start=sample.start) if "sound" in gives else None,
    )


def _name(*parts: str) -> str:
    return "-".join(filter(None, (file_name(parts[0]), *parts[1:])))


def _told_apart(shots: list[Shot]) -> tuple[Shot, ...]:
    """Equal names get numbers."""
    taken: set[str] = set()
    named = []
    for shot in shots:
        name, number = shot.name, 2
        while name in taken:
            name, number = f"{shot.name}-{number}", number + 1
        taken.add(name)
        named.append(replace(shot, name=name))
    return tuple(named)


def _tell_crop(path: Path, size: tuple[int, int], shot: Shot, emit: Callable[[Event], None]) -> None:
    own, wanted = size[0] / size[1], shot.width / shot.height
    if max(own, wanted) / min(own, wanted) < _OTHER_ASPECT:
        return
    cut = "the sides are" if own > wanted else "top and bottom are"
    text = f"{path.name} is {size[0]}x{size[1]} and samples are {shot.width}x{shot.height} (width x height): {cut} cut off alike."
    fix = "Set validation_resolution to its shape, height x width, to keep all of it."
    emit(Notice(code="sample_cropped", text=text, fix=fix))


def _against_sound(moment: Moment, *, seconds: float) -> tuple[str, str]:
    """Why a file's sound cannot be followed, and what would help; empty when it can."""
    path = moment.path
    if not path.is_file():
        return f"{path}: there is no such file.", "Name one that exists."
    try:
        sound = read_sound(path, seconds=seconds, begin=moment.start)
    except DatasetError as error:
        return error.text, error.fix
    if sound is None:
        return f"{path.name}, which has no sound.", "Give it a sound track, or let it give its picture: validation_dataset_gives."
    if float(np.abs(sound.samples).max(initial=0.0)) < SILENT_PEAK:
        return f"{path.name}: its sound is silent, so there is nothing to follow.", "Use a clip with sound."
    if (lasts := sound.valid / sound.sample_rate) < seconds - _SHORT_SECONDS:
        text = f"{path.name}: its sound lasts {lasts:.2f} s and samples {seconds:.2f} s."
        return text, "Lower validation_num_video_frames, or use a longer one."
    return "", ""
