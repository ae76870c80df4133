"""AdamW over CREPA's head beside the adapter's optimizer: clipped and stepped together, saved in one state."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    import contextlib
    from collections.abc import Mapping

    from torch import Tensor

    from ltx2core.lora.layers import Modality
    from ltx2core.training.crepa import Crepa
    from ltx2core.training.flat_optimizer import FlatOptimizer
    from ltx2core.training.optimizer import AdapterOptimizer, ClipBy, Optimizer
    from ltx2core.training.rules import RuleOptimizer

_PREFIX = "crepa."
_MOMENTS = ("exp_avg", "exp_avg_sq", "step")
_MOST_RATE = 1e-3  # a rule that finds its own rate is given 1


class WithHead:
    """An optimizer of the adapter, and the head's. Gradients of the head stay where they are in memory: captured steps add to them."""

    def __init__(self, adapter: AdapterOptimizer | FlatOptimizer | RuleOptimizer, crepa: Crepa) -> None:
        self._adapter, self._crepa = adapter, crepa
        self._parameters = dict(crepa.named_parameters())
        for parameter in self._parameters.values():
            parameter.grad = torch.zeros_like(parameter)
        self._adam = torch.optim.AdamW(self._parameters.values(), lr=0.0, weight_decay=0.0, fused=True)

    @property
    def reached(self) -> frozenset[Modality]:
        return self._adapter.reached

    @reached.setter
    def reached(self, value: frozenset[Modality]) -> None:
        self._adapter.reached = value

    def gradients(self) -> list[Tensor]:
        """Those of the adapter, then the head's, which are 0 where no batch was aligned."""
        return [*self._adapter.gradients(), *(parameter.grad for parameter in self._parameters.values() if parameter.grad is not None)]

    def clip(self, max_norm: float | None, *, by: ClipBy = "norm") -> Tensor:
        """The norm of the adapter's gradients before clipping; not finite where the head's is not. The head is limited by itself."""
        norm = self._adapter.clip(max_norm, by=by)
        of_head = torch.nn.utils.clip_grad_norm_(self._parameters.values(), max_norm or float("inf"))
        return norm + 0 * of_head

    def step(self, learning_rate: float, *, finite: Tensor) -> None:
        for group in self._adam.param_groups:
            group["lr"] = min(learning_rate, _MOST_RATE)
        self._adam.found_inf = (~finite).float()  # type: ignore[attr-defined]
        self._adam.step()
        self._adapter.step(learning_rate, finite=finite)

    def at_rest(self) -> contextlib.AbstractContextManager[None]:
        return self._adapter.at_rest()

    def averaged(self) -> dict[str, Tensor] | None:
        return self._adapter.averaged()

    def restart_average(self) -> None:
        self._adapter.restart_average()

    def state(self) -> dict[str, Tensor]:
        """The adapter's, and the head's values, moments and limit under names that begin with `crepa.`."""
        found = {f"{_PREFIX}value.{name}": value.detach() for name, value in self._crepa.state_dict().items()}
        for name, parameter in self._parameters.items():
            state = self._adam.state[parameter]
            found |= {f"{_PREFIX}{moment}.{name}": state[moment] for moment in _MOMENTS if moment in state}
        return self._adapter.state() | found

    def load_state(self, tensors: Mapping[str, Tensor]) -> None:
        """Take over what `state` gave; of a run that had no head so far, the adapter's part. Raises as the adapter's does."""
        self._adapter.load_state(without_head(tensors))
        own = {name.removeprefix(_PREFIX): value for name, value in tensors.items() if name.startswith(_PREFIX)}
        values = {name.removeprefix("value."): value for name, value in own.items() if name.startswith("value.")}
        if not values:
            return
        for name, place in self._crepa.state_dict().items():
            if name not in values or values[name].shape != place.shape:
                raise ValueError(f"{_PREFIX}{name} is of another head")
            place.copy_(values[name])
        self._crepa.agreed.copy_(self._crepa.alive)
        for name, parameter in self._parameters.items():
            found = {moment: own[f"{moment}.{name}"] for moment in _MOMENTS if f"{moment}.{name}" in own}
            if found:
                self._adam.state[parameter] = {
                    moment: value.to(parameter.device, torch.float32, copy=True) for moment, value in found.items()
                }


def without_head(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The state of the adapter's optimizer alone."""
    return {name: value for name, value in tensors.items() if not name.startswith(_PREFIX)}


def load_state(optimizer: Optimizer, state: Mapping[str, Tensor]) -> None:
    """Take over a checkpoint's state; what CREPA's head left in it is no use to a run without."""
    optimizer.load_state(state if isinstance(optimizer, WithHead) else without_head(state))
