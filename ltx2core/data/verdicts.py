"""What is wrong with a clip's pictures and sound, from what inspection.py measured. Arithmetic only; no file is opened here.

Every threshold stands at the top with its reason. A finding is worded for the clip as it is shown: turned upright.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ltx2core.data.clip import Problem
from ltx2core.data.inspection import Bars, Span

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from ltx2core.data.clip import Clip
    from ltx2core.data.inspection import Inspection
    from ltx2core.data.loudness import Loudness

# A fade or a flash of black is a few frames; a tenth of a second of nothing at all is a gap that the model would learn to make.
BLACK_SECONDS = 0.1
# People hold still for half a second and breathe after one. A whole second in which not one square changes is a still, or a frozen file.
STILL_SECONDS = 1.0
# Four fifths of a clip without motion teach a picture that does not move; a pause before a movement is less.
STATIC_SHARE = 0.8
# Encoders leave lines of 1 or 2 % black at the edges, which cropping to the bucket mostly takes away; real bars are 6 % (1.85:1) and more.
BAR_SHARE = 0.02
# Opposite bars differ by a line or two where a picture was centred; more is a dark floor or sky.
BAR_BALANCE = 0.5
# 16-bit silence after a lossy codec is below -90 dB of full scale, the quietest room that was recorded on purpose is above -60.
SILENT_PEAK = 10 ** (-60 / 20)
# Clipped sound piles up at full scale: more samples lie there than in the band below. Measured: a full-scale sine 1.3 to 2.4 times as
# many, music at full scale 0.5, a sine driven 2 dB too far 4.3 and more, music driven 10 dB too far 3.5 in AAC at 256 kbit/s and 4.4
# without a codec. (In AAC at 128 kbit/s that music has 1.2: there the codec hides it.) One sample in 200 is 240 a second.
CLIPPED_RATIO, CLIPPED_SHARE = 3.0, 0.005
_NAMES = 3  # of places named in a line


def judge_inspection(clip: Clip, found: Inspection) -> list[Problem]:
    """Every problem of the clip's pictures and sound, in a fixed order."""
    return [
        *_judge_reading(clip, found),
        *_judge_cuts(clip, found),
        *_judge_black(clip, found),
        *_judge_stillness(clip, found),
        *_judge_bars(clip, found),
        *(_judge_sound(clip, found.sound) if found.sound is not None else ()),
    ]


def _judge_reading(clip: Clip, found: Inspection) -> list[Problem]:
    name, problems = clip.path.name, []
    if found.errors:
        text = f"{name}: {found.errors} of its pictures cannot be decoded, the first at {found.first_error:.2f} s."
        problems.append(Problem(code="decode_errors", level="warning", text=text, fix="Copy or export it again."))
    if not found.complete:
        text = f"{name} is too long to look through; cuts and copies were looked for in its first {found.seconds:.0f} s."
        problems.append(Problem(code="partly_checked", level="info", text=text, fix="Cut it into clips of a few seconds."))
    return problems


def cuts_inside(found: Inspection) -> list[float]:
    """When a new shot begins, apart from where black begins or ends."""
    edges = [edge for span in black_spans(found) for edge in (span.start, span.end)]
    return [when for when in found.cuts if all(abs(when - edge) > 1e-3 for edge in edges)]


def black_spans(found: Inspection) -> list[Span]:
    """The spans of black that are long enough to matter."""
    return [span for span in found.black if span.seconds >= BLACK_SECONDS]


def still_spans(found: Inspection) -> list[Span]:
    """The spans without motion that are long enough to matter, apart from black."""
    black = black_spans(found)
    return [
        span for span in found.still if span.seconds >= STILL_SECONDS and not any(_overlap(span, one) > 0.5 * span.seconds for one in black)
    ]


def is_static(found: Inspection) -> bool:
    """Whether nothing moves in nearly all of the clip."""
    black = sum(span.seconds for span in black_spans(found))
    moving = max(found.seconds - black, 0.0)
    spans = still_spans(found) or (
        [found.still[0]] if len(found.still) == 1 and not black else []
    )  # a short clip may stand still as a whole
    return moving > 0 and sum(span.seconds for span in spans) >= STATIC_SHARE * moving


def letterbox(found: Inspection, *, width: int, height: int) -> Bars | None:
    """The bars of a stored picture of this size that are no accident: at two opposite sides, wide enough, about alike."""
    bars = found.bars or Bars()
    rows = _pair(bars.top, bars.bottom, height)
    columns = _pair(bars.left, bars.right, width)
    if not rows and not columns:
        return None
    return Bars(
        left=bars.left if columns else 0, right=bars.right if columns else 0, top=bars.top if rows else 0, bottom=bars.bottom if rows else 0
    )


def upright(bars: Bars, rotation: int) -> Bars:
    """The bars as they are seen once the picture is turned counter-clockwise by `rotation` degrees."""
    sides = [bars.left, bars.top, bars.right, bars.bottom]  # clockwise
    turns = rotation // 90 % 4
    left, top, right, bottom = sides[turns:] + sides[:turns]  # what was at the top comes to the left, once for each quarter turn
    return Bars(left=left, top=top, right=right, bottom=bottom)


def is_silent(sound: Loudness) -> bool:
    return sound.peak < SILENT_PEAK


def is_clipped(sound: Loudness) -> bool:
    return sound.top >= CLIPPED_SHARE and sound.top >= CLIPPED_RATIO * sound.high


def _judge_cuts(clip: Clip, found: Inspection) -> list[Problem]:
    cuts = cuts_inside(found)
    if not cuts:
        return []
    what = "another shot begins" if len(cuts) == 1 else f"{len(cuts)} more shots begin"
    text = f"{clip.path.name}: {what} at {_places([f'{when:.2f} s' for when in cuts])}; the jump is learned as motion."
    return [Problem(code="hard_cut", level="warning", text=text, fix="Split it there: `ltx2tui check --fix` does.")]


def _judge_black(clip: Clip, found: Inspection) -> list[Problem]:
    spans = black_spans(found)
    if not spans:
        return []
    text = f"{clip.path.name} is black {_places([_said(span) for span in spans])}."
    return [Problem(code="black_frames", level="warning", text=text, fix="Cut that out: `ltx2tui check --fix` does.")]


def _judge_stillness(clip: Clip, found: Inspection) -> list[Problem]:
    name = clip.path.name
    if is_static(found):
        text = f"{name}: nothing moves in it, or hardly; it teaches stills."
        return [Problem(code="static_clip", level="warning", text=text, fix="Use a clip with motion, or one frame of it as an image.")]
    spans = still_spans(found)
    if not spans:
        return []
    text = f"{name} stands still {_places([_said(span) for span in spans])}."
    return [Problem(code="frozen", level="warning", text=text, fix="Cut that out: `ltx2tui check --fix` does.")]


def _judge_bars(clip: Clip, found: Inspection) -> list[Problem]:
    turned = clip.rotation in (90, 270)
    stored = (clip.height, clip.width) if turned else (clip.width, clip.height)
    bars = letterbox(found, width=stored[0], height=stored[1])
    if bars is None:
        return []
    bars = upright(bars, clip.rotation)
    sides = {"top": bars.top, "bottom": bars.bottom, "left": bars.left, "right": bars.right}
    said = ", ".join(f"{lines} px at its {side}" for side, lines in sides.items() if lines)
    fix = "Crop them off: `ltx2tui check --fix` does."
    return [Problem(code="letterbox", level="warning", text=f"{clip.path.name} has black bars: {said}.", fix=fix)]


def _judge_sound(clip: Clip, sound: Loudness) -> list[Problem]:
    name = clip.path.name
    if is_silent(sound):
        text = f"{name}: its sound track is silent; trained on, it teaches silence."
        return [Problem(code="audio_silent", level="warning", text=text, fix="Remove the track: `ltx2tui check --fix` does.")]
    if is_clipped(sound):
        text = f"{name}: {sound.top:.1%} of its sound is cut off at full scale, which is heard as distortion."
        return [Problem(code="audio_clipped", level="warning", text=text, fix="Export it again with its sound 3 dB quieter.")]
    return []


def _pair(one: int, other: int, side: int) -> bool:
    return min(one, other) >= max(BAR_SHARE * side, 2) and min(one, other) >= BAR_BALANCE * max(one, other)


def _overlap(one: Span, other: Span) -> float:
    return max(min(one.end, other.end) - max(one.start, other.start), 0.0)


def _said(span: Span) -> str:
    return f"from {span.start:.2f} to {span.end:.2f} s"


def _places(places: Sequence[str]) -> str:
    more = len(places) - _NAMES
    return ", ".join(places[:_NAMES]) + (f" and {more} more times" if more > 1 else " and once more" if more == 1 else "")


def codes(problems: Iterable[Problem]) -> set[str]:
    """The codes among problems."""
    return {problem.code for problem in problems}
