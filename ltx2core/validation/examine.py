"""Looks at each sample of a run once it is drawn, and says what is wrong with it. Loads torch.

Remembers what later samples are compared with: the base model's sample of each name, and a small picture of every training clip's latents.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import torch

from ltx2core.data.clip import Bucket
from ltx2core.data.decode import decode_frames
from ltx2core.errors import Ltx2Error
from ltx2core.validation.diagnosis import Circumstances, Nearest, diagnose
from ltx2core.validation.guidance import Guidance
from ltx2core.validation.measures import cells_of, difference, measure_frames, measure_sound

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor

    from ltx2core.caching.passes import CachedClip
    from ltx2core.caching.store import Store
    from ltx2core.runs.events import Notice
    from ltx2core.runs.folder import RunFolder
    from ltx2core.validation.inputs import Take
    from ltx2core.validation.measures import Measured
    from ltx2core.validation.media import Media
    from ltx2core.validation.sampling import SampledLatents

MOST_CLIPS = 512  # that a sample is compared with: a few MB each are read from the cache, once
FEWEST_CLIPS = 4  # below that there is no typical distance between clips
_POOL = (4, 4, 4)  # frames, rows and columns that latents are averaged to: where things are, not how fine
_ODD_FPS = 0.5  # frames a second that a clip's rate may be off


@dataclass(kw_only=True)
class Examiner:
    """Says what is wrong with samples. `clips`: those that are trained on."""

    store: Store
    clips: Sequence[CachedClip]
    folder: RunFolder
    fps: float
    _bases: dict[str, tuple[Measured, NDArray[np.float32]] | None] = field(default_factory=dict)
    _known: tuple[list[str], Tensor, float] | None = None

    def examine(self, step: int, take: Take, latents: SampledLatents, media: Media, *, path: str) -> list[Notice]:
        """What is wrong with a sample, which lies at `path` of the run's folder."""
        shot, settings = take.shot, take.settings
        tensors = [tensor for tensor in (latents.video, latents.audio) if tensor is not None]
        finite = all(bool(torch.isfinite(tensor).all()) for tensor in tensors)
        seen = None if media.frames is None else measure_frames(media.frames)
        heard = None if media.sound is None else measure_sound(media.sound, sample_rate=media.sample_rate)
        base = self._base(step, shot.name, seen, media, settings.frames, settings.fps)
        cells = None if media.frames is None else cells_of(media.frames)
        guidance = settings.guidance.video if isinstance(settings.guidance, Guidance) else settings.guidance
        around = Circumstances(
            step=step,
            prompt=shot.prompt,
            guidance=guidance,
            distilled=settings.sigmas is not None,
            finite=finite,
            spread=float(latents.video.std()) if latents.video is not None and finite else 1.0,
            odd_rates=self._odd_rates(),
            base=None if base is None else base[0],
            difference=None if base is None or cells is None else difference(cells, base[1]),
            nearest=self._nearest(latents.video) if latents.video is not None and finite and shot.first_frame is None else None,
        )
        return [replace(notice, sample=path) for notice in diagnose(seen, heard, around)]

    def _base(
        self, step: int, name: str, seen: Measured | None, media: Media, frames: int, fps: float
    ) -> tuple[Measured, NDArray[np.float32]] | None:
        """The base model's sample of that name: remembered from step 0, or read from its file in a run that was resumed."""
        if step == 0 and seen is not None and media.frames is not None:
            self._bases[name] = (seen, cells_of(media.frames))
        if name not in self._bases:
            self._bases[name] = None
            folder = self.folder.step_folder(self.folder.samples, 0)
            path = (folder / name if name else folder) / "sample.mp4"
            if path.is_file() and media.frames is not None:
                height, width = media.frames.shape[1:3]
                try:
                    found = decode_frames(path, bucket=Bucket(width=width, height=height, frames=frames), fps=fps)
                except (Ltx2Error, ValueError):  # of other sizes, or damaged: there is nothing to compare with
                    return None
                self._bases[name] = (measure_frames(found), cells_of(found))
        return self._bases[name]

    def _odd_rates(self) -> tuple[str, ...]:
        rates = {clip.sample.clip.path.name: clip.sample.clip.fps for clip in self.clips if not clip.sample.clip.still}
        return tuple(f"{name} ({fps:g} fps)" for name, fps in rates.items() if fps and abs(fps - self.fps) > _ODD_FPS)

    def _nearest(self, video: Tensor) -> Nearest | None:
        """The training clip that the sample is most like, None where there are too few to tell what is near."""
        if self._known is None:
            self._known = _look_at(self.store, self.clips)
        names, pooled, typical = self._known
        if len(names) < FEWEST_CLIPS or typical <= 0:
            return None
        distances = (pooled - _pooled(video[0]).to(pooled)).square().mean(dim=1).sqrt()
        index = int(distances.argmin())
        return Nearest(clip=names[index], distance=float(distances[index]) / typical)


def _look_at(store: Store, clips: Sequence[CachedClip]) -> tuple[list[str], Tensor, float]:
    """Names of clips, their pooled latents [N, D], and the median distance of a clip to its nearest neighbour."""
    names, rows = [], []
    for clip in [one for one in clips if one.video and not one.sample.clip.still][:MOST_CLIPS]:
        tensors = store.load("video", clip.video) if clip.video else None
        if tensors is not None:
            names.append(clip.sample.name)
            rows.append(_pooled(tensors["latents"]))
    if len(rows) < 2:
        return names, torch.zeros(0, 1), 0.0
    pooled = torch.stack(rows)
    apart = torch.cdist(pooled, pooled) / pooled.shape[1] ** 0.5
    apart.fill_diagonal_(float("inf"))
    return names, pooled, float(apart.min(dim=1).values.median())


def _pooled(latents: Tensor) -> Tensor:
    """Latents [C, f, h, w] of any size as [D]."""
    return torch.nn.functional.adaptive_avg_pool3d(latents.float().cpu(), _POOL).flatten()
