"""What is wrong with a sample, why that may be, and what to do: arithmetic on what was measured, and sentences. No file is opened here.

Every threshold stands at the top with its reason. What was measured on healthy samples: clips of nano's world, drawn and rendered, and two
filmed ones (tests/validation/test_diagnosis.py).
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ltx2core.data.verdicts import is_clipped, is_silent
from ltx2core.runs.events import Notice

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from ltx2core.data.loudness import Loudness
    from ltx2core.validation.measures import Measured

# A dark room has 15 levels of 255 and something in it; a decoded nothing has 2 to 5 and a spread of 1 or 2.
BLACK_BRIGHTNESS, BLACK_CONTRAST = 10.0, 6.0
# Adjacent pixels of any picture agree (0.84 and more in what was measured), those of noise do not (0.0).
NOISE_NEIGHBOURS = 0.5
# A frame is like the next one (0.89 and more) even in fast motion; frames that have nothing to do with each other are below.
NOISE_COHERENCE = 0.3
# Normalised latents spread by 1: 0.8 to 2 in what was measured. From 3 on the decoder was never shown such.
WILD_LATENTS = 3.0
# The smallest motion anybody asks for, an eye or a hand, is a hundredth of the picture; nano's smallest shape moves through a tenth.
STATIC_SHARE = 0.01
# Light that comes and goes between frames is seen from 1 % on, 2.5 levels; the worst healthy clip had 0.12.
FLICKER_LEVELS = 2.0
# Colours that go steadily in one direction by 6 %, 15 levels; a camera that pans into a brighter scene made 7.
DRIFT_LEVELS = 15.0
# Change over two frames is 1.6 to 2 times that over one where things go their way, 1 where they come back.
JITTER_FORTH = 1.25
# A clip of 12 fps shown at 25 repeats every second frame, 0.5; a drawn film that holds some poses had 0.13.
STUTTER_SHARE = 0.25
# The same seed and prompt before and after: read back from its file a sample is 0.8 levels from itself, by the rounding of its colours.
NO_EFFECT_LEVELS = 1.2
NO_EFFECT_STEPS = 100  # before that a LoRA has hardly begun
# A LoRA that is too strong drives colours to the ends of the range, or draws everything with hard edges. Noise of two levels, which
# nobody sees, adds two levels of detail.
BURNT_SHARE, DETAIL_TIMES, DETAIL_LEVELS = 0.15, 2.5, 4.0
# Held-out loss: a rise by 2 % above its lowest, in two measurements in a row, is more than fixed noise lets through.
RISE = 1.02
# A sample that is three times nearer to a clip than clips are to each other shows that clip.
COPY_SHARE = 0.33

USUAL_GUIDANCE = (2.0, 6.0)
MODEL_FPS = 25.0
_MOTION = re.compile(
    r"\b(mov|walk|run|ran|turn|spin|fly|flies|flew|jump|danc|pan(s|ning)?\b|zoom|driv|flow|fall|wav|swim|rid|roll|shak|swing|float|glid|"
    r"circl|rotat|climb|throw|catch|pour|blink|nod|smil|laugh|talk|speak|sing|open|clos|ris|slid|chas|kick|stir|blow|crawl|race|follow)\w*",
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Nearest:
    """The training clip that a sample's latents are nearest to. distance: of a typical clip's own nearest neighbour, 1 is as far."""

    clip: str
    distance: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Circumstances:
    """What is known beside the sample. guidance: of its picture. finite, spread: of its latents. base, difference: the base model's
    sample of the same seed, and how far this one is from it, levels."""

    step: int
    prompt: str
    guidance: float
    distilled: bool = False
    finite: bool = True
    spread: float = 1.0
    odd_rates: tuple[str, ...] = ()  # clips that were brought to the model's frame rate from another
    base: Measured | None = None
    difference: float | None = None
    nearest: Nearest | None = None


def diagnose(seen: Measured | None, heard: Loudness | None, around: Circumstances) -> list[Notice]:
    """A Notice for each fault, the worst first. seen, heard: None where the sample has no picture or no sound."""
    found: list[Notice] = []
    if not around.finite:
        found.append(_not_finite(around))
    if seen is not None:
        broken = list(_broken(seen, around)) if around.finite else []
        found += broken
        if around.finite and not broken:  # what is black or noise neither moves nor stands still
            found += _motion(seen, around)
            found += _light(seen, around)
            found += _against_base(seen, around)
    if heard is not None:
        found += _sound(heard, around)
    found += _copy(around)
    return found


def diagnose_losses(held_out: Sequence[tuple[int, float]]) -> list[Notice]:
    """A Notice where the held-out loss, (step, loss) in order, has risen above its lowest for good."""
    if len(held_out) < 3:
        return []
    best_step, best = min(held_out, key=lambda one: one[1])
    if any(loss <= RISE * best for _, loss in held_out[-2:]):
        return []
    last = held_out[-1][1]
    text = f"Overfitting: the held-out loss is {last:.4f}, {last / best - 1:.1%} above its lowest at step {best_step}."
    return [_notice("overfit_loss", text, f"Use the checkpoint of step {best_step} or one near it; more or more varied clips help.")]


def _not_finite(around: Circumstances) -> Notice:
    text = f"Step {around.step}: the sample's latents are not finite numbers, so it shows nothing."
    fix = 'Lower learning_rate and resume from an earlier checkpoint; at step 0 set mixed_precision to "bf16" or "no".'
    return _notice("sample_not_finite", text, fix)


def _broken(seen: Measured, around: Circumstances) -> Iterator[Notice]:
    if seen.brightness < BLACK_BRIGHTNESS and seen.contrast < BLACK_CONTRAST:
        text = f"Step {around.step}: the sample is black (brightness {seen.brightness:.0f} of 255, contrast {seen.contrast:.0f})."
        yield _notice("sample_black", *_why_broken(text, around))
    elif seen.neighbours < NOISE_NEIGHBOURS or seen.coherence < NOISE_COHERENCE:
        agree = f"neighbouring pixels agree by {seen.neighbours:.2f}, frames by {seen.coherence:.2f}"
        text = f"Step {around.step}: the sample is noise ({agree})."
        yield _notice("sample_noise", *_why_broken(text, around))


def _why_broken(text: str, around: Circumstances) -> tuple[str, str]:
    """The likeliest cause, and the fix for it."""
    low, high = USUAL_GUIDANCE
    if not around.distilled and not low <= around.guidance <= high:
        return f"{text} Guidance is {around.guidance:g}, outside {low:g} to {high:g}.", "Set validation_guidance to 5.0."
    if around.distilled and around.guidance != 1:
        return f"{text} Distilled weights have guidance in them.", 'Set ltx2_validation_schedule to "auto".'
    if around.spread > WILD_LATENTS:
        fix = "Lower learning_rate, or resume from an earlier checkpoint." if around.step else "Check that the model's file is whole."
        return f"{text} Its latents spread by {around.spread:.1f} where 1 is usual: the model has lost its way.", fix
    if around.step == 0:
        cause = f"Its latents are sound (spread {around.spread:.1f}), so it is the decoder: VAE statistics of another version."
        return f"{text} {cause}", "Check the checkpoint with `ltx2tui cache verify`, which decodes your clips again."
    return text, "Compare with the sample of step 0: if that is sound, lower learning_rate."


def _motion(seen: Measured, around: Circumstances) -> Iterator[Notice]:
    if seen.moving < STATIC_SHARE:
        text = f"Step {around.step}: nothing moves in the sample ({seen.moving:.1%} of it changes)."
        if _MOTION.search(around.prompt) is None:
            yield _notice("sample_static", f"{text} Its prompt has no word of motion.", "Say what moves, or how the camera does.")
        else:
            yield _notice(
                "sample_static", text, "Train longer, and on clips in which things move: `ltx2tui check` names those that stand still."
            )
        return
    odd = f" {len(around.odd_rates)} clips are not of {MODEL_FPS:g} fps: {', '.join(around.odd_rates[:3])}." if around.odd_rates else ""
    fix = f"Train on clips of {MODEL_FPS:g} fps." if odd else "Train longer; check that frame_rate is 25 and clips are not slowed down."
    if seen.repeats >= STUTTER_SHARE:
        text = f"Step {around.step}: the sample stutters: {seen.repeats:.0%} of its frames repeat the one before.{odd}"
        yield _notice("sample_jitter", text, fix)
    elif seen.forth < JITTER_FORTH:
        far = f"over two frames {seen.forth:.2f} times as far as over one"
        text = f"Step {around.step}: motion in the sample goes back and forth ({far}).{odd}"
        yield _notice("sample_jitter", text, fix)


def _light(seen: Measured, around: Circumstances) -> Iterator[Notice]:
    if seen.flicker >= FLICKER_LEVELS:
        text = f"Step {around.step}: the sample flickers: its brightness goes up and down by {seen.flicker:.1f} of 255 between frames."
        fix = "Use ltx2_validation_stg_scale 1.0; if step 0 does not flicker, train at a lower learning_rate."
        yield _notice("sample_flicker", text, fix)
    if seen.drift >= DRIFT_LEVELS:
        text = f"Step {around.step}: colours of the sample drift by {seen.drift:.0f} of 255 from its beginning to its end."
        fix = "Use validation_guidance_rescale 0.7 or lower guidance; shorter samples drift less."
        yield _notice("sample_drift", text, fix)


def _against_base(seen: Measured, around: Circumstances) -> Iterator[Notice]:
    if around.step == 0 or around.difference is None or around.base is None:
        return
    if around.difference < NO_EFFECT_LEVELS and around.step >= NO_EFFECT_STEPS:
        text = f"Step {around.step}: the LoRA changes nothing yet: the sample is the base model's but for {around.difference:.2f} of 255."
        fix = "Raise learning_rate tenfold, or use a prompt that your captions would fit."
        yield _notice("lora_no_effect", text, fix)
    burnt = seen.burnt - around.base.burnt
    sharper = seen.detail / max(around.base.detail, 1e-3)
    if burnt >= BURNT_SHARE or (sharper >= DETAIL_TIMES and seen.detail - around.base.detail >= DETAIL_LEVELS):
        how = f"{burnt:.0%} more of it is burnt out" if burnt >= BURNT_SHARE else f"its edges are {sharper:.1f} times as hard"
        text = f"Step {around.step}: the LoRA is too strong: {how} than in the base model's sample."
        yield _notice("lora_too_strong", text, "Use an earlier checkpoint or less strength, or train with a lower learning_rate.")


def _sound(heard: Loudness, around: Circumstances) -> Iterator[Notice]:
    if is_silent(heard):
        decibels = "no signal" if math.isinf(heard.peak_decibels) else f"peak {heard.peak_decibels:.0f} dB"
        text = f"Step {around.step}: the sample is silent ({decibels})."
        fix = "Say in the prompt what is heard; check with `ltx2tui check` that the clips have sound, and that audio_loss_weight is not 0."
        yield _notice("sample_silent", text, fix)
    elif is_clipped(heard):
        text = f"Step {around.step}: {heard.top:.1%} of the sample's sound is cut off at full scale."
        fix = "Lower ltx2_validation_audio_guidance; look for clipped clips with `ltx2tui check`."
        yield _notice("sample_clipped", text, fix)


def _copy(around: Circumstances) -> Iterator[Notice]:
    if around.step and around.nearest is not None and around.nearest.distance < COPY_SHARE:
        near = f"{around.nearest.distance:.2f} times as far from it as clips are from each other"
        text = f"Step {around.step}: the sample copies {around.nearest.clip}: it is {near}."
        yield _notice("overfit_copy", text, "Use an earlier checkpoint, a smaller rank, or more clips.")


def _notice(code: str, text: str, fix: str) -> Notice:
    return Notice(code=code, level="warning", text=text, fix=fix)
