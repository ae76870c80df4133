"""The best plans for a machine by three goals, each with why, what binds it, and what the next larger card would give.

Layouts of memory are searched by step_plan.py; here it is precision, resolution, length, batch and sound. Loads no torch.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

from ltx2core.data.buckets import MAX_SECONDS
from ltx2core.data.segments import snap_frames
from ltx2core.planning.hardware import Hardware, next_larger
from ltx2core.planning.job import Job, job_of
from ltx2core.planning.levers import BF16, NF4, ROUTED_STEPS, SKIPPING, Choice, Precision, Tried, precisions, try_choice
from ltx2core.planning.predict import Prediction, predict_job

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pydantic import JsonValue

    from ltx2core.config.datasets import DatasetList
    from ltx2core.config.train import TrainConfig
    from ltx2core.planning.clips import ClipShape
    from ltx2core.planning.job import Version

Goal = Literal["fastest", "best_quality", "longest"]
GOALS: tuple[Goal, ...] = ("fastest", "best_quality", "longest")
DAY = 24 * 3600.0  # longer runs are not recommended while a shorter one is to be had
_USUAL_STEPS = 2000
_SIDES = (1088, 704, 576, 512, 448, 384, 320, 256)
_FRAMES = (481, 361, 297, 241, 193, 161, 121, 97, 81, 65, 49, 41, 33, 25, 17, 9)
_GAIN = 0.97  # what binds is what would make a step faster by more than this; so much routed tokens have to give, too
_LEAST_ROUTED = 1 - ROUTED_STEPS * (1 - (1 - SKIPPING) ** 2)  # what is left of a step, were it all attention and all blocks skipped


@dataclass(frozen=True, slots=True, kw_only=True)
class Recommendation:
    """values: keys of the config that differ from the given one; of_datasets: those of every entry of the dataset list. why: sentences,
    the most telling first; binds: what keeps it from being better; next_card: what the next size of card would give."""

    goal: Goal
    values: dict[str, JsonValue]
    of_datasets: dict[str, JsonValue]
    prediction: Prediction
    why: tuple[str, ...]
    binds: str
    next_card: str


def recommend(
    config: TrainConfig,
    hardware: Hardware,
    *,
    datasets: DatasetList | None = None,
    clips: int | None = None,
    clip: ClipShape | None = None,
    version: Version | None = None,
) -> tuple[Recommendation, ...]:
    """A plan for each goal; empty where nothing fits, whatever is changed. Raises ConfigError as `predict` does."""
    job = job_of(config, datasets=datasets, clips=clips, clip=clip, version=version)
    job = job if job.steps is not None else replace(job, steps=_USUAL_STEPS)
    larger = next_larger(hardware)
    found = []
    for goal in GOALS:
        best = best_for(goal, job, hardware)
        if best is None:
            return ()
        above = None if larger is None else best_for(goal, job, larger)
        values, of_datasets = best.values(job), best.of_datasets(job)
        if "train_batch_size" in values:
            _leave_batches_to_it(config, datasets, values, of_datasets)
        found.append(
            Recommendation(
                goal=goal,
                values=values,
                of_datasets=of_datasets,
                prediction=best.prediction,
                why=tuple(_why(goal, job, best, hardware)),
                binds=_binds(best, hardware),
                next_card=_next_card(goal, best, larger, above),
            )
        )
    return tuple(found)


def _leave_batches_to_it(
    config: TrainConfig, datasets: DatasetList | None, values: dict[str, JsonValue], of_datasets: dict[str, JsonValue]
) -> None:
    """Take away what would come before train_batch_size."""
    if config.max_tokens_per_batch is not None:
        values["max_tokens_per_batch"] = None
    if datasets is not None and any(dataset.train_batch_size for dataset in datasets.videos):
        of_datasets["train_batch_size"] = None


def best_for(goal: Goal, job: Job, hardware: Hardware) -> Tried | None:
    """The best choice for a goal; for the first of them, as the config's own clips are, where they can be trained at all."""
    shapes = list(_shapes(goal, job))
    if goal == "best_quality":
        found = _first(_by_quality(job, shape, hardware) for shape in shapes)
    elif goal == "longest":
        found = _first(_fastest(job, shape, hardware, within=DAY) for shape in shapes)
    else:
        found = _with_routes(job, _each(job, job.clip, hardware), hardware)
    return found or _fastest(job, job.clip, hardware) or _fastest(job, job.clip, hardware, kinds=(NF4,)) or _whatever_fits(job, hardware)


def _with_routes(job: Job, plain: list[Tried], hardware: Hardware) -> Tried | None:
    """The fastest, with tokens that skip blocks at first where that gives more than a little.

    Not where the config has routes of its own, or aligns features of a block (CREPA), for which every token should be there.
    """
    best = min(plain, key=_step, default=None)
    if best is None or job.routed or job.aligned is not None:
        return best
    near = [one for one in plain if _LEAST_ROUTED * _step(one) <= _GAIN * _step(best)]
    tried = (try_choice(job, replace(one.choice, routed=True), hardware) for one in near)
    routed = min((one for one in tried if one is not None), key=_step, default=None)
    return replace(routed, plain=best) if routed is not None and _step(routed) <= _GAIN * _step(best) else best


def _shapes(goal: Goal, job: Job) -> Iterator[ClipShape]:
    clip = job.clip
    if goal == "best_quality":
        for side in _SIDES:
            if side >= min(clip.width, clip.height):
                yield _with_side(clip, side)
    elif goal == "longest" and clip.frames > 1:
        most = snap_frames(int(MAX_SECONDS * clip.fps))
        yield from (replace(clip, frames=frames) for frames in (most, *_FRAMES) if clip.frames <= frames <= most)
    yield clip


def _by_quality(job: Job, clip: ClipShape, hardware: Hardware) -> Tried | None:
    """The precision nearest to the model as it is with which a run ends within a day."""
    for precision in precisions(hardware):
        found = _at(job, clip, precision, hardware)
        if found is not None and found.prediction.total_seconds <= DAY:
            return found
    return None


def _fastest(
    job: Job,
    clip: ClipShape,
    hardware: Hardware,
    *,
    within: float | None = None,
    audio: bool | None = None,
    kinds: tuple[Precision, ...] = (),
) -> Tried | None:
    """kinds: of weights; 4 bits, which cost quality, are asked for where the others do not fit."""
    fitting = _each(job, clip, hardware, audio=audio, kinds=kinds)
    return min((one for one in fitting if within is None or one.prediction.total_seconds <= within), key=_step, default=None)


def _each(job: Job, clip: ClipShape, hardware: Hardware, *, audio: bool | None = None, kinds: tuple[Precision, ...] = ()) -> list[Tried]:
    """The fastest way with each precision that fits, the nearest to the model first."""
    tried = (_at(job, clip, precision, hardware, audio=audio) for precision in kinds or precisions(hardware))
    return [one for one in tried if one is not None]


def _step(one: Tried) -> float:
    return one.prediction.step_seconds


def _at(
    job: Job, clip: ClipShape, precision: Precision, hardware: Hardware, *, audio: bool | None = None, routed: bool = False
) -> Tried | None:
    """The fastest way to see as many clips in an update as the config asks for, on all cards: or, where these are more, one on each."""
    processes = hardware.cards or job.processes
    each = -(-job.clips_an_update // processes)
    found = []
    for batch in (batch for batch in range(1, each + 1) if each % batch == 0):
        choice = Choice(
            precision=precision,
            clip=clip,
            audio=job.audio if audio is None else audio,
            batch=batch,
            accumulation=each // batch,
            processes=processes,
            routed=routed,
        )
        tried = try_choice(job, choice, hardware)
        if tried is None:
            break  # larger batches need more
        found.append(tried)
    return min(found, key=_step, default=None)


def _whatever_fits(job: Job, hardware: Hardware) -> Tried | None:
    """Less than the config asks for: shorter, then lower, then without sound."""
    for audio in (True, False) if job.audio else (False,):
        for side in (side for side in _SIDES if side <= min(job.clip.width, job.clip.height)):
            for frames in (job.clip.frames, *_FRAMES):
                if frames <= job.clip.frames and (frames >= 25 or side == _SIDES[-1]):
                    shape = replace(_with_side(job.clip, side), frames=frames)
                    for kinds in (precisions(hardware), (NF4,)):
                        if (found := _fastest(job, shape, hardware, audio=audio, kinds=kinds)) is not None:
                            return found
    return None


def _first(found: Iterator[Tried | None]) -> Tried | None:
    return next((one for one in found if one is not None), None)


def _with_side(clip: ClipShape, side: int) -> ClipShape:
    """The clip with this shorter edge."""
    short, long = sorted((clip.width, clip.height))
    if side == short:
        return clip
    other = max(32, round(side * long / short / 32) * 32)
    width, height = (other, side) if clip.width >= clip.height else (side, other)
    return replace(clip, width=width, height=height)


def _why(goal: Goal, job: Job, best: Tried, hardware: Hardware) -> Iterator[str]:
    found, choice = best.prediction, best.choice
    step = f"{seconds(found.step_seconds)} a step"
    if goal != "fastest" and found.total_seconds > DAY:
        yield f"No run of {job.steps:,} steps ends within a day here; this is the fastest one, {step}."
    elif goal == "fastest" or choice.clip.tokens < job.clip.tokens:
        yield f"{_capital(choice.precision.words)}: {step}{_against(job, best, hardware)}."
    elif goal == "best_quality":
        yield f"{choice.clip} is the largest picture that trains {job.steps:,} steps within a day here, {step}."
        yield f"{_capital(choice.precision.words)}, the nearest to the model as it is with which it does."
    else:
        length = f"{choice.clip.frames} frames, {choice.clip.frames / choice.clip.fps:.1f} s,"
        yield f"{length} are the longest clips that train within a day here, {step}."
        yield f"{_capital(choice.precision.words)}, the fastest way to hold them."
    if best.plain is not None:
        yield (
            f"{SKIPPING:.0%} of the tokens skip most blocks in the first {ROUTED_STEPS:.0%} of steps (TREAD): that is a step's average, "
            f"without it {seconds(_step(best.plain))}. The small model's LoRAs ended as good either way; on LTX-2 it was not "
            "measured, so leave tread_config out where quality goes first."
        )
    if choice.clip.tokens < job.clip.tokens:
        yield f"Clips of {job.clip} do not fit in any way, so they are trained as {choice.clip}."
    if choice.audio != job.audio:
        yield "Sound is left out, which takes a third of the weights away; with it nothing fits."
    elif choice.audio and (silent := _at(job, choice.clip, choice.precision, hardware, audio=False, routed=choice.routed)) is not None:
        yield f"Pictures alone would take {seconds(silent.prediction.step_seconds)} a step."
    if choice.processes != job.processes:
        yield _of_ranks(job, best)
    elif choice.accumulation != job.accumulation:
        clips = f"{choice.batch} clip{'s' if choice.batch > 1 else ''}"
        yield f"{clips} at a time, {choice.accumulation} times an update: the same update as before, faster or in less memory."
    pulled = [name for name in ("temporal_roll", "patch_conv") if getattr(best.job.levers, name) != getattr(job.levers, name)]
    if pulled:
        names, them = " and ".join(f"vae_enable_{name}" for name in pulled), "them" if len(pulled) > 1 else "it"
        yield f"{names}: without {them} the VAE has no room; its values stay the same up to rounding."
    if best.job.text.int8 != job.text.int8:
        yield "The text encoder in 8 bits: in 16 it does not fit in RAM."


def _of_ranks(job: Job, best: Tried) -> str:
    """What the GPUs of this machine give, or that there are fewer than the config asks for."""
    before, now, pace = job.clips_an_update, best.job.clips_an_update, best.prediction.clips_a_second
    gpus = f"{best.choice.processes} GPUs" if best.choice.processes > 1 else "The one GPU"
    learn = "learn" if best.choice.processes > 1 else "learns"
    if now == before:
        return f"{gpus} {learn} from {pace:.2g} clips a second together: the same update of {now} clips as before, shared between them."
    return (
        f"{gpus} {learn} from {pace:.2g} clips a second together, {now} in an update instead of {before}: {before / now:.0%} of the steps "
        f"show as many clips, at {(now / before) ** 0.5:.2g} times the learning rate (the root, as AdamW's steps want it)."
    )


def _against(job: Job, best: Tried, hardware: Hardware) -> str:
    """How the others do."""
    if best.choice.precision is BF16:
        return ", and no rounding of weights is faster"
    plain = _at(job, best.choice.clip, BF16, hardware, audio=best.choice.audio, routed=best.choice.routed)
    return ", and bf16 does not fit" if plain is None else f", {seconds(plain.prediction.step_seconds)} in bf16"


def _binds(best: Tried, hardware: Hardware) -> str:
    """The limit that costs most."""
    now = best.prediction.step_seconds

    def with_other(other: Hardware) -> float:
        found = predict_job(best.job, other)
        return found.step_seconds if found.plan is not None else now

    link = hardware.rates.to_device_bytes_per_second
    twice = replace(hardware, rates=replace(hardware.rates, to_device_bytes_per_second=None if link is None else 2 * link))
    ways = {
        "GPU memory": (with_other(replace(hardware, free_bytes=1 << 50)), "with enough of it"),
        "The link to the card": (with_other(twice), "over one twice as fast"),
    }
    what, (then, how) = min(ways.items(), key=lambda item: item[1][0])
    if then < _GAIN * now:
        return f"{what} binds: {how} a step would take {seconds(then)} instead of {seconds(now)}."
    return "Compute binds: all that fits on the card is there, and neither more memory nor a faster link makes a step faster."


def _next_card(goal: Goal, best: Tried, larger: Hardware | None, above: Tried | None) -> str:
    if larger is None or above is None:
        return "There is no larger card."
    there, now = above.prediction, best.prediction
    name = f"{larger.card}, {larger.memory_bytes / 2**30:.0f} GiB"
    if above.choice.clip != best.choice.clip:
        what = f"{above.choice.clip} instead of {best.choice.clip}"
    else:
        what = f"{seconds(there.step_seconds)} a step instead of {seconds(now.step_seconds)}"
    rounding = "" if above.choice.precision is best.choice.precision else f", {above.choice.precision.words}"
    return f"The next size ({name}) would give {what}{rounding}."


def seconds(value: float) -> str:
    """0.41 s, 12.3 s, 120 s."""
    return f"{value:.2f} s" if value < 10 else f"{value:.1f} s" if value < 100 else f"{value:.0f} s"


def _capital(text: str) -> str:
    return text[0].upper() + text[1:]
