"""What LTX-2's released transformers are made of, as plain numbers: enough to plan a run for a card without loading torch or a model.

The numbers are in model_sizes.json, which `python -m ltx2core.planning.measure_sizes` writes from diffusers' own modules: shapes on meta,
what a compiled block keeps for its backward, and what drawing a sample takes at most, counted on a real block at several lengths (both are
linear in each of them, exactly).
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING, Any

from ltx2core.planning.flops import Attention, BlockShape, Layer, ModelShape

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from ltx2core.models.quantised import Storage

BUSY_TOKENS = 12_288
"""Tokens of one sample from which on two go through a block in turn, since its kernels take longer than launching them: 28 ms on an H100 by
the model of time, and 13 to 24 by the 6 to 10.5 us that a launch took there (`ltx2tui probe --measure`)."""
_SMALL = "to_gate_logits"  # a few rows: stays with the norms and tables, whatever the matrices are stored in


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerSize:
    """A linear layer of a block, by diffusers' name in it. stream: what its rows are (planning/flops.py)."""

    name: str
    stream: str
    inputs: int
    outputs: int

    @property
    def numbers(self) -> int:
        return self.inputs * self.outputs


@dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    """Bytes that a block keeps for its backward when it is not computed again, in bf16: for each token of a stream, and for each of those
    and unit of LoRA rank."""

    video: float
    audio: float
    text: float
    video_rank: float
    audio_rank: float
    text_rank: float

    def bytes(self, *, video: int, audio: int, text: int, rank: int) -> int:
        """Of a block that sees so many tokens, of all samples together."""
        per = (self.video + rank * self.video_rank, self.audio + rank * self.audio_rank, self.text + rank * self.text_rank)
        return int(per[0] * video + per[1] * audio + per[2] * text)


@dataclass(frozen=True, slots=True, kw_only=True)
class Drawn:
    """Bytes at the peak of a forward that draws, without a gradient or the compiler, in bf16: for each token of a stream of one sample, and
    for each of video where a first frame is given."""

    video: float
    audio: float
    text: float
    video_given: float

    def bytes(self, *, video: int, audio: int, text: int, given: bool) -> int:
        return int((self.video + given * self.video_given) * video + self.audio * audio + self.text * text)


@dataclass(frozen=True, slots=True, kw_only=True)
class Drawing:
    """Of one prediction; of two that go through a block together; of two that go through it in turn."""

    alone: Drawn
    together: Drawn
    in_turn: Drawn

    def drawn(self, *, predictions: int, tokens: int) -> Drawn:
        """Of so many predictions in a forward, as the step engine makes them of a sample of so many tokens."""
        return self.alone if predictions == 1 else self.in_turn if turns_of(predictions, tokens) > 1 else self.together


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSizes:
    """A transformer. small_bytes: of a block's norms, tables, biases and gates in bf16; outside_numbers: of what is in no block."""

    version: str
    joint: bool  # video and sound; False: video alone
    blocks: int
    width: int
    audio_width: int
    heads: int
    layers: tuple[LayerSize, ...]
    attentions: tuple[Attention, ...]
    outside: tuple[LayerSize, ...]
    outside_numbers: int
    small_bytes: int
    kept: Kept
    drawing: Drawing

    @property
    def block_numbers(self) -> int:
        """Numbers in a block's matrices."""
        return sum(layer.numbers for layer in self.layers if not layer.name.endswith(_SMALL))

    @property
    def block_rows(self) -> int:
        """Rows of a block's matrices: each has a scale when they are stored in 8 bits."""
        return sum(layer.outputs for layer in self.layers if not layer.name.endswith(_SMALL))

    def inputs_bytes(self, *, video: int, audio: int) -> int:
        """Of a block's inputs in bf16, for so many tokens."""
        return 2 * (video * self.width + (audio * self.audio_width if self.joint else 0))

    def rounded_bytes(self, storage: Storage) -> int:
        """What weights in fewer bits take beside them: a scale for each row, and the largest matrix widened for a product."""
        if storage == "bf16":
            return 0
        scales = 0 if storage == "nf4" else 4 * self.blocks * self.block_rows
        return scales + 2 * max(layer.numbers for layer in self.layers)

    def lora_numbers(self, rank_of: Callable[[str], int]) -> int:
        """Of the whole model's LoRA. rank_of: a layer's, 0 where it has none."""
        return self.blocks * sum(rank_of(layer.name) * (layer.inputs + layer.outputs) for layer in self.layers)

    def shape(self, rank_of: Callable[[str], int]) -> ModelShape:
        """For counting operations."""

        def layer(size: LayerSize, *, below: bool, own: int) -> Layer:
            return Layer(stream=size.stream, inputs=size.inputs, outputs=size.outputs, rank=own, learns_below=below)  # type: ignore[arg-type]

        found = {size.name: layer(size, below=size.stream != "text", own=rank_of(size.name)) for size in self.layers}
        first = tuple(
            own for name, own in found.items() if name.split(".")[0] in ("attn1", "audio_attn1") and not name.endswith("to_out.0")
        )
        block = BlockShape(layers=tuple(found.values()), attentions=self.attentions, at_input=first)
        outside = tuple(layer(size, below=size.name.endswith("proj_out"), own=0) for size in self.outside)
        return ModelShape(blocks=(block,) * self.blocks, outside=outside)


def turns_of(predictions: int, tokens: int) -> int:
    """In how many turns predictions of a sample of so many tokens go through a block."""
    return predictions if tokens >= BUSY_TOKENS else 1


def sizes_as_released(version: str, shape: ModelShape, *, joint: bool) -> ModelSizes | None:
    """The sizes of the release that a model is; None for a model of another shape."""
    try:
        sizes = released_sizes(version, joint=joint)
    except KeyError:
        return None
    here = [(layer.stream, layer.inputs, layer.outputs) for layer in shape.blocks[0].layers] if shape.blocks else []
    if len(shape.blocks) != sizes.blocks or here != [(layer.stream, layer.inputs, layer.outputs) for layer in sizes.layers]:
        return None
    return sizes


def released_sizes(version: str, *, joint: bool) -> ModelSizes:
    """Of a released version, "2.0", "2.3" or "2.5" and what begins so. Raises KeyError for another."""
    return _all_sizes()[version[:3], joint]


@cache
def _all_sizes() -> Mapping[tuple[str, bool], ModelSizes]:
    found = json.loads(files("ltx2core.planning").joinpath("model_sizes.json").read_text(encoding="utf-8"))
    return {(entry["version"], entry["joint"]): sizes_from_json(entry) for entry in found}


def sizes_from_json(entry: Mapping[str, Any]) -> ModelSizes:
    """Sizes that `measure_sizes` wrote."""
    rest = {name: value for name, value in entry.items() if name not in ("layers", "attentions", "outside", "kept", "drawing")}
    return ModelSizes(
        **rest,
        layers=tuple(LayerSize(**layer) for layer in entry["layers"]),
        attentions=tuple(Attention(**one) for one in entry["attentions"]),
        outside=tuple(LayerSize(**layer) for layer in entry["outside"]),
        kept=Kept(**entry["kept"]),
        drawing=Drawing(**{way: Drawn(**drawn) for way, drawn in entry["drawing"].items()}),
    )
