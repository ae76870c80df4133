"""How much noise a training sample gets: the official sampler, and others. Nothing here knows about models or files.

The official sampler shifts a logit-normal towards noise by the number of tokens of that modality, stretches it so that its
tails reach 0 and 1, and mixes in 10 % uniform draws. Video and audio each draw their own sigma, each with its own token count.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache
from typing import TYPE_CHECKING, Protocol

import numpy as np
import torch

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Generator, Tensor

_SLOPE = (2.05 - 0.95) / (4096 - 1024)  # mu is 0.95 at 1024 tokens and 2.05 at 4096
_OFFSET = 0.95 - _SLOPE * 1024
_FINE = 8192  # steps of a curve's integral: its inverse is off by less than 1e-6


class SigmaSampler(Protocol):
    """Draws one noise level for each sample of a batch."""

    def sample(self, count: int, *, tokens: int, generator: Generator) -> Tensor:
        """Noise levels in 0..1: float32 [count], on the generator's device."""
        ...


def shift_for(tokens: int) -> float:
    """mu of the official sampler: linear in the token count, without a limit. 0.95 at 1024 tokens, 2.05 at 4096, 6.45 at 16384."""
    return _OFFSET + _SLOPE * tokens


@dataclass(frozen=True, slots=True, kw_only=True)
class ShiftedLogitNormal:
    """The official `ShiftedLogitNormalTimestepSampler`.

    most_tokens caps the token count that mu is computed from: None is the official, unlimited law, under which long clips train
    at almost pure noise (16384 tokens: a shift of 630x). offset is added to the normal.
    """

    std: float = 1.0
    eps: float = 1e-3
    uniform_probability: float = 0.1
    most_tokens: int | None = None
    offset: float = 0.0

    def sample(self, count: int, *, tokens: int, generator: Generator) -> Tensor:
        normal = torch.randn(count, generator=generator)
        uniform = torch.rand(count, generator=generator)
        choice = torch.rand(count, generator=generator)
        return self.from_draws(normal=normal, uniform=uniform, choice=choice, tokens=tokens)

    def from_draws(self, *, normal: Tensor, uniform: Tensor, choice: Tensor, tokens: int) -> Tensor:
        """The noise levels that three sets of draws give, each [count]: standard normal, and twice uniform in 0..1."""
        mu = shift_for(tokens if self.most_tokens is None else min(tokens, self.most_tokens)) + self.offset * self.std
        lowest, highest = torch.sigmoid(torch.tensor([mu - 2.5758 * self.std, mu + 3.0902 * self.std]))  # 0.5 % and 99.9 %, in float32
        stretched = (torch.sigmoid(normal * self.std + mu) - lowest) / (highest - lowest)
        reflected = torch.where(stretched >= self.eps, stretched, 2 * self.eps - stretched).clamp(0, 1)
        return torch.where(choice > self.uniform_probability, reflected, (1 - self.eps) * uniform + self.eps)


@dataclass(frozen=True, slots=True, kw_only=True)
class StaticShift:
    """A logit-normal with one shift for every length: sigma = shift s / (1 + (shift - 1) s), s = sigmoid(scale (n + offset))."""

    shift: float
    scale: float = 1.0
    offset: float = 0.0

    def sample(self, count: int, *, tokens: int, generator: Generator) -> Tensor:
        return shifted(torch.sigmoid((torch.randn(count, generator=generator) + self.offset) * self.scale), self.shift)


@dataclass(frozen=True, slots=True, kw_only=True)
class UniformDraw:
    """All levels equally often, then shifted."""

    shift: float = 1.0

    def sample(self, count: int, *, tokens: int, generator: Generator) -> Tensor:
        return shifted(torch.rand(count, generator=generator), self.shift)


@dataclass(frozen=True, slots=True, kw_only=True)
class BetaDraw:
    """A beta distribution, then shifted: alpha = beta = 2 favours the middle."""

    alpha: float = 2.0
    beta: float = 2.0
    shift: float = 1.0

    def sample(self, count: int, *, tokens: int, generator: Generator) -> Tensor:
        seed = int(torch.randint(2**63 - 1, (), generator=generator))  # torch draws no beta from a generator of one's own
        drawn = np.random.default_rng(seed).beta(self.alpha, self.beta, count)
        return shifted(torch.from_numpy(drawn).float(), self.shift)


@dataclass(frozen=True, slots=True, kw_only=True)
class CurveDraw:
    """Levels as often as a curve is high there, then shifted: its heights at evenly spaced levels from 0 to 1, joined smoothly.

    One height is a uniform draw, two a straight line. Only their ratios count.
    """

    heights: tuple[float, ...]
    shift: float = 1.0

    def sample(self, count: int, *, tokens: int, generator: Generator) -> Tensor:
        level, below = _cumulated(self.heights)
        drawn = np.interp(torch.rand(count, generator=generator, dtype=torch.float64).numpy(), below, level)
        return shifted(torch.from_numpy(drawn).float(), self.shift)


@dataclass(frozen=True, slots=True, kw_only=True)
class MixFlowDraw:
    """MixFlow (arXiv 2512.19311): low levels more often, density 2 (1 - sigma), then shifted; and what the transformer is given has more
    noise than it is told, as what it drew itself has at inference. gamma: the share of the way to pure noise that this may go."""

    gamma: float = 0.8
    shift: float = 1.0

    def sample(self, count: int, *, tokens: int, generator: Generator) -> Tensor:
        return shifted(1 - torch.rand(count, generator=generator).sqrt(), self.shift)

    def slowed(self, sigma: Tensor, *, generator: Generator) -> Tensor:
        """The levels of what is given where the transformer is told `sigma`: uniform in sigma .. sigma + gamma (1 - sigma)."""
        return sigma + torch.rand(sigma.shape, generator=generator) * self.gamma * (1 - sigma)


@dataclass(frozen=True, slots=True, kw_only=True)
class FixedLevels:
    """These levels and no others, each equally often."""

    levels: tuple[float, ...]

    def sample(self, count: int, *, tokens: int, generator: Generator) -> Tensor:
        return torch.tensor(self.levels)[torch.randint(len(self.levels), (count,), generator=generator)]


@dataclass(frozen=True, slots=True, kw_only=True)
class LevelsInTurn:
    """These levels one after the other, a sample each. first: the number of the batch's first sample, counted over the whole run."""

    levels: tuple[float, ...]
    first: int = 0

    def sample(self, count: int, *, tokens: int, generator: Generator) -> Tensor:
        return torch.tensor(self.levels)[(self.first + torch.arange(count)) % len(self.levels)]


def at_sample(sampler: SigmaSampler, first: int) -> SigmaSampler:
    """The sampler for the batch whose first sample has that number in the run."""
    return replace(sampler, first=first) if isinstance(sampler, LevelsInTurn) else sampler


def with_offset(sampler: SigmaSampler, offset: float) -> SigmaSampler:
    """The sampler with an offset of its normal; one that draws from no normal has none, and stays as it is."""
    if offset and isinstance(sampler, ShiftedLogitNormal | StaticShift):
        return replace(sampler, offset=offset)
    return sampler


def shifted(sigma: Tensor, shift: float) -> Tensor:
    """shift sigma / (1 + (shift - 1) sigma): more noise for a shift above 1 (arXiv 2403.03206, equation 23)."""
    return shift * sigma / (1 + (shift - 1) * sigma)


@lru_cache(maxsize=1)
def _cumulated(heights: tuple[float, ...]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Levels from 0 to 1, and the share of the curve that lies below each: its cumulative distribution."""
    level = np.linspace(0, 1, _FINE + 1)
    height = _smooth(np.array(heights, dtype=np.float64), level)
    below = np.concatenate([[0.0], np.cumsum((height[1:] + height[:-1]) / 2)])
    return level, below / below[-1]


def _smooth(knots: NDArray[np.float64], at: NDArray[np.float64]) -> NDArray[np.float64]:
    """Cubic Hermite through evenly spaced knots over 0..1, never outside its two neighbours, so never below 0 (Fritsch and Butland)."""
    if len(knots) < 3:
        return np.interp(at, np.linspace(0, 1, len(knots)), knots)
    steps = np.diff(knots)
    product = steps[:-1] * steps[1:]
    total = np.where(product > 0, steps[:-1] + steps[1:], 1.0)
    inner = np.where(product > 0, 2 * product / total, 0.0)  # harmonic mean; flat at a peak
    slopes = np.concatenate([[steps[0]], inner, [steps[-1]]])
    place = at * (len(knots) - 1)
    left = np.minimum(place.astype(np.intp), len(knots) - 2)
    x = place - left
    curve: NDArray[np.float64] = (
        (1 + 2 * x) * (1 - x) ** 2 * knots[left]
        + x * (1 - x) ** 2 * slopes[left]
        + x**2 * (3 - 2 * x) * knots[left + 1]
        + x**2 * (x - 1) * slopes[left + 1]
    )
    return curve.clip(min=0)
