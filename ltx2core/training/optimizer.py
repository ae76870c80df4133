"""AdamW over the adapter's float32 parameters, with its state as named tensors and updates skipped on the device."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor, nn

_MOMENTS = ("exp_avg", "exp_avg_sq", "step")


@dataclass(frozen=True, slots=True, kw_only=True)
class AdamSettings:
    """The numbers of AdamW that do not change during a run."""

    beta1: float = 0.9
    beta2: float = 0.999
    weight_decay: float = 0.01
    epsilon: float = 1e-8


class AdapterOptimizer:
    """AdamW whose state can be written and read back bit for bit. Parameters keep the names of the adapter."""

    def __init__(self, parameters: Mapping[str, nn.Parameter], settings: AdamSettings) -> None:
        wrong = [name for name, parameter in parameters.items() if parameter.dtype != torch.float32]
        if wrong:
            raise ValueError(f"adapters train in float32, {wrong[0]} is {parameters[wrong[0]].dtype}")
        self._parameters = dict(parameters)
        self._adam = torch.optim.AdamW(
            self._parameters.values(),
            lr=0.0,
            betas=(settings.beta1, settings.beta2),
            weight_decay=settings.weight_decay,
            eps=settings.epsilon,
            fused=True,  # one kernel a step, and the only form that can skip an update without asking the host
        )

    def clip(self, max_norm: float | None) -> Tensor:
        """The gradients' norm before clipping, a scalar left on the device. None or 0: do not clip."""
        return torch.nn.utils.clip_grad_norm_(self._parameters.values(), max_norm or float("inf"))

    def step(self, learning_rate: float, *, finite: Tensor) -> None:
        """Update the parameters and forget their gradients; where `finite` (a bool on the device) is False nothing changes."""
        for group in self._adam.param_groups:
            group["lr"] = learning_rate
        # AdamW's fused kernel reads this attribute (meant for gradient scaling) and leaves everything as it is where it is 1
        self._adam.found_inf = (~finite).float()  # type: ignore[attr-defined]
        self._adam.step()
        self._adam.zero_grad(set_to_none=True)

    def state(self) -> dict[str, Tensor]:
        """Every tensor of the state, named `exp_avg.<parameter>` and so on; empty before the first step."""
        states = {name: self._adam.state[parameter] for name, parameter in self._parameters.items()}
        return {f"{moment}.{name}": value[moment] for name, value in states.items() for moment in _MOMENTS if moment in value}

    def load_state(self, tensors: Mapping[str, Tensor]) -> None:
        """Take over what `state` gave. Raises KeyError when it belongs to other parameters.

        A parameter without state has had no gradient yet: sound's, while every batch so far was of clips without sound.
        """
        known = {f"{moment}.{name}" for name in self._parameters for moment in _MOMENTS}
        if strange := sorted(set(tensors) - known):
            raise KeyError(strange[0])
        for name, parameter in self._parameters.items():
            if not any(f"{moment}.{name}" in tensors for moment in _MOMENTS):
                continue
            values = {moment: tensors[f"{moment}.{name}"] for moment in _MOMENTS}
            self._adam.state[parameter] = {moment: value.to(parameter.device, torch.float32) for moment, value in values.items()}
