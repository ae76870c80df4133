"""What is known about a clip, before and after it gets its bucket. Values only: scan.py finds them, buckets.py sorts them.

`PROBLEM_CODES` is the one list of everything that can be said against a clip. Codes are stable: scripts read them.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from pathlib import Path

Level = Literal["error", "warning", "info"]

AUDIO_LATENTS_PER_SECOND = 25

PROBLEM_CODES: dict[str, str] = {
    # the file (scan.py); an error leaves the clip out, everything else goes on
    "unreadable": "error: the file or folder cannot be opened (permission, broken link, not a file)",
    "empty_file": "error: 0 bytes",
    "not_a_video": "error: no container that can be read: text, an image, random bytes",
    "truncated": "error: the file ends before its header says it does, or its index was never written",
    "no_video": "error: sound only, or nothing but a cover picture",
    "no_sound": "error: nothing to hear in the part that is trained, and the dataset trains sound alone",
    "unknown_codec": "error: no decoder for this video codec",
    "damaged": "error: the container is whole, its pictures cannot be decoded",
    "too_many_pixels": "error: frames of more pixels than 8192 x 8192",
    "unsupported_type": "error: a video file type that is not read (.avi, .wmv, ...)",
    "still_among_clips": "error: a picture in a dataset of clips; it belongs in one of dataset_type image",
    "clip_among_stills": "error: a video in a dataset of pictures; it belongs in one of dataset_type video",
    "not_a_picture": "error: a picture file that cannot be decoded",
    "transparent": "info: a picture with transparent parts; they are made white",
    "not_fully_read": "warning: too long to read through; frames and length are the header's claim",
    "variable_frame_rate": "warning: frames do not come at one rate; they are resampled by their times",
    "interlaced": "warning: two half pictures in a frame",
    "hdr": "warning: PQ or HLG colours, which the model does not know",
    "rotated": "info: turned upright by its display matrix, as a player does",
    "no_audio": "info: no sound track; the clip trains video only",
    "unknown_audio_codec": "warning: no decoder for its sound; the clip trains video only",
    "audio_short": "info: the sound ends before the picture; the rest is silence",
    "audio_late": "info: the sound starts after the first frame; silence comes before it",
    "audio_early": "info: the sound starts before the first frame; what comes before it is not used",
    "high_bit_depth": "info: more than 8 bits a colour; it is read as 8",
    "unusual_frame_rate": "warning: below 24 fps, or no multiple of 24, 25 or 30, at which LTX-2 has seen motion",
    # what the file did to the program that read it (children.py)
    "timed_out": "error: reading it took longer than any clip should",
    "out_of_memory": "error: reading it takes more memory than any clip should",
    "decoder_crashed": "error: the decoder crashed on it; only the process that read it ended",
    # its pictures and its sound, decoded (verdicts.py)
    "decode_errors": "warning: some of its pictures cannot be decoded",
    "partly_checked": "info: too long to look through; only its beginning was",
    "hard_cut": "warning: another shot begins inside the clip",
    "black_frames": "warning: black for a while",
    "frozen": "warning: one picture stands still for a while",
    "static_clip": "warning: nothing moves",
    "letterbox": "warning: black bars at two opposite sides",
    "audio_silent": "warning: its sound track is silent",
    "audio_clipped": "warning: its sound is cut off at full scale",
    # its caption (captions.py)
    "missing_caption": "error: no .txt of the same name",
    "empty_caption": "error: the caption file has no text",
    "caption_unreadable": "error: the caption file cannot be opened, or holds no text but bytes",
    "caption_not_utf8": "warning: read as UTF-16 or Windows-1252 instead",
    "caption_long": "warning: more than the 1024 tokens that the text encoder takes",
    "caption_rate_mismatch": "warning: the caption names a speed that the clip will not have",
    # its bucket (buckets.py)
    "too_short": "error: fewer frames than the smallest bucket takes",
    "too_long": "error: more frames than video.max_frames allows",
    "too_small": "error: smaller than minimum_image_size",
    "wrong_aspect": "error: narrower than minimum_aspect_ratio or wider than maximum_aspect_ratio",
    "no_crop_shape": "error: every shape of crop_aspect_buckets would enlarge it by more than max_upscale_threshold",
    "fewer_frames": "info: shorter than video.num_frames; it trains in a shorter bucket",
    "trimmed": "info: longer than its bucket; only the first frames are used",
    "segmented": "info: longer than its bucket; it trains in several stretches",
    "resampled": "info: brought to the dataset's frame rate by timestamps",
    "low_frame_rate": "warning: frames are repeated to reach the dataset's frame rate",
    "odd_size": "info: not multiples of 32; scaled and cropped to the bucket",
    "upscaled": "info: smaller than its bucket; enlarging adds no detail",
    "extreme_aspect": "warning: longer than 4:1; the ends are cropped away",
    # beside the other clips (survey.py)
    "near_duplicate": "warning: looks like another clip from beginning to end",
    "small_bucket": "warning: fewer clips of its size and length than a batch takes",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """One line about a clip: what is wrong with it, and what would work."""

    code: str
    level: Level
    text: str
    fix: str = ""

    def __post_init__(self) -> None:
        if self.code not in PROBLEM_CODES:
            raise ValueError(f"{self.code} is not in PROBLEM_CODES")


@dataclass(frozen=True, slots=True, kw_only=True)
class AudioTrack:
    """The first sound track that can be decoded."""

    sample_rate: int
    channels: int
    seconds: float  # of sound, wherever it starts
    codec: str
    start: float = 0.0  # seconds after the first video frame; below 0 when the sound starts earlier


@dataclass(frozen=True, slots=True, kw_only=True)
class Clip:
    """A video file as found. Of a file that could not be read, every number is 0 and `problems` says why."""

    path: Path
    width: int = 0  # as shown: turned upright, pixels made square
    height: int = 0
    rotation: int = 0  # degrees counter-clockwise that the stored frames are turned by: 0, 90, 180, 270
    frames: int = 0  # counted, not claimed
    fps: float = 0.0  # frames over seconds
    seconds: float = 0.0  # from the first frame to the end of the last
    codec: str = ""
    audio: AudioTrack | None = None
    caption: str | None = None  # the text file as it is, lines and all; None without one
    problems: tuple[Problem, ...] = ()
    variable_frame_rate: bool = False
    still: bool = False  # a picture: one frame, no rate and no length

    @property
    def usable(self) -> bool:
        return all(problem.level != "error" for problem in self.problems)

    def having(self, *problems: Problem) -> Clip:
        """The same clip with these problems added."""
        return replace(self, problems=self.problems + problems)


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class Bucket:
    """What every clip of a batch is brought to: width and height in pixels, multiples of 32; 8k+1 frames."""

    width: int
    height: int
    frames: int

    def __post_init__(self) -> None:
        if self.width < 32 or self.height < 32 or self.width % 32 or self.height % 32:
            raise ValueError(f"a bucket's sides are multiples of 32, not {self.width}x{self.height}")
        if self.frames < 1 or self.frames % 8 != 1:
            raise ValueError(f"a bucket holds 8k + 1 frames, not {self.frames}")

    @property
    def label(self) -> str:
        return f"{self.width}x{self.height}@{self.frames}"

    @classmethod
    def from_label(cls, label: str) -> Bucket:
        """The bucket of a label such as 768x512@49. Raises ValueError for anything else."""
        match = re.fullmatch(r"(\d+)x(\d+)@(\d+)", label, re.ASCII)
        if match is None:
            raise ValueError(f"{label!r} is not a bucket such as 768x512@49")
        width, height, frames = (int(part) for part in match.groups())
        return cls(width=width, height=height, frames=frames)


def reference_size(width: int, height: int, frames: int, *, smaller: int, slower: int) -> tuple[int, int, int]:
    """Width, height and frames that the reference of a clip of this size is encoded at: `smaller` times less on each side and `slower`
    times fewer frames, as far as they divide."""
    width, height = (max(32, side // smaller // 32 * 32) for side in (width, height))
    return width, height, (frames - 1) // slower // 8 * 8 + 1


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class SoundBucket:
    """What every sound of a batch without pictures is brought to: its length in audio latents, 25 a second."""

    latents: int

    def __post_init__(self) -> None:
        if self.latents < 1:
            raise ValueError(f"sound has one latent at least, not {self.latents}")

    @property
    def seconds(self) -> float:
        return self.latents / AUDIO_LATENTS_PER_SECOND

    @property
    def label(self) -> str:
        return f"{self.seconds:.2f}s"

    @classmethod
    def of_seconds(cls, seconds: float) -> SoundBucket:
        """The bucket nearest to that length."""
        return cls(latents=max(1, round(seconds * AUDIO_LATENTS_PER_SECOND)))


@dataclass(frozen=True, slots=True, kw_only=True)
class Crop:
    """Which part of a picture fills its bucket: 0..1 of what is left over from the left and from the top, 0.5 the middle.

    zoom: how many times larger than needed to cover the bucket the picture is made first; above 1 a smaller part is seen.
    """

    across: float = 0.5
    down: float = 0.5
    zoom: float = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Times:
    """When a dataset is drawn from, and how often against others. Epochs and steps count from 1; the last ones are included."""

    probability: float = 1.0
    start_epoch: int = 1
    end_epoch: int | None = None
    start_step: int = 1
    end_step: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Treatment:
    """What training does with every sample of a dataset. Samples of unequal treatment share no batch."""

    dataset: str = ""  # its id
    measured: bool = False  # the held-out loss is measured on it, and it is never trained on
    regularisation: bool = False  # captions are never dropped, none is held out
    sigma_offset: float = 0.0  # added to the normal that noise levels are drawn from
    gives_first_frame: bool | None = None  # None leaves it to the run
    batch_size: int | None = None  # None leaves it to the run
    times: Times = Times()


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """A clip, or a stretch of one, as it is trained on; with a SoundBucket, its sound alone."""

    clip: Clip
    bucket: Bucket | SoundBucket
    fps: float  # of the frames that reach the model; sound alone is cut where they would end
    captions: tuple[str, ...]  # variants, never empty; one is drawn each time
    repeats: int = 0  # extra passes in an epoch
    mask: Path | None = None  # a picture or video, white where the clip may be given
    reference: Path | None = None  # a clip or picture that is seen beside the noise
    start: float = 0.0  # seconds after the clip's first frame
    crop: Crop = Crop()
    sound: Path | None = None  # the file with its sound, where that is not the clip's own
    silent: bool = False  # trained with silence, as it has no sound
    takes_turns: bool = False  # one of several stretches of its clip, of which each visit takes one
    treatment: Treatment = Treatment()

    @property
    def name(self) -> str:
        """The file's name, and where in it a later stretch begins."""
        return self.clip.path.name + (f" from {self.start:.2f} s" if self.start else "")

    @property
    def has_sound(self) -> bool:
        return self.silent or self.clip.audio is not None

    @property
    def picture(self) -> Bucket | None:
        """What its frames are brought to; None where sound is trained alone."""
        return self.bucket if isinstance(self.bucket, Bucket) else None

    @property
    def seconds(self) -> float:
        """The length of what is trained on."""
        return self.bucket.frames / self.fps if isinstance(self.bucket, Bucket) else self.bucket.seconds
