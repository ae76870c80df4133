"""How many floating-point operations a training step takes, counted from the model's shapes: for utilisation, and for predicting speed.

A product of [T, K] with [K, N] is 2 T N K operations, and only products count; norms, rotations and the optimizer are bound by memory.
Weights are frozen, so that a layer costs, for T tokens:

    forward                2 T N K                 and with a LoRA of rank r   + 2 T r (N + K)
    backward               2 T N K  if something below its input learns        + 2 T r (2 N + K)  + 2 T r K  if so
    computed again         as its forward

and attention of Lq queries to Lk keys over a width of W (heads x numbers of a head) 4 Lq Lk W forwards and twice that backwards. What
a kernel computes a second time for itself (the scores, in a fused attention's backward) is not counted, nor is what a recomputed block
does again counted as the model's own: utilisation is of the operations that the step cannot do without (arXiv 2204.02311, appendix B).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from torch import nn

Stream = Literal["video", "audio", "text", "level"]
"""What a layer's rows are: tokens of a modality, of the caption, or noise levels, one a sample."""

# of an attention in a block: where its queries and its keys come from
_ATTENTIONS: dict[str, tuple[Stream, Stream]] = {
    "attn1": ("video", "video"),
    "attn2": ("video", "text"),
    "audio_attn1": ("audio", "audio"),
    "audio_attn2": ("audio", "text"),
    "audio_to_video_attn": ("video", "audio"),
    "video_to_audio_attn": ("audio", "video"),
}
_OUTSIDE: tuple[tuple[str, Stream], ...] = (
    ("proj_", "video"),
    ("audio_proj_", "audio"),
    ("caption_projection", "text"),
    ("audio_caption_projection", "text"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Layer:
    """A linear layer. rank: of its LoRA, 0 without one; learns_below: whether a gradient must pass through it."""

    stream: Stream
    inputs: int
    outputs: int
    rank: int
    learns_below: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Attention:
    """Queries of one stream attend to keys of another. width: heads x numbers of a head."""

    queries: Stream
    keys: Stream
    width: int


@dataclass(frozen=True, slots=True, kw_only=True)
class BlockShape:
    """The products of a block. at_input: the layers that read the block's inputs alone, through which no gradient passes in the first."""

    layers: tuple[Layer, ...]
    attentions: tuple[Attention, ...]
    at_input: tuple[Layer, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelShape:
    """The products of a transformer with its LoRA. outside: the layers that are in no block."""

    blocks: tuple[BlockShape, ...]
    outside: tuple[Layer, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchShape:
    """What a step sees: samples, and tokens of each. routed: (first block, last block, video tokens that go through them)."""

    count: int
    video: int
    audio: int
    text: int
    routed: tuple[tuple[int, int, int], ...] = ()

    def rows(self, stream: Stream, block: int | None = None) -> int:
        """Tokens of a sample, in a block if one is given; 1 for its noise level."""
        if stream == "video" and block is not None:
            return next((kept for start, end, kept in self.routed if start <= block <= end), self.video)
        return {"video": self.video, "audio": self.audio, "text": self.text, "level": 1}[stream]


@dataclass(frozen=True, slots=True, kw_only=True)
class StepFlops:
    """Operations of a step. again: of blocks that are computed a second time to save memory."""

    forward: int
    backward: int
    again: int = 0

    @property
    def needed(self) -> int:
        """What no layout can do without: what utilisation is measured by."""
        return self.forward + self.backward

    @property
    def done(self) -> int:
        """What the device computes in fact: what its time follows from."""
        return self.needed + self.again


def model_shape(transformer: nn.Module, *, ranks: Mapping[str, int]) -> ModelShape:
    """The shape of diffusers' transformer, which may be on meta. ranks: of the layers that get a LoRA, by name."""
    from torch import nn

    linear = {name: module for name, module in transformer.named_modules() if isinstance(module, nn.Linear)}
    inside: dict[int, dict[str, nn.Linear]] = {}
    outside = []
    for name, module in linear.items():
        if name.startswith("transformer_blocks."):
            _, index, inner = name.split(".", 2)
            inside.setdefault(int(index), {})[inner] = module
        else:
            stream = _stream_outside(name)
            outside.append(_layer(module, stream, rank=ranks.get(name, 0), learns_below=name.endswith("proj_out")))
    known: dict[tuple[int, ...], BlockShape] = {}
    blocks = []
    for index in sorted(inside):
        own = tuple(ranks.get(f"transformer_blocks.{index}.{name}", 0) for name in inside[index])
        if own not in known:  # as a rule all blocks are one
            known[own] = _block_shape(inside[index], dict(zip(inside[index], own, strict=True)))
        blocks.append(known[own])
    return ModelShape(blocks=tuple(blocks), outside=tuple(outside))


def count_step(
    model: ModelShape,
    batch: BatchShape,
    *,
    again: Collection[int] = (),
    attention_kept: Collection[int] = (),
    into_first: bool = False,
) -> StepFlops:
    """The operations of a forward and backward over a batch.

    again: the blocks that are computed twice; attention_kept: those of them that do so without self-attention over the pictures, whose
    answer they keep. into_first: whether the gradient of the first block's inputs is computed though nothing
    below it learns, as the step engine does.
    """
    forward = sum(_forward(layer, batch) for layer in model.outside)
    backward = sum(_backward(layer, batch) for layer in model.outside)
    twice = 0
    for index, block in enumerate(model.blocks):
        own = _block_forward(block, batch, index)
        forward += own
        twice += own if index in again else 0
        if index in again and index in attention_kept:
            twice -= sum(_attention(one, batch, index) for one in block.attentions if one.queries == one.keys == "video")
        backward += sum(_backward(layer, batch, index) for layer in block.layers)
        backward += 2 * sum(_attention(one, batch, index) for one in block.attentions)
    if model.blocks and not into_first:
        backward -= sum(_into(layer, batch, 0) for layer in model.blocks[0].at_input)
    return StepFlops(forward=forward, backward=backward, again=twice)


def _stream_outside(name: str) -> Stream:
    """What a layer outside the blocks reads: noise levels, unless it is one of a few."""
    return next((stream for prefix, stream in _OUTSIDE if name.startswith(prefix)), "level")


def _layer(module: nn.Linear, stream: Stream, *, rank: int, learns_below: bool) -> Layer:
    return Layer(stream=stream, inputs=module.in_features, outputs=module.out_features, rank=rank, learns_below=learns_below)


def _block_shape(linear: Mapping[str, nn.Linear], ranks: Mapping[str, int]) -> BlockShape:
    layers: dict[str, Layer] = {}
    for name, module in linear.items():
        part, _, leaf = name.partition(".")
        queries, keys = _ATTENTIONS.get(part, ("audio", "audio") if part.startswith("audio") else ("video", "video"))
        stream = keys if leaf in ("to_k", "to_v") else queries
        layers[name] = _layer(module, stream, rank=ranks[name], learns_below=stream != "text")  # nothing below a caption learns
    attentions = tuple(
        Attention(queries=queries, keys=keys, width=linear[f"{part}.to_q"].out_features)
        for part, (queries, keys) in _ATTENTIONS.items()
        if f"{part}.to_q" in linear
    )
    at_input = tuple(
        layer for name, layer in layers.items() if name.split(".")[0] in ("attn1", "audio_attn1") and not name.endswith("to_out.0")
    )
    return BlockShape(layers=tuple(layers.values()), attentions=attentions, at_input=at_input)


def _block_forward(block: BlockShape, batch: BatchShape, index: int) -> int:
    products = sum(_forward(layer, batch, index) for layer in block.layers)
    return products + sum(_attention(one, batch, index) for one in block.attentions)


def _forward(layer: Layer, batch: BatchShape, block: int | None = None) -> int:
    weights = layer.inputs * layer.outputs + layer.rank * (layer.inputs + layer.outputs)
    return 2 * batch.count * batch.rows(layer.stream, block) * weights


def _backward(layer: Layer, batch: BatchShape, block: int | None = None) -> int:
    lora = layer.rank * (2 * layer.outputs + layer.inputs)  # of B, of what comes out of A, of A
    own = 2 * batch.count * batch.rows(layer.stream, block) * lora
    return own + (_into(layer, batch, block) if layer.learns_below else 0)


def _into(layer: Layer, batch: BatchShape, block: int | None) -> int:
    """The gradient of a layer's input."""
    return 2 * batch.count * batch.rows(layer.stream, block) * layer.inputs * (layer.outputs + layer.rank)


def _attention(one: Attention, batch: BatchShape, block: int) -> int:
    return 4 * batch.count * batch.rows(one.queries, block) * batch.rows(one.keys, block) * one.width
