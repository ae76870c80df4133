"""Writes model_sizes.json: `python -m ltx2core.planning.measure_sizes > ltx2core/planning/model_sizes.json`, six minutes on a CPU.

What a block keeps for its backward is decided by the compiler's partitioner, so it is asked: a real block, compiled as the engine compiles
it (the partitioner is the same on every device), and the memory of what its forward saves counted, without what all blocks share.
"""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import torch
from diffusers import LTX2VideoTransformer3DModel

from ltx2core.models import header
from ltx2core.models.forward import follow_official_code
from ltx2core.models.modalities import leave_out
from ltx2core.models.released import released_config
from ltx2core.models.text import TextEmbedding
from ltx2core.planning.flops import model_shape
from ltx2core.planning.model_sizes import Kept, LayerSize, ModelSizes
from ltx2core.training.adapter import AdapterSettings, target_modules
from ltx2core.training.conditions import GivenPart
from ltx2core.training.data import Batch
from ltx2core.training.fast_model import FastModel, FastSettings, build_fast, facts_of
from ltx2core.training.sigma import ShiftedLogitNormal
from ltx2core.training.step import Model, draw, losses_of

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

    from torch import Tensor

VERSIONS = ("2.0.0", "2.3.0", "2.5.0")
CPU, DTYPE = torch.device("cpu"), torch.bfloat16
_LENGTHS = (32, 8, 16)  # tokens of video, sound and caption, and as many again of one of them at a time
_RANK = 8


def shapes_of(version: str, *, joint: bool, **others: Any) -> LTX2VideoTransformer3DModel:
    """The version's transformer on meta. others: arguments of diffusers' class to change."""
    with torch.device("meta"):
        model = LTX2VideoTransformer3DModel(**header.transformer_arguments(released_config(version)) | others)
    if not joint:
        leave_out(model, "audio")
    return model


def measure(version: str, *, joint: bool, **others: Any) -> ModelSizes:
    """The sizes of a version; `others` make it another model."""
    shapes = shapes_of(version, joint=joint, **others)
    adapter = AdapterSettings(rank=_RANK)
    facts = facts_of(shapes, storage="bf16", adapter=adapter, audio=joint, dtype=DTYPE)
    shape = model_shape(shapes, ranks={})
    names = [name for name, module in shapes.transformer_blocks[0].named_modules() if isinstance(module, torch.nn.Linear)]
    outside = [
        name
        for name, module in shapes.named_modules()
        if isinstance(module, torch.nn.Linear) and not name.startswith("transformer_blocks.")
    ]
    config = shapes.config
    return ModelSizes(
        version=version[:3],
        joint=joint,
        blocks=facts.count,
        width=facts.width,
        audio_width=config.audio_num_attention_heads * config.audio_attention_head_dim,
        heads=facts.heads,
        layers=tuple(
            LayerSize(name=name, stream=layer.stream, inputs=layer.inputs, outputs=layer.outputs)
            for name, layer in zip(names, shape.blocks[0].layers, strict=True)
        ),
        attentions=shape.blocks[0].attentions,
        outside=tuple(
            LayerSize(name=name, stream=layer.stream, inputs=layer.inputs, outputs=layer.outputs)
            for name, layer in zip(outside, shape.outside, strict=True)
        ),
        outside_numbers=sum(value.numel() for name, value in shapes.state_dict().items() if not name.startswith("transformer_blocks.")),
        small_bytes=facts.layout.rest_bytes,
        kept=_kept(version, joint=joint, **others),
    )


def _kept(version: str, *, joint: bool, **others: Any) -> Kept:
    """Bytes for each token: differences of what is kept at two lengths, at two ranks."""
    per_rank: list[list[float]] = []
    for rank in (_RANK, 2 * _RANK):
        model = one_block(version, joint=joint, rank=rank, **others)
        least = kept_bytes(model, _LENGTHS, joint=joint)
        per_rank.append([])
        for stream, length in enumerate(_LENGTHS):
            video, audio, text = (size * 2 if index == stream else size for index, size in enumerate(_LENGTHS))
            per_rank[-1].append((kept_bytes(model, (video, audio, text), joint=joint) - least) / length)
    low, high = per_rank
    slopes = [(two - one) / _RANK for one, two in zip(low, high, strict=True)]
    base = [one - _RANK * slope for one, slope in zip(low, slopes, strict=True)]
    names = ("video", "audio", "text")
    more = {f"{name}_rank": slope for name, slope in zip(names, slopes, strict=True)}
    for stream, name in enumerate(names[: 1 + joint]):
        plain, given = (_for_each_token(version, stream, joint=joint, given=found, **others) for found in ((), (name,)))
        more[f"{name}_given"] = given - plain
    return Kept(**dict(zip(names, base, strict=True)), **{"audio_given": 0.0} | more)


def _for_each_token(version: str, stream: int, *, joint: bool, given: Collection[str], **others: Any) -> float:
    """Of one stream, by its place in _LENGTHS."""
    model = one_block(version, joint=joint, rank=_RANK, **others)
    longer: Any = tuple(size * (1 + (index == stream)) for index, size in enumerate(_LENGTHS))
    low, high = (kept_bytes(model, lengths, joint=joint, given=given) for lengths in (_LENGTHS, longer))
    return (high - low) / _LENGTHS[stream]


def one_block(version: str, *, joint: bool, rank: int, **others: Any) -> FastModel:
    """A transformer of one block with real numbers in it, which are all 0: only sizes matter."""
    shapes = shapes_of(version, joint=joint, **others | {"num_layers": 1})
    outside = shapes_of(version, joint=joint, **others | {"num_layers": 0})
    outside = outside.to(DTYPE).to_empty(device=CPU).eval().requires_grad_(False)
    for parameter in outside.parameters():
        torch.nn.init.zeros_(parameter)
    follow_official_code(outside)
    adapter = AdapterSettings(rank=rank)
    targets = target_modules(shapes, audio=joint)
    settings = FastSettings(kept=1, backend="aot_eager_decomp_partition")
    return build_fast(outside, shapes, targets=targets, settings=settings, adapter=adapter, seed=0, dtype=DTYPE, device=CPU)


def kept_bytes(fast: FastModel, lengths: tuple[int, int, int], *, joint: bool, given: Collection[str] = ()) -> int:
    """What the block of this model keeps for a batch of so many tokens of video, sound and caption. given: modalities of which a part is
    given instead of learned."""
    torch._dynamo.reset()
    video, audio, text = lengths
    config = fast.transformer.config
    projected = getattr(fast.transformer, "caption_projection", None) is not None  # else captions come as wide as each stream
    width, audio_width = (
        config.caption_channels if projected else of_stream for of_stream in (config.cross_attention_dim, config.audio_cross_attention_dim)
    )
    batch = Batch(
        video=torch.zeros(1, video, config.in_channels),
        audio=torch.zeros(1, audio, config.audio_in_channels) if joint else None,
        audio_learned=torch.ones(1, audio, dtype=torch.bool) if joint else None,
        text=TextEmbedding(
            torch.zeros(1, text, width, dtype=DTYPE),
            torch.zeros(1, text, audio_width, dtype=DTYPE),
        ),
        grid=(video // 8, 1, 8),
        fps=torch.tensor([25.0]),
        bucket="",
    )
    model = Model(transformer=fast.transformer, device=CPU, dtype=DTYPE, mixed=False)
    parts = [GivenPart(kind="prefix", probability=1.0, length=2, modality=modality) for modality in given]  # type: ignore[arg-type]
    drawn = draw(batch, sampler=ShiftedLogitNormal(), generator=torch.Generator().manual_seed(0), parts=parts)
    found: dict[int, int] = {}
    shared = {buffer.untyped_storage().data_ptr() for buffer in _shared(fast)}
    inner = fast.blocks.compute

    def compute(*arguments: Any, **options: Any) -> Any:
        computed = inner(*arguments, **options)
        tables = {
            part.untyped_storage().data_ptr()
            for value in arguments[3].values()
            for part in (value if isinstance(value, tuple) else (value,))
            if isinstance(part, torch.Tensor)
        }
        for tensor in _saved(computed.video.grad_fn, computed.audio.grad_fn):
            storage = tensor.untyped_storage()
            if storage.data_ptr() not in shared | tables:
                found[storage.data_ptr()] = storage.nbytes()
        return computed

    fast.blocks.compute = compute  # type: ignore[method-assign]
    try:
        losses_of(model, drawn, audio_weight=1.0)
    finally:
        fast.blocks.compute = inner  # type: ignore[method-assign]
    return sum(found.values())


def _shared(fast: FastModel) -> Iterator[Tensor]:
    """What is there however many tokens there are: weights and LoRA."""
    for weights in fast.blocks.weights:
        yield from (weights.matrices, weights.rest)
    yield from fast.adapter.leaves(0).values()


def _saved(*roots: Any) -> Iterator[Tensor]:
    """Every tensor that a graph of autograd holds."""
    seen: set[Any] = set()
    waiting = [root for root in roots if root is not None]
    while waiting:
        node = waiting.pop()
        if node in seen:
            continue
        seen.add(node)
        yield from (tensor for tensor in getattr(node, "saved_tensors", ()) if isinstance(tensor, torch.Tensor))
        waiting += [following for following, _ in node.next_functions if following is not None]


def main() -> None:
    entries = [asdict(measure(version, joint=joint)) for version in VERSIONS for joint in (True, False)]
    print(json.dumps(entries, indent=1))  # noqa: T201 - what this is for


if __name__ == "__main__":
    main()
