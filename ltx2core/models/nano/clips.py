"""Procedural clips: shapes that move over backgrounds, with tones. nano was trained on them; the demo and the tests make more.

Positions and sizes are in pixels of a 128-pixel frame, scaled to any other. What no caption says is still bound together, so that one
stream can be told from the other: the smaller the shape the higher its tone, and the tone comes from where the shape is.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ltx2core.models.nano import vocabulary
from ltx2core.models.nano.vocabulary import Words

if TYPE_CHECKING:
    from collections.abc import Sequence

FRAME = 128.0
FPS, SECONDS = 25.0, 0.68  # of the clips that nano learns from
SIZES = ((128, 128, 17), (160, 96, 17), (96, 160, 17), (128, 128, 25))  # width, height, frames; the first is most of the training
MIN_SIZE, MAX_SIZE = 13.0, 26.0  # half the extent of a shape
SOFTNESS = 2.5  # pixels over which an outline fades, as a lens has it
PLAIN, STRIPES, CHECKER = 0, 1, 2  # textures


@dataclass(slots=True, kw_only=True)
class Scenes:
    """N clips as tensors, K shapes in each. Colours are 0..1; positions are of the middle of the clip."""

    shape: Tensor  # [N, K] index into SHAPES
    size: Tensor  # [N, K]
    colour: Tensor  # [N, K, 3]
    texture: Tensor  # [N, K]
    second_colour: Tensor  # [N, K, 3]
    period: Tensor  # [N, K] of the texture, pixels
    centre: Tensor  # [N, K, 2] x, y from the middle of the frame
    velocity: Tensor  # [N, K, 2] pixels a second
    background: Tensor  # [N, 3]
    second_background: Tensor  # [N, 3]
    pattern: Tensor  # [N] index into PATTERNS
    pattern_period: Tensor  # [N] pixels
    sound: Tensor  # [N] index into SOUNDS
    pitch: Tensor  # [N] Hz

    def __len__(self) -> int:
        return int(self.shape.shape[0])

    def to(self, device: torch.device | str) -> Scenes:
        return Scenes(**{field.name: getattr(self, field.name).to(device) for field in fields(self)})

    def __getitem__(self, index: slice) -> Scenes:
        return Scenes(**{field.name: getattr(self, field.name)[index] for field in fields(self)})


def random_words(count: int, generator: torch.Generator, *, held_out: bool = False) -> list[Words]:
    """What `count` clips show, all of combinations that training may see, or all of those it may not."""
    found: list[Words] = []
    while len(found) < count:
        words = Words(
            colour=_pick(tuple(vocabulary.COLOURS), generator),
            shape=_pick(vocabulary.SHAPES, generator),
            direction=_pick(tuple(vocabulary.DIRECTIONS), generator),
            speed=_pick(tuple(vocabulary.SPEEDS), generator),
            background=_pick(tuple(vocabulary.BACKGROUNDS), generator),
            pattern=_pick(vocabulary.PATTERNS, generator),
            sound=_pick(vocabulary.SOUNDS, generator),
            size=_pick(("", "", "small", "big"), generator),
        )
        if words.held_out == held_out:
            found.append(words)
    return found


def scenes_of(words: Sequence[Words], generator: torch.Generator) -> Scenes:
    """Clips that show what the words say; what they leave open is drawn at random."""
    count = len(words)
    uniform = torch.rand(count, 6, generator=generator)
    low = torch.tensor([{"": 0.0, "small": 0.0, "big": 0.6}[item.size] for item in words])
    high = torch.tensor([{"": 1.0, "small": 0.4, "big": 1.0}[item.size] for item in words])
    size = MIN_SIZE + (low + (high - low) * uniform[:, 0]) * (MAX_SIZE - MIN_SIZE)
    slow = torch.tensor([vocabulary.SPEEDS[item.speed] for item in words])
    speed = slow[:, 0] + (slow[:, 1] - slow[:, 0]) * uniform[:, 1]
    direction = torch.tensor([vocabulary.DIRECTIONS[item.direction] for item in words], dtype=torch.float32)
    background = torch.tensor([vocabulary.BACKGROUNDS[item.background] for item in words]) / 255
    colour = torch.tensor([vocabulary.COLOURS[item.colour] for item in words]) / 255
    fading = torch.tensor([item.pattern == "fading" for item in words])
    return Scenes(
        shape=torch.tensor([[vocabulary.SHAPES.index(item.shape)] for item in words]),
        size=size[:, None],
        colour=colour[:, None],
        texture=torch.zeros(count, 1, dtype=torch.long),
        second_colour=colour[:, None].clone(),
        period=torch.full((count, 1), 12.0),
        centre=((uniform[:, 2:4] - 0.5) * 2 * torch.where(direction == 0, 28.0, 10.0))[:, None],
        velocity=(direction * speed[:, None])[:, None],
        background=background * torch.where(fading, 1.25, 1.0)[:, None],
        second_background=background * torch.where(fading, 0.3, 0.65)[:, None],
        pattern=torch.tensor([vocabulary.PATTERNS.index(item.pattern) for item in words]),
        pattern_period=torch.full((count,), 32.0),
        sound=torch.tensor([vocabulary.SOUNDS.index(item.sound) for item in words]),
        pitch=pitch_of(size),
    )


def pitch_of(size: Tensor) -> Tensor:
    """The tone of a shape, Hz: three octaves from 1760 Hz for the smallest down to 220 Hz for the biggest."""
    return 1760.0 * 2.0 ** (-3 * (size - MIN_SIZE) / (MAX_SIZE - MIN_SIZE))


def varied_scenes(count: int, generator: torch.Generator, *, shapes: int = 3) -> Scenes:
    """Clips of anything: several textured shapes in any colours, moving any way. They teach the VAEs more than the captions can say."""

    def uniform(*size: int, low: float = 0.0, high: float = 1.0) -> Tensor:
        return low + (high - low) * torch.rand(*size, generator=generator)

    def index(*size: int, below: int) -> Tensor:
        return torch.randint(below, size, generator=generator)

    return Scenes(
        shape=index(count, shapes, below=len(vocabulary.SHAPES)),
        size=uniform(count, shapes, low=6, high=34),
        colour=uniform(count, shapes, 3),
        texture=index(count, shapes, below=3),
        second_colour=uniform(count, shapes, 3),
        period=uniform(count, shapes, low=6, high=24),
        centre=uniform(count, shapes, 2, low=-56, high=56),
        velocity=uniform(count, shapes, 2, low=-100, high=100),
        background=uniform(count, 3),
        second_background=uniform(count, 3),
        pattern=index(count, below=len(vocabulary.PATTERNS)),
        pattern_period=uniform(count, low=12, high=64),
        sound=index(count, below=len(vocabulary.SOUNDS)),
        pitch=110 * 2 ** uniform(count, high=5),
    )


def crowd(groups: Sequence[Scenes], generator: torch.Generator) -> Scenes:
    """The shapes of several equally long groups in the backgrounds of the first, spread over the frame."""
    first = groups[0]
    joined = {
        name: torch.cat([getattr(group, name) for group in groups], dim=1)
        for name in ("shape", "size", "colour", "texture", "second_colour", "period", "centre", "velocity")
    }
    joined["centre"] = (torch.rand(joined["centre"].shape, generator=generator) - 0.5) * FRAME
    kept = {name: getattr(first, name) for name in ("background", "second_background", "pattern", "pattern_period", "sound", "pitch")}
    return Scenes(**joined, **kept)


def render_video(scenes: Scenes, *, width: int, height: int, frames: int, fps: float) -> Tensor:
    """Pixels [N, 3, F, H, W], -1..1, soft-edged, on the device of the scenes."""
    device, scale = scenes.size.device, min(width, height) / FRAME
    y = ((torch.arange(height, device=device) + 0.5 - height / 2) / scale).view(1, 1, -1, 1)
    x = ((torch.arange(width, device=device) + 0.5 - width / 2) / scale).view(1, 1, 1, -1)
    seconds = ((torch.arange(frames, device=device) - (frames - 1) / 2) / fps).view(1, -1, 1, 1)
    weight = _pattern(scenes, x, y, height / scale)[:, None].expand(-1, 1, frames, -1, -1)
    picture = _mix(scenes.second_background, scenes.background, weight)
    for layer in range(scenes.shape.shape[1]):
        centre_x, centre_y = (
            _column(scenes.centre[:, layer, axis]) + _column(scenes.velocity[:, layer, axis]) * seconds for axis in (0, 1)
        )
        across, down = x - centre_x, y - centre_y  # [N, F, H, W] by broadcasting
        inside = (0.5 - _distance(scenes.shape[:, layer], scenes.size[:, layer], across, down) / SOFTNESS).clamp(0, 1)
        texture = _texture(scenes.texture[:, layer], scenes.period[:, layer], across, down)
        paint = _mix(scenes.second_colour[:, layer], scenes.colour[:, layer], texture[:, None])
        picture = picture + inside[:, None] * (paint - picture)
    return picture * 2 - 1


def render_sound(scenes: Scenes, *, seconds: float, sample_rate: int) -> Tensor:
    """Stereo sound [N, 2, n], -1..1, the same at every sample rate: a hum, a buzz or beeps at the scene's pitch, panned to its shape."""
    device = scenes.pitch.device
    time = torch.arange(round(seconds * sample_rate), device=device) / sample_rate
    phase = 2 * math.pi * scenes.pitch[:, None] * time
    hum = torch.sin(phase)
    buzz = torch.zeros_like(phase)
    for harmonic in range(1, 7):  # those above what 16 kHz can hold are left out at every rate, so that rates agree
        buzz = buzz + torch.sin(phase * harmonic) / harmonic * (scenes.pitch[:, None] * harmonic < 7000)
    gate = torch.sigmoid(torch.sin(2 * math.pi * 7 * time) * 12)
    kind = scenes.sound[:, None]
    tone = torch.where(kind == 0, hum, torch.where(kind == 1, buzz * 0.7, hum * gate))
    middle = seconds / 2
    pan = ((scenes.centre[:, 0, :1] + scenes.velocity[:, 0, :1] * (time - middle)) / (FRAME / 2)).clamp(-1, 1) * 0.8
    edge = (time * 200).clamp(max=1) * ((seconds - time) * 200).clamp(max=1)  # 5 ms in and out: no click
    return torch.stack([tone * (1 - pan), tone * (1 + pan)], dim=1) * edge * 0.25


def _column(values: Tensor) -> Tensor:
    return values.view(-1, 1, 1, 1)


def _mix(low: Tensor, high: Tensor, weight: Tensor) -> Tensor:
    """Colours [N, 3] mixed by a weight [N, 1, F, H, W] of the second."""
    low, high = low[:, :, None, None, None], high[:, :, None, None, None]
    return low + (high - low) * weight


def _pattern(scenes: Scenes, x: Tensor, y: Tensor, height: float) -> Tensor:
    """[N, 1, H, W]: 1 where the background has its first colour, 0 where its second."""
    period, kind = _column(scenes.pattern_period), _column(scenes.pattern)
    stripes = torch.where(torch.remainder(x, period) < period / 2, 1.0, 0.0) + 0 * y
    rows = torch.where(torch.remainder(y, period) < period / 2, 1.0, 0.0)
    checkered = (stripes - rows).abs()
    fading = (0.5 - y / height) + 0 * x
    return torch.where(kind == 0, torch.ones_like(stripes), torch.where(kind == 1, fading, torch.where(kind == 2, stripes, checkered)))


def _distance(shape: Tensor, size: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """Signed distance to the outline, negative inside: [N, F, H, W]. Shapes in the order of SHAPES."""
    size, kind = _column(size), _column(shape)
    ax, ay = x.abs(), y.abs()
    circle = (x.square() + y.square()).sqrt() - size
    square = torch.maximum(ax, ay) - 0.88 * size
    triangle = torch.maximum(0.866 * ax - 0.5 * y, y) - 0.62 * size  # the tip is up
    diamond = (ax + ay) / math.sqrt(2) - 0.88 * size
    cross = torch.minimum(torch.maximum(ax - size, ay - 0.38 * size), torch.maximum(ax - 0.38 * size, ay - size))
    return torch.where(
        kind == 0, circle, torch.where(kind == 1, square, torch.where(kind == 2, triangle, torch.where(kind == 3, diamond, cross)))
    )


def _texture(kind: Tensor, period: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """[N, F, H, W]: 1 where the shape has its first colour, 0 where its second."""
    kind, period = _column(kind), _column(period)
    stripes = torch.where(torch.remainder(x + 0 * y, period) < period / 2, 1.0, 0.0)
    rows = torch.where(torch.remainder(y + 0 * x, period) < period / 2, 1.0, 0.0)
    return torch.where(kind == PLAIN, torch.ones_like(stripes), torch.where(kind == STRIPES, stripes, (stripes - rows).abs()))


def _pick(choices: tuple[str, ...], generator: torch.Generator) -> str:
    return choices[int(torch.randint(len(choices), (), generator=generator))]
