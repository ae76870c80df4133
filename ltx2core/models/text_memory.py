"""What the text path weighs, from shapes alone, and where it therefore runs: as a whole on the device, or streamed from host memory.

Pure arithmetic on bytes; text.py asks the machine and acts on the answer.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING, Any

from ltx2core.errors import DoesNotFit

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

GIB = 1024**3
_BLOCK = re.compile(r"(.*\.transformer(?:_1d)?_blocks\.\d+)\.")
_RESERVE = GIB // 2  # the device's context and what its allocator rounds up


@dataclass(frozen=True, slots=True, kw_only=True)
class TextSettings:
    """How a user wants the text encoder. streamed: from host memory even where it would fit."""

    streamed: bool = False
    int8: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class TextBytes:
    """Bytes of the text path's parts. A streamed part is a layer, or what stream_module makes of the connectors."""

    layers: int
    largest_layer: int
    embedding: int
    connectors: int
    largest_connector: int
    states: int  # all hidden states of one caption
    activations: int  # of one layer, for one caption

    @property
    def on_device(self) -> int:
        """Peak with everything on the device. Five times the states: their stack and what the connectors' normalisation makes of it."""
        return self.layers + self.embedding + self.connectors + 5 * self.states + self.activations

    @property
    def streamed_on_device(self) -> int:
        """Peak when streamed: the language model's two slots are given back before the connectors take theirs."""
        reading = 2 * self.largest_layer + 2 * self.states + self.activations
        return max(reading, self.largest_connector + 5 * self.states)

    @property
    def on_host(self) -> int:
        """What stays in host memory when streamed, or when there is no other memory."""
        return self.layers + self.embedding + self.connectors


@dataclass(frozen=True, slots=True, kw_only=True)
class Placement:
    streamed: bool
    because: str


def measure_text(model: Any, connectors: Mapping[str, tuple[int, ...]], *, itemsize: int, tokens: int) -> TextBytes:
    """Weigh a language model, on the meta device or not, and connectors of these shapes. itemsize: bytes of a number outside int8."""
    config = model.config
    layers = [_bytes([*layer.parameters(), *layer.buffers()]) for layer in model.layers]
    largest_matrix = max(prod(shape.shape) for shape in model.layers[0].state_dict().values())
    units: dict[str, int] = {}
    for key, shape in connectors.items():
        block = _BLOCK.match(key)
        unit = block[1] if block else key.rpartition(".")[0]
        units[unit] = units.get(unit, 0) + prod(shape) * itemsize
    return TextBytes(
        layers=sum(layers),
        largest_layer=max(layers),
        embedding=_bytes([model.embed_tokens.weight]),
        connectors=sum(units.values()),
        largest_connector=max(units.values()),
        states=tokens * config.hidden_size * (config.num_hidden_layers + 1) * itemsize,
        # four widths of the feed-forward layer live at once, and a matrix that int8 widens for its product
        activations=4 * tokens * config.intermediate_size * itemsize + largest_matrix * itemsize,
    )


def choose_placement(need: TextBytes, *, settings: TextSettings, free_device_bytes: int | None, free_host_bytes: int) -> Placement:
    """Where the text path runs. free_device_bytes: None when the device is the CPU.

    Raises DoesNotFit, with the amounts, when there is too little memory for any way.
    """
    fits = free_device_bytes is None or need.on_device + _RESERVE <= free_device_bytes
    streamed = settings.streamed or not fits
    if free_device_bytes is not None and not streamed:
        return Placement(
            streamed=False, because=f"the text encoder is on the GPU as a whole: {_gib(need.on_device)} of {_gib(free_device_bytes)} free"
        )
    if need.on_host > free_host_bytes:
        fix = "Free memory, or encode on a machine with more and copy its cache folder."
        if not settings.int8:
            fix = f'Set text_encoder_1_precision to "int8-torchao": that halves most of it. {fix}'
        raise DoesNotFit(
            f"The text encoder and its connectors need {_gib(need.on_host)} of RAM; {_gib(free_host_bytes)} are free.", fix=fix
        )
    if free_device_bytes is None:
        return Placement(streamed=streamed, because="the text encoder runs on the CPU")
    if need.streamed_on_device + _RESERVE > free_device_bytes:
        raise DoesNotFit(
            f"Reading captions needs {_gib(need.streamed_on_device + _RESERVE)} of GPU memory even layer by layer; "
            f"{_gib(free_device_bytes)} are free.",
            fix="Close other programs that use the GPU, or make the cache on another machine.",
        )
    wish = "as asked" if settings.streamed else f"as a whole it needs {_gib(need.on_device)} of {_gib(free_device_bytes)} free"
    return Placement(
        streamed=True, because=f"the text encoder streams layer by layer from RAM, {_gib(need.streamed_on_device)} on the GPU: {wish}"
    )


def _bytes(tensors: Iterable[Any]) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


def _gib(number: int) -> str:
    return f"{number / GIB:.1f} GiB"
