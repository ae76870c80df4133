"""What is wrong, or of no effect, in one entry of the dataset list whose values are right one by one."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ltx2core.config.wording import line, shown
from ltx2core.runs.events import Notice

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pydantic import BaseModel

    from ltx2core.config.datasets import DatasetList, TextEmbeds, VideoDataset
    from ltx2core.config.train import TrainConfig

_IDENTITY = {"id", "type", "dataset_type", "disabled", "instance_data_dir"}
_SCHEDULE = {"repeats", "probability", "start_epoch", "end_epoch", "start_step", "end_step"}
_TRAINING = _SCHEDULE | {"train_batch_size", "is_regularisation_data", "timestep_sampling_offset", "slider_strength"}
_CROPPING = {"crop_style", "crop_aspect", "crop_aspect_buckets", "maximum_image_size", "target_downsample_size", "max_upscale_threshold"}
_PICTURE = {"resolution", "resolution_type", "minimum_image_size", "minimum_aspect_ratio", "maximum_aspect_ratio", "crop", *_CROPPING}
_SOUND_ALONE = ("duration_interval", "max_duration_seconds", "truncation_mode")
CACHE_KEYS = ("cache_dir", "cache_dir_vae", "text_embeds", "image_embeds")

# what each kind of dataset makes no use of, and why
_UNUSED: dict[str, tuple[set[str], str]] = {
    "eval": (_TRAINING, "these files are measured on, never trained on"),
    "image": ({"video", "audio", "s2v_datasets"}, "pictures have one frame and no sound"),
    "audio": (_PICTURE | {"video", "s2v_datasets", "conditioning_data"}, "sound has no picture"),
}


def problems_of(dataset: VideoDataset, *, file: str, where: str) -> list[str]:
    """Keys that contradict each other, a line each."""
    return list(_problems(dataset, file=file, where=where))


def notices_of(dataset: VideoDataset, *, file: str, where: str, linked: bool = False) -> list[Notice]:
    """Keys that are set and change nothing. linked: the dataset only holds the sound of another one's clips."""
    notices: list[Notice] = []
    if linked:
        notices += _told(dataset, set(type(dataset).model_fields) - _IDENTITY - {"audio"}, f"{file} {where}", "it follows the clips")
    elif dataset.dataset_type in _UNUSED:
        names, why = _UNUSED[dataset.dataset_type]
        notices += _told(dataset, names, f"{file} {where}", why)
    if not dataset.crop and dataset.dataset_type != "audio":
        notices += _told(dataset, _CROPPING, f"{file} {where}", "crop is false, so the shape of files is kept")
    if dataset.audio is not None and dataset.dataset_type in ("video", "eval"):
        why = "a clip's sound is as long as its frames"
        notices += _told(dataset.audio, set(_SOUND_ALONE), f"{file} {where}.audio", why)
    if dataset.audio is not None and dataset.audio.audio_only and dataset.conditioning_data is not None and dataset.dataset_type != "audio":
        text = f"{file} {where}.conditioning_data = {shown(dataset.conditioning_data)}: no effect, since audio_only trains no pictures."
        notices.append(Notice(code="no_effect", level="warning", text=text, fix="Remove it, or set audio_only to false."))
    if dataset.is_regularisation_data and dataset.dataset_type != "eval":
        text = (
            f"{file} {where}.is_regularisation_data = true: {dataset.id} is trained like the other datasets; its captions are never "
            "dropped, and none of its clips is held out by eval_split."
        )
        notices.append(Notice(code="regularisation", text=text))
    return notices


def cache_notice(entries: list[tuple[str, VideoDataset | TextEmbeds]], *, file: str) -> list[Notice]:
    """One Notice where caches lie, if any entry wants them elsewhere. entries: each with its path in the file."""
    asked = [
        f"{where}.{name} = {shown(str(value))}"
        for where, entry in entries
        for name in CACHE_KEYS
        if (value := getattr(entry, name, None)) is not None
    ]
    if not asked:
        return []
    text = (
        f"{file} {', '.join(asked)}: caches of all datasets and runs lie together in the folder cache/, named by what they were made of, "
        "so this is not needed."
    )
    return [Notice(code="cache_place", text=text, fix="Choose where that folder lies with --root, LTX2TUI_HOME or output_dir.")]


def offset_notices(datasets: DatasetList, config: TrainConfig, *, file: str) -> list[Notice]:
    """A Notice where datasets offset noise levels that are drawn from no normal."""
    ways = (
        "flow_custom_timesteps",
        "flux_fast_schedule",
        "mixflow_enabled",
        "flow_cubic_schedule_weights",
        "flow_use_uniform_schedule",
        "flow_use_beta_schedule",
    )
    way = next((name for name in ways if getattr(config, name)), None)
    if way is None or not any(dataset.timestep_sampling_offset for dataset in datasets.videos):
        return []
    text = f"{file} timestep_sampling_offset has no effect, since {way} draws noise levels from no normal."
    return [Notice(code="no_effect", level="warning", text=text, fix="Remove one of the two.")]


def _problems(dataset: VideoDataset, *, file: str, where: str) -> Iterator[str]:
    video = dataset.video
    if video.max_frames is not None and video.min_frames is not None and video.max_frames < video.min_frames:
        rule = f"it is at least min_frames, {video.min_frames}"
        yield line(file, f"{where}.video.max_frames", video.max_frames, rule, f"use {video.min_frames} or more")
    if dataset.audio is not None and dataset.audio.audio_only and not dataset.audio.auto_split and dataset.dataset_type != "audio":
        rule = "audio_only trains the clips' own sound, which this turns off"
        yield line(file, f"{where}.audio.auto_split", False, rule, "use true")
    needs_prompt = dataset.caption_strategy == "instanceprompt" or dataset.only_instance_prompt or dataset.prepend_instance_prompt
    if needs_prompt and not dataset.instance_prompt:
        yield f'{file} {where}.instance_prompt is missing: the captions need it; add "instance_prompt": "a caption".'
    for first, last in (("start_epoch", "end_epoch"), ("start_step", "end_step"), ("minimum_aspect_ratio", "maximum_aspect_ratio")):
        low, high = getattr(dataset, first), getattr(dataset, last)
        if low is not None and high is not None and high < low:
            yield line(file, f"{where}.{last}", high, f"it is not below {first}, {shown(low)}", f"use {shown(low)} or more")
    if dataset.probability == 0:
        yield line(file, f"{where}.probability", 0, "a dataset that is never drawn from has no use", 'set "disabled": true')
    pair = (dataset.maximum_image_size or None, dataset.target_downsample_size or None)
    if (pair[0] is None) != (pair[1] is None):
        missing = "maximum_image_size" if pair[0] is None else "target_downsample_size"
        yield f"{file} {where}.{missing} is missing: maximum_image_size and target_downsample_size only work together; set both or none."
    if dataset.crop and dataset.crop_aspect in ("closest", "random") and not dataset.crop_aspect_buckets:
        yield (
            f"{file} {where}.crop_aspect_buckets is missing: crop_aspect {dataset.crop_aspect} chooses among them; "
            'add "crop_aspect_buckets": [1.0, 0.75, 1.33].'
        )
    for shape in dataset.crop_aspect_buckets:
        if not 0.01 <= shape <= 100:
            yield line(file, f"{where}.crop_aspect_buckets", shape, "a shape is width / height, 0.01 to 100", "use 1.0")


def _told(model: BaseModel, names: set[str], where: str, why: str) -> list[Notice]:
    others = sorted(
        name
        for name in names & set(model.model_fields_set)
        if getattr(model, name) not in (type(model).model_fields[name].default, 0 if name.endswith("_size") else None)
    )
    if not others:
        return []
    words = "has" if len(others) == 1 else "have"
    return [Notice(code="no_effect", text=f"{where}: {', '.join(others)} {words} no effect, {why}.", fix="Remove what you do not want.")]
