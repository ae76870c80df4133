"""Makes what training reads: video latents, audio latents, and text after the connectors. One encoder is in memory at a time.

Only what is not in the store yet is encoded; when nothing is missing no encoder is loaded. A clip that cannot be decoded is left
out with a Notice, one whose sound cannot be trains video only if it has a picture to train, and the rest goes on.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, TypeVar

from ltx2core.caching.captions import encode_captions
from ltx2core.caching.features import FEATURES_PASS, encode_features
from ltx2core.caching.fingerprint import Digests, cut_of, fingerprint
from ltx2core.caching.pictures import encode_pictures, read_masks
from ltx2core.caching.room import EntrySizes, describe_room
from ltx2core.caching.sounds import encode_sounds
from ltx2core.errors import DatasetError, Stopped
from ltx2core.hardware.free_memory import free_memory
from ltx2core.hardware.limits import available_memory, usable_cores
from ltx2core.models.text import TextSettings, text_encoder_fingerprint
from ltx2core.models.vae_levers import VaeLevers
from ltx2core.runs.events import Notice, PhaseStarted

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

    import torch

    from ltx2core.caching.compare import Compared
    from ltx2core.caching.features import FeatureWish
    from ltx2core.caching.fingerprint import Cut
    from ltx2core.caching.store import Kind, Store
    from ltx2core.data.clip import Bucket, Sample
    from ltx2core.models.checkpoint import Checkpoint
    from ltx2core.runs.events import Event, Phase

_T = TypeVar("_T")

VIDEO_PASS = 1  # raise one when the code below it, or in data/ and models/latents.py or text.py, gives other values
AUDIO_PASS = 1
MASK_PASS = 1
TEXT_PASS = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class CachedClip:
    """A sample and the names of its entries in the store; source is the file's digest.

    audio is None when it trains video only, video when it trains sound alone; one of them is there.
    """

    sample: Sample
    source: str
    video: str | None
    audio: str | None
    captions: tuple[str, ...]
    mask: str | None = None
    reference: str | None = None
    reference_bucket: Bucket | None = None
    features: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class References:
    """How references are seen: `smaller` times less on each side, `slower` times fewer frames a second."""

    smaller: int = 1
    slower: int = 1

    def bucket(self, bucket: Bucket) -> Bucket:
        from ltx2core.data.linked import reference_bucket

        return reference_bucket(bucket, smaller=self.smaller, slower=self.slower)

    def fps(self, fps: float) -> float:
        return fps / self.slower


@dataclass(frozen=True, slots=True, kw_only=True)
class Cached:
    """All that was cached: the clips in the given order, and each text's entry (captions, prompts, the empty caption)."""

    clips: tuple[CachedClip, ...]
    texts: Mapping[str, str]
    references: References = field(default_factory=lambda: References())

    def names(self) -> set[str]:
        """The names of all its entries."""
        return _entries_of(self.clips) | set(self.texts.values())


@dataclass(frozen=True, slots=True, kw_only=True)
class CachePass:
    """What every pass needs: where things are, where they run, whom to tell."""

    store: Store
    checkpoint: Checkpoint
    text_encoder: Path
    device: torch.device
    dtype: torch.dtype
    emit: Callable[[Event], None]
    should_stop: Callable[[], bool] = field(default=lambda: False)
    levers: VaeLevers = field(default_factory=VaeLevers)
    references: References = field(default_factory=lambda: References())
    text: TextSettings = field(default_factory=TextSettings)
    features: FeatureWish | None = None  # what CREPA aligns with; None where nothing is cached for it
    vae_batch: int = 1  # clips of one bucket that are encoded together
    text_batch: int = 1  # captions that are encoded together
    decoders: int = field(default_factory=usable_cores)  # processes
    ahead_bytes: int = field(default_factory=lambda: _room_ahead())  # of clips that are decoded and wait for the encoder

    def run(self, samples: Sequence[Sample], *, audio: bool, prompts: Iterable[str] = ()) -> Cached:
        """Cache all that the samples and prompts need. audio: whether sound is trained on; without it every sample has a picture.

        Raises DatasetError when no clip is left, StorageError when the cache cannot be written, Stopped when asked to.
        """
        digests = Digests(self.store.root / "digests.json")
        files = [file for sample in samples for file in (sample.clip.path, sample.mask, sample.reference) if file is not None]
        digests.learn(files, should_stop=self.should_stop)
        clips = self._name(samples, digests, audio=audio)
        digests.save()
        texts = self._texts_of(clips, prompts)
        self._check_room(clips, texts)
        self._check_text_encoder(texts)
        broken = encode_pictures(self, [clip for clip in clips if clip.video]) | read_masks(self, clips)
        free_memory(self.device)
        broken |= encode_features(self, [clip for clip in clips if clip.video not in broken])
        free_memory(self.device)
        silent = encode_sounds(self, [clip for clip in clips if clip.video not in broken]) if audio else set()
        free_memory(self.device)
        whole = [clip for clip in clips if not broken & {clip.video, clip.mask, clip.reference, clip.features}]
        heard = [replace(clip, audio=None) if clip.audio in silent else clip for clip in whole]
        clips = [clip for clip in heard if clip.video or clip.audio]
        if not clips:
            raise DatasetError("Not one clip could be encoded.", fix="The lines above say why; `ltx2tui check` on the folder shows all.")
        needed = {"", *prompts, *(caption for clip in clips for caption in clip.sample.captions)}
        texts = {text: name for text, name in texts.items() if text in needed}
        encode_captions(self, texts)
        free_memory(self.device)
        return Cached(
            clips=tuple(replace(clip, captions=tuple(texts[caption] for caption in clip.sample.captions)) for clip in clips),
            texts=texts,
            references=self.references,
        )

    def recall(self, samples: Sequence[Sample], *, audio: bool, prompts: Iterable[str] = (), names: Collection[str]) -> Cached:
        """What `run` gave in another process, whose entries' names these are; nothing is encoded. A clip that was left out there is not
        among them, and sound that could not be had is not either."""
        named = self._name(samples, Digests(self.store.root / "digests.json"), audio=audio)
        heard = [clip if clip.audio in names else replace(clip, audio=None) for clip in named]
        whole = [clip for clip in heard if (clip.video or clip.audio) and _entries_of([clip]) <= {*names}]
        texts = self._texts_of(whole, prompts)
        return Cached(
            clips=tuple(replace(clip, captions=tuple(texts[caption] for caption in clip.sample.captions)) for clip in whole),
            texts=texts,
            references=self.references,
        )

    def _check_room(self, clips: Sequence[CachedClip], texts: Mapping[str, str]) -> None:
        """Say how much the cache will grow. Raises StorageError when the disk has no room for that."""
        from ltx2core.models.latents import audio_steps_for

        sizes = EntrySizes(self.checkpoint)
        wanted: dict[Kind, dict[str, int]] = {"video": {}, "mask": {}, "features": {}, "audio": {}, "text": {}}
        for clip in clips:
            picture = clip.sample.picture
            if clip.video and picture is not None:
                wanted["video"][clip.video] = sizes.video(picture)
            if clip.reference and clip.reference_bucket:
                wanted["video"][clip.reference] = sizes.video(clip.reference_bucket)
            if clip.mask and picture is not None:
                wanted["mask"][clip.mask] = sizes.mask(picture)
            if clip.features and picture is not None and self.features is not None:
                wanted["features"][clip.features] = sizes.features(picture, self.features.width)
            if clip.audio:
                wanted["audio"][clip.audio] = sizes.audio(audio_steps_for(clip.sample.seconds))
        wanted["text"] = dict.fromkeys(texts.values(), sizes.text())
        missing = {
            kind: [size for name, size in of_kind.items() if not self.store.path(kind, name).exists()] for kind, of_kind in wanted.items()
        }
        if any(missing.values()):
            self.emit(Notice(code="cache_room", text=describe_room(self.store.root, missing)))

    def names(self, samples: Sequence[Sample], *, audio: bool, prompts: Iterable[str] = ()) -> set[str]:
        """The names of all entries that `run` would read, whether they exist or not. Reads the clips, loads no encoder."""
        digests = Digests(self.store.root / "digests.json")
        clips = self._name(samples, digests, audio=audio)
        texts = self._texts_of(clips, prompts)
        return _entries_of(clips) | set(texts.values())

    def compare(self, samples: Sequence[Sample], *, most: int) -> Iterator[Compared]:
        """How near the cached latents of so many clips, spread over all, are to the clips. Loads the VAE's decoder."""
        from ltx2core.caching.compare import compare_clips

        clips = self._name(samples, Digests(self.store.root / "digests.json"), audio=False)
        chosen = clips if most >= len(clips) else [clips[index * len(clips) // most] for index in range(most)]
        return compare_clips(self, chosen)

    def _name(self, samples: Sequence[Sample], digests: Digests, *, audio: bool) -> list[CachedClip]:
        video_encoder = self.video_encoder() if any(sample.picture is not None for sample in samples) else ""
        image_encoder = "" if self.features is None else self.features.fingerprint(digests)
        audio_encoder = self.checkpoint.fingerprint("audio_vae") if audio else ""
        clips = []
        for sample in samples:
            try:
                source = digests.of(sample.clip.path)
                mask = None if sample.mask is None else digests.of(sample.mask)
                reference = None if sample.reference is None else digests.of(sample.reference)
                sound = "silence" if sample.silent else source if sample.sound is None else digests.of(sample.sound)
            except OSError as error:
                self.leave_out(sample, f"it cannot be read: {error.strerror}.")
                continue
            cut = cut_of(sample)
            clip = CachedClip(sample=sample, source=source, video=None, audio=None, captions=())
            heard: dict[str, str | int | float | bool] = {"source": sound, "bucket": sample.bucket.label, **cut.time}
            if (picture := sample.picture) is not None:
                heard["fps"] = sample.fps
                parts = {**heard, **cut.place}
                clip = replace(
                    clip,
                    video=self.video_name(source, video_encoder, bucket=picture, fps=sample.fps, cut=cut),
                    mask=fingerprint({**parts, "source": mask, "pass": f"mask {MASK_PASS}"}) if mask else None,
                )
                if image_encoder and not sample.treatment.measured:
                    done = f"features {FEATURES_PASS} {_precision(self.dtype)}"
                    clip = replace(clip, features=fingerprint({**parts, "encoder": image_encoder, "pass": done}))
                if reference:
                    small = self.references.bucket(picture)
                    name = self.video_name(reference, video_encoder, bucket=small, fps=self.references.fps(sample.fps), cut=cut)
                    clip = replace(clip, reference=name, reference_bucket=small)
            if audio and sample.has_sound:
                clip = replace(clip, audio=fingerprint({**heard, "encoder": audio_encoder, "pass": f"audio {AUDIO_PASS}"}))
            clips.append(clip)
        return clips

    def video_name(self, source: str, encoder: str, *, bucket: Bucket, fps: float, cut: Cut | None = None) -> str:
        """The name of a file's frames, by the digest of its bytes. encoder: as `video_encoder` gives it. cut: what of the file shows."""
        done = f"video {VIDEO_PASS}{self._tiles(bucket)}"
        shown = {**cut.time, **cut.place} if cut is not None else {}
        return fingerprint({"source": source, "bucket": bucket.label, "fps": fps, **shown, "encoder": encoder, "pass": done})

    def video_encoder(self) -> str:
        """What frames are encoded with, as part of a name."""
        return f"{self.checkpoint.fingerprint('video_vae')} {_precision(self.dtype)}"

    def _tiles(self, bucket: Bucket) -> str:
        """What tiling adds to a name: nothing for a clip that fits in one tile, whose latents are the same with and without."""
        from ltx2core.models.vae_levers import OVERLAP, TILE, is_tiled

        return f" tiles {TILE}-{OVERLAP}" if self.levers.tiling and is_tiled(width=bucket.width, height=bucket.height) else ""

    def _check_text_encoder(self, texts: Mapping[str, str]) -> None:
        """Refuse before the first clip what would fail after the last one: another model's text encoder, or no memory for it."""
        if all(self.store.path("text", name).exists() for name in texts.values()):
            return
        from ltx2core.models.text import plan_text

        plan_text(self.checkpoint, self.text_encoder, settings=self.text, dtype=self.dtype, device=self.device)

    def _texts_of(self, clips: Sequence[CachedClip], prompts: Iterable[str]) -> dict[str, str]:
        return self._name_texts({"", *prompts, *(caption for clip in clips for caption in clip.sample.captions)})

    def _name_texts(self, texts: set[str]) -> dict[str, str]:
        bits = " int8" if self.text.int8 else ""
        encoder = (
            f"{text_encoder_fingerprint(self.text_encoder)}{bits} {self.checkpoint.fingerprint('connectors')} {_precision(self.dtype)}"
        )
        return {text: fingerprint({"text": text, "encoder": encoder, "pass": f"text {TEXT_PASS}"}) for text in sorted(texts)}

    def missing(self, kind: Kind, wanted: Mapping[str, _T], *, phase: Phase, unit: str) -> dict[str, _T]:
        """What is not in the store, in order; announces the phase."""
        states = {name: self.store.state(kind, name) for name in wanted}
        damaged = [name for name, state in states.items() if state == "damaged"]
        if damaged:
            text = f"{len(damaged)} damaged {kind} cache entries are made again."
            self.emit(Notice(code="cache_damaged", level="warning", text=text, fix="If this repeats, check the disk that holds the cache."))
        missing = {name: item for name, item in wanted.items() if states[name] != "whole"}
        self.emit(PhaseStarted(phase=phase, total=len(missing), unit=unit))
        return missing

    def leave_out(self, sample: Sample, reason: str) -> None:
        text = f"{sample.name} is left out: {reason}"
        self.emit(Notice(code="clip_left_out", level="warning", text=text, fix="Replace the file, then start again."))

    def train_without_sound(self, sample: Sample, reason: str) -> None:
        if sample.picture is None:
            self.leave_out(sample, reason)
            return
        text = f"{sample.name} trains video only: {reason}"
        self.emit(Notice(code="sound_left_out", level="warning", text=text, fix="Encode its sound as AAC, then start again."))

    def check_stop(self) -> None:
        if self.should_stop():
            raise Stopped("Stopped while caching; what was encoded is kept.")


def _entries_of(clips: Iterable[CachedClip]) -> set[str]:
    return {name for clip in clips for name in (clip.video, clip.audio, clip.mask, clip.reference, clip.features) if name}


def _room_ahead() -> int:
    """An eighth of the free memory, at most 4 GiB: eight clips of 121x704x1280, page-locked."""
    return min(4 << 30, available_memory() // 8)


def _precision(dtype: torch.dtype) -> str:
    """Part of a name: an encoder computes other values in another precision."""
    return str(dtype).removeprefix("torch.")
