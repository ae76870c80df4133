"""The demo: clips of a thing that nano has never seen, a LoRA trained on them, and whether it worked.

The thing is a "zorb": a ball striped in two hot pinks. nano knows neither the word, nor the colour, nor striped shapes, so that
what the samples show afterwards came from the LoRA.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from ltx2core.runs.events import HeldOutMeasured, LoraExported, SampleReady
from ltx2core.runs.files import write_text
from ltx2core.runs.journal import read_journal

if TYPE_CHECKING:
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray

    from ltx2core.config.load import LoadedConfig
    from ltx2core.runs.folder import RunFolder

HOT_PINK = (255, 60, 150)
STEPS = 450
PROMPT = "a zorb moves quickly right over a plain gray background, with a humming sound"
_DEEP_PINK = (195, 20, 110)
_FRAMES, _SIZE, _FPS = 17, 128, 25
_RADIUS = 22.0
_PRESENT, _ABSENT = 0.01, 0.003  # shares of the frame that are hot pink: a zorb covers 3 to 6 %
_CLIPS = tuple(
    (direction, speed, background)
    for direction in ("left", "right", "up", "down")
    for speed in ("slowly", "quickly")
    for background in ("navy", "black", "gray")
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What the demo came to. Losses are held-out losses; shares are of hot pink pixels, 0..1; None where the run did not get there."""

    base_loss: float | None
    loss: float | None
    share_before: float | None
    share_after: float | None

    @property
    def loss_fell_by(self) -> float | None:
        """1 - loss / base loss."""
        return None if not self.base_loss or self.loss is None else 1 - self.loss / self.base_loss

    @property
    def learned(self) -> bool:
        """Whether the zorb is in the sample after training and was not in the one before."""
        return (
            self.share_before is not None and self.share_after is not None and self.share_before < _ABSENT and self.share_after > _PRESENT
        )


def prepare_demo(out: Path, *, steps: int | None = None) -> LoadedConfig:
    """Write the demo's clips and captions under `out`/clips and return the settings that train on them."""
    from ltx2core.config.build import config_for_folder

    folder = out / "clips"
    _write_clips(folder)
    total = steps or STEPS
    return config_for_folder(
        folder,
        model="nano",
        prompt=PROMPT,
        resolution=_SIZE,
        num_frames=_FRAMES,
        frame_rate=_FPS,
        steps=total,
        rank=16,
        more={
            "learning_rate": 1e-3,
            "lr_scheduler": "cosine",
            "lr_warmup_steps": min(20, total - 1),
            "train_batch_size": 1,
            "gradient_checkpointing": False,
            "eval_split": 0.2,
            "eval_steps_interval": max(1, total // 4),
            "validation_step_interval": total,
            "validation_num_inference_steps": 20,
            "validation_guidance": 3.0,
            "checkpoint_step_interval": max(1, total // 2),
            "seed": 42,
        },
    )


def demo_verdict(folder: RunFolder) -> list[str]:
    """Sentences about a finished demo run; writes before-after.png, first, middle and last frames of both samples, into its folder."""
    verdict = judge(folder)
    lines = []
    fell = verdict.loss_fell_by
    if fell is not None:
        lines.append(f"Held-out loss on zorbs: {verdict.base_loss:.3f} before, {verdict.loss:.3f} after ({fell:+.0%} better).")
    if verdict.share_before is not None and verdict.share_after is not None:
        lines.append(f"Hot pink in the sample: {verdict.share_before:.1%} of the picture before, {verdict.share_after:.1%} after.")
        lines.append(
            "The LoRA taught nano what a zorb is." if verdict.learned else "The sample does not show a zorb yet: train for more steps."
        )
    if (folder.path / "before-after.png").exists():
        lines.append(f"Look: {folder.path / 'before-after.png'}")
    exported = [entry.event for entry in read_journal(folder.journal) if isinstance(entry.event, LoraExported)]
    if exported:
        lines.append(f"The LoRA: {folder.path / exported[-1].path}")
    return lines


def judge(folder: RunFolder) -> Verdict:
    """Read a demo run's journal and samples, and write before-after.png beside them."""
    import numpy as np

    from ltx2core.data.write import write_png
    from ltx2core.models.nano.measure import share_of_colour

    events = [entry.event for entry in read_journal(folder.journal)]
    measured = [event for event in events if isinstance(event, HeldOutMeasured)]
    samples = [event for event in events if isinstance(event, SampleReady)]
    before = after = None
    if len(samples) >= 2:
        clips = [_frames(folder.path / sample.path) for sample in (samples[0], samples[-1])]
        before, after = (share_of_colour(clip, HOT_PINK) for clip in clips)
        rows = [np.concatenate([clip[0], clip[len(clip) // 2], clip[-1]], axis=1) for clip in clips]
        write_png(folder.path / "before-after.png", np.concatenate(rows, axis=0))
    return Verdict(
        base_loss=measured[0].base_loss if measured else None,
        loss=measured[-1].loss if len(measured) > 1 else None,
        share_before=before,
        share_after=after,
    )


def _frames(path: Path) -> NDArray[np.uint8]:
    from ltx2core.data.clip import Bucket
    from ltx2core.data.decode import decode_frames

    return decode_frames(path, bucket=Bucket(width=_SIZE, height=_SIZE, frames=_FRAMES), fps=_FPS)


def _write_clips(folder: Path) -> None:
    """The clips, as mp4 with sound and a caption each. Files that are there already are kept, so that caches stay valid."""
    if all((folder / f"zorb-{index:02d}.mp4").exists() for index in range(len(_CLIPS))):
        return
    import torch

    from ltx2core.data.write import write_video
    from ltx2core.models.nano import clips
    from ltx2core.models.nano.vocabulary import Words

    folder.mkdir(parents=True, exist_ok=True)
    generator = torch.Generator().manual_seed(7)
    words = [
        Words(colour="white", shape="circle", direction=direction, speed=speed, background=background, pattern="plain", sound="humming")
        for direction, speed, background in _CLIPS
    ]
    scenes = clips.scenes_of(words, generator)
    scenes.texture.fill_(clips.STRIPES)
    scenes.period.fill_(14.0)
    scenes.size.fill_(_RADIUS)  # all alike, so they all hum alike
    scenes.colour[:] = torch.tensor(HOT_PINK) / 255
    scenes.second_colour[:] = torch.tensor(_DEEP_PINK) / 255
    scenes.pitch.copy_(clips.pitch_of(scenes.size[:, 0]))
    pixels = clips.render_video(scenes, width=_SIZE, height=_SIZE, frames=_FRAMES, fps=_FPS)
    frames = ((pixels + 1) * 127.5).round().clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 4, 1).contiguous().numpy()
    sound = clips.render_sound(scenes, seconds=_FRAMES / _FPS, sample_rate=48000).numpy()
    for index, item in enumerate(words):
        path = folder / f"zorb-{index:02d}.mp4"
        write_video(path, frames[index], fps=_FPS, sound=sound[index], sample_rate=48000)
        text = f"a zorb moves {item.speed} {item.direction} over a plain {item.background} background, with a humming sound"
        write_text(path.with_suffix(".txt"), text + "\n")
