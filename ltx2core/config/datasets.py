"""The dataset list (datasets.json, SimpleTuner's multidatabackend.json): which folders are trained on, and how."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar, Literal

from pydantic import JsonValue, ValidationInfo, field_validator
from pydantic_core import PydanticCustomError

from ltx2core.config.caption_keys import CaptionShuffle, CaptionTableKeys
from ltx2core.config.keys import Keys, Later, key, later
from ltx2core.config.media_keys import AudioSettings, VideoSettings

LINKED_DATA = Later(name="made conditioning", instead="masks and references are files of a conditioning dataset")
SLIDERS = Later(name="slider LoRAs", instead="the clips are trained like others")
CACHE_LATER = Later(name="encoding while training", instead="everything is encoded before training, and kept")
SCANNING = Later(
    name="other ways of finding files", instead="the folder is searched, with its subfolders, and sizes are read from the files"
)
DELETING = Later(name="deleting files", instead="what cannot be used is named and left out; no file of yours is ever deleted")
GROUNDING = Later(name="grounding", instead="clips are learned from their captions")

__all__ = ["AudioSettings", "DatasetList", "TextEmbeds", "VideoDataset", "VideoSettings", "linked_names"]


LEAST_SIDE = 64  # pixels: two latents


class VideoDataset(Keys):
    """A folder of clips, pictures or sound."""

    group: ClassVar[str] = "A dataset"

    id: str = key("clips", "Name", "A name of its own for this dataset.", min_length=1, max_length=200)
    type: Literal["local"] = key("local", "Place", "Where the files are: local, a folder on this machine.")
    dataset_type: Literal["video", "image", "audio", "eval", "conditioning"] = key(
        "video",
        "Kind",
        "What the folder holds. video: clips to learn. image: pictures to learn, as clips of one frame. audio: sound to learn, or, where a "
        "dataset names it in s2v_datasets, the sound of that dataset's clips. eval: clips and pictures to measure the held-out loss on, "
        "never to learn. conditioning: what belongs to the clips of another dataset.",
    )
    disabled: bool = key(False, "Disabled", "Leave this dataset out.", aliases=("disable",))
    instance_data_dir: Path = key(
        ...,
        "Folder",
        "The folder with the clips (.mp4, .mov, .mkv, .webm), pictures or sounds; its subfolders are searched too. {model_family}, "
        "{model_flavour}, {model_type} and {id} in it stand for the config's values.",
    )
    caption_strategy: Literal["textfile", "filename", "instanceprompt", "csv", "jsonl", "parquet"] = key(
        "textfile",
        "Captions from",
        "textfile: a .txt with the clip's name beside it, one caption a line. filename: the clip's name. instanceprompt: instance_prompt "
        "for every clip. csv: csv_file. jsonl, parquet: the table in `parquet`; .parquet files need `pip install 'ltx2tui[parquet]'`.",
    )
    instance_prompt: str | list[str] | None = key(
        None, "Instance prompt", "The caption of every clip, or with prepend_instance_prompt what is put before its own caption."
    )
    prepend_instance_prompt: bool = key(False, "Put before captions", "Put instance_prompt before each clip's own caption.")
    only_instance_prompt: bool = key(False, "Instance prompt only", "Use instance_prompt for every clip, whatever captions there are.")
    disable_multiline_split: bool = key(
        False, "One caption a file", "Read a caption file with several lines as one caption instead of one caption a line."
    )
    csv_file: Path | None = key(None, "Caption table", "With caption_strategy csv: the table. Empty: captions.csv or metadata.csv there.")
    csv_caption_column: str | None = key(None, "Column of captions", "Its column with the caption. Empty: caption, text or prompt.")
    csv_url_column: str | None = key(
        None,
        "Column of names",
        "Its column that says which file a row belongs to: a name, a path below the folder, or an address that ends in the name. Empty: "
        "url, filename, file_name, file, path or id.",
    )
    parquet: CaptionTableKeys | None = key(None, "Caption table", "The table of caption_strategy parquet and jsonl.")
    caption_shuffle: CaptionShuffle | None = key(None, "Shuffle captions", "Train captions that are lists of tags in other orders too.")
    resolution_type: Literal["pixel", "area", "pixel_area"] = key(
        "pixel",
        "Resolution type",
        "pixel: the shorter edge in pixels. area: megapixels. pixel_area: the edge of a square of the same area.",
    )
    resolution: float = key(
        512,
        "Resolution",
        "The shorter edge clips are resized to, in pixels (a multiple of 32), or what resolution_type says.",
        gt=0,
        le=16384,
    )
    minimum_image_size: float | None = key(
        None, "Smallest size", "Smaller files are left out; in the unit of resolution_type. Empty or 0: none.", ge=0, le=100_000
    )
    maximum_image_size: float | None = key(
        None,
        "Largest size",
        "With crop: the bucket is cut from the picture at target_downsample_size where the file is larger than this.",
        ge=0,
        le=100_000,
    )
    target_downsample_size: float | None = key(
        None, "Shrink to", "The size that files above maximum_image_size are brought to before they are cropped.", ge=0, le=100_000
    )
    minimum_aspect_ratio: float | None = key(None, "Narrowest", "Files with a smaller width / height are left out.", gt=0, le=1000)
    maximum_aspect_ratio: float | None = key(None, "Widest", "Files with a larger width / height are left out.", gt=0, le=1000)
    crop: bool = key(
        False,
        "Crop",
        "true: crop to the shape in crop_aspect. false: keep the shape; only what the multiple of 32 leaves over is cut, on both sides.",
    )
    crop_style: Literal["center", "centre", "corner", "random"] = key(
        "center", "Crop place", "Which part a crop keeps: the middle, the upper left corner, or one drawn by seed for each file."
    )
    crop_aspect: Literal["square", "preserve", "closest", "random"] = key(
        "square",
        "Crop shape",
        "square; preserve: the file's own; closest: the nearest of crop_aspect_buckets; random: one of them, drawn by seed for each file.",
    )
    crop_aspect_buckets: list[float] = key([], "Crop shapes", "Widths / heights for crop_aspect closest and random: [1.0, 0.75, 1.33].")
    max_upscale_threshold: float | None = key(
        None,
        "Most enlargement",
        "Shapes of crop_aspect_buckets that would enlarge a file by more than this share are not used.",
        ge=0,
        le=10,
    )
    repeats: int = key(0, "Repeats", "Extra passes over the clips in an epoch: 10 shows each clip 11 times.", ge=0, le=1_000_000)
    max_num_samples: int | None = key(
        None, "At most", "Train on so many of the files, chosen by chance and always the same ones. Empty: all.", ge=1, le=100_000_000
    )
    probability: float = key(
        1.0,
        "Probability",
        "The chance that a batch is drawn from this dataset, against the others' probabilities. Where all are 1, every epoch shows every "
        "clip instead.",
        ge=0,
        le=1000,
    )
    start_epoch: int = key(1, "First epoch", "The epoch this dataset joins at.", ge=0, le=2**31)
    end_epoch: int | None = key(None, "Last epoch", "The last epoch this dataset is in. Empty: it stays.", ge=1, le=2**31)
    start_step: int = key(0, "First step", "The step this dataset joins at.", ge=0, le=2**31)
    end_step: int | None = key(None, "Last step", "The last step this dataset is in. Empty: it stays.", ge=1, le=2**31)
    train_batch_size: int | None = key(
        None, "Batch size", "Batches of this dataset hold so many clips. Empty: the config's.", ge=1, le=1024
    )
    timestep_sampling_offset: float = key(
        0.0,
        "Noise offset",
        "Added to the normal that noise levels are drawn from: above 0 more noise (structure), below 0 less (detail).",
        ge=-10,
        le=10,
    )
    is_regularisation_data: bool = key(
        False,
        "Regularisation",
        "Clips that keep what the model knows. They are trained like the others, with their own captions, which caption dropout leaves "
        "alone; eval_split takes none of them.",
        aliases=("is_regularization_data",),
    )
    video: VideoSettings = key(VideoSettings(), "Video", "How clips become training samples.")
    audio: AudioSettings | None = key(None, "Audio", "The sound of the clips. Without this block only pictures are trained.")
    s2v_datasets: list[str] = key(
        [], "Linked sound", "The ids of audio datasets that hold the sound of these clips; files belong together by name and subfolder."
    )
    conditioning_data: str | list[str] | None = key(
        None,
        "Conditioning data",
        "The ids of conditioning datasets that belong to this one; files belong together by name and subfolder.",
    )
    conditioning_type: Literal["mask", "reference_strict"] | None = key(
        None,
        "Conditioning type",
        "Of a conditioning dataset. mask: pictures or videos, white where a clip is given (ltx2_mask_conditioning_probability). "
        "reference_strict: clips or pictures that the model sees beside the noise (IC-LoRA).",
    )
    conditioning: JsonValue = later(None, LINKED_DATA, "Conditioning", "Conditioning made from the clips.")
    slider_strength: float | None = later(None, SLIDERS, "Slider strength", "The direction of a slider LoRA.")
    grounding: JsonValue = later(None, GROUNDING, "Grounding", "Boxes of what is in the pictures.")
    cache_dir: Path | None = key(None, "Cache folder", "Not used: caches of all runs lie together under cache/; a notice says where.")
    cache_dir_vae: Path | None = key(None, "Latent cache folder", "Not used: caches of all runs lie together under cache/.")
    text_embeds: str | None = key(None, "Caption cache", "Not used: captions have one cache, in which equal ones are kept once.")
    image_embeds: str | None = key(None, "Latent cache", "Not used: caches of all runs lie together under cache/.")
    vae_cache_clear_each_epoch: bool = later(False, CACHE_LATER, "New crops each epoch", "Encode clips anew in each epoch.")
    vae_cache_ondemand: bool = later(False, CACHE_LATER, "Encode when needed", "Encode a clip when it is first needed.")
    vae_cache_disable: bool = later(False, CACHE_LATER, "Encode each time", "Encode clips anew each time.")
    hash_filenames: bool = later(True, SCANNING, "Hash names", "Name cache entries by hashes, which is always so.", built=(False,))
    preserve_data_backend_cache: bool = later(
        False, SCANNING, "Keep the file list", "Do not look for new clips. They are always looked for.", built=(True,)
    )
    skip_file_discovery: str | bool | None = later(None, SCANNING, "Skip discovery", "Do not look for files.", built=(False, ""))
    metadata_backend: str = later("discovery", SCANNING, "Metadata", "Where sizes are read from.", built=("json",))
    metadata_update_interval: int | None = later(None, SCANNING, "Refresh", "Seconds between looks for new files.")
    delete_unwanted_images: bool = later(False, DELETING, "Delete unwanted", "Delete files that are too small or of another shape.")
    delete_problematic_images: bool = later(False, DELETING, "Delete broken", "Delete files that cannot be encoded.")

    @field_validator("resolution")
    @classmethod
    def _large_enough(cls, value: float, info: ValidationInfo) -> float:
        """At least two latents a side: less is a mistake, such as megapixels without their resolution_type."""
        if info.data.get("dataset_type") == "audio":
            return value
        if info.data.get("resolution_type", "pixel") != "area":
            if value < LEAST_SIDE:
                raise PydanticCustomError("too_few_pixels", "the shorter edge has at least {least} pixels", {"least": LEAST_SIDE})
        elif value * 1e6 < LEAST_SIDE**2:
            raise PydanticCustomError("too_few_megapixels", "a clip has at least 64 x 64 pixels, 0.0041 megapixels")
        return value


class TextEmbeds(Keys):
    """The entry for cached captions. It may be left out."""

    group: ClassVar[str] = "Cached captions"

    id: str = key("text-embeds", "Name", "A name of its own for this entry.", min_length=1, max_length=200)
    type: Literal["local"] = key("local", "Place", "Where the cache is: local, on this machine.")
    dataset_type: Literal["text_embeds"] = key("text_embeds", "Kind", "What the entry is: text_embeds, the cached captions.")
    default: bool = key(True, "Default", "Use this entry for all datasets.")
    disabled: bool = key(False, "Disabled", "Leave this entry out.", aliases=("disable",))
    cache_dir: Path | None = key(None, "Cache folder", "Not used: caches of all runs lie together under cache/; a notice says where.")
    caption_filter_list: str | list[str] | None = key(
        None,
        "Caption filter",
        "What is taken out of every caption before anything is put before it: a list, or a .txt or .json file of lines. A line is a "
        "regular expression whose matches are removed, or s/this/that/, which replaces the first match.",
    )
    write_batch_size: int | None = later(None, CACHE_LATER, "Write batch", "How many captions are written together.", built=(128,))
    text_encoder_batch_size: int | None = later(None, CACHE_LATER, "Text batch", "Captions encoded together.", built=(1,))
    text_cache_ondemand: bool = later(False, CACHE_LATER, "Encode when needed", "Encode a caption when it is first needed.")
    text_cache_disable: bool = later(False, CACHE_LATER, "Encode each time", "Encode captions anew each time.")
    preserve_data_backend_cache: bool = later(
        False, SCANNING, "Keep the file list", "Do not look for new entries. They are always looked for.", built=(True,)
    )
    skip_file_discovery: str | bool | None = later(None, SCANNING, "Skip discovery", "Do not look for files.", built=(False, ""))


class DatasetList(Keys):
    """All of a dataset list: what is trained on. Disabled entries are not in it."""

    group: ClassVar[str] = "The dataset list"

    videos: tuple[VideoDataset, ...] = key((), "Trained on", "The folders of clips, pictures and sound that are learned.")
    evals: tuple[VideoDataset, ...] = key((), "Measured on", "The folders that the held-out loss is measured on.")
    sounds: tuple[VideoDataset, ...] = key((), "Sound of clips", "The folders of sound that belong to the clips of others.")
    conditioning: tuple[VideoDataset, ...] = key((), "Conditioning", "The folders of masks and references.")
    text_embeds: TextEmbeds = key(TextEmbeds(), "Cached captions", "The entry for cached captions.")

    @property
    def entries(self) -> tuple[Keys, ...]:
        """All of them, as a file lists them."""
        return (*self.videos, *self.evals, *self.sounds, *self.conditioning, self.text_embeds)


def linked_names(dataset: VideoDataset) -> list[str]:
    """The ids in a dataset's conditioning_data."""
    named = dataset.conditioning_data
    return [] if named is None else [named] if isinstance(named, str) else list(named)
