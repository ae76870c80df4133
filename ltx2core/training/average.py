"""A running average of the adapter (EMA): often steadier than its last values. Kept in float32 beside the adapter."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor, nn

_PREFIX = "average."
_UPDATES = "average_updates"


@dataclass(frozen=True, slots=True, kw_only=True)
class AverageSettings:
    """decay: what is kept of the average at an update. every: steps between updates."""

    decay: float = 0.995
    every: int = 1


class AdapterAverage:
    """The average, updated after each optimizer step. Its state can be written and read back bit for bit."""

    def __init__(self, parameters: Mapping[str, nn.Parameter], settings: AverageSettings) -> None:
        self._parameters = dict(parameters)
        self._settings = settings
        self._steps = 0
        self._values = {name: parameter.detach().clone() for name, parameter in self._parameters.items()}

    def update(self) -> None:
        """Take a step's adapter in. No value is read from the device."""
        self._steps += 1
        if self._steps % self._settings.every:
            return
        values, latest = list(self._values.values()), [parameter.detach() for parameter in self._parameters.values()]
        torch._foreach_lerp_(values, latest, 1.0 - self._decay(self._steps // self._settings.every))

    def restart(self) -> None:
        """Begin with the adapter as it is now."""
        self._steps = 0
        for name, parameter in self._parameters.items():
            self._values[name].copy_(parameter.detach())

    def values(self) -> dict[str, Tensor]:
        """The averaged adapter, by its parameters' names: float32."""
        return dict(self._values)

    def state(self) -> dict[str, Tensor]:
        """All that `load_state` needs."""
        return {_UPDATES: torch.tensor(self._steps)} | {_PREFIX + name: value for name, value in self._values.items()}

    def load_state(self, tensors: Mapping[str, Tensor]) -> None:
        """Take over what `state` gave; without it (a run that kept no average so far) begin with the adapter as it is now."""
        if _UPDATES not in tensors:
            self.restart()
            return
        self._steps = int(tensors[_UPDATES])
        for name, value in self._values.items():
            value.copy_(tensors[_PREFIX + name])

    def _decay(self, update: int) -> float:
        """Shorter memory at first, so that the start, where B is zero, is soon forgotten: 2/11, 3/12, ... up to the decay."""
        return min(self._settings.decay, (1 + update) / (10 + update))


def belongs_to_average(name: str) -> bool:
    """Whether a tensor of a saved state is the average's, and not the optimizer's."""
    return name == _UPDATES or name.startswith(_PREFIX)
