"""CREPA (arXiv 2506.09229): features of a block are drawn to those of an image encoder, of the same frame and of its neighbours.

For a latent frame f and a place n of its picture let p[f, n] be the block's features, normalised after a small head (LayerNorm and a
linear layer, which learns beside the LoRA and is no part of its file), and y[f, n] those of the encoder, normalised. With d the distance
of neighbours and tau their decay,

    s(f, g)  = mean over n of  p[f, n] . y[g, n]
    score(f) = s(f, f) + sum over g = f - d, f + d of  exp(-|f - g| / tau) s(f, g)        as far as there are such frames
    L        = - lambda(step)  mean over the batch and over f of  score(f)

which is added to the loss. What a latent frame is aligned with is the mean over the pixel frames that it stands for. In backbone mode y
are the features of a deeper block in the same forward, without gradients. Tokens that TREAD takes out at that block have no score.

Nothing here asks the device: the weight of a step is written into a tensor, and the limit of similarity is kept on the device.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor, nn

from ltx2core.errors import ConfigError
from ltx2core.training.batches import generator_for

if TYPE_CHECKING:
    from collections.abc import Sequence

    from diffusers import LTX2VideoTransformer3DModel

    from ltx2core.distributed.ranks import Ranks
    from ltx2core.training.tread import Route


@dataclass(frozen=True, slots=True, kw_only=True)
class WeightSchedule:
    """lambda of a step: a rise over `warmup`, then the shape down to `end` over `decay` steps; 0 from `cutoff` on (0: never)."""

    peak: float = 0.5
    shape: Literal["constant", "linear", "cosine", "polynomial"] = "constant"
    warmup: int = 0
    decay: int = 0
    end: float = 0.0
    power: float = 1.0
    cutoff: int = 0

    def __call__(self, step: int) -> float:
        """The weight of the update that follows `step` finished ones."""
        if self.cutoff and step >= self.cutoff:
            return 0.0
        if step < self.warmup:
            return self.peak * (step + 1) / self.warmup
        if self.shape == "constant":
            return self.peak
        done = min(1.0, (step - self.warmup) / max(1, self.decay))
        left = 0.5 + 0.5 * math.cos(math.pi * done) if self.shape == "cosine" else 1 - done
        return float(self.end + (self.peak - self.end) * (left**self.power if self.shape == "polynomial" else left))


@dataclass(frozen=True, slots=True, kw_only=True)
class CrepaSettings:
    """What is aligned with what. teacher: the deeper block; None for an encoder's features. Blocks may be counted from the end."""

    width: int | None  # D of the encoder's features; None in backbone mode, whose features are as wide as the block's
    block: int = 8
    teacher: int | None = None
    weight: WeightSchedule = WeightSchedule()
    distance: int = 1
    tau: float = 1.0
    cumulative: bool = False
    mean_frames: bool = True
    mean_neighbours: bool = False
    spatial: bool = True
    threshold: float | None = None
    average_decay: float = 0.99
    permanent: bool = True

    def offsets(self) -> dict[int, float]:
        """How many frames away what a frame is compared with lies, and its weight; itself first."""
        distances = range(1, self.distance + 1) if self.cumulative else [self.distance]
        return {0: 1.0} | {sign * d: math.exp(-d / self.tau) for d in distances for sign in (1, -1)}


def check_blocks(settings: CrepaSettings, *, num_blocks: int, backbone: bool, routes: Sequence[Route] = ()) -> tuple[int, int | None]:
    """The block and the teacher's, counted from 0. Raises ConfigError with every problem. routes: resolved."""
    names = {"crepa_block_index": settings.block} | ({} if settings.teacher is None else {"crepa_teacher_block_index": settings.teacher})
    problems = [
        f"{name} = {index}: this model's blocks are 0 to {num_blocks - 1}, or -{num_blocks} to -1 from the end; use one of those."
        for name, index in names.items()
        if not -num_blocks <= index < num_blocks
    ]
    block = settings.block % num_blocks
    teacher = None
    if backbone:
        teacher = round(2 * (num_blocks - 1) / 3) if settings.teacher is None else settings.teacher % num_blocks
        if not problems and teacher <= block:
            problems.append(
                f"crepa_teacher_block_index = {teacher}: it is deeper than crepa_block_index, {block}; use {block + 1} or more."
            )
        if not problems and any(route.start <= teacher < route.end for route in routes):
            problems.append(f"crepa_teacher_block_index = {teacher}: tread_config takes tokens out there; use a block that has all.")
    if not problems and not settings.spatial and any(route.start <= block < route.end for route in routes):
        problems.append("crepa_spatial_align = false: tread_config takes tokens out at crepa_block_index; set it to true.")
    if problems:
        raise ConfigError(problems, fix="Change these keys, or set crepa_enabled to false.")
    return block, teacher


def similarity(
    student: Tensor, teacher: Tensor, settings: CrepaSettings, *, frames: int, tokens: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """The mean score of each sample, and its sum over frames: float32 [B] both.

    student: [B, T, D], teacher: [B, L, D] with L = frames x places. tokens: int64 [B, T], which tokens the student's are; None for all.
    """
    p, y = nn.functional.normalize(student.float(), dim=-1), nn.functional.normalize(teacher.float(), dim=-1)
    if not settings.spatial:
        p, y = (nn.functional.normalize(part.reshape(part.shape[0], frames, -1, part.shape[2]).mean(dim=2), dim=-1) for part in (p, y))
    length = y.shape[1]
    places = length // frames
    at = torch.arange(length, device=p.device).expand(p.shape[0], -1) if tokens is None else tokens
    total, weights = torch.zeros_like(p[..., 0]), torch.zeros_like(p[..., 0])  # [B, T]
    for offset, weight in settings.offsets().items():
        there = at + offset * places
        inside = (there >= 0) & (there < length)
        other = y if offset == 0 and tokens is None else y.gather(1, there.clamp(0, length - 1).unsqueeze(2).expand(-1, -1, y.shape[2]))
        total = total + weight * inside * (p * other).sum(dim=-1)
        weights = weights + weight * inside
    score = (total / weights if settings.mean_neighbours else total).mean(dim=1)
    return score, score * frames


class Crepa(nn.Module):
    """The head, the taps in a transformer, and the state of the limit. `begin` before a forward that is aligned, `loss` after it."""

    weight: Tensor  # lambda of this step
    average: Tensor  # of the similarity, over steps
    alive: Tensor  # whether alignment goes on, 1 or 0
    agreed: Tensor  # whether it went on after the last update of several ranks

    def __init__(
        self,
        transformer: LTX2VideoTransformer3DModel,
        settings: CrepaSettings,
        *,
        routes: Sequence[Route] = (),
        seed: int,
        device: torch.device,
        dtype: torch.dtype,
    ) -> None:
        """routes: resolved. dtype: of the head's product. Raises ConfigError for blocks that the transformer does not have."""
        super().__init__()
        blocks: Any = transformer.transformer_blocks
        backbone = settings.width is None
        self.settings, self._dtype = settings, dtype
        self.block, self.teacher = check_blocks(settings, num_blocks=len(blocks), backbone=backbone, routes=routes)
        inner = int(transformer.config.num_attention_heads * transformer.config.attention_head_dim)
        self.route = next((number for number, route in enumerate(routes) if route.start <= self.block < route.end), None)
        self.norm = nn.LayerNorm(inner)
        self.linear = nn.Linear(inner, inner if settings.width is None else settings.width)
        nn.init.xavier_uniform_(self.linear.weight, generator=generator_for(seed, "crepa"))
        nn.init.zeros_(self.linear.bias)
        for name, value in (("weight", 0.0), ("average", 0.0), ("alive", 1.0)):
            self.register_buffer(name, torch.tensor(value))
        self.register_buffer("agreed", torch.tensor(1.0), persistent=False)
        self.to(device)
        self._armed = False
        self._seen: dict[int, Tensor] = {}
        for index in {self.block} | ({self.teacher} if self.teacher is not None else set()):
            blocks[index].register_forward_hook(self._tap(index))

    def set_step(self, step: int) -> None:
        """Take the weight of the update that follows `step` finished ones; nothing waits."""
        self.weight.fill_(self.settings.weight(step))

    def begin(self) -> None:
        """The next forward's features are kept, the first time that its blocks run: not when they are computed again."""
        self._armed, self._seen = True, {}

    def forget_gradients(self) -> None:
        """Set the head's to 0: an update begins."""
        for parameter in self.parameters():
            if parameter.grad is not None:
                parameter.grad.zero_()

    def loss(
        self, features: Tensor | None, *, grid: tuple[int, int, int], kept: Sequence[Tensor] = (), references: int = 0
    ) -> tuple[Tensor, Tensor] | None:
        """What is added to the loss, and the mean similarity, both scalars on the device; None for a batch that has no features.

        features: [B, L, D], the encoder's. kept: of each route, the tokens that went through its blocks, [B, K]; references: how many
        of them stand before the clip's own.
        """
        seen, self._seen, self._armed = self._seen, {}, False
        frames, height, width = grid
        length = frames * height * width
        teacher = features if self.teacher is None else seen[self.teacher].detach()[:, -length:]
        if teacher is None:
            return None
        student, tokens = seen[self.block][:, references:], None
        if self.route is not None and kept:
            tokens = kept[self.route][:, references:] - references
        projected = self.project(student)
        score, summed = similarity(projected, teacher, self.settings, frames=frames, tokens=tokens)
        mean = score.mean()
        self._follow(mean.detach())
        aligned = mean if self.settings.mean_frames else summed.mean()
        return -self.weight * self.alive * aligned, mean.detach()

    def project(self, hidden: Tensor) -> Tensor:
        """The head on hidden states [B, T, C]: [B, T, D]. The product is made in the model's precision."""
        normed = self.norm(hidden.float())
        return nn.functional.linear(normed.to(self._dtype), self.linear.weight.to(self._dtype), self.linear.bias.to(self._dtype))

    def agree(self, ranks: Ranks) -> None:
        """Average the similarity over ranks after an update, each having followed its own batches, and end alignment by that."""
        if self.settings.threshold is None:
            return
        ranks.average([self.average])
        below = (self.average < self.settings.threshold).float()
        self.alive.copy_(self.agreed * below if self.settings.permanent else below)
        self.agreed.copy_(self.alive)

    def _follow(self, mean: Tensor) -> None:
        """Average the similarity, and end or bring back alignment by it."""
        settings = self.settings
        if settings.threshold is None:
            return
        finite = torch.where(torch.isfinite(mean), mean, self.average)
        self.average.copy_(settings.average_decay * self.average + (1 - settings.average_decay) * finite)
        below = (self.average < settings.threshold).float()
        self.alive.copy_(self.alive * below if settings.permanent else below)

    def _tap(self, index: int) -> Any:
        def keep(_module: nn.Module, _args: object, outputs: tuple[Tensor, Tensor]) -> None:
            if self._armed and index not in self._seen:
                self._seen[index] = outputs[0]

        return keep
