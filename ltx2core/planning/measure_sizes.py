"""Writes model_sizes.json: `python -m ltx2core.planning.measure_sizes > ltx2core/planning/model_sizes.json`, twelve minutes on a CPU.

What a block keeps for its backward is decided by the compiler's partitioner, so it is asked: a real block, compiled as the engine compiles
it (the partitioner is the same on every device), and the memory of what its forward saves counted, without what all blocks share.
What a sample takes while it is drawn is counted on a whole forward through one block, without the compiler.
"""

from __future__ import annotations

import json
import math
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
from ltx2core.planning.model_sizes import Drawing, Drawn, Kept, LayerSize, ModelSizes
from ltx2core.planning.peak_memory import PeakMemory
from ltx2core.training.adapter import AdapterSettings, target_modules
from ltx2core.training.block_facts import facts_of
from ltx2core.training.conditions import GivenPart
from ltx2core.training.data import Batch
from ltx2core.training.fast_model import FastModel, FastSettings, build_fast
from ltx2core.training.sigma import ShiftedLogitNormal
from ltx2core.training.step import Model, draw, losses_of
from ltx2core.validation.sampling import Inputs, sample_latents

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

    from torch import Tensor

VERSIONS = ("2.0.0", "2.3.0", "2.5.0")
CPU, DTYPE = torch.device("cpu"), torch.bfloat16
_LENGTHS = (32, 8, 16)  # tokens of video, sound and caption, and as many again of one of them at a time
_RANK = 8
_DRAWN, _DRAWN_SOUND, _DRAWN_TEXT = (4, 8, 16), 32, 64  # a small sample, most of whose tokens are video's, as of real ones


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
        drawing=_drawing(version, joint=joint, **others),
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
    return Kept(**dict(zip(names, base, strict=True)), **more)


def _drawing(version: str, *, joint: bool, **others: Any) -> Drawing:
    fast = one_block(version, joint=joint, rank=_RANK, **others)

    def each(*, predictions: int, in_turn: bool = False) -> Drawn:
        def peak(video: int = 0, audio: int = 0, text: int = 0, *, given: bool = False) -> int:
            grid, lengths = (_DRAWN[0] + video, _DRAWN[1], _DRAWN[2]), (_DRAWN_SOUND + audio, _DRAWN_TEXT + text)
            return drawing_peak(fast, grid, *lengths, joint=joint, predictions=predictions, given=given, in_turn=in_turn)

        frames, tokens, least, least_given = _DRAWN[0], math.prod(_DRAWN), peak(), peak(given=True)
        video, given = peak(video=frames) - least, peak(video=frames, given=True) - least_given
        audio = (peak(audio=_DRAWN_SOUND) - least) / _DRAWN_SOUND if joint else 0.0
        text = (peak(text=_DRAWN_TEXT) - least) / _DRAWN_TEXT
        return Drawn(video=video / tokens, audio=audio, text=text, video_given=(given - video) / tokens)

    return Drawing(alone=each(predictions=1), together=each(predictions=2), in_turn=each(predictions=2, in_turn=True))


def drawing_peak(
    fast: FastModel, grid: tuple[int, int, int], sound: int, text: int, *, joint: bool, predictions: int, given: bool, in_turn: bool
) -> int:
    """Bytes that a step of drawing takes at most, weights that it reads included. given: a first frame is."""
    config = fast.transformer.config
    embedding = TextEmbedding(*(torch.zeros(text, width, dtype=DTYPE) for width in _text_widths(fast)))
    frame = torch.zeros(1, grid[1] * grid[2], config.in_channels) if given else None
    before, fast.blocks.busy_tokens = fast.blocks.busy_tokens, 0 if in_turn else 1 << 30
    memory = PeakMemory()
    try:
        with memory:
            sample_latents(
                fast.transformer,
                text=embedding,
                negative_text=embedding if predictions > 1 else None,
                grid=grid,
                audio_steps=sound if joint else None,
                fps=25.0,
                seed=0,
                guidance=3.0 if predictions > 1 else 1.0,
                steps=1,
                inputs=Inputs(first_frame=frame),
            )
    finally:
        fast.blocks.busy_tokens = before
    return memory.peak


def _text_widths(fast: FastModel) -> tuple[int, int]:
    """Of a caption's embedding, for each stream."""
    config = fast.transformer.config
    projected = getattr(fast.transformer, "caption_projection", None) is not None  # else captions come as wide as each stream
    widths = (config.cross_attention_dim, config.audio_cross_attention_dim)
    return (config.caption_channels, config.caption_channels) if projected else widths


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
    width, audio_width = _text_widths(fast)
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
