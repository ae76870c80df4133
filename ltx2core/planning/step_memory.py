"""What a training step holds on the card, part by part, for a way of laying it out. Arithmetic on bytes; nothing is looked up."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from ltx2core.offload.ahead import inputs_ahead

if TYPE_CHECKING:
    from ltx2core.planning.step_plan import Layout, StepNeed

GIB = 1024**3
# What lies beside what is counted, fitted to 150 layouts on H100s and H200s, from 8 to 127 GiB (tests/data/step_memory.jsonl,
# step_times*.jsonl): what PyTorch had given at most, in GiB and in what one block keeps.
_SCRATCH = {True: 0.4 * GIB, False: 0.3 * GIB}  # with sound, without: what is outside the blocks, workspaces of products
_SCRATCH_BLOCKS = 0.62  # gradients on their way through a block
_AGAIN, _AGAIN_BLOCKS = 0.06 * GIB, 0.83  # more where a block is computed again beside all that others keep
_ROUNDED_WIDTHS = 8.5  # of what lies between products that the compiler does not know, where weights are in fewer bits
# What the allocator holds beyond that, which it would give back if it had to.
_SPARE, _SPARE_BLOCKS = 0.25 * GIB, 0.07
_SPARE_ROUNDED, _SPARE_ROUNDED_BLOCKS, _SPARE_ROUNDED_MOST = 0.2 * GIB, 0.3, 1.1 * GIB
_SPARE_OF_KEPT = 0.011
_SPARE_PACKED, _SPARE_PACKED_OF_KEPT = 0.08 * GIB, 0.05  # more between widened weights and what is kept, where two weights are a byte
# What CUDA's own memory grows by, beyond the 0.6 GiB that it has before a step: kernels, graphs.
_KERNELS = {True: 0.5 * GIB, False: 0.32 * GIB}
_KERNELS_AGAIN = 0.17 * GIB
_LORA_BYTES = 10  # a number: float32 master and gradient, and the copy that is computed with; the optimizer's state comes on top


@dataclass(frozen=True, slots=True)
class StepBytes:
    """Bytes on the card. `parts` are named as a chart would name them."""

    blocks: int
    ring: int
    turned: int
    outside: int
    lora: int
    inputs: int
    attention: int
    kept: int
    scratch: int
    reserve: int
    kernels: int
    beside: int = 0

    @property
    def total(self) -> int:
        beside = self.outside + self.lora + self.inputs + self.attention + self.kept + self.scratch + self.beside
        return self.blocks + self.ring + self.turned + beside + self.reserve + self.kernels

    @property
    def parts(self) -> dict[str, int]:
        """The parts that are not 0."""
        named = {
            "blocks": self.blocks,
            "ring": self.ring,
            "transposed blocks": self.turned,
            "outside the blocks": self.outside,
            "LoRA and optimizer": self.lora,
            "inputs of blocks": self.inputs,
            "self-attention": self.attention,
            "activations": self.kept,
            "scratch": self.scratch,
            "feature alignment": self.beside,
            "reserve": self.reserve,
            "CUDA kernels": self.kernels,
        }
        return {name: value for name, value in named.items() if value}


def step_bytes(need: StepNeed, layout: Layout) -> StepBytes:
    """The peak of a step.

    It is reached where the forward ends, or where the last block is computed again that does not keep all: it has what it computed beside
    what the kept blocks before it still have. Blocks that keep all are the last of those that stay; among blocks that travel, few come
    after the last that is computed again.
    """
    again = need.num_blocks - layout.kept
    resident = need.num_blocks - layout.streamed
    at_once = max(layout.kept, layout.kept - _kept_behind(need, layout) + 1) if again else layout.kept
    kept = layout.kept * need.kept_bytes
    # A kept block's answer lies there until its backward, although the block after it has sent its inputs away.
    answers = min(layout.kept, layout.streamed) if layout.inputs_to_host else 0
    inputs = min(1 + inputs_ahead(need.inputs_bytes), again) + answers if layout.inputs_to_host else again
    return StepBytes(
        blocks=resident * need.block_bytes,
        ring=layout.slots * need.block_bytes,
        turned=resident * need.block_bytes if layout.turned else 0,
        outside=need.outside_bytes,
        lora=int(need.lora_numbers * (_LORA_BYTES + need.state_bytes)),
        inputs=inputs * need.inputs_bytes,
        attention=layout.attention * need.attended_bytes,
        kept=kept,
        scratch=int(_scratch(need, again=at_once > layout.kept)),
        reserve=int(_reserve(need, kept, again=again > 0)),
        kernels=kernels_bytes(joint=need.joint, again=again > 0),
        beside=need.beside_bytes,
    )


def kernels_bytes(*, joint: bool, again: bool) -> int:
    """What CUDA itself holds while training beyond what it holds before: no counter of PyTorch's has it. again: whether blocks are computed
    twice."""
    return int(_KERNELS[joint] + (_KERNELS_AGAIN if again else 0))


def _scratch(need: StepNeed, *, again: bool) -> float:
    """again: whether at the peak a block is computed again."""
    bytes_of = _SCRATCH[need.joint] + _SCRATCH_BLOCKS * need.kept_bytes
    if again:
        bytes_of += _AGAIN + _AGAIN_BLOCKS * need.kept_bytes
    if need.rounded:
        bytes_of += max(need.rounded, _ROUNDED_WIDTHS * need.tokens * need.width * need.itemsize)
    return bytes_of


def _reserve(need: StepNeed, kept: int, *, again: bool) -> float:
    if need.rounded:
        bytes_of = min(_SPARE_ROUNDED + _SPARE_ROUNDED_BLOCKS * need.kept_bytes, _SPARE_ROUNDED_MOST)
    else:
        bytes_of = _SPARE + _SPARE_BLOCKS * need.kept_bytes
    if need.packed and kept and again:
        bytes_of += _SPARE_PACKED + _SPARE_PACKED_OF_KEPT * kept
    return bytes_of + _SPARE_OF_KEPT * kept


def _kept_behind(need: StepNeed, layout: Layout) -> int:
    """How many blocks that keep all come after the last that is computed again, and have gone when it is."""
    if not layout.streamed:
        return layout.kept
    last = (2 * layout.streamed - 1) * need.num_blocks // (2 * layout.streamed)  # of travelling_blocks
    return min(layout.kept, need.num_blocks - 1 - last)
