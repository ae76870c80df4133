"""How numbers are said: durations, sizes, counts. Pure functions, used by the app, the plain output and the errors alike."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ltx2core.runs.events import Phase
    from ltx2tui.state import Change, HeldOut

PHASES: dict[Phase, str] = {
    "scan": "Scanning clips",
    "cache_video": "Caching video",
    "cache_masks": "Caching masks",
    "cache_features": "Caching features for CREPA",
    "cache_audio": "Caching sound",
    "cache_text": "Caching captions",
    "load": "Loading the model",
    "train": "Training",
    "evaluate": "Measuring held-out loss",
    "sample": "Sampling a video",
    "export": "Writing the LoRA",
}


def duration(seconds: float) -> str:
    """A time span in its two largest units: `8 s`, `3 min 20 s`, `2 h 05 min`, `4 d 03 h`."""
    whole = max(0, round(seconds))
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    if whole < 86_400:
        return f"{whole // 3600} h {whole % 3600 // 60:02d} min"
    return f"{whole // 86_400} d {whole % 86_400 // 3600:02d} h"


def clock(seconds: float) -> str:
    """A time span of fixed form: `0:08`, `3:20`, `2:05:00`."""
    whole = max(0, round(seconds))
    hours, rest = divmod(whole, 3600)
    return f"{hours}:{rest // 60:02d}:{rest % 60:02d}" if hours else f"{rest // 60}:{rest % 60:02d}"


def pace(seconds_per_step: float) -> str:
    """How fast steps go: `0.42 s/step`, `12.5 s/step`; under a tenth of a second, `35 ms/step`."""
    if seconds_per_step < 0.1:
        return f"{seconds_per_step * 1000:.0f} ms/step"
    return f"{seconds_per_step:.2f} s/step" if seconds_per_step < 10 else f"{seconds_per_step:.1f} s/step"


def size(value: int) -> str:
    """Bytes in the unit that leaves two or three digits: `640 KiB`, `3.2 GiB`."""
    amount = float(value)
    for unit in ("B", "KiB", "MiB"):
        if amount < 1000:
            return f"{amount:.0f} {unit}"
        amount /= 1024
    return f"{amount:.1f} GiB" if amount < 1000 else f"{amount / 1024:.1f} TiB"


def count(value: int, one: str, many: str = "") -> str:
    """A number with its noun: `1 clip`, `2,000 clips`."""
    return f"{value:,} {one if value == 1 else many or one + 's'}"


def loss(value: float | None) -> str:
    """A loss with four significant places; a dash when there is none."""
    return "–" if value is None or value != value else f"{value:.4f}" if abs(value) < 100 else f"{value:.4g}"


def change(value: Change, *, short: bool = False) -> str:
    """A change against the base model and how sure it is: `-36% ± 2`, or `-36%±2`."""
    text = f"{value.share:+.0%}" if abs(value.share) >= 0.1 or value.share == 0 else f"{value.share:+.1%}"
    if value.band is None:
        return text
    band = f"{100 * value.band:.0f}" if value.band >= 0.1 else f"{100 * value.band:.1f}"
    return f"{text}±{band}" if short else f"{text} ± {band}"


def held_out(point: HeldOut) -> str:
    """A measurement of the held-out loss in a sentence."""
    text = f"Step {point.step:,}: held-out loss {point.loss:.4f}"
    if not point.step:
        return f"{text}."
    if point.change is not None:
        text += f", {change(point.change)} against the base model"
    parts = [f"{name} {change(value)}" for name, value in (("video", point.video), ("audio", point.audio)) if value is not None]
    if len(parts) > 1:
        text += f" ({', '.join(parts)})"
    return f"{text}; the lowest so far." if point.best else f"{text}."
