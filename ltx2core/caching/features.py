"""The pass that makes what CREPA aligns with: an image encoder's features of each clip, at the places of its latents."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from ltx2core.caching.clips import Job, encode_clips
from ltx2core.caching.pictures import frames_request

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from torch import Tensor

    from ltx2core.caching.clips import Encode
    from ltx2core.caching.fingerprint import Digests
    from ltx2core.caching.passes import CachedClip, CachePass

FEATURES_PASS = 1
_FRAMES_AT_ONCE = 16  # of 1,369 patches: 1.1 GB of activations in ViT-g


@dataclass(frozen=True, slots=True, kw_only=True)
class FeatureWish:
    """Which image encoder, and how large it sees frames. frames_at_once: -1 for as many as is usual."""

    folder: Path
    side: int
    frames_at_once: int = -1

    def fingerprint(self, digests: Digests) -> str:
        """Part of the names of entries. Raises OSError when the encoder's files cannot be read."""
        return f"{digests.of(self.folder / 'config.json')} {digests.of(self.folder / 'model.safetensors')} {self.side}"

    @property
    def width(self) -> int:
        """D of its features, from its settings."""
        import json

        return int(json.loads((self.folder / "config.json").read_text(encoding="utf-8"))["hidden_size"])


def encode_features(work: CachePass, clips: Sequence[CachedClip]) -> set[str]:
    """Make the features that are missing; the entries that could not be made come back."""
    wish = work.features
    wanted = {clip.features: clip for clip in clips if clip.features}
    missing = work.missing("features", wanted, phase="cache_features", unit="clips") if wanted else {}
    if not missing or wish is None:
        return set()

    def load() -> Encode:
        import torch

        from ltx2core.models.dino import PatchEncoder
        from ltx2core.models.latents import latent_grid

        at_once = _FRAMES_AT_ONCE if wish.frames_at_once < 1 else wish.frames_at_once
        encoder = PatchEncoder(wish.folder, side=wish.side, frames_at_once=at_once, dtype=work.dtype, device=work.device)

        def encode(frames: Tensor, jobs: Sequence[Job], _: object) -> list[Mapping[str, Tensor]]:
            request = jobs[0].request
            grid = latent_grid(width=request.width, height=request.height, frames=request.frames)
            return [{"features": encoder.of_clip(frames[index], grid=grid).to(torch.bfloat16)} for index in range(len(jobs))]

        return encode

    jobs = [Job(name=name, clip=clip, request=frames_request(clip.sample)) for name, clip in missing.items()]
    return encode_clips(work, "features", jobs, load, phase="cache_features", tell=work.leave_out)
