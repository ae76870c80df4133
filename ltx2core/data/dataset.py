"""From an entry of the dataset list to the rule its clips are placed by: the one place that knows both."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from ltx2core.data.buckets import BucketRule
from ltx2core.data.caption_edits import CaptionEdit, Shuffle
from ltx2core.data.caption_tables import TableColumns, find_table, read_table
from ltx2core.data.captions import CaptionRule
from ltx2core.data.clip import Times, Treatment
from ltx2core.data.crops import CropRule, SizeLimits
from ltx2core.data.sound_alone import SoundRule

if TYPE_CHECKING:
    from ltx2core.config.datasets import TextEmbeds, VideoDataset
    from ltx2core.data.caption_tables import CaptionTable
    from ltx2core.data.media import Media

# what the files of each kind of dataset are
MEDIA: dict[str, Media] = {"video": "video", "image": "image", "audio": "audio", "eval": "both", "conditioning": "both"}


def bucket_rule(dataset: VideoDataset, *, frame_rate: float, seed: int = 0, texts: TextEmbeds | None = None) -> BucketRule:
    """What the dataset's settings ask of its clips.

    frame_rate: the config's, for a dataset that names none. seed: the config's. texts: the entry of captions, which may filter them.
    Reads the table of captions, where there is one. Raises DatasetError when it cannot.
    """
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
        repeats=0 if dataset.dataset_type == "eval" else dataset.repeats,
        captions=_caption_rule(dataset, seed=seed, texts=texts),
        sound_only=dataset.dataset_type == "audio" or (dataset.audio is not None and dataset.audio.audio_only),
        sound=_sound_rule(dataset),
        segments=video.segments,
        crop=_crop_rule(dataset),
        sizes=SizeLimits(
            smallest=dataset.minimum_image_size or None, narrowest=dataset.minimum_aspect_ratio, widest=dataset.maximum_aspect_ratio
        ),
        seed=seed,
        treatment=_treatment(dataset),
    )


def _treatment(dataset: VideoDataset) -> Treatment:
    if dataset.dataset_type == "eval":
        return Treatment(dataset=dataset.id, measured=True)
    return Treatment(
        dataset=dataset.id,
        regularisation=dataset.is_regularisation_data,
        sigma_offset=dataset.timestep_sampling_offset,
        gives_first_frame=dataset.video.is_i2v if dataset.dataset_type == "video" else None,
        batch_size=dataset.train_batch_size,
        times=Times(
            probability=dataset.probability,
            start_epoch=max(dataset.start_epoch, 1),
            end_epoch=dataset.end_epoch,
            start_step=max(dataset.start_step, 1),
            end_step=dataset.end_step,
        ),
    )


def _sound_rule(dataset: VideoDataset) -> SoundRule | None:
    audio = dataset.audio
    if dataset.dataset_type != "audio" or audio is None:
        return None
    return SoundRule(interval=audio.duration_interval, longest=audio.max_duration_seconds, keep=audio.truncation_mode)


def _crop_rule(dataset: VideoDataset) -> CropRule:
    if not dataset.crop:
        return CropRule()
    style: Literal["center", "corner", "random"] = "center" if dataset.crop_style == "centre" else dataset.crop_style
    return CropRule(
        aspect=dataset.crop_aspect,
        style=style,
        aspects=tuple(dataset.crop_aspect_buckets),
        largest=dataset.maximum_image_size or None,
        shrunk=dataset.target_downsample_size or None,
        most_enlarged=dataset.max_upscale_threshold,
    )


def _caption_rule(dataset: VideoDataset, *, seed: int, texts: TextEmbeds | None) -> CaptionRule:
    prompts, shuffle = dataset.instance_prompt, dataset.caption_shuffle
    lines = texts.caption_filter_list if texts is not None else None
    return CaptionRule(
        strategy=dataset.caption_strategy,
        instance_prompts=() if prompts is None else (prompts,) if isinstance(prompts, str) else tuple(prompts),
        prepend_instance_prompt=dataset.prepend_instance_prompt,
        only_instance_prompt=dataset.only_instance_prompt,
        split_lines=not dataset.disable_multiline_split,
        table=None if dataset.only_instance_prompt else _caption_table(dataset),
        edits=tuple(CaptionEdit.parse(line) for line in lines) if isinstance(lines, list) else (),
        shuffle=Shuffle(
            count=shuffle.count,
            seed=seed if shuffle.seed is None else shuffle.seed,
            split_on=shuffle.split_on,
            fixed=shuffle.position_start,
            keep_original=shuffle.include_original,
        )
        if shuffle is not None and shuffle.enable
        else None,
    )


def _caption_table(dataset: VideoDataset) -> CaptionTable | None:
    folder, strategy = dataset.instance_data_dir, dataset.caption_strategy
    if strategy == "csv":
        columns = TableColumns(name=dataset.csv_url_column, caption=dataset.csv_caption_column)
        return read_table(find_table("csv", dataset.csv_file, folder=folder), folder=folder, columns=columns)
    if strategy not in ("jsonl", "parquet"):
        return None
    table = dataset.parquet
    if table is None:
        return read_table(find_table(strategy, None, folder=folder), folder=folder, columns=TableColumns())
    columns = TableColumns(
        name=table.filename_column,
        caption=table.caption_column,
        second=table.fallback_caption_column,
        endings=table.identifier_includes_extension,
    )
    return read_table(find_table(strategy, table.path, folder=folder), folder=folder, columns=columns)
