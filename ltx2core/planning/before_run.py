"""What is predicted for a config on the machine that it is about to run on, and the warnings that follow. Loads no torch."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from ltx2core.data.clip import Times
from ltx2core.errors import ConfigError
from ltx2core.hardware.before_start import warnings_before
from ltx2core.planning.clips import ClipShape
from ltx2core.planning.document import count_clips, version_in_header
from ltx2core.planning.hardware import hardware_of
from ltx2core.planning.history import correction
from ltx2core.planning.predict import Prediction, forecast_of, predict
from ltx2core.planning.samples import reference_factors
from ltx2core.runs.events import Notice

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from ltx2core.config.load import LoadedConfig
    from ltx2core.config.train import TrainConfig
    from ltx2core.data.clip import Sample
    from ltx2core.hardware.machine import Machine
    from ltx2core.planning.hardware import Hardware


def hardware_here(machine: Machine, root: Path) -> Hardware | None:
    """The card that a run would take, its speed corrected by the runs below `root`; None where no card can be used."""
    found = hardware_of(machine)
    return None if found is None else replace(found, correction=correction(root, found))


@dataclass(frozen=True, slots=True, kw_only=True)
class LargestBatch:
    """The batch of a run that has the most tokens of pictures, references counted: its clips, and how many of them. reference: tokens of
    what each refers to."""

    clip: ClipShape
    count: int
    reference: int = 0

    @property
    def clip_tokens(self) -> int:
        """Of one clip, its reference counted."""
        return self.clip.tokens + self.reference

    @property
    def tokens(self) -> int:
        return self.count * self.clip_tokens


def predicted_for(
    hardware: Hardware | None, loaded: LoadedConfig, *, largest: LargestBatch | None = None, clips: int | None = None
) -> Prediction | None:
    """What a run of this config will need; None without a card, and for what is not predicted (nano, sound alone, the reference).

    largest, clips: its largest batch, and how many clips are trained on, once a scan has found them.
    """
    if hardware is None:
        return None
    datasets = loaded.datasets if loaded.datasets.videos else None
    try:
        return predict(
            loaded.config,
            hardware,
            datasets=datasets,
            clips=count_clips(loaded) if clips is None else clips,
            clip=None if largest is None else largest.clip,
            batch=None if largest is None else largest.count,
            version=version_in_header(loaded),
        )
    except ConfigError:
        return None


def largest_batch(samples: Iterable[Sample], config: TrainConfig) -> LargestBatch | None:
    """Among those that samples make as training groups them: by size, length and reference, and by dataset where one comes at times of its
    own. None where nothing has pictures.

    A dataset's own train_batch_size comes before max_tokens_per_batch, and that before the config's; a group of few clips fills no batch.
    """
    samples = list(samples)
    apart = any(sample.treatment.times != Times() for sample in samples)
    visits: dict[tuple[str, ClipShape, int, int], int] = {}
    for sample in samples:
        if (bucket := sample.picture) is not None:
            shape = ClipShape(width=bucket.width, height=bucket.height, frames=bucket.frames, fps=sample.fps)
            reference = 0 if sample.reference is None else shape.as_reference(**reference_factors(config)).tokens
            size = sample.treatment.batch_size or config.train_batch_size
            if sample.treatment.batch_size is None and config.max_tokens_per_batch is not None:
                heard = shape.sound_tokens if sample.has_sound else 0
                size = max(1, config.max_tokens_per_batch // (shape.tokens + heard + reference))
            group = (sample.treatment.dataset if apart else "", shape, size, reference)
            visits[group] = visits.get(group, 0) + sample.repeats + 1
    found = (LargestBatch(clip=shape, count=min(size, count), reference=tokens) for (_, shape, size, tokens), count in visits.items())
    return max(found, key=lambda batch: (batch.tokens, batch.clip_tokens), default=None)


def warnings_of(machine: Machine, loaded: LoadedConfig, *, root: Path) -> list[Notice]:
    """What should be known before a run starts. root: where its cache lies; what is in it already need not be written."""
    prediction = predicted_for(hardware_here(machine, root), loaded)
    if prediction is None:
        return warnings_before(machine, loaded)
    cached = (root / "cache").is_dir()
    found = warnings_before(machine, loaded, forecast=forecast_of(prediction, cached=cached))
    needed = ("train",) if cached else ("text", "train")  # a phase that has no room at all is not there
    if prediction.misfit is not None and any(prediction.phase(name) is None for name in needed):
        found.append(Notice(code="does_not_fit", level="warning", text=prediction.misfit, fix="`ltx2tui plan` recommends what fits."))
    return found
