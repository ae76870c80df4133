"""What can be done about a clip's problems without inventing anything: which parts are kept, and how pictures and sound are changed.

Arithmetic on what a survey found; nothing is opened here. What cannot be mended is named by its code, and stays as it is.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

from ltx2core.data.buckets import MIN_FRAMES, snap_frames
from ltx2core.data.inspection import Bars, Span
from ltx2core.data.verdicts import black_spans, cuts_inside, is_static, letterbox, still_spans, upright

if TYPE_CHECKING:
    from collections.abc import Iterable

    from ltx2core.data.buckets import BucketRule
    from ltx2core.data.clip import Clip
    from ltx2core.data.inspection import Inspection
    from ltx2core.data.survey import Row

MENDS = {
    "rotated": "turned",
    "interlaced": "deinterlaced",
    "hdr": "tone-mapped to BT.709",
    "high_bit_depth": "brought to 8 bits",
    "variable_frame_rate": "brought to a constant rate",
    "unusual_frame_rate": "brought to the dataset's rate, if it is higher",
    "letterbox": "cropped off",
    "hard_cut": "split there",
    "black_frames": "cut out",
    "frozen": "cut out",
    "audio_silent": "track removed",
    "audio_short": "cut to the sound, if half is left",
    "audio_late": "cut to the sound, if half is left",
    "audio_early": "cut off",
    "unknown_audio_codec": "track removed",
    "truncated": "what can be read is kept",
    "unsupported_type": "encoded as mp4, if it can be read (.avi, .m4v, .ts, .mts, .m2ts, .flv)",
    "too_long": "cut up",
    "caption_not_utf8": "written as UTF-8",
    "near_duplicate": "left out",
}  # what is done about a problem, in a few words
FIXABLE = frozenset(MENDS)
_MOST_LOST = 0.5  # of a clip, for the sake of sound that does not reach over it


@dataclass(frozen=True, slots=True, kw_only=True)
class Repair:
    """What is done to a clip. `steps` says it to a person; without steps the clip is taken over as it is.

    segments: what is kept, each a file of its own, in seconds after the first frame; an end of None is the end of the clip.
    crop: lines of the stored picture. rate: frames a second to resample to, None for its own. A clip that is encoded comes out upright.
    """

    steps: tuple[str, ...] = ()
    left: tuple[str, ...] = ()  # codes of warnings that stay
    left_out: str = ""  # why the clip is not taken over at all
    segments: tuple[tuple[float, float | None], ...] = ((0.0, None),)
    deinterlace: bool = False
    crop: Bars | None = None
    tone_map: bool = False
    rate: float | None = None
    sound: Literal["keep", "drop"] = "keep"
    encode: bool = False  # False: pictures are copied as they are
    caption_text: str | None = None  # to be written as UTF-8

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> Repair:
        crop = value["crop"]
        return cls(
            **value
            | {
                "crop": Bars(**crop) if crop is not None else None,
                "segments": tuple((start, end) for start, end in value["segments"]),
                "steps": tuple(value["steps"]),
                "left": tuple(value["left"]),
            }
        )


def plan_repair(row: Row, rule: BucketRule) -> Repair:
    """What can be done about the problems of a row."""
    clip = row.clip
    codes = {problem.code for problem in clip.problems}
    hopeless = [
        problem
        for problem in clip.problems
        if problem.level == "error" and problem.code not in FIXABLE and not _about_caption(problem.code)
    ]
    if "near_duplicate" in codes:
        text = next(problem.text for problem in clip.problems if problem.code == "near_duplicate")
        return Repair(left_out=text)
    if hopeless:
        return Repair(left_out=hopeless[0].text)
    repair = Repair(
        left=tuple(sorted(problem.code for problem in clip.problems if problem.level != "info" and problem.code not in FIXABLE))
    )
    for change in (_pictures, _rate, _sound, _whole, _segments, _caption):
        repair = change(repair, row, codes, rule)
        if repair.left_out:
            return repair
    return repair


def _pictures(repair: Repair, row: Row, codes: set[str], rule: BucketRule) -> Repair:
    clip, steps = row.clip, list(repair.steps)
    if "interlaced" in codes:
        repair = replace(repair, deinterlace=True)
        steps.append("deinterlaced")
    if "letterbox" in codes and row.inspection is not None and (bars := _bars(clip, row.inspection)) is not None:
        repair = replace(repair, crop=bars)
        seen = upright(bars, clip.rotation)
        sides = {"top": seen.top, "bottom": seen.bottom, "left": seen.left, "right": seen.right}
        steps.append("bars cropped off: " + ", ".join(f"{lines} px at its {side}" for side, lines in sides.items() if lines))
    if "rotated" in codes:
        steps.append(f"turned upright by {clip.rotation} degrees")
    if "hdr" in codes:
        repair = replace(repair, tone_map=True)
        steps.append("tone-mapped to BT.709")
    elif "high_bit_depth" in codes:
        steps.append("brought to 8 bits a colour")
    if "unsupported_type" in codes:
        steps.append("encoded as H.264 in mp4")
    return replace(repair, steps=tuple(steps), encode=bool(steps))


def _rate(repair: Repair, row: Row, codes: set[str], rule: BucketRule) -> Repair:
    if "variable_frame_rate" in codes:
        what = f"brought to a constant {rule.frame_rate:g} fps by its timestamps"
    elif "unusual_frame_rate" in codes and row.clip.fps > rule.frame_rate:
        what = f"brought from {row.clip.fps:.4g} to {rule.frame_rate:g} fps by its timestamps"
    else:
        unusual = ("unusual_frame_rate",) if "unusual_frame_rate" in codes else ()
        return replace(repair, left=tuple(sorted({*repair.left, *unusual})))
    return replace(repair, rate=rule.frame_rate, steps=(*repair.steps, what), encode=True)


def _sound(repair: Repair, row: Row, codes: set[str], rule: BucketRule) -> Repair:
    if "audio_silent" in codes:
        return replace(repair, sound="drop", steps=(*repair.steps, "its silent sound track removed"))
    if "unknown_audio_codec" in codes:
        return replace(repair, sound="drop", steps=(*repair.steps, "its sound, which cannot be decoded, removed"))
    clip, audio = row.clip, row.clip.audio
    if audio is None or not codes & {"audio_short", "audio_late", "audio_early"}:
        return repair
    start, end = max(audio.start, 0.0), min(audio.start + audio.seconds, clip.seconds)
    if end - start < _MOST_LOST * clip.seconds:
        return replace(repair, left=tuple(sorted({*repair.left, *(codes & {"audio_short", "audio_late"})})))
    steps = list(repair.steps)
    if "audio_early" in codes:
        steps.append("sound before its first picture cut off")
    if "audio_late" in codes or "audio_short" in codes:
        steps.append(f"cut to where it has both picture and sound, {start:.2f} to {end:.2f} s")
    kept = start if "audio_late" in codes else 0.0, end if "audio_short" in codes else None
    return replace(repair, segments=(kept,), steps=tuple(steps), encode=True)


def _whole(repair: Repair, row: Row, codes: set[str], rule: BucketRule) -> Repair:
    if "truncated" not in codes:
        return repair
    return replace(repair, steps=(*repair.steps, "what can be read of it kept"), encode=True)


def _segments(repair: Repair, row: Row, codes: set[str], rule: BucketRule) -> Repair:
    """Take out black and stills, split at cuts and where a clip is too long; drop what is too short to train on, and say so."""
    found, steps = row.inspection, list(repair.steps)
    ((start, end),) = repair.segments
    pieces = [Span(start=start, end=end if end is not None else row.clip.seconds)]
    if found is not None and not is_static(found):
        black, still = black_spans(found), still_spans(found)
        cuts = cuts_inside(found)
        for name, spans in (("black", black), ("a still", still)):
            if spans:
                pieces = _without(pieces, spans)
                steps.append(f"{name} cut out: " + ", ".join(f"{span.start:.2f} to {span.end:.2f} s" for span in spans[:5]))
        if cuts:
            pieces = _split(pieces, cuts)
            steps.append("split at its cuts: " + ", ".join(f"{when:.2f} s" for when in cuts[:5]) + (" ..." if len(cuts) > 5 else ""))
    if "too_long" in codes and rule.max_frames is not None:
        longest = rule.max_frames / rule.frame_rate
        pieces = [part for piece in pieces for part in _cut_up(piece, longest)]
        steps.append(f"cut into pieces of at most {rule.max_frames} frames")
    if len(steps) == len(repair.steps):
        return repair
    least = (snap_frames(rule.min_frames) if rule.min_frames else MIN_FRAMES) / rule.frame_rate
    kept = [piece for piece in pieces if piece.seconds >= least - 1e-6]
    dropped = [piece for piece in pieces if piece.seconds < least - 1e-6 and piece.seconds > 1e-6]
    if dropped:
        steps.append("left out as too short: " + ", ".join(f"{piece.start:.2f} to {piece.end:.2f} s" for piece in dropped[:5]))
    if not kept:
        return Repair(left_out=f"{row.clip.path.name}: no part of it is left that is long enough to train on ({'; '.join(steps)}).")
    last = row.clip.seconds - 1e-6
    segments = tuple((piece.start, None if end is None and piece.end >= last else piece.end) for piece in kept)
    return replace(repair, segments=segments, steps=tuple(steps), encode=True)


def _caption(repair: Repair, row: Row, codes: set[str], rule: BucketRule) -> Repair:
    steps = list(repair.steps)
    if "caption_not_utf8" in codes and row.clip.caption is not None:
        repair = replace(repair, caption_text=row.clip.caption)
        steps.append("its caption written as UTF-8")
    if len(repair.segments) > 1 and row.clip.caption is not None:
        steps.append("its caption copied to each part: read them again")
    return replace(repair, steps=tuple(steps))


def _bars(clip: Clip, found: Inspection) -> Bars | None:
    turned = clip.rotation in (90, 270)
    width, height = (clip.height, clip.width) if turned else (clip.width, clip.height)
    return letterbox(found, width=width, height=height)


def _without(pieces: Iterable[Span], spans: Iterable[Span]) -> list[Span]:
    """What of the pieces lies outside the spans."""
    rest = list(pieces)
    for span in spans:
        parts = [
            (Span(start=piece.start, end=min(piece.end, span.start)), Span(start=max(piece.start, span.end), end=piece.end))
            for piece in rest
        ]
        rest = [part for pair in parts for part in pair if part.seconds > 1e-6]
    return rest


def _split(pieces: Iterable[Span], cuts: Iterable[float]) -> list[Span]:
    rest = list(pieces)
    for when in cuts:
        rest = [
            part
            for piece in rest
            for part in (
                (Span(start=piece.start, end=when), Span(start=when, end=piece.end))
                if piece.start + 1e-6 < when < piece.end - 1e-6
                else (piece,)
            )
        ]
    return rest


def _cut_up(piece: Span, longest: float) -> list[Span]:
    """Equal parts, none longer than `longest` seconds."""
    count = max(-(-(piece.seconds - 1e-6) // longest), 1)
    length = piece.seconds / count
    return [Span(start=piece.start + number * length, end=piece.start + (number + 1) * length) for number in range(int(count))]


def _about_caption(code: str) -> bool:
    return code in ("missing_caption", "empty_caption", "caption_unreadable")
