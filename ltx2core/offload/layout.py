"""How a block's frozen weights lie in memory: its matrices in one flat buffer, which travels, and what is small in another, which stays.

Every block has the same layout, so one slot on the card takes any of them in one copy, and a compiled block sees the same strides
wherever the weights lie.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ltx2core.models.quantised import STORED, Storage, quantise

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ltx2core.models.fused_block import Skeleton

_ALIGNED = 256  # bytes: what matrix units and copy engines like


@dataclass(frozen=True, slots=True)
class Place:
    """Where a tensor lies in its flat buffer, in bytes."""

    start: int
    shape: tuple[int, ...]
    dtype: torch.dtype

    def view(self, flat: Tensor) -> Tensor:
        """The tensor, in a flat buffer of bytes. Nothing is copied."""
        size = prod(self.shape) * self.dtype.itemsize
        return flat[self.start : self.start + size].view(self.dtype).view(self.shape)


@dataclass(frozen=True, slots=True)
class Member:
    """Where a layer of diffusers' block went: a row range of a group's weight, or a tensor of its own."""

    name: str
    first: int
    rows: int


@dataclass(frozen=True, slots=True)
class Layout:
    """The layout of every block of a model. matrices and rest: places by the skeleton's names. members: by diffusers' names."""

    storage: Storage
    matrices: dict[str, Place]
    rest: dict[str, Place]
    members: dict[str, Member]
    matrix_bytes: int
    rest_bytes: int

    @property
    def block_bytes(self) -> int:
        return self.matrix_bytes + self.rest_bytes


def make_layout(skeleton: Skeleton, *, storage: Storage = "bf16", dtype: torch.dtype = torch.bfloat16) -> Layout:
    """The layout of a skeleton's blocks. storage: of the matrices; dtype: of everything else, and of matrices that stay as they are."""
    stored = dtype if storage == "bf16" else STORED[storage]
    matrices, rest = _Packer(), _Packer()
    members: dict[str, Member] = {}
    for group in skeleton.groups:
        rows = len(group.members) * group.rows
        matrices.add(f"{group.name}.weight", (rows, group.columns), stored)
        if group.bias:
            rest.add(f"{group.name}.bias", (rows,), dtype)
        for index, member in enumerate(group.members):
            members[f"{member}.weight"] = Member(f"{group.name}.weight", index * group.rows, group.rows)
            if group.bias:
                members[f"{member}.bias"] = Member(f"{group.name}.bias", index * group.rows, group.rows)
    for name, shape in skeleton.plain.items():
        rest.add(name, tuple(shape), dtype)
        members[name] = Member(name, 0, shape[0] if shape else 1)
    return Layout(storage, matrices.places, rest.places, members, matrices.size, rest.size)


class _Packer:
    def __init__(self) -> None:
        self.places: dict[str, Place] = {}
        self.size = 0

    def add(self, name: str, shape: tuple[int, ...], dtype: torch.dtype) -> None:
        self.places[name] = Place(self.size, shape, dtype)
        self.size += -(-prod(shape) * dtype.itemsize // _ALIGNED) * _ALIGNED


class BlockWeights:
    """One block's weights: `matrices` lie on the card or in host memory, `rest` and the scales of 8-bit matrices on the card."""

    def __init__(self, layout: Layout, *, device: torch.device, matrices_on: Tensor) -> None:
        """matrices_on: the flat buffer of `layout.matrix_bytes` bytes that the matrices fill."""
        self.layout = layout
        self.matrices = matrices_on
        self.rest = torch.zeros(layout.rest_bytes, dtype=torch.uint8, device=device)
        self.scales: dict[str, Tensor] = {}
        self.snr_db: dict[str, float] = {}
        self.turned: dict[str, Tensor] = {}  # 8-bit matrices once more, transposed, as some products take them
        self.given: frozenset[str] = frozenset()  # tensors that need not be put: an earlier run left them where `matrices` lie
        self.written = True  # False: another process writes the matrices, which this one shares
        self._device = device
        self._parts: dict[str, dict[int, Tensor]] = {}

    def put(self, name: str, tensor: Tensor) -> None:
        """Take over a tensor of diffusers' block, rounded to 8 bits on the card if its matrix is stored so. Raises KeyError, ValueError."""
        member = self.layout.members[name]
        if member.name in self.layout.rest:
            target = self.layout.rest[member.name].view(self.rest)
            part = target[member.first : member.first + member.rows] if target.ndim else target
            _check(name, part, tensor)
            part.copy_(tensor)
            return
        target = self.layout.matrices[member.name].view(self.matrices)[member.first : member.first + member.rows]
        _check(name, target, tensor)
        if self.layout.storage == "bf16":
            if self.written:
                target.copy_(tensor)
            return
        found = quantise(tensor.to(self._device), self.layout.storage)
        if self.written:
            target.copy_(found.weight)
        self.snr_db[name] = found.snr_db
        self._put_scale(member, found.scale)

    def _put_scale(self, member: Member, scale: Tensor) -> None:
        """Scales of a group's members lie one below the other, too; where one needs groups of columns, all of them get them."""
        parts = self._parts.setdefault(member.name, {})
        parts[member.first] = scale
        widest = max(part.shape[1] if part.ndim == 2 else 1 for part in parts.values())
        ordered = [parts[first] for first in sorted(parts)]
        if widest > 1:
            ordered = [part if part.ndim == 2 else part[:, None].expand(-1, widest) for part in ordered]
        self.scales[f"{member.name}_scale"] = torch.cat(ordered).contiguous()

    def tensors(self, matrices: Tensor) -> dict[str, Tensor | None]:
        """All tensors by the skeleton's names, the matrices taken from a flat buffer that holds them: this one's, or a slot."""
        found: dict[str, Tensor | None] = {name: place.view(matrices) for name, place in self.layout.matrices.items()}
        found |= {name: place.view(self.rest) for name, place in self.layout.rest.items()}
        if self.layout.storage != "bf16":  # also where there is none: the block may hold another's
            found |= {f"{name}_turned": self.turned.get(name) for name in self.layout.matrices}
        return found | self.scales

    def turn(self) -> None:
        """Keep every matrix transposed, too, on the card: as many bytes again."""
        self.turned = {name: place.view(self.matrices).t().contiguous() for name, place in self.layout.matrices.items()}


def _check(name: str, target: Tensor, tensor: Tensor) -> None:
    if target.shape != tensor.shape:
        raise ValueError(f"{name} is {[*tensor.shape]}, not {[*target.shape]}")


def state_of(layout: Layout, weights: BlockWeights) -> Mapping[str, Tensor]:
    """A block's weights under diffusers' names, matrices widened if they are stored in 8 bits: for comparing, and for merging a LoRA."""
    from ltx2core.models.quantised import widen

    tensors = weights.tensors(weights.matrices)
    found: dict[str, Tensor] = {}
    for name, member in layout.members.items():
        whole = tensors[member.name]
        assert whole is not None
        if f"{member.name}_scale" in tensors and member.name in layout.matrices:
            whole = widen(whole.to(weights.rest.device), weights.scales[f"{member.name}_scale"], torch.bfloat16)
        found[name] = whole[member.first : member.first + member.rows] if whole.ndim else whole
    return found
