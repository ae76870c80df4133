"""What a config needs on a machine, phase by phase, whether it fits, how long it takes, and why. Nothing is loaded, no torch.

The step's own layout is planned by step_plan.py, as the run will plan it; the other phases are phases.py's. What does not fit is said with
what misses, and with the one change of the config that would make it fit.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache
from typing import TYPE_CHECKING

from ltx2core.errors import DoesNotFit, RunError
from ltx2core.hardware.before_start import Forecast
from ltx2core.hardware.device_memory import CONTEXT_BYTES
from ltx2core.planning.block_time import compute_factor, measured_speed
from ltx2core.planning.flops import BatchShape
from ltx2core.planning.hardware import Hardware, hardware_named, hardware_of
from ltx2core.planning.host_plan import HostPlan, place_blocks
from ltx2core.planning.job import Job, job_of
from ltx2core.planning.method_costs import alignment_bytes
from ltx2core.planning.model_sizes import ModelSizes, released_sizes, turns_of
from ltx2core.planning.phases import (
    Phase,
    encode_phase,
    forward_seconds,
    host_bytes,
    locked_bytes,
    sample_phase,
    text_phase,
    train_phase,
)
from ltx2core.planning.sample_decoding import decoding
from ltx2core.planning.several import EXCHANGE_BYTES, exchange_seconds, of_all, ram_of_all, with_shared_host
from ltx2core.planning.several import words as several_words
from ltx2core.planning.step_memory import GIB, step_bytes
from ltx2core.planning.step_plan import Layout, StepNeed, StepPlan, StepWish, plan_step
from ltx2core.planning.step_time import STORED_BYTES, StepSpeed, step_seconds
from ltx2core.planning.wishes import within

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ltx2core.config.datasets import DatasetList
    from ltx2core.config.train import TrainConfig
    from ltx2core.planning.clips import ClipShape
    from ltx2core.planning.job import Version
    from ltx2core.planning.samples import SampleShape

__all__ = ["Hardware", "Phase", "Prediction", "forecast_of", "hardware_named", "hardware_of", "predict", "predict_job"]

TEXT_TOKENS = 1024  # every caption is padded to so many
_HELD_OUT_LEVELS = 5
NO_FP8 = "this card multiplies nothing in fp8, so weights are widened for each product: int8-torchao is nearer to the model and as fast"
_TOLD = 0.03  # by how much a measured block has to change compute to be spoken of
_SPREAD = {"measured": 0.1, "card": 0.2}  # of seconds, by where rates are from
_CACHE_TEXT_BYTES = {"2.0": 15_728_640, "2.3": 12_582_912, "2.5": 12_582_912}
_LATENT_BYTES = 256  # 128 channels in bf16, of a token


@dataclass(frozen=True, slots=True, kw_only=True)
class Prediction:
    """plan: None where not even training fits. step_seconds: of an update, all its batches counted. seconds_range: of total_seconds.
    because: a sentence for each choice. misfit: what does not fit, by how much, and what would; None where all fits."""

    job: Job
    plan: StepPlan | None
    phases: tuple[Phase, ...]
    step_seconds: float
    total_seconds: float
    seconds_range: tuple[float, float]
    fits: bool
    because: tuple[str, ...]
    misfit: str | None
    locked_bytes: int = 0
    over_bytes: int = 0  # by how much the worst of all misses
    decoded: str = ""  # how samples are decoded where that does not fit as the config asks
    decode_bytes: int | None = None  # of the card, decoding them as it asks

    @property
    def clips_a_second(self) -> float:
        """How many clips are learned from in a second of training, over all GPUs; 0 where nothing is trained."""
        return self.job.clips_an_update / self.step_seconds if self.step_seconds else 0.0

    @property
    def epoch_seconds(self) -> float | None:
        """Of training on every clip once; None where it is not known how many there are."""
        return None if self.job.clips is None or not self.clips_a_second else self.job.clips / self.clips_a_second

    @property
    def vram_bytes(self) -> int:
        """The peak of the card's memory."""
        return max((phase.vram_bytes for phase in self.phases), default=0)

    @property
    def ram_bytes(self) -> int:
        """The peak of host memory."""
        return max((phase.ram_bytes for phase in self.phases), default=0)

    def phase(self, name: str) -> Phase | None:
        return next((phase for phase in self.phases if phase.name == name), None)


def predict(
    config: TrainConfig,
    hardware: Hardware,
    *,
    clips: int | None = None,
    datasets: DatasetList | None = None,
    clip: ClipShape | None = None,
    batch: int | None = None,
    version: Version | None = None,
) -> Prediction:
    """What a run of this config will need and take. clips: how many are trained on; datasets: where it is known, what is trained of them;
    clip, batch: those of the largest batch, once a scan has found it; version: of the checkpoint, where its header was read.

    Raises ConfigError for what is not predicted (nano, sound alone, the reference engine).
    """
    found = predict_job(job_of(config, datasets=datasets, clips=clips, clip=clip, batch=batch, version=version), hardware)
    if found.fits:
        return found
    from ltx2core.planning.remedies import remedy  # here: it predicts, too

    return replace(found, misfit=f"{found.misfit} {remedy(found.job, hardware)}")


def predict_job(job: Job, hardware: Hardware) -> Prediction:
    """The same of a job, without looking for what would make it fit."""
    asked, job = job.wish, replace(job, wish=within(job.wish, fp8=hardware.fp8))
    sizes = released_sizes(job.version, joint=job.audio)
    alone, hardware = hardware, with_shared_host(hardware, job.processes)
    reserved = CONTEXT_BYTES + (EXCHANGE_BYTES if job.processes > 1 else 0)
    free = hardware.free_bytes if job.limit_bytes is None else min(hardware.free_bytes, job.limit_bytes)
    need, speed = step_need(sizes, job), _speed(sizes, job, hardware, tokens=job.clip.tokens, batch=job.batch)
    exchange = exchange_seconds(need.lora_numbers, job.processes, alone)
    problems: list[_Miss] = []
    phases: list[Phase] = []
    because: list[str] = []
    try:
        text, why = text_phase(
            job.version, job.text, free_bytes=free, ram_bytes=hardware.ram_bytes, captions=job.clips, rates=hardware.rates
        )
        phases.append(text)
        because.append(why)
    except DoesNotFit as error:
        problems.append(_Miss("Encoding captions", error.text, _short_of_text(job, hardware, free)))
    phases.append(
        encode_phase(
            job.version,
            job.clip,
            job.levers,
            together=job.encoded_together,
            audio=job.audio,
            clips=job.clips,
            ram_bytes=hardware.ram_bytes,
            cores=hardware.cores,
            rates=hardware.rates,
        )
    )
    plan, host, decode = None, None, None
    try:
        plan = _planned(need, job.wish, free - reserved, speed)
        host = _host(need, plan, job, hardware)
    except RunError as error:
        problems.append(_Miss("Training", error.text, _short_of_training(need, plan, free, hardware)))
    if plan is not None and host is not None:
        because = [*plan.because, *filter(None, [host.because]), *_of_rollouts(plan, need, speed), *_of_block(hardware), *because]
        because += [NO_FP8] if job.wish != asked else []
        decode = decoding(job, need, plan, host, hardware, free)
        because += [f"decoding samples as asked does not fit: {decode.other}"] if decode is not None and decode.other else []
        phases += _of_training(sizes, job, need, plan, host, speed, hardware, exchange, decode=None if decode is None else decode.phase)
        if job.processes > 1:
            because.insert(0, several_words(need.lora_numbers, job.processes, job.clips_an_update, alone))
    phases = [of_all(phase, job.processes) for phase in phases]
    if hardware.cards is not None and job.processes > hardware.cards:
        missing = (
            f"num_processes = {job.processes} needs as many GPUs, and there {'is' if hardware.cards == 1 else 'are'} {hardware.cards}."
        )
        problems.append(_Miss("Training", missing, 1))
    problems += _over(phases, free, hardware)
    seconds = [phase.seconds for phase in phases if phase.seconds is not None]
    total = sum(seconds)
    spread = _SPREAD[hardware.rates.source]
    step_seconds = 0.0 if plan is None or plan.seconds is None else plan.seconds * job.accumulation + exchange
    ram = {} if plan is None or host is None else ram_of_all(host_bytes(need, plan, waiting=host.waiting), job.processes)
    return Prediction(
        job=job,
        plan=plan,
        phases=tuple(phases),
        step_seconds=step_seconds,
        total_seconds=total,
        seconds_range=(total * (1 - spread), total * (1 + spread)),
        fits=not problems,
        because=tuple(_sentence(one) for one in because),
        misfit=" ".join(problem.text for problem in problems) or None,
        locked_bytes=locked_bytes(ram) if host is not None and host.waiting == "locked" else 0,
        over_bytes=max((problem.bytes for problem in problems), default=0),
        decoded="" if decode is None else decode.other,
        decode_bytes=None if decode is None else decode.asked_bytes,
    )


@lru_cache(maxsize=512)
def _planned(need: StepNeed, wish: StepWish, free_bytes: int, speed: StepSpeed) -> StepPlan:
    """Levers of other phases are tried with the same step again and again."""
    return plan_step(need, wish, free_bytes=free_bytes, speed=speed)


def step_need(sizes: ModelSizes, job: Job) -> StepNeed:
    """What a step is made of, from the released sizes: as a run finds it in the checkpoint's header."""
    clips, itemsize = job.batch, 2
    sound = job.clip.sound_tokens * clips if job.audio else 0
    return StepNeed(
        tokens=job.clip.tokens * clips,
        width=sizes.width,
        itemsize=itemsize,
        num_blocks=sizes.blocks,
        block_bytes=int(sizes.block_numbers * STORED_BYTES[job.wish.storage]),
        outside_bytes=sizes.outside_numbers * itemsize + sizes.blocks * sizes.small_bytes,
        lora_numbers=sizes.lora_numbers(job.rank_of),
        joint=job.audio,
        kept=sizes.kept.bytes(video=job.clip.tokens * clips, audio=sound, text=TEXT_TOKENS * clips, rank=job.most_rank),
        inputs=sizes.inputs_bytes(video=job.clip.tokens * clips, audio=sound),
        rounded=sizes.rounded_bytes(job.wish.storage),
        packed=job.wish.storage == "nf4",
        state_bytes=job.state_bytes,
        beside_bytes=0
        if job.aligned is None
        else alignment_bytes(tokens=job.clip.tokens * clips, width=sizes.width, to=job.aligned or sizes.width),
        given=job.given,
    )


def forecast_of(prediction: Prediction, *, cached: bool = False) -> Forecast:
    """What the warnings before a start need of a prediction. cached: whether clips and captions are in the cache already."""
    job = prediction.job
    sample = [phase.vram_bytes for phase in prediction.phases if phase.name in ("sample", "decode")]
    sample += [] if prediction.decode_bytes is None else [prediction.decode_bytes]  # as asked: what it would take in one go
    train = prediction.phase("train")
    cache = None
    if job.clips is not None and not cached:
        cache = job.clips * (job.clip.tokens * _LATENT_BYTES + _CACHE_TEXT_BYTES[job.version])
    return Forecast(
        train_peak_bytes=None if train is None else train.vram_bytes,
        sample_peak_bytes=max(sample, default=None),
        host_peak_bytes=prediction.ram_bytes or None,
        pinned_bytes=prediction.locked_bytes or None,
        cache_bytes=cache,
    )


@dataclass(frozen=True, slots=True)
class _Miss:
    """What does not fit."""

    what: str
    text: str
    bytes: int


def _speed(sizes: ModelSizes, job: Job, hardware: Hardware, *, tokens: int, batch: int) -> StepSpeed:
    """Of a block on this card, TREAD counted in as what blocks take on average."""
    wish, sound = job.wish, job.clip.sound_tokens if job.audio else 0

    def of(video: int) -> StepSpeed:
        shape = BatchShape(count=batch, video=video, audio=sound, text=TEXT_TOKENS)
        model = sizes.shape(job.rank_of)
        return measured_speed(model, shape, hardware.rates, width=sizes.width, storage=wish.storage, precision=wish.precision)

    found = of(tokens)
    for first, last, share in job.routed:
        found = _between(found, of(max(1, int(share * tokens))), job.routed_share * (last - first + 1) / sizes.blocks)
    return replace(found.scaled(hardware.correction), looks=job.looks)


def _of_block(hardware: Hardware) -> Iterator[str]:
    """What measuring a block has changed."""
    block, factor = hardware.rates.block, compute_factor(hardware.rates)
    if block is not None and abs(factor - 1) > _TOLD:
        yield (
            f"a block of LTX-2 took {1000 * block.seconds:.1f} ms here, so that compute counts {factor:.2g} times what products and "
            "memory alone say"
        )


def _of_rollouts(plan: StepPlan, need: StepNeed, speed: StepSpeed) -> Iterator[str]:
    """What scheduled sampling costs, before it is trained with."""
    if speed.looks and plan.seconds is not None:
        without = step_seconds(need, plan.layout, replace(speed, looks=0.0))
        yield (
            f"scheduled sampling takes {speed.looks:.2g} more forwards a batch on average: {plan.seconds:.2f} s a batch instead of "
            f"{without:.2f}, {plan.seconds / without:.2g} times as long"
        )


def _between(one: StepSpeed, other: StepSpeed, share: float) -> StepSpeed:
    def mixed(first: float, second: float) -> float:
        return (1 - share) * first + share * second

    return replace(
        one,
        forward=mixed(one.forward, other.forward),
        attention=mixed(one.attention, other.attention),
        backward=mixed(one.backward, other.backward),
        turning=mixed(one.turning, other.turning),
    )


def _host(need: StepNeed, plan: StepPlan, job: Job, hardware: Hardware) -> HostPlan:
    others = sum(bytes_ for part, bytes_ in host_bytes(need, plan, waiting="disk").items() if part in ("process", "compiler"))
    return place_blocks(
        blocks_bytes=plan.streamed * need.block_bytes,
        inputs_bytes=job.processes * need.num_blocks * need.inputs_bytes if plan.inputs_to_host else 0,
        free_bytes=max(0, hardware.ram_bytes - job.processes * others),
        disk=job.disk,
        storage=plan.storage,
    )


def _of_training(
    sizes: ModelSizes,
    job: Job,
    need: StepNeed,
    plan: StepPlan,
    host: HostPlan,
    speed: StepSpeed,
    hardware: Hardware,
    exchange: float,
    *,
    decode: Phase | None,
) -> Iterator[Phase]:
    """Training, and the samples that are made beside it. exchange: seconds of an update beyond its batches. decode: of the samples."""
    saved = 0 if job.steps is None else max(1, job.steps // 500)
    measured = 0.0
    if job.held_out and job.clips is not None:
        measured = job.held_out * _HELD_OUT_LEVELS * max(1.0, job.held_out_share * job.clips / job.processes) / job.batch
    steps = None if job.steps is None else job.steps * job.accumulation
    trained = train_phase(need, plan, waiting=host.waiting, steps=steps, evaluations=measured, speed=speed, saves=saved)
    yield replace(trained, seconds=None if trained.seconds is None else trained.seconds + (job.steps or 0) * exchange)
    sample = job.sample
    if sample is None or decode is None:
        return
    ram = host_bytes(need, plan, waiting=host.waiting)
    drawing, scratch = 0.0, 0
    for clip, together, forwards in (forward for size in sample.sizes for forward in sample.forwards(size)):
        drawn = replace(job, clip=clip, batch=together, routed=(), looks=0.0, aligned=None)
        there, turns = _speed(sizes, drawn, hardware, tokens=sample.tokens(clip), batch=together), turns_of(together, sample.tokens(clip))
        drawing += sample.times * sample.each * forwards * forward_seconds(need, plan, speed=there, rates=hardware.rates, turns=turns)
        scratch = max(scratch, _drawing_bytes(sizes, sample, clip, predictions=together, audio=job.audio))
    yield sample_phase(need, plan, sample, scratch=scratch, drawing=drawing, ram=ram)
    yield decode


def _drawing_bytes(sizes: ModelSizes, sample: SampleShape, clip: ClipShape, *, predictions: int, audio: bool) -> int:
    """Of a forward of so many predictions of a sample of this size."""
    video = sample.tokens(clip)
    given = sample.given or sample.beside is not None
    drawn = sizes.drawing.drawn(predictions=predictions, tokens=video)
    return drawn.bytes(video=video, audio=clip.sound_tokens if audio else 0, text=TEXT_TOKENS, given=given)


_TITLES = {
    "text": "Encoding captions",
    "encode": "Encoding clips",
    "train": "Training",
    "sample": "Drawing samples",
    "decode": "Decoding samples",
}


def _over(phases: list[Phase], free: int, hardware: Hardware) -> Iterator[_Miss]:
    for phase in phases:
        title = _TITLES[phase.name]
        if (short := phase.vram_bytes - free) > 0:
            text = f"{title} needs {_gib(phase.vram_bytes)} of GPU memory, {_gib(short)} more than the {_gib(free)} that are free."
            yield _Miss(title, text, short)
        if (short := phase.ram_bytes - hardware.ram_bytes) > 0:
            text = f"{title} needs {_gib(phase.ram_bytes)} of RAM, {_gib(short)} more than the {_gib(hardware.ram_bytes)} that are free."
            yield _Miss(title, text, short)


def _short_of_text(job: Job, hardware: Hardware, free: int) -> int:
    from ltx2core.planning.phases import text_bytes

    need = text_bytes(job.version, int8=job.text.int8)
    return max(need.on_host - hardware.ram_bytes, need.streamed_on_device + CONTEXT_BYTES - free, 1)


def _short_of_training(need: StepNeed, plan: StepPlan | None, free: int, hardware: Hardware) -> int:
    if plan is not None:
        return max(1, plan.streamed * need.block_bytes - hardware.ram_bytes)
    least = Layout(streamed=need.num_blocks, slots=1, kept=0, attention=0, inputs_to_host=True)
    return max(1, step_bytes(need, least).total + CONTEXT_BYTES - free)


def _sentence(text: str) -> str:
    return text[0].upper() + text[1:] + ("" if text.endswith(".") else ".")


def _gib(number: int) -> str:
    return f"{number / GIB:.1f} GiB"
