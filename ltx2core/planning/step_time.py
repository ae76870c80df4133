"""How long a training step takes, from what is computed and copied and from a device's rates.

A block's forward is its products, its attention, what its LoRA reads and writes, and passes over memory by all that lies between; its
backward is the same twice over, without the gradients of frozen weights. The sound's products have few rows, so they take as long as
reading their weights does, partly beside the picture's. Blocks come and go as sweeps.py says.

What of a rate is reached depends on shapes; the shares below were fitted to steps on an H100 (tests/data/step_times.jsonl, by
tests/benchmarks/fit_step_time.py). They are ratios, so that they carry over to another card's rates. A run corrects them by its own steps.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from ltx2core.offload.ahead import inputs_ahead
from ltx2core.planning.sweeps import Sweeps, least_seconds, look_seconds, sweep_seconds

if TYPE_CHECKING:
    from collections.abc import Iterable

    from ltx2core.hardware.rates import Rates
    from ltx2core.models.quantised import EightBit, Storage
    from ltx2core.planning.flops import BatchShape, Layer, ModelShape
    from ltx2core.planning.step_plan import Layout, StepNeed

STORED_BYTES: dict[Storage, float] = {"bf16": 2.0, "int8": 1.0, "fp8": 1.0, "nf4": 0.5 + 4 / 64}  # a number; nf4 has a scale for each 64
_ADAM_BYTES = 48  # read and written for each number of the LoRA by clipping, AdamW and the copy that is computed with


@dataclass(frozen=True, slots=True, kw_only=True)
class Shares:
    """What is fitted. products, attention: the share of a rate that is reached; attention reaches half of its own at `attention_tokens`.

    passes: over memory, in widths of the stream for each token; thin, widened, rounded, turned: times that a LoRA's rows, a matrix that is
    widened, an input that is rounded and a matrix that is turned go over memory, against the least there could be; sound: the share of its
    weights' reading that nothing hides; small: seconds of a block's small kernels; again: seconds more of a forward that is computed a
    second time, for what it keeps then; link: of the link's rate, in long copies between which there are waits.
    """

    products: float = 0.941
    fp8_products: float = 0.982
    int8_products: float = 0.814
    attention: float = 0.877
    attention_back: float = 0.911
    attention_tokens: float = 930.0
    passes: float = 26.8
    passes_back: float = 31.4
    thin: float = 0.719
    widened: float = 0.897
    rounded: float = 0.414
    turned: float = 0.543
    sound: float = 0.972
    small: float = 0.000224
    small_back: float = 0.000238
    again: float = 0.000131
    outside: float = 0.0274
    link: float = 0.884


SHARES = Shares()


@dataclass(frozen=True, slots=True, kw_only=True)
class StepSpeed:
    """Seconds of a block, and of what is in none; link: bytes a second to the card, None where nothing travels.

    attention: of a forward that is computed again, saved where self-attention was kept; again: what such a forward takes more than the
    first; turning: of a backward, saved where matrices are held transposed, too. looks: forwards without gradients that come before, on
    average: those of rollouts.
    """

    forward: float
    backward: float
    attention: float
    outside: float
    link: float | None
    again: float = 0.0
    turning: float = 0.0
    looks: float = 0.0

    def scaled(self, factor: float) -> StepSpeed:
        """All compute slower by a factor: what measuring has shown."""
        return replace(
            self,
            forward=self.forward * factor,
            backward=self.backward * factor,
            attention=self.attention * factor,
            outside=self.outside * factor,
            again=self.again * factor,
            turning=self.turning * factor,
        )


def step_speed(
    model: ModelShape,
    batch: BatchShape,
    rates: Rates,
    *,
    width: int,
    storage: Storage,
    precision: EightBit,
    shares: Shares = SHARES,
) -> StepSpeed:
    """Of a batch on a device. width: of the video stream."""
    block, memory, each = model.blocks[0], rates.memory_bytes_per_second, STORED_BYTES[storage]
    rows = {stream: batch.count * batch.rows(stream) for stream in ("video", "audio", "text", "level")}
    large = [layer for layer in block.layers if layer.stream in ("video", "text")]
    sound = [layer for layer in block.layers if layer.stream == "audio"]
    bf16 = rates.bf16_flops_per_second * shares.products
    ahead = _eight_bit(rates, storage, precision, shares) or bf16
    back = ahead if precision == "w8a8_full" and storage == "fp8" else bf16
    attended = [4 * rows[one.queries] * batch.rows(one.keys) * one.width for one in block.attentions]
    own = next((4 * rows["video"] * batch.video * one.width for one in block.attentions if one.queries == one.keys == "video"), 0)
    kernel = rates.bf16_flops_per_second * batch.video / (batch.video + shares.attention_tokens)
    heard = shares.sound * max(_operations(sound, rows) / bf16, each * _numbers(sound) / memory)
    a_pass = 2 * rows["video"] * width / memory
    forward = (
        _operations(large, rows) / ahead
        + sum(attended) / (kernel * shares.attention)
        + heard
        + shares.passes * a_pass
        + shares.thin * sum(2 * rows[layer.stream] * (layer.inputs + 2 * layer.outputs) for layer in large if layer.rank) / memory
        + (shares.small if heard else 0.0)
    )
    backward = (
        _operations((layer for layer in large if layer.learns_below), rows) / back
        + 2.5 * sum(attended) / (kernel * shares.attention_back)
        + heard
        + shares.passes_back * a_pass
        + shares.thin * sum(2 * rows[layer.stream] * (3 * layer.inputs + 2 * layer.outputs) for layer in large if layer.rank) / memory
        + (shares.small_back if heard else 0.0)
    )
    matrices = _numbers(block.layers)
    turning = 0.0
    if storage != "bf16":
        widening = shares.widened * (each + 2) * matrices / memory  # what is stored is read, two bytes are written
        rounding = shares.rounded * 3 * sum(rows[layer.stream] * layer.inputs for layer in large) / memory
        forward += widening if ahead == bf16 else rounding
        backward += widening if back == bf16 else rounding
        turning = 0.0 if back == bf16 else shares.turned * 2 * matrices / memory
    lora = len(model.blocks) * sum(layer.rank * (layer.inputs + layer.outputs) for layer in block.layers)
    return StepSpeed(
        forward=forward,
        backward=backward + turning,
        attention=own / (kernel * shares.attention),
        outside=shares.outside + _ADAM_BYTES * lora / memory + 2 * _operations(model.outside, rows) / bf16,
        link=None if rates.to_device_bytes_per_second is None else rates.to_device_bytes_per_second * shares.link,
        again=shares.again,
        turning=turning,
    )


def _operations(layers: Iterable[Layer], rows: dict[str, int]) -> float:
    return sum(2.0 * rows[layer.stream] * layer.inputs * layer.outputs for layer in layers)


def _numbers(layers: Iterable[Layer]) -> int:
    return sum(layer.inputs * layer.outputs for layer in layers)


def _eight_bit(rates: Rates, storage: Storage, precision: EightBit, shares: Shares) -> float | None:
    """The rate of products in 8 bits; None where the weights are widened, or the card has none."""
    if precision == "dequant":
        return None
    if storage == "fp8" and rates.fp8_flops_per_second is not None:
        return rates.fp8_flops_per_second * shares.fp8_products
    if storage == "int8" and rates.int8_ops_per_second is not None:
        return rates.int8_ops_per_second * shares.int8_products
    return None


def step_seconds(need: StepNeed, layout: Layout, speed: StepSpeed, *, ahead: int | None = None) -> float:
    """Of a step laid out so. ahead: of how many blocks the inputs come back at a time, as the engine has it unless it is said."""
    sweeps = _sweeps(need, layout, speed, ahead)
    return sweep_seconds(sweeps) + speed.looks * look_seconds(sweeps) + speed.outside


def least_step_seconds(need: StepNeed, layout: Layout, speed: StepSpeed) -> float:
    """What a step laid out so cannot take less than: at once, for looking at many."""
    sweeps = _sweeps(need, layout, speed, None)
    return least_seconds(sweeps) + speed.looks * look_seconds(sweeps) + speed.outside


def _sweeps(need: StepNeed, layout: Layout, speed: StepSpeed, ahead: int | None) -> Sweeps:
    link = speed.link or float("inf")
    return Sweeps(
        blocks=need.num_blocks,
        streamed=layout.streamed,
        slots=layout.slots,
        kept=layout.kept,
        attention=layout.attention,
        forward=speed.forward,
        backward=speed.backward - (speed.turning if layout.turned else 0.0),
        again=speed.forward + speed.again,
        attended=speed.attention,
        between=speed.outside,
        load=need.block_bytes / link,
        fetch=need.inputs_bytes / link if layout.inputs_to_host else 0.0,
        ahead=inputs_ahead(need.inputs_bytes) if ahead is None else ahead,
    )
