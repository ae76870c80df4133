"""Makes what training reads: video latents, audio latents, and text after the connectors. One encoder is in memory at a time.

Only what is not in the store yet is encoded; when nothing is missing no encoder is loaded. A clip that cannot be decoded is left
out with a Notice, one whose sound cannot be trains video only if it has a picture to train, and the rest goes on.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, TypeVar

from ltx2core.caching.fingerprint import Digests, fingerprint
from ltx2core.errors import DatasetError, Stopped
from ltx2core.models.text import TextSettings, text_encoder_fingerprint
from ltx2core.runs.events import Notice, PhaseStarted, Progress

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from pathlib import Path

    import torch

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
    tiled: bool = False  # encode pictures larger than a tile in tiles
    references: References = field(default_factory=lambda: References())
    text: TextSettings = field(default_factory=TextSettings)

    def run(self, samples: Sequence[Sample], *, audio: bool, prompts: Iterable[str] = ()) -> Cached:
        """Cache all that the samples and prompts need. audio: whether sound is trained on; without it every sample has a picture.

        Raises DatasetError when no clip is left, StorageError when the cache cannot be written, Stopped when asked to.
        """
        digests = Digests(self.store.root / "digests.json")
        clips = self._name(samples, digests, audio=audio)
        digests.save()
        self._check(clips, self._texts_of(clips, prompts))
        broken = self._video([clip for clip in clips if clip.video]) | self._masks(clips)
        free_memory(self.device)
        silent = self._audio([clip for clip in clips if clip.video not in broken]) if audio else set()
        free_memory(self.device)
        whole = [clip for clip in clips if not broken & {clip.video, clip.mask, clip.reference}]
        heard = [replace(clip, audio=None) if clip.audio in silent else clip for clip in whole]
        clips = [clip for clip in heard if clip.video or clip.audio]
        if not clips:
            raise DatasetError("Not one clip could be encoded.", fix="The lines above say why; `ltx2tui check` on the folder shows all.")
        texts = self._texts_of(clips, prompts)
        self._text(texts)
        free_memory(self.device)
        return Cached(
            clips=tuple(replace(clip, captions=tuple(texts[caption] for caption in clip.sample.captions)) for clip in clips),
            texts=texts,
            references=self.references,
        )

    def names(self, samples: Sequence[Sample], *, audio: bool, prompts: Iterable[str] = ()) -> set[str]:
        """The names of all entries that `run` would read, whether they exist or not. Reads the clips, loads no encoder."""
        digests = Digests(self.store.root / "digests.json")
        clips = self._name(samples, digests, audio=audio)
        texts = self._texts_of(clips, prompts)
        named = {name for clip in clips for name in (clip.video, clip.audio, clip.mask, clip.reference) if name}
        return named | set(texts.values())

    def _name(self, samples: Sequence[Sample], digests: Digests, *, audio: bool) -> list[CachedClip]:
        video_encoder = self.video_encoder() if any(sample.picture is not None for sample in samples) else ""
        audio_encoder = self.checkpoint.fingerprint("audio_vae") if audio else ""
        clips = []
        for sample in samples:
            try:
                source = digests.of(sample.clip.path)
                mask = None if sample.mask is None else digests.of(sample.mask)
                reference = None if sample.reference is None else digests.of(sample.reference)
            except OSError as error:
                self._leave_out(sample, f"it cannot be read: {error.strerror}.")
                continue
            clip = CachedClip(sample=sample, source=source, video=None, audio=None, captions=())
            parts: dict[str, str | int | float | bool] = {"source": source, "bucket": sample.bucket.label}
            if (picture := sample.picture) is not None:
                parts["fps"] = sample.fps
                clip = replace(
                    clip,
                    video=self.video_name(source, video_encoder, bucket=picture, fps=sample.fps),
                    mask=fingerprint({**parts, "source": mask, "pass": f"mask {MASK_PASS}"}) if mask else None,
                )
                if reference:
                    small = self.references.bucket(picture)
                    name = self.video_name(reference, video_encoder, bucket=small, fps=self.references.fps(sample.fps))
                    clip = replace(clip, reference=name, reference_bucket=small)
            if audio and sample.clip.audio is not None:
                clip = replace(clip, audio=fingerprint({**parts, "encoder": audio_encoder, "pass": f"audio {AUDIO_PASS}"}))
            clips.append(clip)
        return clips

    def video_name(self, source: str, encoder: str, *, bucket: Bucket, fps: float) -> str:
        """The name of a file's frames, by the digest of its bytes. encoder: as `video_encoder` gives it."""
        done = f"video {VIDEO_PASS}{self._tiles(bucket)}"
        return fingerprint({"source": source, "bucket": bucket.label, "fps": fps, "encoder": encoder, "pass": done})

    def video_encoder(self) -> str:
        """What frames are encoded with, as part of a name."""
        return f"{self.checkpoint.fingerprint('video_vae')} {_precision(self.dtype)}"

    def _tiles(self, bucket: Bucket) -> str:
        """What tiling adds to a name: nothing for a clip that fits in one tile, whose latents are the same with and without."""
        from ltx2core.models.latents import OVERLAP, TILE, is_tiled

        return f" tiles {TILE}-{OVERLAP}" if self.tiled and is_tiled(width=bucket.width, height=bucket.height) else ""

    def _check(self, clips: Sequence[CachedClip], texts: Mapping[str, str]) -> None:
        """Refuse before the first clip what would fail after the last one: a disk or memory without room, another text encoder."""
        videos = {clip.video: clip.sample.picture for clip in clips} | {clip.reference: clip.reference_bucket for clip in clips}
        missing = {name: bucket for name, bucket in videos.items() if name and bucket and self._is_absent("video", name)}
        sounds = {clip.audio: clip.sample.seconds for clip in clips if clip.audio and self._is_absent("audio", clip.audio)}
        unread = [name for name in texts.values() if self._is_absent("text", name)]
        if missing or sounds or unread:
            from ltx2core.caching.room import EntrySizes, check_disk

            sizes = EntrySizes.of(self.checkpoint.config)
            check_disk(self.store.root, sizes, videos=missing.values(), sounds=sounds.values(), texts=len(unread))
        if unread:
            from ltx2core.models.text import plan_text

            plan_text(self.checkpoint, self.text_encoder, settings=self.text, dtype=self.dtype, device=self.device)

    def _is_absent(self, kind: Kind, name: str) -> bool:
        return not self.store.path(kind, name).exists()

    def _texts_of(self, clips: Sequence[CachedClip], prompts: Iterable[str]) -> dict[str, str]:
        return self._name_texts({"", *prompts, *(caption for clip in clips for caption in clip.sample.captions)})

    def _name_texts(self, texts: set[str]) -> dict[str, str]:
        bits = " int8" if self.text.int8 else ""
        encoder = (
            f"{text_encoder_fingerprint(self.text_encoder)}{bits} {self.checkpoint.fingerprint('connectors')} {_precision(self.dtype)}"
        )
        return {text: fingerprint({"text": text, "encoder": encoder, "pass": f"text {TEXT_PASS}"}) for text in sorted(texts)}

    def _video(self, clips: Sequence[CachedClip]) -> set[str]:
        """Encode the frames that are missing, of references too; the entries that could not be made come back."""
        references = {clip.reference: clip for clip in clips if clip.reference}
        wanted = references | {clip.video: clip for clip in clips if clip.video}
        missing = self._missing("video", wanted, phase="cache_video", unit="clips") if wanted else {}
        if not missing:
            return set()
        import torch

        from ltx2core.data.decode import decode_frames
        from ltx2core.data.linked import decode_linked
        from ltx2core.models.components import load_video_vae
        from ltx2core.models.latents import encode_video

        vae = load_video_vae(self.checkpoint, dtype=self.dtype, device=self.device)

        def encode(name: str, clip: CachedClip) -> dict[str, torch.Tensor]:
            sample = clip.sample
            if name == clip.reference and sample.reference is not None and clip.reference_bucket is not None:
                frames = decode_linked(sample.reference, bucket=clip.reference_bucket, fps=self.references.fps(sample.fps))
            elif sample.picture is not None:
                frames = decode_frames(sample.clip.path, bucket=sample.picture, fps=sample.fps, rotation=sample.clip.rotation)
            else:
                raise DatasetError("it trains sound alone.")
            pixels = torch.from_numpy(frames).permute(3, 0, 1, 2)[None].float() / 127.5 - 1
            return {"latents": encode_video(vae, pixels, tiled=self.tiled)[0].to(torch.bfloat16)}

        return self._encode_clips("video", missing, encode, phase="cache_video", tell=self._leave_out)

    def _masks(self, clips: Sequence[CachedClip]) -> set[str]:
        """Read the masks that are missing; the entries that could not be made come back."""
        wanted = {clip.mask: clip for clip in clips if clip.mask}
        missing = self._missing("mask", wanted, phase="cache_masks", unit="masks") if wanted else {}
        if not missing:
            return set()
        import torch

        from ltx2core.data.linked import decode_linked, mask_tokens

        def encode(_name: str, clip: CachedClip) -> dict[str, torch.Tensor]:
            sample = clip.sample
            if sample.mask is None or sample.picture is None:
                raise DatasetError("it has no mask.")
            frames = decode_linked(sample.mask, bucket=sample.picture, fps=sample.fps)
            return {"given": torch.from_numpy(mask_tokens(frames)).flatten()}

        return self._encode_clips("mask", missing, encode, phase="cache_masks", tell=self._leave_out)

    def _audio(self, clips: Sequence[CachedClip]) -> set[str]:
        """Encode the sound that is missing; the entries that could not be made come back."""
        silent = [clip.sample.clip.path.name for clip in clips if clip.audio is None]
        if silent:
            shown = ", ".join(silent[:10]) + (f" and {len(silent) - 10} more" if len(silent) > 10 else "")
            self.emit(Notice(code="clips_without_audio", text=f"{len(silent)} clips have no sound and train video only: {shown}."))
        missing = self._missing("audio", {clip.audio: clip for clip in clips if clip.audio}, phase="cache_audio", unit="clips")
        if not missing:
            return set()
        import torch

        from ltx2core.data.clip import AUDIO_LATENTS_PER_SECOND
        from ltx2core.data.sound import read_sound
        from ltx2core.models.components import load_audio_vae
        from ltx2core.models.latents import SAMPLE_RATE, audio_steps_for, encode_sound

        audio_vae = load_audio_vae(self.checkpoint, dtype=torch.float32, device=self.device)  # 0.1 GiB; bf16 costs it quality

        def encode(_name: str, clip: CachedClip) -> dict[str, torch.Tensor]:
            sample = clip.sample
            sound = read_sound(sample.clip.path, seconds=sample.seconds, sample_rate=SAMPLE_RATE)
            if sound is None:
                raise DatasetError("its sound is gone since the scan.")
            steps = audio_steps_for(sample.seconds)
            latents = encode_sound(audio_vae, torch.from_numpy(sound.samples)[None].to(self.device), steps=steps)[0]
            learned = min(steps, -(-sound.valid * AUDIO_LATENTS_PER_SECOND // SAMPLE_RATE))  # the rest is padding after its end
            return {"latents": latents.to(torch.bfloat16), "learned": torch.arange(latents.shape[1]) < learned}

        return self._encode_clips("audio", missing, encode, phase="cache_audio", tell=self._train_without_sound)

    def _text(self, texts: Mapping[str, str]) -> None:
        missing = self._missing("text", {name: text for text, name in texts.items()}, phase="cache_text", unit="captions")
        if not missing:
            return
        import torch

        from ltx2core.models.text import load_text_models

        models = load_text_models(self.checkpoint, self.text_encoder, settings=self.text, dtype=self.dtype, device=self.device)
        if self.device.type == "cuda" or self.text != TextSettings():
            self.emit(Notice(code="text_encoder", text=f"Captions: {models.placement.because}."))
        for done, (name, text) in enumerate(missing.items(), start=1):
            self._check_stop()
            (embedding,) = models.embed([text])
            tensors = {"video": embedding.video.to(torch.bfloat16), "audio": embedding.audio.to(torch.bfloat16)}
            self.store.save("text", name, tensors, source=text)
            self.emit(Progress(phase="cache_text", done=done, total=len(missing), item=text[:80]))

    def _encode_clips(
        self,
        kind: Kind,
        missing: Mapping[str, CachedClip],
        encode: Callable[[str, CachedClip], dict[str, torch.Tensor]],
        *,
        phase: Phase,
        tell: Callable[[Sample, str], None],
    ) -> set[str]:
        broken = set()
        for done, (name, clip) in enumerate(missing.items(), start=1):
            self._check_stop()
            try:
                self.store.save(kind, name, encode(name, clip), source=clip.sample.clip.path.name)
            except DatasetError as error:
                broken.add(name)
                tell(clip.sample, error.text)
            self.emit(Progress(phase=phase, done=done, total=len(missing), item=clip.sample.clip.path.name))
        return broken

    def _missing(self, kind: Kind, wanted: Mapping[str, _T], *, phase: Phase, unit: str) -> dict[str, _T]:
        """What is not in the store, in order; announces the phase."""
        states = {name: self.store.state(kind, name) for name in wanted}
        damaged = [name for name, state in states.items() if state == "damaged"]
        if damaged:
            text = f"{len(damaged)} damaged {kind} cache entries are made again."
            self.emit(Notice(code="cache_damaged", level="warning", text=text, fix="If this repeats, check the disk that holds the cache."))
        missing = {name: item for name, item in wanted.items() if states[name] != "whole"}
        self.emit(PhaseStarted(phase=phase, total=len(missing), unit=unit))
        return missing

    def _leave_out(self, sample: Sample, reason: str) -> None:
        text = f"{sample.clip.path.name} is left out: {reason}"
        self.emit(Notice(code="clip_left_out", level="warning", text=text, fix="Replace the file, then start again."))

    def _train_without_sound(self, sample: Sample, reason: str) -> None:
        if sample.picture is None:
            self._leave_out(sample, reason)
            return
        text = f"{sample.clip.path.name} trains video only: {reason}"
        self.emit(Notice(code="sound_left_out", level="warning", text=text, fix="Encode its sound as AAC, then start again."))

    def _check_stop(self) -> None:
        if self.should_stop():
            raise Stopped("Stopped while caching; what was encoded is kept.")


def _precision(dtype: torch.dtype) -> str:
    """Part of a name: an encoder computes other values in another precision."""
    return str(dtype).removeprefix("torch.")


def free_memory(device: torch.device) -> None:
    """Give the memory of dropped modules back to the device."""
    import gc

    gc.collect()
    if device.type == "cuda":
        import torch

        torch.cuda.empty_cache()
