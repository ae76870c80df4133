"""What the measured time of a block says about a device: how much slower or faster it computes than its rates alone let one expect.

Rates are of large products, copies and long passes. What lies between in a block (attention, norms, positions, short products) need not
be as fast beside them as on the cards that the shares of step_time.py hold for. A block's time, measured on both, tells.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

from ltx2core.hardware.rates import BlockTime, Rates
from ltx2core.planning.flops import BatchShape
from ltx2core.planning.model_sizes import released_sizes
from ltx2core.planning.step_time import step_speed

if TYPE_CHECKING:
    from ltx2core.models.quantised import EightBit, Storage
    from ltx2core.planning.flops import ModelShape
    from ltx2core.planning.step_time import StepSpeed

# `ltx2tui probe --measure` on four H200 at once, the medians: steps on an H200 take what the shares, which were fitted on an H100, make of
# its rates. diffusers' block, captured, without a LoRA: not the engine's own time, which is why two of them are compared and none is taken
# for a step's.
_FITTED_ON = Rates(
    device="NVIDIA H200",
    source="measured",
    bf16_flops_per_second=659.5e12,
    int8_ops_per_second=817.0e12,
    fp8_flops_per_second=1089.5e12,
    to_device_bytes_per_second=54.5e9,
    memory_bytes_per_second=3678.0e9,
    launch_seconds=9.85e-6,
    block=BlockTime(video_tokens=2688, audio_tokens=50, video_width=4096, audio_width=2048, seconds=0.00455, captured=True),
)
_TEXT_TOKENS = 1024  # of hardware/bench.py's block
_LEAST, _MOST = 0.67, 1.5  # beyond that it is not what lies between products that differs


def measured_speed(model: ModelShape, batch: BatchShape, rates: Rates, *, width: int, storage: Storage, precision: EightBit) -> StepSpeed:
    """`step_speed`, with what a measured block says of this device."""
    return step_speed(model, batch, rates, width=width, storage=storage, precision=precision).scaled(compute_factor(rates))


@cache
def compute_factor(rates: Rates) -> float:
    """How many times longer compute takes than rates alone say; 1.0 where no block of LTX-2's width was measured as the other was."""
    block, fitted = rates.block, _FITTED_ON.block
    assert fitted is not None
    if block is None or not block.captured or (block.video_width, block.audio_width) != (fitted.video_width, fitted.audio_width):
        return 1.0
    return min(_MOST, max(_LEAST, _over_rates(rates, block) / _over_rates(_FITTED_ON, fitted)))


def _over_rates(rates: Rates, block: BlockTime) -> float:
    """The time of a block against what its rates say."""
    sizes = released_sizes("2.0", joint=True)
    shape = BatchShape(count=1, video=block.video_tokens, audio=block.audio_tokens, text=_TEXT_TOKENS)
    bare = step_speed(sizes.shape(lambda _: 0), shape, rates, width=sizes.width, storage="bf16", precision="dequant")
    return block.seconds / bare.forward
