"""The little world that nano knows: what can be in one of its clips, and the sentences that say so. No torch here."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

Rgb = tuple[int, int, int]

# Shapes are bright, backgrounds dark: a pixel whose largest channel is over 150 belongs to the shape.
COLOURS: dict[str, Rgb] = {
    "red": (225, 35, 35),
    "orange": (245, 140, 20),
    "yellow": (240, 225, 40),
    "green": (40, 190, 60),
    "cyan": (40, 205, 215),
    "blue": (45, 80, 235),
    "purple": (150, 60, 220),
    "white": (235, 235, 235),
}
SHAPES = ("circle", "square", "triangle", "diamond", "cross")
DIRECTIONS: dict[str, tuple[int, int]] = {"left": (-1, 0), "right": (1, 0), "up": (0, -1), "down": (0, 1)}
SPEEDS = {"slowly": (45.0, 60.0), "quickly": (75.0, 95.0)}  # pixels a second on a frame of 128 pixels
BACKGROUNDS: dict[str, Rgb] = {
    "black": (12, 12, 16),
    "gray": (85, 85, 90),
    "navy": (20, 25, 80),
    "brown": (80, 50, 25),
    "forest": (15, 70, 30),
    "maroon": (80, 15, 25),
}
PATTERNS = ("plain", "fading", "striped", "checkered")
SOUNDS = ("humming", "buzzing", "beeping")

_TEMPLATES = (
    "a {colour} {shape} moves {speed} {direction} over a {pattern} {background} background, with a {sound} sound",
    "{sound} sound. a {colour} {shape} moving {direction} {speed}, the background is {pattern} {background}",
    "a {colour} {shape} glides {direction} over a {background} background",
    "over a {pattern} {background} background, a {colour} {shape} moves {direction}, {sound}",
)
_SIZES = {"small": "a small {colour}", "big": "a big {colour}"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Words:
    """What a caption can say of a clip. `size` is a word or empty: the clip's size is only sometimes told."""

    colour: str
    shape: str
    direction: str
    speed: str
    background: str
    pattern: str
    sound: str
    size: str = ""

    @property
    def held_out(self) -> bool:
        """Whether this colour, shape and direction were never seen together in training: about one combination in eight."""
        return hashlib.sha256(f"{self.colour} {self.shape} {self.direction}".encode()).digest()[0] < 32


def caption(words: Words, template: int = 0) -> str:
    """One of four ways to say it; the shorter ones leave things open."""
    text = _TEMPLATES[template % len(_TEMPLATES)]
    if words.size:
        text = text.replace("a {colour}", _SIZES[words.size])
    return text.format(
        colour=words.colour,
        shape=words.shape,
        direction=words.direction,
        speed=words.speed,
        background=words.background,
        pattern=words.pattern,
        sound=words.sound,
    )


def every_word() -> list[str]:
    """Every word that a caption can hold, sorted."""
    words = {word.strip(".,") for text in (*_TEMPLATES, *_SIZES.values()) for word in text.split() if "{" not in word}
    for group in (COLOURS, SHAPES, DIRECTIONS, SPEEDS, BACKGROUNDS, PATTERNS, SOUNDS, _SIZES):
        words.update(group)
    return sorted(words)
