"""Scheduled sampling: training on states that the model itself reached, as it meets them when it samples, and ReflexFlow on top.

A sample learns at noise level sigma. Instead of mixing its clip with noise at sigma, a rollout mixes them at a higher level and lets the
model itself come down, without gradients and without guidance, by Euler's method, which is how LTX-2 is sampled:

    sigma_0 = min(1, sigma + k h)        k steps of h each; x_0 = (1 - sigma_0) clean + sigma_0 noise
    x_{j+1} = x_j + (sigma_{j+1} - sigma_j) v(x_j, sigma_j)        sigma_j in equal steps from sigma_0 to sigma_k = sigma

Pictures and sound, each from its own sigma, come down together in the same k forwards. What is given stays clean. From the state x_k that
was reached the model is to find back to the clip, so it learns the velocity (x_k - clean) / sigma, which is noise - clean where no error
was made (sigma counts as 0.05 at least, below which a small drift would outweigh everything).

ReflexFlow (arXiv 2512.04904) keeps the target noise - clean and replaces the loss by beta1 ADR + beta2 FC:

    ADR = | v / |v| - (x_k - clean) / |x_k - clean| |^2        over all of a sample that is learned: anti-drift rectification
    FC  = mean of w (v - (noise - clean))^2,  w = 1 + alpha |e| / mean |e|,  e = v(x_sigma) - v(x_k)        frequency compensation

with x_sigma the exact mixture at sigma, which takes one forward more. The paper divides |e| by its sum over all numbers, which for a
clip makes w one to within a millionth; here it is divided by its mean, so that alpha is the weight that the bias gets on average.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

import torch

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Generator, Tensor

    from ltx2core.training.objective import Noised

    Velocities = Callable[[Noised | None, Noised | None], tuple[Tensor | None, Tensor | None]]

_LEAST_SIGMA = 0.05
Strategy = Literal["uniform", "biased_early", "biased_late"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ReflexFlow:
    """The weights of ReflexFlow's loss, under the paper's names."""

    alpha: float = 1.0
    beta1: float = 10.0
    beta2: float = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Rollouts:
    """How often and how far batches are rolled out. most_steps: of the model; step_size: how far sigma moves in one.

    probability: of a batch, or, with ramp_steps, from `first` to `last` over so many steps of the run that follow start_step.
    """

    most_steps: int
    step_size: float = 0.05
    strategy: Strategy = "uniform"
    probability: float = 0.0
    first: float = 0.0
    last: float = 0.5
    ramp_steps: int = 0
    ramp: Literal["linear", "cosine"] = "linear"
    start_step: int = 0
    reflexflow: ReflexFlow | None = None

    def probability_at(self, step: int) -> float:
        """How likely a batch is rolled out when `step` steps of the run are finished."""
        if step < self.start_step:
            return 0.0
        if not self.ramp_steps:
            return self.probability
        done = min(1.0, (step - self.start_step) / self.ramp_steps)
        return self.first + (self.last - self.first) * (done if self.ramp == "linear" else 0.5 - 0.5 * math.cos(math.pi * done))

    def draw(self, step: int, generator: Generator) -> int:
        """How many steps the next batch is rolled out; 0 for not at all. biased_early: more often few, biased_late: more often many."""
        chance, one, other = torch.rand(3, generator=generator).tolist()
        if chance >= self.probability_at(step):
            return 0
        place = {"uniform": one, "biased_early": min(one, other), "biased_late": max(one, other)}[self.strategy]
        return 1 + min(int(place * self.most_steps), self.most_steps - 1)


def roll_out(
    velocities: Velocities, video: Noised | None, audio: Noised | None, *, steps: int, step_size: float
) -> tuple[Noised | None, Noised | None]:
    """Both modalities with the state that the model reaches at their sigma in `steps` forwards, in the place of the exact mixture.

    velocities: the model, without gradients.
    """
    streams = [None if stream is None else _Stream(stream, steps, step_size) for stream in (video, audio)]
    for step in range(steps):
        found = velocities(*(None if stream is None else stream.at(step) for stream in streams))
        for stream, velocity in zip(streams, found, strict=True):
            if stream is not None and velocity is not None:
                stream.move(step, velocity)
    reached = [None if stream is None else stream.reached() for stream in streams]
    return reached[0], reached[1]


def towards_clip(reached: Noised) -> Noised:
    """The same with the noise for which noise - clean is the velocity that leads from the state reached to the clip."""
    sigma = reached.sigma.clamp(min=_LEAST_SIGMA).view(-1, 1, 1)
    return replace(reached, noise=reached.clean + (reached.noisy - reached.clean) / sigma)


def bias_weights(exact: Tensor, reached: Tensor, learned: Tensor, *, alpha: float) -> Tensor:
    """ReflexFlow's w of each number, [B, L, C], from the velocities at the exact mixture and at the state reached, both [B, L, C]."""
    bias = (exact.float() - reached.detach().float()).abs()
    shown = learned.unsqueeze(2)
    mean = (bias * shown).sum(dim=(1, 2), keepdim=True) / (shown.sum(dim=(1, 2), keepdim=True) * bias.shape[2]).clamp(min=1)
    return 1 + alpha * bias / mean.clamp(min=1e-12)


def drift_loss(velocity: Tensor, reached: Noised) -> Tensor:
    """ReflexFlow's ADR of each sample, [B]: 0 where the velocity points straight away from the clip, 4 where it points to it."""
    shown = reached.learned.unsqueeze(2)

    def direction(tensor: Tensor) -> Tensor:
        return torch.nn.functional.normalize((tensor.float() * shown).flatten(1), dim=1)

    return (direction(velocity) - direction(reached.noisy - reached.clean)).square().sum(dim=1)


class _Stream:
    """A modality on its way down."""

    def __init__(self, goal: Noised, steps: int, step_size: float) -> None:
        self._goal = goal
        start = (goal.sigma + steps * step_size).clamp(max=1.0)
        share = torch.arange(steps + 1, device=start.device) / steps
        self._sigmas = start.unsqueeze(1) + (goal.sigma - start).unsqueeze(1) * share  # [B, steps + 1]
        self._moves = (goal.timesteps != 0).unsqueeze(2)  # not what is given
        level = self._sigmas[:, 0].view(-1, 1, 1)
        self._state = torch.where(self._moves, (1 - level) * goal.clean + level * goal.noise, goal.noisy)

    def at(self, step: int) -> Noised:
        sigma = self._sigmas[:, step]
        timesteps = torch.where(self._moves.squeeze(2), sigma.view(-1, 1), self._goal.timesteps)
        return replace(self._goal, noisy=self._state, sigma=sigma, timesteps=timesteps)

    def move(self, step: int, velocity: Tensor) -> None:
        length = (self._sigmas[:, step + 1] - self._sigmas[:, step]).view(-1, 1, 1)
        self._state = torch.where(self._moves, self._state + length * velocity.float(), self._state)

    def reached(self) -> Noised:
        return replace(self._goal, noisy=self._state)
