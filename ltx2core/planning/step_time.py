"""How long a training step takes, from what is computed and copied and from a device's rates.

A block's forward is its products, its attention, and passes over memory by all that lies between; its backward is twice that, without the
gradients of frozen weights. Weights that travel are loaded once in each of the two sweeps, beside the compute, so that

    seconds = max(forward, loads) + max(backward + what is computed again, loads + inputs that come back) + what is outside the blocks

and a rollout's forwards as often as they come, each like the first.

What of a rate is reached depends on the shapes; the shares below were fitted to runs on an H100 (docs/BENCHMARKS.md) and are ratios, so
that they carry over to another card's rates. A run corrects them by its own first steps.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ltx2core.hardware.rates import Rates
    from ltx2core.models.quantised import EightBit, Storage
    from ltx2core.planning.flops import BatchShape, ModelShape
    from ltx2core.planning.step_plan import Layout, StepNeed

# Shares of the rates that are reached.
_PRODUCTS = 0.80  # of bf16 on large squares, by products of a block's shapes
_FP8_PRODUCTS = 0.62
_INT8_PRODUCTS = 0.85
_ATTENTION = 0.58  # of bf16, forwards
_ATTENTION_BACK = 0.52
# Reads and writes of a token's numbers, in widths of the stream, between a block's products: norms, modulation, positions, gates, LoRA.
_PASSES_FORWARD = 60.0
_PASSES_BACKWARD = 100.0
_BLOCK_SECONDS = 3.5e-4  # of a forward's small kernels that nothing hides, at the H100's launch rate in a graph
_OUTSIDE_SECONDS = 0.012  # embedding, output, optimizer, the rest of a step
_LINK = 0.97
_LOAD_SECONDS = 5e-4  # of compute, for each block that comes: what waiting for events and sharing memory costs


@dataclass(frozen=True, slots=True, kw_only=True)
class StepSpeed:
    """Seconds of a block, and of what is in none; link: bytes a second to the card, None where nothing travels. looks: forwards without
    gradients that come before, on average: those of rollouts."""

    forward: float
    attention: float  # the share of `forward` that kept self-attention saves
    backward: float
    outside: float
    link: float | None
    looks: float = 0.0

    def scaled(self, factor: float) -> StepSpeed:
        """All compute slower by a factor: what measuring has shown."""
        return replace(
            self,
            forward=self.forward * factor,
            attention=self.attention * factor,
            backward=self.backward * factor,
            outside=self.outside * factor,
        )


def step_speed(model: ModelShape, batch: BatchShape, rates: Rates, *, width: int, storage: Storage, precision: EightBit) -> StepSpeed:
    """Of a batch on a device. width: of the video stream."""
    block = model.blocks[0]
    rows = {stream: batch.count * batch.rows(stream) for stream in ("video", "audio", "text", "level")}
    products = sum(2 * rows[layer.stream] * layer.inputs * layer.outputs for layer in block.layers)
    lora = sum(2 * rows[layer.stream] * layer.rank * (layer.inputs + layer.outputs) for layer in block.layers)
    inward = sum(2 * rows[layer.stream] * layer.inputs * layer.outputs for layer in block.layers if layer.learns_below)
    attention = [4 * rows[one.queries] * batch.rows(one.keys) * one.width for one in block.attentions]
    own = next((4 * rows["video"] * batch.video * one.width for one in block.attentions if one.queries == one.keys == "video"), 0)
    bf16 = rates.bf16_flops_per_second * _PRODUCTS
    ahead, back = bf16, bf16
    if storage != "bf16" and precision != "dequant":
        ahead = _eight_bit(rates, storage) or bf16
        back = ahead if precision == "w8a8_full" and storage == "fp8" else bf16
    memory = rates.memory_bytes_per_second
    tokens = rows["video"] + rows["audio"] / 2
    widening = 0.0
    if storage != "bf16":
        numbers = sum(layer.inputs * layer.outputs for layer in block.layers)
        # What is stored is read, two bytes are written; read again by the product from the cache or by it anyway.
        widening = ((0.5625 if storage == "nf4" else 1) + 2) * numbers / memory
    by_attention = rates.bf16_flops_per_second * _ATTENTION
    width_bytes = tokens * width * 2 / memory  # seconds of a pass over the stream
    forward = products / ahead + lora / bf16 + sum(attention) / by_attention + _PASSES_FORWARD * width_bytes + _BLOCK_SECONDS
    backward = (
        inward / back
        + 2 * lora / bf16
        + 2.5 * sum(attention) / (rates.bf16_flops_per_second * _ATTENTION_BACK)
        + _PASSES_BACKWARD * width_bytes
        + 2 * _BLOCK_SECONDS
    )
    if ahead == bf16:
        forward += widening
    if back == bf16:
        backward += widening
    return StepSpeed(
        forward=forward,
        attention=own / by_attention,
        backward=backward,
        outside=_OUTSIDE_SECONDS,
        link=None if rates.to_device_bytes_per_second is None else rates.to_device_bytes_per_second * _LINK,
    )


def _eight_bit(rates: Rates, storage: Storage) -> float | None:
    if storage == "nf4":
        return None
    if storage == "fp8":
        return None if rates.fp8_flops_per_second is None else rates.fp8_flops_per_second * _FP8_PRODUCTS
    return None if rates.int8_ops_per_second is None else rates.int8_ops_per_second * _INT8_PRODUCTS


def step_seconds(need: StepNeed, layout: Layout, speed: StepSpeed) -> float:
    """Of a step laid out so."""
    blocks = need.num_blocks
    again = blocks - layout.kept
    forward = blocks * speed.forward
    backward = blocks * speed.backward + again * speed.forward - layout.attention * speed.attention
    if not layout.streamed and not layout.inputs_to_host:
        return (1 + speed.looks) * forward + backward + speed.outside
    link = speed.link or float("inf")
    count = max(0, layout.streamed - layout.slots)
    loads = count * need.block_bytes / link
    forward, backward = forward + count * _LOAD_SECONDS, backward + count * _LOAD_SECONDS
    back = again * need.inputs_bytes / link if layout.inputs_to_host else 0.0
    if layout.slots == 1 and layout.streamed:  # nothing can come while the one slot is read
        return (1 + speed.looks) * (forward + loads) + backward + loads + back + speed.outside
    return (1 + speed.looks) * max(forward, loads) + max(backward, loads + back) + speed.outside
