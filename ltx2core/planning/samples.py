"""The samples that a config asks for, in numbers: how large, how many, and what each takes to draw. Loads no torch."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, TypedDict

from ltx2core.config.adjust import is_distilled
from ltx2core.config.prompts import BUILT_IN, read_library
from ltx2core.data.segments import snap_frames
from ltx2core.planning.clips import ClipShape

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ltx2core.config.train import TrainConfig

DISTILLED_STEPS, REFINING_STEPS = 8, 3  # validation/sampling.py, which loads torch, has their levels


@dataclass(frozen=True, slots=True, kw_only=True)
class SampleShape:
    """Sample videos. sizes: `each` samples are made of every one of them, `times` times in a run.

    A step computes one forward of `together` samples, with the prompt and without, and `alone` forwards of one, for other guidance.
    refined: steps at full size, without guidance, after the others were made at half of it; 0 for samples of one stage. given: whether they
    start from a first frame. beside: what part of a sample's size and frames the reference has that is seen beside it, None for none.
    """

    sizes: tuple[ClipShape, ...]
    each: int
    times: int
    steps: int
    together: int
    alone: int = 0
    refined: int = 0
    given: bool = False
    beside: ReferenceFactors | None = None

    @property
    def clip(self) -> ClipShape:
        """The largest."""
        return max(self.sizes, key=lambda size: size.tokens)

    @property
    def count(self) -> int:
        """Of a run."""
        return self.times * self.each * len(self.sizes)

    def with_clip(self, clip: ClipShape) -> SampleShape:
        """Samples of this size alone."""
        return replace(self, sizes=(clip,))

    def tokens(self, size: ClipShape) -> int:
        """That a forward of one sample of this size sees of pictures."""
        return size.tokens + (0 if self.beside is None else size.as_reference(**self.beside).tokens)

    def forwards(self, size: ClipShape) -> Iterator[tuple[ClipShape, int, int]]:
        """What drawing one sample of a size computes: size, samples in a forward, how many forwards."""
        half = replace(size, width=size.width // 2, height=size.height // 2) if self.refined else size
        yield half, self.together, self.steps
        if self.alone:
            yield half, 1, self.steps * self.alone
        if self.refined:
            yield size, 1, self.refined


class ReferenceFactors(TypedDict):
    """What part of a clip's size and frames its reference has."""

    smaller: int
    slower: int


def reference_factors(config: TrainConfig) -> ReferenceFactors:
    return {"smaller": config.ltx2_reference_spatial_scale_factor or 1, "slower": config.ltx2_reference_temporal_scale_factor}


def sample_shape(
    config: TrainConfig, steps: int | None, *, audio: bool, references: bool = False, pictures: bool = True
) -> SampleShape | None:
    """The samples of a run of so many steps; None where none are made. references: whether the clips have any; pictures: whether samples of
    them start from a picture where nothing is said of it, as those do that are not linked to a dataset of sound."""
    if config.validation_disable:
        return None
    frames = snap_frames(config.validation_num_video_frames)
    distilled = is_distilled(config)
    guided = not distilled and (config.validation_guidance != 1 or (audio and config.sound_guidance != 1))
    gives = config.validation_dataset_gives
    alone = 0 if distilled else bool(config.ltx2_validation_stg_scale) + (audio and config.ltx2_validation_modality_guidance != 1)
    return SampleShape(
        sizes=tuple(
            ClipShape(width=width, height=height, frames=frames, fps=config.frame_rate) for height, width in config.validation_sizes
        ),
        each=_scenes(config) * config.num_validation_images * _adapter_sets(config),
        times=sum(1 for _ in _sample_steps(config, steps)),
        steps=DISTILLED_STEPS if distilled else config.validation_num_inference_steps,
        together=2 if guided else 1,
        alone=int(alone),
        refined=REFINING_STEPS if config.ltx2_validation_pipeline_mode == "spatial-upscale" else 0,
        given=config.validation_using_datasets and (pictures if gives == "auto" else gives != "sound"),
        beside=reference_factors(config)
        if config.validation_ltx2_video_conditioning or (references and config.ltx2_reference_conditioning_probability)
        else None,
    )


def _scenes(config: TrainConfig) -> int:
    """Prompts or clips that samples are made of; a library that cannot be read is refused when the config is."""
    if config.validation_using_datasets:
        return config.num_eval_images
    own = 0
    if config.user_prompt_library is not None and config.user_prompt_library.is_file():
        own = len(read_library(config.user_prompt_library, file="config", key="user_prompt_library", problems=[], notes=[]))
    return max(1, bool(config.validation_prompt) + own + (len(BUILT_IN) if config.validation_prompt_library else 0))


def _adapter_sets(config: TrainConfig) -> int:
    sets = len(config.sample_adapters)
    return max(1, sets + (config.validation_adapter_mode == "comparison"))


def _sample_steps(config: TrainConfig, steps: int | None) -> Iterator[int]:
    """The steps after which samples are made: before training, every interval, and at the end."""
    interval = config.validation_step_interval
    if not interval:
        return
    if not config.disable_benchmark:
        yield 0
    yield from range(interval, (steps or 0) + 1, interval)
    if steps and steps % interval:
        yield steps
