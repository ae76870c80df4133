"""AdamW over the adapter's float32 parameters, with its state as named tensors and updates skipped on the device.

It also keeps the running average of the adapter, where one is asked for: both change after every step and are saved together.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol

import torch

from ltx2core.lora.layers import modality_of
from ltx2core.training.adam import MOMENTS, make_adam
from ltx2core.training.average import AdapterAverage, AverageSettings, belongs_to_average

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from torch import Tensor, nn

    from ltx2core.lora.layers import Modality

ClipBy = Literal["norm", "value"]
_STATE = (*MOMENTS, "step")


class Optimizer(Protocol):
    """What the loop and checkpoints need of an optimizer, whatever its rule and its engine.

    `reached`: of which modalities the update's batches were. Only what belongs to these has gradients, and is clipped and moved. Between
    the last batch and `clip` it can be set to more: what others of the run's processes have reached; gradients are 0 there.
    """

    reached: frozenset[Modality]

    def gradients(self) -> list[Tensor]:
        """The gradients of what is reached, in an order that follows from `reached` alone, to be averaged in place."""
        ...

    def clip(self, max_norm: float | None, *, by: ClipBy = "norm") -> Tensor: ...

    def step(self, learning_rate: float, *, finite: Tensor) -> None: ...

    def at_rest(self) -> contextlib.AbstractContextManager[None]:
        """Inside, the parameters are those to measure, draw and export with; afterwards those that training goes on with."""
        ...

    def averaged(self) -> dict[str, Tensor] | None: ...

    def restart_average(self) -> None: ...

    def state(self) -> dict[str, Tensor]: ...

    def load_state(self, tensors: Mapping[str, Tensor]) -> None: ...


def reached_by(parameters: Mapping[str, nn.Parameter]) -> frozenset[Modality]:
    """The modalities of the adapter's parameters that have gradients."""
    return frozenset(modality_of(name) for name, parameter in parameters.items() if parameter.grad is not None)


def reach(parameters: Mapping[str, nn.Parameter], modalities: frozenset[Modality]) -> None:
    """Give the parameters of these modalities that have no gradient one of 0."""
    for name, parameter in parameters.items():
        if parameter.grad is None and modality_of(name) in modalities:
            parameter.grad = torch.zeros_like(parameter)


def clip_gradients(parameters: Sequence[nn.Parameter], max_norm: float | None, *, by: ClipBy) -> Tensor:
    """The norm of all gradients before clipping, a scalar on the device. by: whether the norm is limited, or each number alone."""
    norm: Tensor = torch.nn.utils.clip_grad_norm_(parameters, max_norm if max_norm and by == "norm" else float("inf"))
    if max_norm and by == "value":
        torch.nn.utils.clip_grad_value_(parameters, max_norm)
    return norm


@dataclass(frozen=True, slots=True, kw_only=True)
class AdamSettings:
    """The numbers of AdamW that do not change during a run."""

    beta1: float = 0.9
    beta2: float = 0.999
    weight_decay: float = 0.01
    epsilon: float = 1e-8
    eight_bit: bool = False  # how moments are held


class AdapterOptimizer:
    """AdamW whose state can be written and read back bit for bit. Parameters keep the names of the adapter."""

    def __init__(
        self,
        parameters: Mapping[str, nn.Parameter],
        settings: AdamSettings,
        *,
        average: AverageSettings | None = None,
        rates: Mapping[str, float] | None = None,
    ) -> None:
        """rates: of each parameter, its share of the learning rate; 1 where none is given."""
        wrong = [name for name, parameter in parameters.items() if parameter.dtype != torch.float32]
        if wrong:
            raise ValueError(f"adapters train in float32, {wrong[0]} is {parameters[wrong[0]].dtype}")
        self._parameters = dict(parameters)
        shares = [(rates or {}).get(name, 1.0) for name in self._parameters]
        self._adam = make_adam(self._parameters.values(), settings, rates=shares)
        self._average = None if average is None else AdapterAverage(self._parameters, average)

    @property
    def reached(self) -> frozenset[Modality]:
        return reached_by(self._parameters)

    @reached.setter
    def reached(self, value: frozenset[Modality]) -> None:
        reach(self._parameters, value)

    def gradients(self) -> list[Tensor]:
        return [parameter.grad for parameter in self._parameters.values() if parameter.grad is not None]

    def clip(self, max_norm: float | None, *, by: ClipBy = "norm") -> Tensor:
        """The gradients' norm before clipping, a scalar left on the device. None or 0: do not clip."""
        return clip_gradients(list(self._parameters.values()), max_norm, by=by)

    def step(self, learning_rate: float, *, finite: Tensor) -> None:
        """Update the parameters and forget their gradients; where `finite` (a bool on the device) is False nothing changes."""
        self._adam.step(learning_rate, finite=finite)
        for parameter in self._parameters.values():
            parameter.grad = None
        if self._average is not None:
            self._average.update()

    def at_rest(self) -> contextlib.AbstractContextManager[None]:
        return contextlib.nullcontext()

    def averaged(self) -> dict[str, Tensor] | None:
        """The adapter's running average by its parameters' names; None where none is kept."""
        return None if self._average is None else self._average.values()

    def restart_average(self) -> None:
        """Begin the average, where one is kept, with the adapter as it is now."""
        if self._average is not None:
            self._average.restart()

    def state(self) -> dict[str, Tensor]:
        """Every tensor of the state, named `exp_avg.<parameter>` and so on; AdamW has none before the first step."""
        states = {name: self._adam.state_of(parameter) for name, parameter in self._parameters.items()}
        moments = {f"{moment}.{name}": value[moment] for name, value in states.items() for moment in _STATE if moment in value}
        return moments if self._average is None else moments | self._average.state()

    def load_state(self, tensors: Mapping[str, Tensor]) -> None:
        """Take over what `state` gave, when the parameters are as they were then. Raises KeyError when it belongs to others.

        A parameter without state has had no gradient yet: sound's, while every batch so far was of clips without sound. An average
        is dropped where none is kept now, and begun where none was kept then.
        """
        known = {f"{moment}.{name}" for name in self._parameters for moment in _STATE}
        if strange := sorted(name for name in set(tensors) - known if not belongs_to_average(name)):
            raise KeyError(strange[0])
        for name, parameter in self._parameters.items():
            if any(f"{moment}.{name}" in tensors for moment in _STATE):
                self._adam.set_state(parameter, {moment: tensors[f"{moment}.{name}"] for moment in _STATE})
        if self._average is not None:
            self._average.load_state(tensors)
