"""The pass that makes latents of the clips' sound."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ltx2core.caching.ahead import Request
from ltx2core.caching.clips import Job, encode_clips
from ltx2core.runs.events import Notice

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from torch import Tensor

    from ltx2core.caching.ahead import Decoded
    from ltx2core.caching.clips import Encode
    from ltx2core.caching.passes import CachedClip, CachePass
    from ltx2core.data.clip import Sample


def encode_sounds(work: CachePass, clips: Sequence[CachedClip]) -> set[str]:
    """Encode the sound that is missing; the entries that could not be made come back."""
    silent = [clip.sample.name for clip in clips if clip.audio is None and not clip.sample.clip.still]
    if silent:
        shown = ", ".join(silent[:10]) + (f" and {len(silent) - 10} more" if len(silent) > 10 else "")
        work.emit(Notice(code="clips_without_audio", text=f"{len(silent)} clips have no sound and train video only: {shown}."))
    missing = work.missing("audio", {clip.audio: clip for clip in clips if clip.audio}, phase="cache_audio", unit="clips")
    if not missing:
        return set()
    from ltx2core.data.clip import AUDIO_LATENTS_PER_SECOND
    from ltx2core.models.latents import SAMPLE_RATE, audio_steps_for, encode_sound

    def load() -> Encode:
        import torch

        from ltx2core.models.components import load_audio_vae

        audio_vae = load_audio_vae(work.checkpoint, dtype=torch.float32, device=work.device)  # 0.1 GiB; bf16 costs it quality

        def encode(sounds: Tensor, jobs: Sequence[Job], found: Sequence[Decoded]) -> list[Mapping[str, Tensor]]:
            steps = audio_steps_for(jobs[0].request.seconds)
            latents = encode_sound(audio_vae, sounds, steps=steps).to(torch.bfloat16)
            # What follows the end of the sound is padding.
            learned = [min(steps, -(-one.valid * AUDIO_LATENTS_PER_SECOND // SAMPLE_RATE)) for one in found]
            count = latents.shape[2]
            return [{"latents": latents[index], "learned": torch.arange(count) < learned[index]} for index in range(len(jobs))]

        return encode

    jobs = [Job(name=name, clip=clip, request=sound_request(clip.sample, SAMPLE_RATE)) for name, clip in missing.items()]
    return encode_clips(work, "audio", jobs, load, phase="cache_audio", tell=work.train_without_sound)


def sound_request(sample: Sample, sample_rate: int) -> Request:
    """The sound of a sample, as long as it is: of its own file, of the one that belongs to it, or silence."""
    return Request(
        kind="silence" if sample.silent else "sound",
        path=str(sample.sound or sample.clip.path),
        seconds=sample.seconds,
        sample_rate=sample_rate,
        start=sample.start,
    )
