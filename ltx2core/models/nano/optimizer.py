"""How nano's stages learn: the optimizer with its schedule, the counting of steps, and the precision. pretrain.py runs the stages."""

from __future__ import annotations

import math
import time
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence


class Optimizer:
    """AdamW, or Muon for the weights of linear layers and convolutions (seen as outputs x the rest) with AdamW for the others.

    The rate warms up over 100 steps and follows a cosine to zero.
    """

    def __init__(self, module: nn.Module, *, rate: float, steps: int, muon: bool = False, weight_decay: float = 0.0) -> None:
        self.parameters, self.steps, self.step_index = list(module.parameters()), steps, 0
        matrices = [child.weight for child in module.modules() if muon and isinstance(child, nn.Linear | nn.Conv3d)]
        taken = {id(matrix) for matrix in matrices}
        others = [parameter for parameter in self.parameters if id(parameter) not in taken]
        self._adam = torch.optim.AdamW(others, lr=rate, betas=(0.9, 0.99), weight_decay=weight_decay, fused=True)
        self._muon = Muon(matrices, weight_decay=weight_decay)
        self._rate = rate

    def update(self, loss: Tensor) -> None:
        for parameter in self.parameters:
            parameter.grad = None
        torch.autograd.backward(loss)
        nn.utils.clip_grad_norm_(self.parameters, 1.0)
        progress = min(1.0, max(0, self.step_index - 100) / max(1, self.steps - 100))
        rate = self._rate * min(1.0, (self.step_index + 1) / 100) * 0.5 * (1 + math.cos(math.pi * progress))
        for group in self._adam.param_groups:
            group["lr"] = rate
        self._adam.step()
        self._muon.step(rate)
        self.step_index += 1


class Muon:
    """Momentum whose update is made orthogonal, in float32 and for all weights of one shape at once.

    torch.optim.Muon does the same matrix by matrix in bf16: thousands of launches a step on a GPU, and on a CPU without bf16 arithmetic
    longer than the rest of the step together. Source: arXiv 2502.16982, equations 1 to 4, updates scaled to AdamW's; five iterations of
    the quintic of torch.optim.Muon.
    """

    def __init__(self, weights: Sequence[Tensor], *, weight_decay: float, momentum: float = 0.95) -> None:
        self._weight_decay, self._momentum = weight_decay, momentum
        self._groups: dict[tuple[int, int], list[Tensor]] = {}
        for weight in weights:
            self._groups.setdefault((weight.shape[0], weight[0].numel()), []).append(weight)
        self._averages = {shape: torch.zeros(len(group), *shape, device=group[0].device) for shape, group in self._groups.items()}

    @torch.no_grad()
    def step(self, rate: float) -> None:
        for shape, group in self._groups.items():
            gradients = torch.stack([torch.zeros(shape, device=w.device) if w.grad is None else w.grad.reshape(shape) for w in group])
            average = self._averages[shape].lerp_(gradients, 1 - self._momentum)
            update = orthogonalised(gradients.lerp(average, self._momentum)).mul_(rate * 0.2 * math.sqrt(max(shape)))
            torch._foreach_mul_(group, 1 - rate * self._weight_decay)
            for weight, change in zip(group, update.unbind(), strict=True):
                weight.sub_(change.view(weight.shape))


def orthogonalised(matrices: Tensor) -> Tensor:
    """U V' of each matrix U S V' [N, m, n], roughly: singular values come out between 0.5 and 1.5 (Newton-Schulz)."""
    first, second, third = 3.4445, -4.7750, 2.0315
    tall = matrices.shape[1] > matrices.shape[2]
    found = matrices.mT if tall else matrices
    found = found / found.norm(dim=(1, 2), keepdim=True).clamp(min=1e-7)
    for _ in range(5):
        gram = found @ found.mT
        found = torch.baddbmm(found, torch.baddbmm(gram, gram, gram, beta=second, alpha=third), found, beta=first)
    return found.mT if tall else found


def counted(optimizer: Optimizer, name: str, seconds: float | None) -> Iterator[int]:
    """The steps of a stage. With `seconds`, the first hundred are timed and the total is set to what fits, in hundreds: a run with
    that number given computes the same, since the rate only warms up until then."""
    step, started = 0, time.perf_counter()
    while step < optimizer.steps:
        yield step
        step += 1
        if step in (50, 100):
            _wait()
            now = time.perf_counter()
            if step == 100:
                each = (now - started) / 50
                if seconds is not None:
                    optimizer.steps = max(200, int(seconds / each) // 100 * 100)
                print(f"{name}: {each * 1000:.1f} ms a step, {optimizer.steps} steps, {each * optimizer.steps:.0f} s", flush=True)
            started = now


def _wait() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def autocast(device: torch.device) -> torch.autocast:
    """bf16 on a GPU; float32 on a CPU, whose bf16 convolutions are hundreds of times slower."""
    return torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda")
