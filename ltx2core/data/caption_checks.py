"""What is wrong with a clip's captions beside their file: too long for the text encoder, or at odds with how fast the clip will be."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from ltx2core.data.clip import Problem

if TYPE_CHECKING:
    from ltx2core.data.clip import Clip
    from ltx2core.data.tokens import TokenCounter

_NAMED_RATE = re.compile(r"\b(\d{1,3}(?:\.\d+)?)\s*-?\s*(?:fps|frames (?:per|a) second)\b", re.IGNORECASE)
_SLOW = re.compile(r"\bslow(?:ed)?[\s-]*mo(?:tion)?\b", re.IGNORECASE)
# 23.976 is called 24 and 29.97 is called 30; the next rate that people name, 25 beside 24, is 4 % away.
_RATE_SLACK = 0.02
# Footage of twice the rate and more is shot to be slowed down; taken by its times it plays at normal speed.
_HIGH_SPEED = 1.9


def judge_captions(clip: Clip, captions: tuple[str, ...], *, frame_rate: float, counter: TokenCounter) -> tuple[list[Problem], int]:
    """The problems of the captions as they are trained, and the tokens of the longest. frame_rate: of the frames the model sees."""
    problems: list[Problem] = []
    most = max((counter.count(caption) for caption in captions), default=0)
    name = clip.path.name
    if most > counter.limit:
        about = "" if counter.exact else "about "
        text = f"{name} has a caption of {about}{most:,} tokens; the text encoder takes {counter.limit:,}."
        problems.append(Problem(code="caption_long", level="warning", text=text, fix="Shorten it: what is beyond is cut off."))
    for caption in captions:
        if (problem := _rate_mismatch(clip, caption, frame_rate)) is not None:
            problems.append(problem)
            break
    return problems, most


def _rate_mismatch(clip: Clip, caption: str, frame_rate: float) -> Problem | None:
    name = clip.path.name
    for match in _NAMED_RATE.finditer(caption):
        named = float(match[1])
        if named > 0 and abs(named - frame_rate) > _RATE_SLACK * frame_rate:
            text = f"{name}: its caption says {match[0]}, but it trains at {frame_rate:g} fps."
            fix = "Leave the rate out of the caption, or train this clip at that rate (video.frame_rate)."
            return Problem(code="caption_rate_mismatch", level="warning", text=text, fix=fix)
    if (slow := _SLOW.search(caption)) is not None and clip.fps >= _HIGH_SPEED * frame_rate:
        text = f"{name}: its caption says {slow[0]}, but its {clip.fps:.4g} fps are played by their times, at normal speed."
        fix = f"Store it slowed down, at {frame_rate:g} fps, or leave that out of the caption."
        return Problem(code="caption_rate_mismatch", level="warning", text=text, fix=fix)
    return None
