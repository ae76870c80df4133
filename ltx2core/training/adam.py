"""AdamW with its state in float32 or in 8 bits, behind one face: a step that is skipped on the device, and state as float32 tensors.

In 8 bits a moment is a byte for each number and a scale for each 256 (arXiv 2110.02861): a sixth of the adapter's memory less in all. The
byte names one of 255 or 256 levels that halve in number with each decade below the block's largest ("dynamic tree"), so that small numbers
keep two digits beside large ones. Two changes against bitsandbytes' levels. Both outermost ones are whole, so that what is widened is
rounded to the same bytes again: checkpoints hold float32 under the usual names, a resumed run goes on bit for bit, and either kind of
state goes on from the other. And a second moment that is not 0 is never rounded to 0, which the update divides by.

Plain torch in pieces, without waiting for the device. bitsandbytes' kernel is one launch, but takes its step number and rate from the host
and cannot leave out a step whose gradients were not finite without asking the device.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Protocol

import torch
from torch import Tensor

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from ltx2core.training.optimizer import AdamSettings

BLOCK = 256  # numbers that share a scale
MOMENTS = ("exp_avg", "exp_avg_sq")
BYTES_A_NUMBER = {False: 8.0, True: 2 * (1 + 4 / BLOCK)}  # of both moments, by whether they are in 8 bits
_PIECE = 1 << 22  # numbers updated at a time: 16 MiB in float32, of which a handful are in use at once
_LEAST_SCALE = torch.finfo(torch.float32).tiny


class Adam(Protocol):
    """The rule and its state. Parameters are known by themselves; those without `grad` are left as they are."""

    def step(self, learning_rate: float, *, finite: Tensor) -> None:
        """Update; where `finite` (a bool on the device) is False nothing changes."""
        ...

    def state_of(self, parameter: Tensor) -> dict[str, Tensor]:
        """exp_avg and exp_avg_sq in float32, and step, a scalar; empty before the parameter's first gradient."""
        ...

    def set_state(self, parameter: Tensor, state: Mapping[str, Tensor]) -> None:
        """Take over what `state_of` gave."""
        ...


def make_adam(parameters: Iterable[Tensor], settings: AdamSettings, *, rates: Sequence[float] | None = None) -> Adam:
    """The rule of the settings over float32 parameters. rates: of each parameter, its share of the learning rate; without, 1."""
    made = EightBitAdam if settings.eight_bit else FusedAdam
    return made(parameters, settings, rates=rates)


class FusedAdam:
    """PyTorch's own: one kernel a step, and the only form of it that can skip an update without asking the host."""

    def __init__(self, parameters: Iterable[Tensor], settings: AdamSettings, *, rates: Sequence[float] | None = None) -> None:
        groups: dict[float, list[Tensor]] = {}
        for parameter, rate in _with_rates(parameters, rates):
            groups.setdefault(rate, []).append(parameter)
        self._adam = torch.optim.AdamW(
            [{"params": group, "rate": rate} for rate, group in groups.items()],
            lr=0.0,
            betas=(settings.beta1, settings.beta2),
            weight_decay=settings.weight_decay,
            eps=settings.epsilon,
            fused=True,
        )

    def step(self, learning_rate: float, *, finite: Tensor) -> None:
        for group in self._adam.param_groups:
            group["lr"] = learning_rate * group["rate"]
        # AdamW's fused kernel reads this attribute (meant for gradient scaling) and leaves everything as it is where it is 1
        self._adam.found_inf = (~finite).float()  # type: ignore[attr-defined]
        self._adam.step()

    def state_of(self, parameter: Tensor) -> dict[str, Tensor]:
        return dict(self._adam.state[parameter]) if parameter in self._adam.state else {}

    def set_state(self, parameter: Tensor, state: Mapping[str, Tensor]) -> None:
        values = {name: state[name].to(parameter.device, torch.float32, copy=True) for name in (*MOMENTS, "step")}
        self._adam.state[parameter] = values | {"step": values["step"].reshape(())}


@dataclass(slots=True)
class _Moments:
    """codes: uint8 [n], n rounded up to blocks; scales: float32 [n / 256]; each of the mean, then of the mean square."""

    codes: tuple[Tensor, Tensor]
    scales: tuple[Tensor, Tensor]
    step: Tensor


class EightBitAdam:
    """The same rule with moments in 8 bits."""

    def __init__(self, parameters: Iterable[Tensor], settings: AdamSettings, *, rates: Sequence[float] | None = None) -> None:
        self._parameters, self._settings = _with_rates(parameters, rates), settings
        self._state: dict[Tensor, _Moments] = {}

    @torch.no_grad()
    def step(self, learning_rate: float, *, finite: Tensor) -> None:
        for parameter, rate in self._parameters:
            if parameter.grad is not None:
                if parameter not in self._state:
                    self._state[parameter] = _empty(parameter)
                self._update(parameter, parameter.grad, self._state[parameter], learning_rate * rate, finite)

    def state_of(self, parameter: Tensor) -> dict[str, Tensor]:
        """In host memory: on the card there may be no room for what 8 bits saved."""
        if parameter not in self._state:
            return {}
        moments = self._state[parameter]
        found = {"step": moments.step}
        for name, codes, scales, signed in zip(MOMENTS, moments.codes, moments.scales, (True, False), strict=True):
            found[name] = _widen(codes.cpu(), scales.cpu(), signed=signed)[: parameter.numel()].view(parameter.shape)
        return found

    def set_state(self, parameter: Tensor, state: Mapping[str, Tensor]) -> None:
        moments = _empty(parameter)
        moments.step.copy_(state["step"].reshape(()))
        for name, codes, scales, signed in zip(MOMENTS, moments.codes, moments.scales, (True, False), strict=True):
            values = state[name].reshape(-1)
            for start in range(0, parameter.numel(), _PIECE):
                piece = _padded(values[start : start + _PIECE].to(parameter.device, torch.float32))
                part = slice(start, start + piece.numel()), slice(start // BLOCK, start // BLOCK + piece.numel() // BLOCK)
                codes[part[0]], scales[part[1]] = _round(piece, signed=signed)
        self._state[parameter] = moments

    def _update(self, parameter: Tensor, gradient: Tensor, moments: _Moments, learning_rate: float, finite: Tensor) -> None:
        settings = self._settings
        moments.step.add_(finite)
        mean_left, square_left = (1 - beta**moments.step for beta in (settings.beta1, settings.beta2))
        values, gradients = parameter.view(-1), gradient.view(-1)
        for start in range(0, values.numel(), _PIECE):
            value = values[start : start + _PIECE]
            slope = _padded(gradients[start : start + _PIECE])
            numbers, blocks = slice(start, start + slope.numel()), slice(start // BLOCK, start // BLOCK + slope.numel() // BLOCK)
            codes = [each[numbers] for each in moments.codes]
            scales = [each[blocks] for each in moments.scales]
            mean = _widen(codes[0], scales[0], signed=True).lerp_(slope, 1 - settings.beta1)
            square = _widen(codes[1], scales[1], signed=False).mul_(settings.beta2).addcmul_(slope, slope, value=1 - settings.beta2)
            for code, scale, moment, signed in zip(codes, scales, (mean, square), (True, False), strict=True):
                for old, new in zip((code, scale), _round(moment, signed=signed), strict=True):
                    old.copy_(torch.where(finite, new, old))
            way = (mean / mean_left).div_((square / square_left).sqrt_().add_(settings.epsilon))
            new_value = (value * (1 - learning_rate * settings.weight_decay)).sub_(way[: value.numel()], alpha=learning_rate)
            value.copy_(torch.where(finite, new_value, value))


def _with_rates(parameters: Iterable[Tensor], rates: Sequence[float] | None) -> list[tuple[Tensor, float]]:
    found = list(parameters)
    return list(zip(found, rates or [1.0] * len(found), strict=True))


def levels(*, signed: bool) -> list[float]:
    """What the codes 0, 1, ... stand for, ascending: the middles of 1, 2, 4, ... 64 equal parts of each decade down to 1e-7 (twice as many
    parts without a sign), 0, and 1."""
    found = []
    for decade in range(7):
        parts = 2**decade * (1 if signed else 2)
        found += [10.0 ** (decade - 6) * (0.1 + 0.9 * (part + 0.5) / parts) for part in range(parts)]
    if signed:
        found[-1] = 1.0
        return sorted([*found, 0.0, *(-level for level in found)])
    return sorted([*found, 0.0, 1.0])


@cache
def _levels(device: torch.device, *, signed: bool) -> Tensor:
    with torch.inference_mode(False):
        return torch.tensor(levels(signed=signed), device=device)


@cache
def _between(device: torch.device, *, signed: bool) -> Tensor:
    with torch.inference_mode(False):
        found = _levels(device, signed=signed)
        return (found[1:] + found[:-1]) / 2


def _round(values: Tensor, *, signed: bool) -> tuple[Tensor, Tensor]:
    """The codes of float32 [n], n a multiple of 256, and the scales of its blocks."""
    blocks = values.view(-1, BLOCK)
    scales = blocks.abs().amax(dim=1)
    codes = torch.bucketize(blocks / scales.clamp(min=_LEAST_SCALE)[:, None], _between(values.device, signed=signed), out_int32=True)
    if not signed:
        codes += (codes == 0) & (blocks > 0)
    return codes.view(-1).to(torch.uint8), scales


def _widen(codes: Tensor, scales: Tensor, *, signed: bool) -> Tensor:
    """float32 [n]."""
    wide = _levels(codes.device, signed=signed)[codes.int()]
    return (wide.view(-1, BLOCK) * scales[:, None]).view(-1)


def _empty(parameter: Tensor) -> _Moments:
    """The state of a parameter before its first gradient: zeros."""
    blocks, device = -(-parameter.numel() // BLOCK), parameter.device
    zero = [levels(signed=signed).index(0.0) for signed in (True, False)]
    codes = [torch.full((blocks * BLOCK,), code, dtype=torch.uint8, device=device) for code in zero]
    scales = [torch.zeros(blocks, device=device) for _ in zero]
    return _Moments((codes[0], codes[1]), (scales[0], scales[1]), torch.zeros((), device=device))


def _padded(values: Tensor) -> Tensor:
    """A whole number of blocks: the last one filled with zeros."""
    return torch.nn.functional.pad(values, (0, rest)) if (rest := -values.numel() % BLOCK) else values
