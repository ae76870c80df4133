"""A running average of the adapter (EMA): often steadier than its last values. Kept in float32 beside the adapter, or in host memory."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from torch import Tensor, nn

_PREFIX = "average."
_UPDATES = "average_updates"


@dataclass(frozen=True, slots=True, kw_only=True)
class AverageSettings:
    """decay: what is kept of the average at an update. every: steps between updates. on_host: keep it in host memory."""

    decay: float = 0.995
    every: int = 1
    on_host: bool = False


class AdapterAverage:
    """The average, updated after each optimizer step. Its state can be written and read back bit for bit."""

    def __init__(
        self,
        parameters: Mapping[str, nn.Parameter],
        settings: AverageSettings,
        *,
        wholes: Sequence[Tensor] | None = None,
        spans: Mapping[str, tuple[int, int, int]] | None = None,
    ) -> None:
        """wholes, spans: the tensors that the parameters are parts of, and which part of which each is: a few copies and not thousands."""
        self._settings = settings
        self._steps = 0
        self._latest = [whole.detach() for whole in (parameters.values() if wholes is None else wholes)]
        self._kept = _OnHost(self._latest) if settings.on_host and self._latest[0].is_cuda else _Beside(self._latest)
        if spans is None:
            spans = {name: (index, 0, parameter.numel()) for index, (name, parameter) in enumerate(parameters.items())}
        self._values = {
            name: self._kept.values[index].view(-1)[start:end].view(parameters[name].shape) for name, (index, start, end) in spans.items()
        }

    def update(self) -> None:
        """Take a step's adapter in. No value of this step is waited for."""
        self._steps += 1
        if self._steps % self._settings.every:
            return
        self._kept.approach(1.0 - self._decay(self._steps // self._settings.every))

    def restart(self) -> None:
        """Begin with the adapter as it is now."""
        self._steps = 0
        self._kept.settle()
        for value, latest in zip(self._kept.values, self._latest, strict=True):
            value.copy_(latest)

    def values(self) -> dict[str, Tensor]:
        """The averaged adapter, by its parameters' names: float32."""
        self._kept.settle()
        return dict(self._values)

    def state(self) -> dict[str, Tensor]:
        """All that `load_state` needs."""
        return {_UPDATES: torch.tensor(self._steps)} | {_PREFIX + name: value for name, value in self.values().items()}

    def load_state(self, tensors: Mapping[str, Tensor]) -> None:
        """Take over what `state` gave; without it (a run that kept no average so far) begin with the adapter as it is now."""
        if _UPDATES not in tensors:
            self.restart()
            return
        self._kept.settle()
        self._steps = int(tensors[_UPDATES])
        for name, value in self._values.items():
            value.copy_(tensors[_PREFIX + name])

    def _decay(self, update: int) -> float:
        """Shorter memory at first, so that the start, where B is zero, is soon forgotten: 2/11, 3/12, ... up to the decay."""
        return min(self._settings.decay, (1 + update) / (10 + update))


class _Beside:
    """An average where the adapter is."""

    def __init__(self, latest: list[Tensor]) -> None:
        self._latest, self.values = latest, [each.clone() for each in latest]

    def approach(self, share: float) -> None:
        """Move so much of the way to the adapter as it is now."""
        torch._foreach_lerp_(self.values, self._latest, share)

    def settle(self) -> None:
        """Have `values` be what all updates so far made."""


class _OnHost:
    """An average in host memory. An update sends the adapter there and is computed when the next one comes, or somebody asks: the copy is
    long done then, and the host never waits for a step."""

    def __init__(self, latest: list[Tensor]) -> None:
        self._latest = latest
        self.values = [each.to("cpu", copy=True) for each in latest]
        pinned = latest[0].is_cuda
        self._sent = [torch.empty(each.shape, pin_memory=pinned) for each in latest]
        self._copied: torch.cuda.Event | None = torch.cuda.Event() if pinned else None  # type: ignore[no-untyped-call]
        self._share: float | None = None  # of the update whose numbers are under way

    def approach(self, share: float) -> None:
        self.settle()
        for sent, latest in zip(self._sent, self._latest, strict=True):
            sent.copy_(latest, non_blocking=True)
        if self._copied is not None:
            self._copied.record()
        self._share = share

    def settle(self) -> None:
        if self._share is None:
            return
        if self._copied is not None:
            self._copied.synchronize()
        torch._foreach_lerp_(self.values, self._sent, self._share)
        self._share = None


def belongs_to_average(name: str) -> bool:
    """Whether a tensor of a saved state is the average's, and not the optimizer's."""
    return name == _UPDATES or name.startswith(_PREFIX)
