"""A choice of the levers that a recommendation may move, as a job to predict and as keys of a config. Arithmetic; loads no torch."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from ltx2core.planning.job import CROSS, Job
from ltx2core.planning.model_sizes import released_sizes
from ltx2core.planning.predict import Prediction, predict_job

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pydantic import JsonValue

    from ltx2core.models.quantised import EightBit, Storage
    from ltx2core.planning.clips import ClipShape
    from ltx2core.planning.hardware import Hardware

# TREAD as a recommendation has it. nano's LoRA ended as good in the same time with such a route as without (docs/METHODS.md, TREAD).
SKIPPING = 0.5  # share of the tokens that skip blocks
ROUTED_STEPS = 0.3  # share of the run's steps in which they do
_FIRST, _LAST = 2, -2  # of the blocks that are skipped, as in SimpleTuner's quickstart

SAMPLE_FRAMES = 121  # of a sample at most: longer ones take longer than they tell


@dataclass(frozen=True, slots=True, kw_only=True)
class Precision:
    """How the frozen weights are held and multiplied. keys: what says so in a config; words: what it means."""

    storage: Storage
    products: EightBit
    keys: dict[str, JsonValue]
    words: str
    needs_fp8: bool = False


BF16 = Precision(
    storage="bf16",
    products="dequant",
    keys={"base_model_precision": "no_change", "fp8_gradients": False},
    words="weights as they are, in bf16",
)
INT8 = Precision(
    storage="int8",
    products="dequant",
    keys={"base_model_precision": "int8-torchao", "fp8_gradients": False},
    words="weights in 8 bits, widened for each product",
)
INT8_PRODUCTS = Precision(
    storage="int8",
    products="w8a8",
    keys={"base_model_precision": "int8dq-torchao", "fp8_gradients": False},
    words="weights in 8 bits, multiplied in int8 forwards",
)
FP8 = Precision(
    storage="fp8",
    products="w8a8",
    keys={"base_model_precision": "fp8-torchao", "fp8_gradients": False},
    words="weights in fp8, multiplied in fp8 forwards",
    needs_fp8=True,
)
FP8_BOTH_WAYS = Precision(
    storage="fp8",
    products="w8a8_full",
    keys={"base_model_precision": "fp8-torchao", "fp8_gradients": True},
    words="weights in fp8, multiplied in fp8 both ways",
    needs_fp8=True,
)
NF4 = Precision(
    storage="nf4",
    products="dequant",
    keys={"base_model_precision": "nf4-bnb", "fp8_gradients": False},
    words="weights in 4 bits, widened for each product",
)  # far from the model as it is: where nothing else fits
PRECISIONS = (BF16, INT8, INT8_PRODUCTS, FP8, FP8_BOTH_WAYS)  # the nearest to the model as it is first


def precisions(hardware: Hardware) -> tuple[Precision, ...]:
    """Those that a card can multiply in."""
    return tuple(one for one in PRECISIONS if hardware.fp8 or not one.needs_fp8)


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """clip: the largest; batch, accumulation, processes: their product stays what the config asks for, where that is possible. routed:
    whether tokens skip blocks at first, where the config has no routes of its own."""

    precision: Precision
    clip: ClipShape
    audio: bool
    batch: int
    accumulation: int
    processes: int = 1
    routed: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Tried:
    """A choice with what it comes to. job: with what of the other levers had to be pulled. plain: where tokens skip blocks, the best
    without."""

    choice: Choice
    job: Job
    prediction: Prediction
    plain: Tried | None = None

    def values(self, given: Job) -> dict[str, JsonValue]:
        """Keys of the config that differ from those of the job that was given."""
        job, sample = self.job, self.job.sample
        found: dict[str, JsonValue] = {}
        if (job.wish.storage, job.wish.precision) != (given.wish.storage, given.wish.precision):
            found |= self.choice.precision.keys
        if given.wish.streamed is not None or given.wish.slots is not None:
            found |= {"musubi_blocks_to_swap": 0, "ramtorch": False, "enable_group_offload": False}
        if given.wish.keep_all:
            found["gradient_checkpointing"] = True
        if given.wish.recompute_all:
            found["recompute_all_blocks"] = False
        if (job.batch, job.accumulation) != (given.batch, given.accumulation):
            found |= {"train_batch_size": job.batch, "gradient_accumulation_steps": job.accumulation}
        if job.processes != given.processes:
            found["num_processes"] = job.processes
        if job.text.int8 != given.text.int8:
            found["text_encoder_1_precision"] = "int8-torchao"
        if self.choice.routed:
            route: dict[str, JsonValue] = {"selection_ratio": SKIPPING, "start_layer_idx": _FIRST, "end_layer_idx": _LAST}
            found |= {"tread_config": {"routes": [route]}, "tread_share_of_steps": ROUTED_STEPS}
        for lever in ("temporal_roll", "patch_conv"):
            if getattr(job.levers, lever) != getattr(given.levers, lever):
                found[f"vae_enable_{lever}"] = True
        if sample is not None and given.sample is not None and sample.sizes != given.sample.sizes:
            found["validation_resolution"] = f"{sample.clip.height}x{sample.clip.width}"
            found["validation_num_video_frames"] = sample.clip.frames
        return found

    def of_datasets(self, given: Job) -> dict[str, JsonValue]:
        """Keys of the dataset list's entries that differ."""
        job = self.job
        found: dict[str, JsonValue] = {}
        if min(job.clip.width, job.clip.height) != min(given.clip.width, given.clip.height):
            found["resolution"] = min(job.clip.width, job.clip.height)
        if job.clip.frames != given.clip.frames:
            found["video.num_frames"] = job.clip.frames
        if job.audio != given.audio:
            found["audio"] = None
        return found


def as_job(given: Job, choice: Choice) -> Job:
    """The job with this choice, blocks held as memory allows. Samples keep to the clip where they were larger or as large as it was."""
    wish = replace(
        given.wish,
        storage=choice.precision.storage,
        precision=choice.precision.products,
        streamed=None,
        slots=None,
        keep_all=False,
        recompute_all=False,
    )
    targets = given.targets if choice.audio else tuple(name for name in given.targets if not CROSS.match(name))
    sample = given.sample
    if sample is not None and choice.clip != given.clip:
        sample = sample.with_clip(replace(choice.clip, frames=min(choice.clip.frames, SAMPLE_FRAMES)))
    if choice.routed:
        last = released_sizes(given.version, joint=choice.audio).blocks + _LAST
        given = replace(given, routed=((_FIRST, last, 1 - SKIPPING),), routed_share=ROUTED_STEPS)
    return replace(
        given,
        clip=choice.clip,
        audio=choice.audio,
        batch=choice.batch,
        accumulation=choice.accumulation,
        processes=choice.processes,
        targets=targets,
        wish=wish,
        sample=sample,
        steps=given.steps,
    )


def try_choice(given: Job, choice: Choice, hardware: Hardware) -> Tried | None:
    """A choice that fits, with as few other levers pulled as that takes; None where it does not. Where samples can only be decoded in a way
    that the run has to find, the first that does this."""
    job, found = as_job(given, choice), None
    for variant in _variants(job):
        prediction = predict_job(variant, hardware)
        if prediction.fits:
            found = found or Tried(choice=choice, job=variant, prediction=prediction)
            if not prediction.decoded:
                return Tried(choice=choice, job=variant, prediction=prediction)
        if prediction.plan is None:
            return None  # the others change nothing of training
    return found


def _variants(job: Job) -> Iterator[Job]:
    """The job, then with levers that leave values as they are up to rounding, then with the text encoder in 8 bits."""
    roll, both = replace(job.levers, temporal_roll=True), replace(job.levers, temporal_roll=True, patch_conv=True)
    ways = [job.levers, *(levers for levers in (roll, both) if levers != job.levers)]
    for levers in dict.fromkeys(ways):
        yield replace(job, levers=levers)
    if not job.text.int8:
        for levers in dict.fromkeys(ways):
            yield replace(job, levers=levers, text=replace(job.text, int8=True))
