"""The pass that makes latents of the clips' sound."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ltx2core.caching.clips import encode_clips
from ltx2core.errors import DatasetError
from ltx2core.runs.events import Notice

if TYPE_CHECKING:
    from collections.abc import Sequence

    import torch

    from ltx2core.caching.passes import CachedClip, CachePass


def encode_sounds(work: CachePass, clips: Sequence[CachedClip]) -> set[str]:
    """Encode the sound that is missing; the entries that could not be made come back."""
    silent = [clip.sample.clip.path.name for clip in clips if clip.audio is None]
    if silent:
        shown = ", ".join(silent[:10]) + (f" and {len(silent) - 10} more" if len(silent) > 10 else "")
        work.emit(Notice(code="clips_without_audio", text=f"{len(silent)} clips have no sound and train video only: {shown}."))
    missing = work.missing("audio", {clip.audio: clip for clip in clips if clip.audio}, phase="cache_audio", unit="clips")
    if not missing:
        return set()
    import torch

    from ltx2core.data.sound import read_sound
    from ltx2core.models.components import load_audio_vae
    from ltx2core.models.latents import AUDIO_LATENTS_PER_SECOND, SAMPLE_RATE, audio_steps_for, encode_sound

    audio_vae = load_audio_vae(work.checkpoint, dtype=torch.float32, device=work.device)  # 0.1 GiB; bf16 costs it quality

    def encode(_name: str, clip: CachedClip) -> dict[str, torch.Tensor]:
        sample = clip.sample
        seconds = sample.bucket.frames / sample.fps
        sound = read_sound(sample.clip.path, seconds=seconds, sample_rate=SAMPLE_RATE)
        if sound is None:
            raise DatasetError("its sound is gone since the scan.")
        steps = audio_steps_for(seconds)
        latents = encode_sound(audio_vae, torch.from_numpy(sound.samples)[None].to(work.device), steps=steps)[0]
        learned = min(steps, -(-sound.valid * AUDIO_LATENTS_PER_SECOND // SAMPLE_RATE))  # the rest is padding after its end
        return {"latents": latents.to(torch.bfloat16), "learned": torch.arange(latents.shape[1]) < learned}

    return encode_clips(work, "audio", missing, encode, phase="cache_audio", tell=work.train_without_sound)
