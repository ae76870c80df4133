"""Keys of a dataset's entry about moving pictures and sound: its `video` and `audio` groups."""

from __future__ import annotations

from typing import ClassVar, Literal

from ltx2core.config.keys import Keys, key


class VideoSettings(Keys):
    """How clips become training samples."""

    group: ClassVar[str] = "video"

    num_frames: int = key(
        49,
        "Frames",
        "Length of a training clip in frames, 8k + 1: 33, 41, 49, 57, ... What becomes of longer clips is `segments`' to say.",
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
        "to max_frames, or num_frames, or 20 s, a bucket for each size and length.",
    )
    frame_interval: int | None = key(
        None, "Frame interval", "With resolution_frames, lengths are cut to a multiple of this, then to 8k + 1 frames.", ge=1, le=100_000
    )
    segments: Literal["first", "all", "random"] = key(
        "first",
        "Long clips",
        "What is trained of a clip that is longer than its bucket. first: its first frames. all: one stretch after the other, the rest as "
        "a shorter one. random: one of up to 4 stretches spread over it, another one at each visit.",
    )
    is_i2v: bool | None = key(
        None,
        "Image to video",
        "true: the first frame is given now and then, as often as ltx2_first_frame_conditioning_probability says, or in half of the "
        "samples where that is 0. false: never in this dataset. Empty: as ltx2_first_frame_conditioning_probability says.",
    )


class AudioSettings(Keys):
    """The sound of the clips. Without this block only pictures are trained."""

    group: ClassVar[str] = "audio"

    auto_split: bool = key(True, "Sound of the clips", "Train on the clips' own sound. false: pictures only.")
    sample_rate: int = key(16000, "Sample rate", "Samples a second. LTX-2 hears 16000; other rates are converted.", ge=1, le=1_000_000)
    channels: int = key(2, "Channels", "LTX-2 hears stereo; mono is doubled, more channels are mixed down.", ge=1, le=64)
    source_from_video: bool = key(
        True, "From videos", "Take sound from video files. false, in an audio dataset: from sound files only, videos are passed over."
    )
    allow_zero_audio: bool = key(
        False, "Silence for missing sound", "Train clips without sound as silent ones. false: they train video only, and are named."
    )
    audio_only: bool = key(
        False,
        "Sound only",
        "Train on the sound of the clips without their picture, as long as video.num_frames lasts. Clips without sound are left out. When "
        "every dataset does so, nothing of the model that is for pictures is loaded, and samples are sound.",
    )
    bucket_strategy: Literal["duration"] = key("duration", "Sound buckets", "Sounds of an audio dataset are grouped by their length.")
    duration_interval: float = key(
        3.0,
        "Sound interval",
        "In an audio dataset: sounds are cut to a multiple of so many seconds, up to 20 s; shorter ones keep their length.",
        gt=0,
        le=20,
    )
    max_duration_seconds: float | None = key(
        None, "Longest sound", "In an audio dataset: longer files are left out. Empty: no limit.", gt=0
    )
    truncation_mode: Literal["beginning", "end", "random"] = key(
        "beginning",
        "Kept part",
        "In an audio dataset: which part of a sound is kept when it is cut: its beginning, its end, or one drawn by seed.",
    )
