"""Fills a cache from a folder of 64x64 clips of nine frames, with nano. Run as a process, it tells each entry, to be killed at one."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from ltx2core.caching.passes import CachePass
from ltx2core.caching.store import Store
from ltx2core.data.clip import AudioTrack, Bucket, Clip, Sample
from ltx2core.models.checkpoint import open_checkpoint
from ltx2core.models.nano import nano_checkpoint, nano_text_encoder
from ltx2core.runs.events import Progress

if TYPE_CHECKING:
    from ltx2core.runs.events import Event


def fill(folder: Path, cache: Path) -> None:
    """Cache every clip with its sound, captioned with its name."""
    track = AudioTrack(sample_rate=16000, channels=2, seconds=0.36, codec="aac")
    bucket = Bucket(width=64, height=64, frames=9)
    samples = [
        Sample(clip=Clip(path=path, width=64, height=64, frames=9, fps=25, audio=track), bucket=bucket, fps=25.0, captions=(path.stem,))
        for path in sorted(folder.glob("*.mp4"))
    ]
    CachePass(
        store=Store(cache),
        checkpoint=open_checkpoint(nano_checkpoint()),
        text_encoder=nano_text_encoder(),
        device=torch.device("cpu"),
        dtype=torch.float32,
        emit=tell,
        decoders=1,
    ).run(samples, audio=True)


def tell(event: Event) -> None:
    if isinstance(event, Progress):
        print(event.phase, event.done, flush=True)


def main() -> None:
    torch.set_num_threads(1)
    fill(Path(sys.argv[1]), Path(sys.argv[2]))
    print("whole", flush=True)


if __name__ == "__main__":
    main()
