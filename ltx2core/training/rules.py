"""Optimizers other than AdamW over the adapter's parameters, in either engine: rules of PyTorch, transformers and small packages.

AdamW has a kernel that skips an update on the device. These have not, so each update waits until the device knows whether the loss was
finite; the run's first line says so. Everything else is as with AdamW: gradients are clipped, the state is written as named tensors and
read back bit for bit, and parameters without a gradient (sound's, in a batch without sound) stay as they are.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, field
from importlib import import_module
from typing import TYPE_CHECKING, Any

import torch

from ltx2core.config.optimizers import PACKAGES, TITLES, Rule
from ltx2core.errors import ConfigError
from ltx2core.lora.layers import modality_of
from ltx2core.training.average import AdapterAverage, AverageSettings, belongs_to_average
from ltx2core.training.optimizer import AdamSettings, clip_gradients, reach, reached_by

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from torch import Tensor, nn

    from ltx2core.lora.layers import Modality
    from ltx2core.training.flat_adapter import FlatAdapter
    from ltx2core.training.optimizer import ClipBy

_NUMBERS: dict[type, tuple[str, torch.dtype]] = {bool: ("bool", torch.bool), int: ("int", torch.int64), float: ("float", torch.float64)}
_TYPES = {word: kind for kind, (word, _) in _NUMBERS.items()}


@dataclass(frozen=True, slots=True, kw_only=True)
class RuleSettings:
    """A rule, and the numbers it shares with AdamW."""

    rule: Rule
    adam: AdamSettings = field(default_factory=AdamSettings)


def check_package(rule: Rule) -> None:
    """Raise ConfigError when the package of a rule is not installed."""
    if rule not in PACKAGES:
        return
    module, package = PACKAGES[rule]
    try:
        import_module(module)
    except ImportError as error:
        raise ConfigError(
            [f"optimizer: {TITLES[rule]} needs the package {package}, which is not installed."],
            fix="pip install 'ltx2tui[optimizers]', or use adamw.",
        ) from error


class RuleOptimizer:
    """Does what AdapterOptimizer and FlatOptimizer do, by another rule.

    flat: the step engine's adapter, whose parameters these are; its gradients lie in its segments. `reached` is set by that engine: of
    which modalities the update's batches were.
    """

    def __init__(
        self,
        parameters: Mapping[str, nn.Parameter],
        settings: RuleSettings,
        *,
        rates: Mapping[str, float] | None = None,
        average: AverageSettings | None = None,
        flat: FlatAdapter | None = None,
    ) -> None:
        check_package(settings.rule)
        self._parameters, self._flat, self.rule = dict(parameters), flat, settings.rule
        groups: dict[float, list[nn.Parameter]] = {}
        for name, parameter in self._parameters.items():
            groups.setdefault((rates or {}).get(name, 1.0), []).append(parameter)
        self._rates = list(groups)
        self._optimizer = _make(settings, list(groups.values()))
        self._first = [_numbers(group) for group in self._optimizer.param_groups]
        self._average = None if average is None else AdapterAverage(self._parameters, average)
        self._reached: frozenset[Modality] = frozenset({"video", "audio", "both"})  # where an engine with segments says so

    @property
    def reached(self) -> frozenset[Modality]:
        return reached_by(self._parameters) if self._flat is None else self._reached

    @reached.setter
    def reached(self, value: frozenset[Modality]) -> None:
        self._reached = value
        if self._flat is None:
            reach(self._parameters, value)

    def gradients(self) -> list[Tensor]:
        if self._flat is not None:
            return [segment.gradient for segment in self._flat.segments if segment.modality in self._reached]
        return [parameter.grad for parameter in self._parameters.values() if parameter.grad is not None]

    def clip(self, max_norm: float | None, *, by: ClipBy = "norm") -> Tensor:
        """The gradients' norm before clipping, a scalar left on the device. None or 0: do not clip."""
        if self._flat is not None:
            for name, parameter in self._parameters.items():
                parameter.grad = self._flat.gradient_of(name) if modality_of(name) in self._reached else None
        return clip_gradients(list(self._parameters.values()), max_norm, by=by)

    def step(self, learning_rate: float, *, finite: Tensor) -> None:
        """Update the parameters and forget their gradients; where `finite` is False nothing changes. `clip` comes first."""
        if bool(finite):
            for group, rate in zip(self._optimizer.param_groups, self._rates, strict=True):
                group["lr"] = learning_rate * rate
            self._optimizer.step()
        for parameter in self._parameters.values():
            parameter.grad = None
        self._refresh()
        if self._average is not None:
            self._average.update()

    @contextlib.contextmanager
    def at_rest(self) -> Iterator[None]:
        """Inside, the parameters are those to measure, draw and export with; afterwards those that training goes on with, to the last bit.

        Schedule-free trains at y, between the point z that gradients move and the average x of where z has been; x is the result.
        """
        if self.rule != "schedule-free":
            yield
            return
        kept = {name: parameter.detach().clone() for name, parameter in self._parameters.items()}
        optimizer: Any = self._optimizer
        try:
            optimizer.eval()
            self._refresh()
            yield
        finally:
            optimizer.train()
            with torch.no_grad():
                for name, parameter in self._parameters.items():
                    parameter.copy_(kept[name])
            self._refresh()

    def averaged(self) -> dict[str, Tensor] | None:
        """The adapter's running average by its parameters' names; None where none is kept."""
        return None if self._average is None else self._average.values()

    def restart_average(self) -> None:
        """Begin the average, where one is kept, with the adapter as it is now."""
        if self._average is not None:
            self._average.restart()

    def state(self) -> dict[str, Tensor]:
        """Every tensor and number of the state: `exp_avg.<parameter>`, `step@int.<parameter>`, `d@float.group0`."""
        found: dict[str, Tensor] = {}
        for name, parameter in self._parameters.items():
            for key, value in self._optimizer.state.get(parameter, {}).items():
                found |= _named(key, value, name)
        for index, (group, first) in enumerate(zip(self._optimizer.param_groups, self._first, strict=True)):
            for key, value in _numbers(group).items():
                if key != "lr" and first.get(key) != value:
                    found |= _named(key, value, f"group{index}")
        return found if self._average is None else found | self._average.state()

    def load_state(self, tensors: Mapping[str, Tensor]) -> None:
        """Take over what `state` gave, when the parameters are as they were then. Raises KeyError when it belongs to others."""
        for full, tensor in tensors.items():
            if belongs_to_average(full):
                continue
            key, _, owner = full.partition(".")
            key, _, kind = key.partition("@")
            if owner in self._parameters:
                parameter = self._parameters[owner]
                place, device = self._optimizer.state[parameter], parameter.device
            elif owner.startswith("group") and int(owner.removeprefix("group")) < len(self._optimizer.param_groups):
                place, device = self._optimizer.param_groups[int(owner.removeprefix("group"))], tensor.device
            else:
                raise KeyError(full)
            place[key] = _TYPES[kind](tensor.item()) if kind else tensor.to(device, copy=True)
        if self._average is not None:
            self._average.load_state(tensors)
        self._refresh()

    def _refresh(self) -> None:
        if self._flat is not None:
            self._flat.refresh()


def _make(settings: RuleSettings, parameters: list[list[nn.Parameter]]) -> torch.optim.Optimizer:
    """The optimizer of a rule, a group of its own for each list. Learning rates are set before each step; the 1 here is never used."""
    adam = settings.adam
    groups: list[dict[str, Any]] = [{"params": group} for group in parameters]
    if settings.rule == "adafactor":
        adafactor = import_module("transformers").Adafactor
        made = adafactor(groups, lr=1.0, scale_parameter=False, relative_step=False, weight_decay=adam.weight_decay)
    elif settings.rule == "came":
        betas = (adam.beta1, adam.beta2, 0.9999)
        made = import_module("came_pytorch").CAME(groups, lr=1.0, betas=betas, weight_decay=adam.weight_decay)
    elif settings.rule == "prodigy":
        options = {"use_bias_correction": True, "safeguard_warmup": True}
        made = import_module("prodigyopt").Prodigy(groups, lr=1.0, betas=(adam.beta1, adam.beta2), eps=adam.epsilon, **options)
        for group in made.param_groups:
            group["weight_decay"] = adam.weight_decay  # here and not above, where the package would print a line about it
    elif settings.rule == "schedule-free":
        made = import_module("schedulefree").AdamWScheduleFree(
            groups, lr=1.0, betas=(adam.beta1, adam.beta2), eps=adam.epsilon, weight_decay=adam.weight_decay
        )
        made.train()
    elif settings.rule == "muon":
        made = torch.optim.Muon(groups, lr=1.0, weight_decay=adam.weight_decay, adjust_lr_fn="match_rms_adamw")
    else:
        raise ValueError(f"{settings.rule} has an optimizer of its own")
    return made  # type: ignore[no-any-return]


def _numbers(group: Mapping[str, object]) -> dict[str, object]:
    return {key: value for key, value in group.items() if type(value) in _NUMBERS}


def _named(key: str, value: object, owner: str) -> dict[str, Tensor]:
    """A value of the state under its name in a file; nothing for None, which is what is there without it."""
    if isinstance(value, torch.Tensor):
        return {f"{key}.{owner}": value}
    if value is None:
        return {}
    word, dtype = _NUMBERS[type(value)]
    return {f"{key}@{word}.{owner}": torch.tensor(value, dtype=dtype)}
