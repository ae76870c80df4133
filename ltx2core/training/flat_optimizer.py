"""AdamW over a flat adapter: a few kernels a step whatever the number of layers. Its state has the names that checkpoints use."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

import torch

from ltx2core.training.adam import MOMENTS, make_adam
from ltx2core.training.average import AdapterAverage, AverageSettings, belongs_to_average

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor

    from ltx2core.lora.layers import Modality
    from ltx2core.training.flat_adapter import FlatAdapter, Segment
    from ltx2core.training.optimizer import AdamSettings, ClipBy


class FlatOptimizer:
    """Does what AdapterOptimizer does, on the adapter's segments.

    `reached` is set before `clip`: of which modalities the update's batches were. A segment of another one is left as it is: it had no
    gradients, and weight decay or momentum alone must not move it.
    """

    def __init__(self, adapter: FlatAdapter, settings: AdamSettings, *, average: AverageSettings | None = None) -> None:
        self._adapter = adapter
        self._adam = make_adam(
            [segment.values for segment in adapter.segments], settings, rates=[segment.rate for segment in adapter.segments]
        )
        self._average = None
        if average is not None:
            wholes = [segment.values for segment in adapter.segments]
            self._average = AdapterAverage(adapter.parameters, average, wholes=wholes, spans=adapter.span_of)
        self.reached: frozenset[Modality] = frozenset({"video", "audio", "both"})

    def gradients(self) -> list[Tensor]:
        return [segment.gradient for segment in self._reached()]

    def clip(self, max_norm: float | None, *, by: ClipBy = "norm") -> Tensor:
        """The gradients' norm before clipping, a scalar left on the device. None or 0: do not clip."""
        gradients = self.gradients()
        if not gradients:
            return torch.zeros((), device=self._adapter.segments[0].values.device)
        norm: Tensor = torch.linalg.vector_norm(torch.stack([torch.linalg.vector_norm(gradient) for gradient in gradients]))
        if max_norm and by == "value":
            for gradient in gradients:
                gradient.clamp_(-max_norm, max_norm)
        elif max_norm:
            scale = (max_norm / (norm + 1e-6)).clamp(max=1.0)
            torch._foreach_mul_(gradients, scale)
        return norm

    def step(self, learning_rate: float, *, finite: Tensor) -> None:
        """Update the adapter and forget its gradients; where `finite` (a bool on the device) is False nothing changes."""
        for segment in self._reached():
            segment.values.grad = segment.gradient
        self._adam.step(learning_rate, finite=finite)
        for segment in self._adapter.segments:
            segment.values.grad = None
        self._adapter.refresh()
        if self._average is not None:
            self._average.update()

    def _reached(self) -> list[Segment]:
        return [segment for segment in self._adapter.segments if segment.modality in self.reached]

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
        found: dict[str, Tensor] = {}
        states = [self._adam.state_of(segment.values) for segment in self._adapter.segments]
        for name, parameter in self._adapter.parameters.items():
            segment, start, end = self._adapter.span_of[name]
            if state := states[segment]:
                found |= {f"{moment}.{name}": state[moment][start:end].view(parameter.shape) for moment in MOMENTS}
                found[f"step.{name}"] = state["step"]
        return found if self._average is None else found | self._average.state()

    def load_state(self, tensors: Mapping[str, Tensor]) -> None:
        """Take over what `state` gave, when the parameters are as they were then. Raises KeyError when it belongs to others."""
        known = {f"{moment}.{name}" for name in self._adapter.parameters for moment in (*MOMENTS, "step")}
        if strange := sorted(name for name in set(tensors) - known if not belongs_to_average(name)):
            raise KeyError(strange[0])
        whole: dict[int, dict[str, Tensor]] = {}
        for name in self._adapter.parameters:
            if f"step.{name}" not in tensors:
                continue
            segment, start, end = self._adapter.span_of[name]
            values = self._adapter.segments[segment].values
            state = whole.setdefault(segment, {moment: torch.zeros(values.shape) for moment in MOMENTS})
            state["step"] = tensors[f"step.{name}"]
            for moment in MOMENTS:
                state[moment][start:end].copy_(tensors[f"{moment}.{name}"].reshape(-1))
        for segment, state in whole.items():
            self._adam.set_state(self._adapter.segments[segment].values, state)
        if self._average is not None:
            self._average.load_state(tensors)
        self._adapter.refresh()
