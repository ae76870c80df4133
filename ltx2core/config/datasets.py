"""The dataset list (datasets.json, SimpleTuner's multidatabackend.json): which folders are trained on, and how."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar, Literal

from pydantic import JsonValue

from ltx2core.config.keys import Keys, Later, key, later

SCHEDULES = Later(name="weights and times of datasets", instead="every dataset is used for the whole run, `repeats` decides how often")
CROPS = Later(name="other ways of cropping", instead="clips are resized to cover their bucket and cropped at the centre")
FILTERS = Later(name="leaving out clips by size or number", instead="every usable clip is trained on")
LINKED_DATA = Later(name="linked sound and made conditioning", instead="the dataset is trained with the sound of its own clips")
CAPTION_TOOLS = Later(name="shuffling and filtering captions", instead="captions are used as written")
CACHE_FOLDERS = Later(name="choosing cache folders", instead="caches lie under cache/, named by what they were made of, shared by all runs")
CLIP_CUTS = Later(
    name="choosing where and how clips are cut", instead="the first frames of a clip are used, and the sound that belongs to them"
)
FIRST_FRAMES = Later(name="image-to-video training", instead="clips are learned from their captions")
SILENT_CLIPS = Later(name="training clips without sound as silent ones", instead="they train their picture alone")
SCANNING = Later(name="other ways of finding files", instead="the folder is searched, with its subfolders")


class VideoSettings(Keys):
    """How clips become training samples."""

    group: ClassVar[str] = "video"

    num_frames: int = key(
        49,
        "Frames",
        "Length of a training clip in frames, 8k + 1: 33, 41, 49, 57, ... Longer clips give their first frames.",
        ge=1,
        le=100_000,
    )
    min_frames: int | None = key(
        None,
        "Shortest clip",
        "Clips with fewer frames are left out. Empty: 9; clips shorter than num_frames train in a shorter bucket.",
        ge=1,
        le=100_000,
    )
    max_frames: int | None = key(None, "Longest clip", "Clips with more frames are left out. Empty: no limit.", ge=1, le=10_000_000)
    frame_rate: float | None = key(
        None,
        "Frame rate",
        "Frames a second that these clips are trained at; others are resampled. Empty: the config's frame_rate.",
        gt=0,
        le=1000,
    )
    bucket_strategy: Literal["aspect_ratio", "resolution_frames"] = key(
        "aspect_ratio",
        "Buckets",
        "aspect_ratio: clips are cut to num_frames, a bucket for each shape of picture. resolution_frames: clips keep their own length up "
        "to max_frames, or num_frames, a bucket for each size and length.",
    )
    frame_interval: int | None = key(
        None, "Frame interval", "With resolution_frames, lengths are cut to a multiple of this, then to 8k + 1 frames.", ge=1, le=100_000
    )
    is_i2v: bool | None = later(None, FIRST_FRAMES, "Image to video", "Give the first frame while training.", built=(False,))


class AudioSettings(Keys):
    """The sound of the clips. Without this block only pictures are trained."""

    group: ClassVar[str] = "audio"

    auto_split: bool = key(True, "Sound of the clips", "Train on the clips' own sound. false: pictures only.")
    sample_rate: int = key(16000, "Sample rate", "Samples a second. LTX-2 hears 16000; other rates are converted.", ge=1, le=1_000_000)
    channels: int = key(2, "Channels", "LTX-2 hears stereo; mono is doubled, more channels are mixed down.", ge=1, le=64)
    source_from_video: bool = later(True, LINKED_DATA, "From the clips", "Take sound from the clips themselves.")
    allow_zero_audio: bool = later(False, SILENT_CLIPS, "Silence for missing sound", "Train clips without sound as silent ones.")
    audio_only: bool = key(
        False,
        "Sound only",
        "Train on the sound of the clips without their picture, as long as video.num_frames lasts. Clips without sound are left out. When "
        "every dataset does so, nothing of the model that is for pictures is loaded, and samples are sound.",
    )
    bucket_strategy: str = later("duration", CLIP_CUTS, "Sound buckets", "How sound is grouped.")
    duration_interval: float = later(3.0, CLIP_CUTS, "Sound interval", "Sound lengths are multiples of this, in seconds.")
    max_duration_seconds: float | None = later(None, CLIP_CUTS, "Longest sound", "Longer sound is cut.")
    truncation_mode: str = later("beginning", CLIP_CUTS, "Cut from", "Which part of long sound is kept.")


class VideoDataset(Keys):
    """A folder of clips."""

    group: ClassVar[str] = "A video dataset"

    id: str = key("clips", "Name", "A name of its own for this dataset.", min_length=1, max_length=200)
    type: Literal["local"] = key("local", "Place", "Where the clips are: local, a folder on this machine.")
    dataset_type: Literal["video", "conditioning"] = key(
        "video", "Kind", "What the dataset holds: video, clips to learn; conditioning, what belongs to the clips of another dataset."
    )
    disabled: bool = key(False, "Disabled", "Leave this dataset out.")
    instance_data_dir: Path = key(..., "Folder", "The folder with the clips (.mp4, .mov, .mkv, .webm); its subfolders are searched too.")
    caption_strategy: Literal["textfile", "filename", "instanceprompt"] = key(
        "textfile",
        "Captions from",
        "textfile: a .txt with the clip's name beside it, one caption a line. filename: the clip's name. instanceprompt: instance_prompt "
        "for every clip.",
    )
    instance_prompt: str | list[str] | None = key(
        None, "Instance prompt", "The caption of every clip, or with prepend_instance_prompt what is put before its own caption."
    )
    prepend_instance_prompt: bool = key(False, "Put before captions", "Put instance_prompt before each clip's own caption.")
    only_instance_prompt: bool = key(False, "Instance prompt only", "Use instance_prompt for every clip, whatever captions there are.")
    disable_multiline_split: bool = key(
        False, "One caption a file", "Read a caption file with several lines as one caption instead of one caption a line."
    )
    resolution: float = key(
        512,
        "Resolution",
        "The shorter edge clips are resized to, in pixels (a multiple of 32), or what resolution_type says.",
        gt=0,
        le=16384,
    )
    resolution_type: Literal["pixel", "area", "pixel_area"] = key(
        "pixel",
        "Resolution type",
        "pixel: the shorter edge in pixels. area: megapixels. pixel_area: the edge of a square of the same area.",
    )
    repeats: int = key(0, "Repeats", "Extra passes over the clips in an epoch: 10 shows each clip 11 times.", ge=0, le=1_000_000)
    video: VideoSettings = key(VideoSettings(), "Video", "How clips become training samples.")
    audio: AudioSettings | None = key(None, "Audio", "The sound of the clips. Without this block only pictures are trained.")
    cache_dir: Path | None = later(None, CACHE_FOLDERS, "Cache folder", "A folder for this dataset's cache.")
    cache_dir_vae: Path | None = later(None, CACHE_FOLDERS, "Latent cache folder", "A folder for this dataset's latents.")
    preserve_data_backend_cache: bool = later(False, CACHE_FOLDERS, "Keep the file list", "Do not look for new clips.", built=(True,))
    skip_file_discovery: str | bool | None = later(None, SCANNING, "Skip discovery", "Do not look for files.", built=(False, ""))
    metadata_backend: str = later("discovery", SCANNING, "Metadata", "Where sizes are read from.", built=("json",))
    crop: bool = later(False, CROPS, "Crop", "Crop clips.", built=(True,))
    crop_style: str = later("center", CROPS, "Crop place", "Which part of the picture is kept.", built=("centre",))
    crop_aspect: str = later("preserve", CROPS, "Crop shape", "The shape of the crop.")
    crop_aspect_buckets: JsonValue = later(None, CROPS, "Crop shapes", "A list of shapes.")
    minimum_image_size: float | None = later(None, FILTERS, "Smallest size", "Leave out smaller clips.", built=(0,))
    maximum_image_size: float | None = later(None, FILTERS, "Largest size", "Shrink larger clips first.", built=(0,))
    target_downsample_size: float | None = later(None, FILTERS, "Shrink to", "The size larger clips are shrunk to.", built=(0,))
    minimum_aspect_ratio: float | None = later(None, FILTERS, "Narrowest", "Leave out narrower clips.")
    maximum_aspect_ratio: float | None = later(None, FILTERS, "Widest", "Leave out wider clips.")
    max_num_samples: int | None = later(None, FILTERS, "At most", "Use this many clips.")
    probability: float = later(1.0, SCHEDULES, "Probability", "How often this dataset is drawn from.")
    start_epoch: int = later(1, SCHEDULES, "First epoch", "The epoch this dataset joins at.", built=(0,))
    end_epoch: int | None = later(None, SCHEDULES, "Last epoch", "The epoch this dataset leaves at.")
    start_step: int = later(0, SCHEDULES, "First step", "The step this dataset joins at.")
    end_step: int | None = later(None, SCHEDULES, "Last step", "The step this dataset leaves at.")
    train_batch_size: int | None = later(None, SCHEDULES, "Batch size", "A batch size for this dataset.")
    is_regularisation_data: bool = later(False, SCHEDULES, "Regularisation", "Clips that keep what the model knows.")
    slider_strength: float | None = later(None, SCHEDULES, "Slider strength", "The direction of a slider LoRA.")
    timestep_sampling_offset: float = later(0.0, SCHEDULES, "Noise offset", "Shift of this dataset's noise levels.")
    conditioning_data: str | list[str] | None = key(
        None,
        "Conditioning data",
        "The ids of conditioning datasets that belong to this one; files belong together by name and subfolder.",
    )
    conditioning: JsonValue = later(None, LINKED_DATA, "Conditioning", "Conditioning made from the clips.")
    conditioning_type: Literal["mask", "reference_strict"] | None = key(
        None,
        "Conditioning type",
        "Of a conditioning dataset. mask: pictures or videos, white where a clip is given (ltx2_mask_conditioning_probability). "
        "reference_strict: clips or pictures that the model sees beside the noise (IC-LoRA).",
    )
    s2v_datasets: list[str] | None = later(None, LINKED_DATA, "Linked sound", "Audio datasets that belong to these clips.", built=([],))
    caption_shuffle: JsonValue = later(None, CAPTION_TOOLS, "Shuffle captions", "Train captions with shuffled parts.")


class TextEmbeds(Keys):
    """The entry for cached captions. It may be left out."""

    group: ClassVar[str] = "Cached captions"

    id: str = key("text-embeds", "Name", "A name of its own for this entry.", min_length=1, max_length=200)
    type: Literal["local"] = key("local", "Place", "Where the cache is: local, on this machine.")
    dataset_type: Literal["text_embeds"] = key("text_embeds", "Kind", "What the entry is: text_embeds, the cached captions.")
    default: bool = key(True, "Default", "Use this entry for all datasets.")
    disabled: bool = key(False, "Disabled", "Leave this entry out.")
    cache_dir: Path | None = later(None, CACHE_FOLDERS, "Cache folder", "A folder for cached captions.")
    caption_filter_list: str | None = later(None, CAPTION_TOOLS, "Caption filter", "A file of words to leave out.")
    write_batch_size: int | None = later(None, CACHE_FOLDERS, "Write batch", "How many captions are written together.")


class DatasetList(Keys):
    """All of a dataset list: what is trained on. Disabled entries are not in it."""

    group: ClassVar[str] = "The dataset list"

    videos: tuple[VideoDataset, ...] = key((), "Videos", "The folders of clips.")
    conditioning: tuple[VideoDataset, ...] = key((), "Conditioning", "The folders of masks and references.")
    text_embeds: TextEmbeds = key(TextEmbeds(), "Cached captions", "The entry for cached captions.")


def linked_names(dataset: VideoDataset) -> list[str]:
    """The ids in a dataset's conditioning_data."""
    named = dataset.conditioning_data
    return [] if named is None else [named] if isinstance(named, str) else list(named)
