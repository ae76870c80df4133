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

from ltx2core.models import nf4
from ltx2core.models.quantised import STORED, Storage, quantise, widen

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ltx2core.models.fused_block import Group, Skeleton

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

    def is_rounded(self, name: str) -> bool:
        """Whether a tensor, by diffusers' name, is stored in fewer bits."""
        place = self.matrices.get(self.members[name].name)
        return place is not None and self.storage != "bf16" and place.dtype == STORED[self.storage]

    def shape_of(self, name: str) -> tuple[int, int]:
        """The shape [N, K] of a rounded tensor, by diffusers' name, before it was."""
        member = self.members[name]
        stored = self.matrices[member.name]
        return member.rows, stored.shape[1] * (2 if self.storage == "nf4" else 1)

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
        if storage == "nf4":
            _add_nf4(matrices, group, dtype)
        else:
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


def _add_nf4(matrices: _Packer, group: Group, dtype: torch.dtype) -> None:
    """A matrix of 4 bits with its scales, which are an eighth of it and so travel too; one that no blocks of it fit in stays as it is."""
    rows, name = len(group.members) * group.rows, f"{group.name}.weight"
    if not nf4.fits(group.rows, group.columns):
        matrices.add(name, (rows, group.columns), dtype)
        return
    matrices.add(name, (rows, group.columns // 2), torch.uint8)
    matrices.add(f"{name}_scale", (rows * group.columns // nf4.BLOCK,), torch.float32)


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
        """Take over a tensor of diffusers' block, rounded on the card if its matrix is in fewer bits. Raises KeyError, ValueError."""
        if self.layout.is_rounded(name):
            if tensor.shape != self.layout.shape_of(name):
                raise ValueError(f"{name} is {[*tensor.shape]}, not {[*self.layout.shape_of(name)]}")
            found = quantise(tensor.to(self._device), self.layout.storage)
            if self.written:
                self.rows_of(name).copy_(found.weight)
            self.put_scale(name, found.scale, found.snr_db)
            return
        target = self.rows_of(name)
        if target.shape != tensor.shape:
            raise ValueError(f"{name} is {[*tensor.shape]}, not {[*target.shape]}")
        if self.written or self.layout.members[name].name in self.layout.rest:
            target.copy_(tensor)

    def rows_of(self, name: str) -> Tensor:
        """Where a tensor of diffusers' block lies, as it is stored: a view."""
        member = self.layout.members[name]
        resting = self.layout.rest.get(member.name)
        whole = self.layout.matrices[member.name].view(self.matrices) if resting is None else resting.view(self.rest)
        return whole[member.first : member.first + member.rows] if whole.ndim else whole

    def scale_of(self, name: str) -> Tensor:
        """The scales of a rounded tensor, as `quantise` gave them."""
        member = self.layout.members[name]
        return self._nf4_scale(member) if self.layout.storage == "nf4" else self._parts[member.name][member.first]

    def put_scale(self, name: str, scale: Tensor, snr_db: float) -> None:
        """Complete a rounded tensor whose rows are there. Scales of a group's members lie one below the other, as their rows do."""
        member = self.layout.members[name]
        self.snr_db[name] = snr_db
        if self.layout.storage == "nf4":
            if self.written:
                self._nf4_scale(member).copy_(scale)
        else:
            self._put_scale(member, scale)

    def _nf4_scale(self, member: Member) -> Tensor:
        whole = self.layout.matrices[f"{member.name}_scale"].view(self.matrices)
        columns = 2 * self.layout.matrices[member.name].shape[1]
        return whole[member.first * columns // nf4.BLOCK : (member.first + member.rows) * columns // nf4.BLOCK]

    def _put_scale(self, member: Member, scale: Tensor) -> None:
        """Where one member of a group needs groups of columns, all of them get them."""
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
        if self.layout.storage in ("int8", "fp8"):  # also where there is none: the block may hold another's
            found |= {f"{name}_turned": self.turned.get(name) for name in self.layout.matrices}
        return found | self.scales

    def turn(self) -> None:
        """Keep every 8-bit matrix transposed, too, on the card: as many bytes again."""
        assert self.layout.storage in ("int8", "fp8")
        self.turned = {name: place.view(self.matrices).t().contiguous() for name, place in self.layout.matrices.items()}


def state_of(layout: Layout, weights: BlockWeights) -> Mapping[str, Tensor]:
    """A block's weights under diffusers' names, rounded matrices widened: for comparing, and for merging a LoRA."""
    tensors = weights.tensors(weights.matrices)
    found: dict[str, Tensor] = {}
    for name, member in layout.members.items():
        whole = tensors[member.name]
        assert whole is not None
        scale = tensors.get(f"{member.name}_scale")
        if scale is not None and member.name in layout.matrices:
            whole = widen(whole.to(weights.rest.device), scale.to(weights.rest.device), torch.bfloat16)
        found[name] = whole[member.first : member.first + member.rows] if whole.ndim else whole
    return found
