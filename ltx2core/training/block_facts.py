"""What a checkpoint's header alone says of the blocks that are trained: their sizes, and where a LoRA goes in one of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ltx2core.models.components import check_transformer
from ltx2core.models.fused_block import build_skeleton
from ltx2core.offload.layout import Layout, make_layout
from ltx2core.planning.flops import ModelShape, model_shape
from ltx2core.training.adapter import AdapterSettings, target_modules

if TYPE_CHECKING:
    from collections.abc import Iterable

    import torch
    from diffusers import LTX2VideoTransformer3DModel

    from ltx2core.lora.shape import LayerShape
    from ltx2core.models.checkpoint import Checkpoint
    from ltx2core.models.quantised import Storage


@dataclass(frozen=True, slots=True, kw_only=True)
class BlockFacts:
    """Sizes of a checkpoint's transformer, from its header alone. outside_bytes: of what lies outside the blocks and of small tensors."""

    count: int
    block_bytes: int
    outside_bytes: int
    lora_numbers: int
    width: int
    heads: int
    shape: ModelShape
    layout: Layout


def describe_blocks(
    checkpoint: Checkpoint, *, storage: Storage, adapter: AdapterSettings, audio: bool, dtype: torch.dtype, video: bool = True
) -> BlockFacts:
    """What a plan needs to know, before anything is loaded."""
    shapes = check_transformer(checkpoint, video=video, audio=audio)
    return facts_of(shapes, storage=storage, adapter=adapter, video=video, audio=audio, dtype=dtype)


def facts_of(
    shapes: LTX2VideoTransformer3DModel,
    *,
    storage: Storage,
    adapter: AdapterSettings,
    audio: bool,
    dtype: torch.dtype,
    video: bool = True,
) -> BlockFacts:
    """The same of a transformer on meta."""
    targets = target_modules(shapes, video=video, audio=audio, wanted=adapter.targets)
    blocks: Any = shapes.transformer_blocks
    skeleton = build_skeleton(blocks[0], targets=in_block(targets), shapes=lora_shapes(adapter, targets))
    layout = make_layout(skeleton, storage=storage, dtype=dtype)
    outside = sum(tensor.numel() for name, tensor in shapes.state_dict().items() if not name.startswith("transformer_blocks."))
    numbers = sum((group.columns + group.rows) * group.shape.rank * len(group.members) for group in skeleton.groups if group.shape)
    config = shapes.config
    return BlockFacts(
        count=len(blocks),
        block_bytes=layout.matrix_bytes,
        outside_bytes=outside * dtype.itemsize + len(blocks) * layout.rest_bytes,
        lora_numbers=numbers * len(blocks),
        width=config.num_attention_heads * config.attention_head_dim,
        heads=config.num_attention_heads,
        shape=model_shape(shapes, ranks={name: adapter.shape_of(name).rank for name in targets}),
        layout=layout,
    )


def in_block(targets: Iterable[str]) -> set[str]:
    """Targets, which are the same in every block, by their names in one."""
    return {name.split(".", 2)[2] for name in targets}


def lora_shapes(adapter: AdapterSettings, targets: Iterable[str]) -> dict[str, LayerShape]:
    """Of the LoRA of each target, named as in a block. Raises ValueError when they differ between blocks."""
    found: dict[str, LayerShape] = {}
    for name in targets:
        inner, shape = name.split(".", 2)[2], adapter.shape_of(name)
        if found.setdefault(inner, shape) != shape:
            raise ValueError(f"{name} has a LoRA of another shape than that of other blocks")
    return found
