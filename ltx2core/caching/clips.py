"""What the passes over clips share: one after the other, the broken ones named and left out."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ltx2core.errors import DatasetError
from ltx2core.runs.events import Progress

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    import torch

    from ltx2core.caching.passes import CachedClip, CachePass
    from ltx2core.caching.store import Kind
    from ltx2core.data.clip import Sample
    from ltx2core.runs.events import Phase


def encode_clips(
    work: CachePass,
    kind: Kind,
    missing: Mapping[str, CachedClip],
    encode: Callable[[str, CachedClip], dict[str, torch.Tensor]],
    *,
    phase: Phase,
    tell: Callable[[Sample, str], None],
) -> set[str]:
    broken = set()
    for done, (name, clip) in enumerate(missing.items(), start=1):
        work.check_stop()
        try:
            work.store.save(kind, name, encode(name, clip), source=clip.sample.clip.path.name)
        except DatasetError as error:
            broken.add(name)
            tell(clip.sample, error.text)
        work.emit(Progress(phase=phase, done=done, total=len(missing), item=clip.sample.clip.path.name))
    return broken
