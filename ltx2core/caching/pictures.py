"""The passes that make what is seen: latents of clips and of their references, and the tokens that masks give."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ltx2core.caching.clips import encode_clips
from ltx2core.errors import DatasetError

if TYPE_CHECKING:
    from collections.abc import Sequence

    import torch

    from ltx2core.caching.passes import CachedClip, CachePass


def encode_pictures(work: CachePass, clips: Sequence[CachedClip]) -> set[str]:
    """Encode the frames that are missing, of references too; the entries that could not be made come back."""
    references = {clip.reference: clip for clip in clips if clip.reference}
    missing = work.missing("video", references | {clip.video: clip for clip in clips}, phase="cache_video", unit="clips")
    if not missing:
        return set()
    import torch

    from ltx2core.data.decode import decode_frames
    from ltx2core.data.linked import decode_linked
    from ltx2core.models.components import load_video_vae
    from ltx2core.models.latents import encode_video

    vae = load_video_vae(work.checkpoint, dtype=work.dtype, device=work.device, half="encoder")

    def encode(name: str, clip: CachedClip) -> dict[str, torch.Tensor]:
        sample = clip.sample
        if name == clip.reference and sample.reference is not None and clip.reference_bucket is not None:
            frames = decode_linked(sample.reference, bucket=clip.reference_bucket, fps=work.references.fps(sample.fps))
        else:
            frames = decode_frames(sample.clip.path, bucket=sample.bucket, fps=sample.fps, rotation=sample.clip.rotation)
        pixels = torch.from_numpy(frames).permute(3, 0, 1, 2)[None].float() / 127.5 - 1
        return {"latents": encode_video(vae, pixels, levers=work.levers)[0].to(torch.bfloat16)}

    return encode_clips(work, "video", missing, encode, phase="cache_video", tell=work.leave_out)


def read_masks(work: CachePass, clips: Sequence[CachedClip]) -> set[str]:
    """Read the masks that are missing; the entries that could not be made come back."""
    wanted = {clip.mask: clip for clip in clips if clip.mask}
    missing = work.missing("mask", wanted, phase="cache_masks", unit="masks") if wanted else {}
    if not missing:
        return set()
    import torch

    from ltx2core.data.linked import decode_linked, mask_tokens

    def encode(_name: str, clip: CachedClip) -> dict[str, torch.Tensor]:
        sample = clip.sample
        if sample.mask is None:
            raise DatasetError("it has no mask.")
        frames = decode_linked(sample.mask, bucket=sample.bucket, fps=sample.fps)
        return {"given": torch.from_numpy(mask_tokens(frames)).flatten()}

    return encode_clips(work, "mask", missing, encode, phase="cache_masks", tell=work.leave_out)
