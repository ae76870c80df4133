"""The flow-matching objective: what the transformer sees, what it should answer, and how wrong it was.

x(sigma) = (1 - sigma) x0 + sigma noise; the answer is the velocity noise - x0 (arXiv 2403.03206, section 3; the official
trainer's `flexible` strategy). Video and audio have their own noise, their own sigma and their own loss.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from ltx2core.training.conditions import draw_given
from ltx2core.training.penalty import SQUARES, Penalty
from ltx2core.training.sigma import MixFlowDraw

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Generator, Tensor

    from ltx2core.training.conditions import GivenPart
    from ltx2core.training.sigma import SigmaSampler


@dataclass(frozen=True, slots=True, kw_only=True)
class Noised:
    """One modality of a batch as the transformer is to see it, and what it should answer.

    clean, noise, noisy: [B, L, C]. sigma: [B]. timesteps: [B, L], sigma of each token, or [B, 1] where it is one for all.
    learned: bool [B, L].
    """

    clean: Tensor
    noise: Tensor
    noisy: Tensor
    sigma: Tensor
    timesteps: Tensor
    learned: Tensor


@dataclass(frozen=True, slots=True, kw_only=True)
class Losses:
    """Scalars on the device. `video` or `audio` is None when the batch has none. Each sample's own: [B].

    aside: what is learned besides and is no error of the velocity, None for nothing; similarity: the number that it tells of.
    """

    total: Tensor
    video: Tensor | None
    audio: Tensor | None
    video_each: Tensor | None = None
    audio_each: Tensor | None = None
    aside: Tensor | None = None
    similarity: Tensor | None = None

    @property
    def learned(self) -> Tensor:
        """What gradients are taken of."""
        return self.total if self.aside is None else self.total + self.aside

    def detached(self) -> Losses:
        """The same numbers without the graph that made them."""
        found = {name: getattr(self, name) for name in ("video", "audio", "video_each", "audio_each", "aside", "similarity")}
        return Losses(total=self.total.detach(), **{name: None if loss is None else loss.detach() for name, loss in found.items()})


def add_noise(
    clean: Tensor,
    *,
    sigma: Tensor,
    noise: Tensor,
    learned: Tensor | None = None,
    given: Tensor | None = None,
    slowed: Tensor | None = None,
) -> Noised:
    """A modality at noise level `sigma`. Padding (not learned) gets noise too, as its neighbours do, but no loss; what is given stays
    clean, at timestep 0, and has no loss either.

    clean, noise: [B, L, C]; sigma: [B]; learned and given: bool [B, L], None for all and for nothing. slowed: [B], the level of what the
    transformer sees where that is not the sigma it is told.
    """
    if clean.shape != noise.shape or sigma.shape != clean.shape[:1]:
        raise ValueError(f"expected two [B, L, C] and one [B], got {[[*t.shape] for t in (clean, noise, sigma)]}")
    timesteps, seen = sigma.view(-1, 1), (sigma if slowed is None else slowed).view(-1, 1)
    mask = torch.ones(clean.shape[:2], dtype=torch.bool, device=clean.device) if learned is None else learned
    if given is not None:
        timesteps, seen = (level.expand(clean.shape[:2]).masked_fill(given, 0.0) for level in (timesteps, seen))
        mask = mask & ~given
    level = seen.unsqueeze(2)
    return Noised(clean=clean, noise=noise, noisy=(1 - level) * clean + level * noise, sigma=sigma, timesteps=timesteps, learned=mask)


def draw_noise(
    clean: Tensor,
    *,
    sampler: SigmaSampler,
    generator: Generator,
    grid: tuple[int, int, int],
    learned: Tensor | None = None,
    parts: Sequence[GivenPart] = (),
    masks: Tensor | None = None,
) -> Noised:
    """A modality with drawn sigma, noise and given parts. The draws are made on the CPU, so a run is the same on every device."""
    sigma = sampler.sample(clean.shape[0], tokens=clean.shape[1], generator=generator)
    slowed = sampler.slowed(sigma, generator=generator) if isinstance(sampler, MixFlowDraw) else None
    noise = torch.randn(clean.shape, generator=generator)
    given = draw_given(parts, grid=grid, count=clean.shape[0], generator=generator, masks=masks) if parts else None
    return add_noise(
        clean.float(),
        sigma=to_device(sigma, clean.device),
        noise=to_device(noise, clean.device),
        learned=learned,
        given=None if given is None else to_device(given, clean.device),
        slowed=None if slowed is None else to_device(slowed, clean.device),
    )


def to_device(tensor: Tensor, device: torch.device) -> Tensor:
    """The tensor on the device. From pinned memory: a copy from ordinary memory waits for all that the device has yet to do."""
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor.to(device)


def velocity_loss(
    predicted: Tensor,
    clean: Tensor,
    noise: Tensor,
    learned: Tensor,
    *,
    sigma: Tensor | None = None,
    penalty: Penalty = SQUARES,
    weights: Tensor | None = None,
) -> Tensor:
    """Mean velocity error of each sample, squared unless `penalty` says otherwise, 0 where nothing is learned: float32 [B], left on the
    device.

    predicted, clean, noise: [B, L, C], samples x tokens x channels. learned: bool [B, L], False for given frames and padding. sigma: [B],
    which penalties other than squares need. weights: of each number, [B, L, C]; None for 1.
    Raises ValueError when shapes disagree. With squares equal to the official masked error divided by the mask's mean.
    """
    if not predicted.shape == clean.shape == noise.shape or learned.shape != clean.shape[:2]:
        raise ValueError(f"expected three [B, L, C] and one [B, L], got {[[*t.shape] for t in (predicted, clean, noise, learned)]}")
    error = predicted.float() - (noise.float() - clean.float())
    if sigma is None and penalty != SQUARES:
        raise ValueError("expected sigma with a penalty that follows it")
    each = error.square() if sigma is None else penalty.of(error, sigma)
    losses = mean_of_learned((each if weights is None else weights * each).mean(dim=2), learned)
    return losses if sigma is None else penalty.weigh(losses, sigma)


def mean_of_learned(values: Tensor, learned: Tensor) -> Tensor:
    """The mean of a sample's tokens [B, L] that are learned, 0 where none is: [B]."""
    return (values * learned).sum(dim=1) / learned.sum(dim=1).clamp(min=1)


def combine(
    video_velocity: Tensor | None,
    audio_velocity: Tensor | None,
    *,
    video: Noised | None,
    audio: Noised | None,
    audio_weight: float,
    penalty: Penalty = SQUARES,
) -> Losses:
    """The batch's loss, video + audio_weight x audio, and both parts alone. One of them may be None, and counts nothing then."""
    return add_up(_each_loss(video_velocity, video, penalty), _each_loss(audio_velocity, audio, penalty), audio_weight=audio_weight)


def add_up(video_each: Tensor | None, audio_each: Tensor | None, *, audio_weight: float) -> Losses:
    """The batch's loss, video + audio_weight x audio, and both parts alone, of each sample's, [B]. One of them may be None."""
    video_loss, audio_loss = (None if each is None else each.mean() for each in (video_each, audio_each))
    weighted = None if audio_loss is None else audio_weight * audio_loss
    if video_loss is None:
        if weighted is None:
            raise ValueError("expected video, audio or both")
        return Losses(total=weighted, video=None, audio=audio_loss, audio_each=audio_each)
    total = video_loss if weighted is None else video_loss + weighted
    return Losses(total=total, video=video_loss, audio=audio_loss, video_each=video_each, audio_each=audio_each)


def _each_loss(velocity: Tensor | None, noised: Noised | None, penalty: Penalty) -> Tensor | None:
    """A modality's loss of each sample, [B]; None where there is none."""
    if velocity is None or noised is None:
        return None
    return velocity_loss(velocity, noised.clean, noised.noise, noised.learned, sigma=noised.sigma, penalty=penalty)
