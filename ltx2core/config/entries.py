"""Reading the entries of a dataset list."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

from pydantic import ValidationError

from ltx2core.config.adjust import adjust_dataset, not_built
from ltx2core.config.datasets import DatasetList, TextEmbeds, VideoDataset, linked_names
from ltx2core.config.keys import Keys
from ltx2core.config.paths import find
from ltx2core.config.reading import unusable
from ltx2core.config.wording import line, nearest, reword, shown
from ltx2core.runs.events import Notice

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

# kinds of entries that SimpleTuner knows and that are left out here, with what happens instead
LEFT_OUT = {
    "image": "only clips are trained",
    "audio": "sound is taken from the clips",
    "image_embeds": "the cache is made from the clips",
    "conditioning_image_embeds": "clips are learned from their captions",
    "eval": "eval_split keeps clips out of training for the held-out loss",
    "caption": "captions come with the clips",
    "grounding": "clips are learned from their captions",
    "distillation_cache": "the LoRA is trained on the clips",
}
Model = TypeVar("Model", bound=Keys)


def read_entries(
    entries: object,
    *,
    file: str,
    bases: Sequence[Path],
    frame_rate: float,
    problems: list[str],
    notices: list[Notice],
    need_clips: bool = True,
) -> DatasetList:
    """The datasets of a list. What is wrong with any entry goes to `problems`, what was changed to `notices`.

    need_clips: False makes a notice of a folder that is not there.
    """
    if isinstance(entries, dict):
        problems.append(f"{file} holds a group of keys: a dataset list is a list of entries; put it in [ ].")
        return DatasetList()
    if not isinstance(entries, list | tuple):
        problems.append(f"{file} holds {shown(entries)}: a dataset list is a list of entries; put them in [ ].")
        return DatasetList()
    if bad := unusable(entries, name=file):
        problems += bad
        return DatasetList()
    videos: list[VideoDataset] = []
    conditioning: list[VideoDataset] = []
    embeds: list[TextEmbeds] = []
    before = len(problems)
    for index, entry in enumerate(entries):
        where = f"[{index}]"
        if not isinstance(entry, dict):
            problems.append(line(file, where, entry, "an entry is a group of keys in braces", "use { }"))
            continue
        kind = _kind(entry, file=file, where=where, problems=problems, notices=notices)
        if kind in ("video", "conditioning"):
            video = _checked(VideoDataset, entry, file, where, problems)
            if video is None or video.disabled:
                continue
            video = _with_folder(video, file, where, bases, problems, None if need_clips else notices)
            if kind == "video":
                videos.append(_video(video, file, where, frame_rate, problems, notices))
                if video.conditioning_type is not None:
                    text = f"{file} {where}.conditioning_type = {video.conditioning_type}: it has no effect on clips that are learned."
                    fix = 'Set dataset_type to "conditioning" if these are masks or references.'
                    notices.append(Notice(code="no_effect", level="warning", text=text, fix=fix))
            else:
                conditioning.append(video)
                notices += _of_no_effect(video, file, where)
                if video.conditioning_type is None:
                    problems.append(f"{file} {where}.conditioning_type is missing: use mask or reference_strict.")
        elif kind == "text_embeds" and (texts := _checked(TextEmbeds, entry, file, where, problems)) and not texts.disabled:
            embeds.append(texts)
            notices += not_built(texts, file=file, prefix=where)
    _links(videos, conditioning, file=file, problems=problems, notices=notices)
    _whole_list(videos, embeds, file=file, any_wrong=len(problems) > before, problems=problems, notices=notices)
    return DatasetList(videos=tuple(videos), conditioning=tuple(conditioning), text_embeds=embeds[0] if embeds else TextEmbeds())


def _kind(entry: dict[str, object], *, file: str, where: str, problems: list[str], notices: list[Notice]) -> str:
    kind = entry.get("dataset_type", "video") or "video"
    if kind in ("video", "conditioning", "text_embeds"):
        return str(kind)
    if entry.get("disabled") is True:
        return ""
    if isinstance(kind, str) and kind in LEFT_OUT:
        text = f"{file} {where}.dataset_type = {kind}: such datasets are not built yet and this one is left out; {LEFT_OUT[kind]}."
        notices.append(Notice(code="not_built_yet", level="warning", text=text))
        return ""
    match = nearest(str(kind), ("video", "conditioning", "text_embeds", *LEFT_OUT)) or "video"
    problems.append(line(file, f"{where}.dataset_type", kind, "it is video, conditioning or text_embeds", f"use {match}"))
    return ""


def _checked(model: type[Model], entry: dict[str, object], file: str, where: str, problems: list[str]) -> Model | None:
    try:
        return model.model_validate(_without_null(entry))
    except ValidationError as error:
        problems += reword(error, file=file, model=model, prefix=where)
        return None


def _without_null(entry: dict[str, object]) -> dict[str, object]:
    """null is the same as leaving a key out."""
    return {key: _without_null(value) if isinstance(value, dict) else value for key, value in entry.items() if value is not None}


def _video(dataset: VideoDataset, file: str, where: str, frame_rate: float, problems: list[str], notices: list[Notice]) -> VideoDataset:
    sound_only = dataset.audio is not None and dataset.audio.audio_only
    if sound_only and dataset.audio is not None and not dataset.audio.auto_split:
        rule = "audio_only trains the clips' own sound, which this turns off"
        problems.append(line(file, f"{where}.audio.auto_split", False, rule, "use true"))
    if sound_only and dataset.conditioning_data is not None:
        text = f"{file} {where}.conditioning_data = {shown(dataset.conditioning_data)}: no effect, since audio_only trains no pictures."
        notices.append(Notice(code="no_effect", level="warning", text=text, fix="Remove it, or set audio_only to false."))
    dataset, told = adjust_dataset(dataset, file=file, path=where, frame_rate=frame_rate)
    notices += told
    notices += not_built(dataset, file=file, prefix=where)
    video = dataset.video
    if video.max_frames is not None and video.min_frames is not None and video.max_frames < video.min_frames:
        rule = f"it is at least min_frames, {video.min_frames}"
        problems.append(line(file, f"{where}.video.max_frames", video.max_frames, rule, f"use {video.min_frames} or more"))
    needs_prompt = dataset.caption_strategy == "instanceprompt" or dataset.only_instance_prompt or dataset.prepend_instance_prompt
    if needs_prompt and not dataset.instance_prompt:
        problems.append(f'{file} {where}.instance_prompt is missing: the captions need it; add "instance_prompt": "a caption".')
    return dataset


def _with_folder(
    dataset: VideoDataset, file: str, where: str, bases: Sequence[Path], problems: list[str], notices: list[Notice] | None
) -> VideoDataset:
    """The dataset with the absolute path of its folder. notices: where to tell that there is none; None makes it a problem."""
    folder = find(str(dataset.instance_data_dir), bases)
    if folder is None:
        text = str(dataset.instance_data_dir)
        if notices is None:
            problems.append(line(file, f"{where}.instance_data_dir", text, "there is no such folder", "name the folder with your clips"))
        else:
            said = f"{file} {where}.instance_data_dir = {shown(text)}: there is no such folder here, and training needs it."
            notices.append(Notice(code="no_clips_folder", level="warning", text=said, fix="Make it, or name the folder with your clips."))
        return dataset
    if not folder.is_dir():
        works = f"use {shown(str(folder.parent))}"
        problems.append(line(file, f"{where}.instance_data_dir", str(folder), "it is a file, not a folder", works))
    return dataset.model_copy(update={"instance_data_dir": folder})


def _of_no_effect(dataset: VideoDataset, file: str, where: str) -> list[Notice]:
    """What is set on masks or references although their clips decide it."""
    own = {"id", "type", "dataset_type", "disabled", "instance_data_dir", "conditioning_type"}
    others = sorted(name for name in dataset.model_fields_set - own if getattr(dataset, name) != type(dataset).model_fields[name].default)
    if not others:
        return []
    text = f"{file} {where}: {', '.join(others)} has no effect on {dataset.id}: masks and references follow their clips."
    return [Notice(code="no_effect", text=text)]


def _links(videos: list[VideoDataset], conditioning: list[VideoDataset], *, file: str, problems: list[str], notices: list[Notice]) -> None:
    """What is wrong between datasets and the masks and references that belong to them."""
    kinds = {dataset.id: dataset.conditioning_type for dataset in conditioning}
    used: set[str] = set()
    for dataset in videos:
        names = linked_names(dataset)
        where = f"{file} dataset {dataset.id} conditioning_data"
        for name in names:
            if name not in kinds:
                match = nearest(name, kinds)
                works = f"use {match}" if match else 'add an entry with "dataset_type": "conditioning" and this id'
                problems.append(f"{where} = {shown(name)}: no conditioning dataset has this id; {works}.")
        found = [kinds[name] for name in names if name in kinds]
        if len(found) != len(set(found)):
            problems.append(f"{where} = {shown(names)}: a clip has one mask and one reference at most; name one dataset of each type.")
        used.update(names)
    for dataset in conditioning:
        if dataset.id not in used:
            text = f"{file} the conditioning dataset {dataset.id} belongs to no dataset and is left out."
            notices.append(Notice(code="conditioning_unused", level="warning", text=text, fix="Name it in a dataset's conditioning_data."))


def _whole_list(
    videos: list[VideoDataset], embeds: list[TextEmbeds], *, file: str, any_wrong: bool, problems: list[str], notices: list[Notice]
) -> None:
    if not videos and not any_wrong:
        problems.append(f'{file} lists no clips: add an entry such as {{"id": "clips", "instance_data_dir": "path/to/clips"}}.')
    names = [dataset.id for dataset in videos]
    problems += [
        f"{file} id = {shown(name)}: {names.count(name)} datasets have this name; give each its own."
        for name in dict.fromkeys(names)
        if names.count(name) > 1
    ]
    if len(embeds) > 1:
        text = f"{file} lists {len(embeds)} text_embeds entries: captions have one cache; the first entry counts."
        notices.append(Notice(code="text_embeds_extra", text=text, fix="Remove the others."))
