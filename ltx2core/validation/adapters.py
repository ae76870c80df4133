"""Further LoRAs on the model while samples are drawn, beside the one that is trained: a camera move, a style, a distilled one.

Nothing is merged into weights, which may be streamed or in 8 bits: on diffusers' layers a hook adds scale * up (down x); the step engine's
layers are pointed at matrices of both LoRAs, one below the other, and back again afterwards.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import nn

from ltx2core.training.fast_blocks import BlockAt

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from diffusers import LTX2VideoTransformer3DModel
    from torch import Tensor

    from ltx2core.lora.read import Lora
    from ltx2core.models.fused_block import Group
    from ltx2core.training.fast_blocks import FastBlocks

_STAYS_BYTES = 1 << 30  # LoRAs up to that size lie on the card while a sample is drawn; a larger one is brought block by block


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Extra:
    """A LoRA, and how much of it is applied: 1 as it was trained."""

    lora: Lora
    strength: float = 1.0
    stage: Literal["both", "stage1", "stage2"] = "both"  # of samples that are upsampled


@contextlib.contextmanager
def with_adapters(transformer: LTX2VideoTransformer3DModel, extras: Sequence[Extra]) -> Iterator[None]:
    """Apply LoRAs of any layout and rank inside, on diffusers' blocks or the step engine's; the model is as before afterwards.

    Layers that the transformer was loaded without, such as those of sound in a run of pictures, are left out.
    """
    if not extras:
        yield
        return
    engine = next((block.engine for block in transformer.transformer_blocks if isinstance(block, BlockAt)), None)
    modules = {name: module for name, module in transformer.named_modules() if hasattr(module, "weight")}
    handles = [
        modules[layer].register_forward_hook(_Add(pair.down, pair.up, pair.scale * extra.strength))
        for extra in extras
        for layer, pair in extra.lora.pairs.items()
        if layer in modules and not (engine is not None and layer.startswith("transformer_blocks."))
    ]
    try:
        if engine is not None:
            engine.extra = _Stacked(engine, extras)
        yield
    finally:
        for handle in handles:
            handle.remove()
        if engine is not None and isinstance(engine.extra, _Stacked):
            stacked, engine.extra = engine.extra, None
            engine.skeleton.point(stacked.nothing())


class _Add:
    """A forward hook that adds a LoRA to what a linear layer answers."""

    def __init__(self, down: Tensor, up: Tensor, scale: float) -> None:
        self.down, self.up, self.scale = down, up, scale

    def __call__(self, _module: nn.Module, inputs: tuple[Any, ...], output: Tensor) -> Tensor:
        x = inputs[0]
        self.down, self.up = (matrix.to(x.device, x.dtype) for matrix in (self.down, self.up))  # moved once
        added: Tensor = output + self.scale * ((x @ self.down.t()) @ self.up.t()).to(output.dtype)
        return added


class _Stacked:
    """The tensors of a block with further LoRAs: A of all below each other, B of all beside each other."""

    def __init__(self, engine: FastBlocks, extras: Sequence[Extra]) -> None:
        skeleton = engine.skeleton
        self.scales = {group.name: float(skeleton.block.get_submodule(group.name).scale) for group in skeleton.groups}  # type: ignore[arg-type]
        touched = {layer.split(".", 2)[2] for extra in extras for layer in extra.lora.pairs if layer.startswith("transformer_blocks.")}
        self.groups = [group for group in skeleton.groups if touched & set(group.members)]
        members = {member for group in self.groups for member in group.members}
        self.plain = [name for name in sorted(touched - members) if f"{name}.weight" in skeleton.places]  # gates: a few rows
        size = sum(matrix.numel() for extra in extras for pair in extra.lora.pairs.values() for matrix in (pair.down, pair.up)) * 2
        weights = engine.weights[0].rest
        stay = weights.device if size <= _STAYS_BYTES else torch.device("cpu")
        self.pairs = [
            {
                layer: (pair.down.to(stay), pair.up.to(stay), pair.scale * extra.strength)
                for layer, pair in extra.lora.pairs.items()
                if layer.startswith("transformer_blocks.")
            }
            for extra in extras
        ]

    def __call__(self, index: int, own: Mapping[str, Tensor | None]) -> dict[str, Tensor | None]:
        """What the block `index` uses instead of its `own` tensors."""
        found: dict[str, Tensor | None] = {}
        for group in self.groups:
            found[f"{group.name}.lora_a"], found[f"{group.name}.lora_b"] = self._stack(index, group, own)
        for name in self.plain:
            weight = own[f"{name}.weight"]
            assert weight is not None
            for pairs in self.pairs:
                if (pair := pairs.get(f"transformer_blocks.{index}.{name}")) is not None:
                    down, up, scale = pair
                    weight = weight + (scale * (up.to(weight.device).float() @ down.to(weight.device).float())).to(weight.dtype)
            found[f"{name}.weight"] = weight
        return found

    def nothing(self) -> dict[str, Tensor | None]:
        """For the skeleton, so that nothing of these is used once they are taken off: each block points it at its own anew."""
        return {f"{group.name}.{leaf}": None for group in self.groups for leaf in ("lora_a", "lora_b")}

    def _stack(self, index: int, group: Group, own: Mapping[str, Tensor | None]) -> tuple[Tensor | None, Tensor | None]:
        """lora_a [G r, K] and lora_b [G, N, r] of all LoRAs that the group has in this block; None where it has none."""
        a, b = own.get(f"{group.name}.lora_a"), own.get(f"{group.name}.lora_b")
        like = own[f"{group.name}.weight"]
        assert like is not None
        device = like.device
        dtype = a.dtype if a is not None else (own_bias.dtype if (own_bias := own.get(f"{group.name}.bias")) is not None else like.dtype)
        count = len(group.members)
        downs = [] if a is None else [a.view(count, -1, group.columns)]
        ups = [] if b is None else [b]
        for pairs in self.pairs:
            layers = [pairs.get(f"transformer_blocks.{index}.{member}") for member in group.members]
            rank = max((pair[0].shape[0] for pair in layers if pair is not None), default=0)
            if rank == 0:
                continue
            down = torch.zeros(count, rank, group.columns, device=device, dtype=dtype)
            up = torch.zeros(count, group.rows, rank, device=device, dtype=dtype)
            for place, pair in enumerate(layers):
                if pair is not None:
                    own_rank = pair[0].shape[0]
                    down[place, :own_rank] = pair[0].to(device, dtype)
                    up[place, :, :own_rank] = (pair[1].to(device).float() * (pair[2] / self.scales[group.name])).to(dtype)
            downs.append(down)
            ups.append(up)
        if not downs:
            return None, None
        return torch.cat(downs, dim=1).flatten(0, 1), torch.cat(ups, dim=2)
