"""A LoRA as one flat buffer: float32 masters, their gradients, and the copy in the model's precision that the blocks compute with.

1,152 layers have 2,304 matrices; as views of flat buffers they are updated, clipped and cast by a handful of kernels, and the A and B
of layers that share an input lie together, as GroupedLinear takes them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from ltx2core.lora.layers import Modality, modality_of
from ltx2core.training.batches import generator_for

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ltx2core.models.fused_block import Group

_ALIGNED = 128  # numbers: every matrix begins where a matrix unit can load from
_MODALITIES: tuple[Modality, ...] = ("video", "audio", "both")


@dataclass(frozen=True, slots=True)
class _Span:
    """Where a matrix lies in the flat buffers, in numbers."""

    start: int
    shape: tuple[int, ...]

    def of(self, flat: Tensor) -> Tensor:
        return flat[self.start : self.start + math.prod(self.shape)].view(self.shape)


@dataclass(frozen=True, slots=True)
class Segment:
    """A part of the buffers, float32 [n], that has gradients in the same steps: those on its modality, `both` in those on both at once.

    rate: its share of the learning rate.
    """

    modality: Modality
    rate: float
    values: nn.Parameter
    gradient: Tensor


class FlatAdapter:
    """The adapter of all blocks. `parameters` are its matrices under the names that files and checkpoints use, float32; they share their
    memory with the segments."""

    def __init__(self, groups: Sequence[Group], *, num_blocks: int, rank: int, seed: int, device: torch.device, dtype: torch.dtype) -> None:
        """rank: of the groups that have no shape of their own."""
        spans: list[dict[str, tuple[_Span, _Span]]] = [{} for _ in range(num_blocks)]
        place = 0
        cuts: dict[tuple[Modality, float], tuple[int, int]] = {}
        for part in _parts(groups):
            first = place
            for block in range(num_blocks):
                for group in groups:
                    if group.lora and _part_of(group) == part:
                        count, width = len(group.members), rank if group.shape is None else group.shape.rank
                        a, place = _next(place, (count * width, group.columns))
                        b, place = _next(place, (count, group.rows, width))
                        spans[block][group.name] = a, b
            if place > first:
                cuts[part] = first, place
        self._master = torch.zeros(place, device=device)
        self._grad = torch.zeros_like(self._master)
        self._work = torch.zeros(place, device=device, dtype=dtype)
        self.segments = [
            Segment(modality, rate, nn.Parameter(self._master[start:end]), self._grad[start:end])
            for (modality, rate), (start, end) in cuts.items()
        ]
        self.parameters: dict[str, nn.Parameter] = {}
        self.span_of: dict[str, tuple[int, int, int]] = {}  # of a parameter: segment, and the numbers of it that are its own
        for block, found in enumerate(spans):
            for group in groups:
                if group.name in found:
                    self._name(block, group, *found[group.name], list(cuts.values()))
        self.parameters = dict(sorted(self.parameters.items()))
        self._leaves = [
            {
                f"{name}.{leaf}": span.of(self._work).requires_grad_()
                for name, pair in found.items()
                for leaf, span in zip(("lora_a", "lora_b"), pair, strict=True)
            }
            for found in spans
        ]
        self._grads = [[span.of(self._grad) for pair in found.values() for span in pair] for found in spans]
        self.accumulate = False  # set from the second batch of an update on
        self._draw(seed)

    def _name(self, block: int, group: Group, a: _Span, b: _Span, cuts: Sequence[tuple[int, int]]) -> None:
        segment = next(index for index, (_, end) in enumerate(cuts) if a.start < end)
        whole_a, whole_b = a.of(self._master), b.of(self._master)
        rank = whole_b.shape[2]
        for index, member in enumerate(group.members):
            layer = f"transformer_blocks.{block}.{member}"
            for name, view in (
                (f"{layer}.lora_A.weight", whole_a[index * rank : (index + 1) * rank]),
                (f"{layer}.lora_B.weight", whole_b[index]),
            ):
                self.parameters[name] = nn.Parameter(view)
                start = int(view.storage_offset()) - cuts[segment][0]
                self.span_of[name] = segment, start, start + math.prod(view.shape)

    def _draw(self, seed: int) -> None:
        """The values that training/adapter.py gives: A drawn by name, B zero."""
        with torch.no_grad():
            for name, parameter in self.parameters.items():
                if ".lora_A." in name:
                    value = torch.empty(parameter.shape)
                    nn.init.kaiming_uniform_(value, a=math.sqrt(5), generator=generator_for(seed, "adapter", name))
                    parameter.copy_(value)
        self.refresh()

    def leaves(self, block: int) -> dict[str, Tensor]:
        """What a block computes with, by the skeleton's names: lora_a [G r, K] and lora_b [G, N, r] of each group."""
        return self._leaves[block]

    def add_gradients(self, block: int, gradients: Sequence[Tensor | None]) -> None:
        """Take over a block's gradients, in the order of its leaves: instead of those before, or in addition (`accumulate`)."""
        pairs = [(total, grad) for total, grad in zip(self._grads[block], gradients, strict=True) if grad is not None]
        if not self.accumulate and (without := [total for total, grad in zip(self._grads[block], gradients, strict=True) if grad is None]):
            torch._foreach_zero_(without)  # what the last step left
        if not pairs:
            return
        totals, grads = [total for total, _ in pairs], [grad for _, grad in pairs]
        if self.accumulate:
            torch._foreach_add_(totals, [grad.float() for grad in grads])
        else:
            torch._foreach_copy_(totals, grads)

    def forget_gradients(self) -> None:
        """Set all to 0."""
        self._grad.zero_()

    def gradient_of(self, name: str) -> Tensor:
        """A parameter's gradient: a view of its segment's."""
        segment, start, end = self.span_of[name]
        return self.segments[segment].gradient[start:end].view(self.parameters[name].shape)

    def refresh(self) -> None:
        """Cast the masters to the precision that the blocks compute in: after a step, after loading."""
        with torch.no_grad():
            self._work.copy_(self._master)


def _part_of(group: Group) -> tuple[Modality, float]:
    return modality_of(group.members[0]), 1.0 if group.shape is None else group.shape.rate


def _parts(groups: Sequence[Group]) -> list[tuple[Modality, float]]:
    """What the segments are of, in the buffers' order: one where all layers of a modality learn equally fast."""
    return sorted({_part_of(group) for group in groups if group.lora}, key=lambda part: (_MODALITIES.index(part[0]), part[1]))


def _next(place: int, shape: tuple[int, ...]) -> tuple[_Span, int]:
    return _Span(place, shape), place + -(-math.prod(shape) // _ALIGNED) * _ALIGNED
