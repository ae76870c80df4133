"""What a training step holds on the card, part by part, for a way of laying it out. Arithmetic on bytes; nothing is looked up."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from ltx2core.offload.ahead import inputs_ahead

if TYPE_CHECKING:
    from ltx2core.planning.step_plan import Layout, StepNeed

GIB = 1024**3
# What a step needs beyond what is counted, measured on an H100 in 25 layouts (tests/data/step_times.jsonl), with 0.6 GiB of CUDA's context
# there before: the context grows by 0.5 to 0.7 with kernels and graphs, and the allocator holds 0.2 to 0.4 more than it gave.
RESERVE_BYTES = GIB
_SPARE = 0.011  # of the activations that are kept, the same
# What lies beside what blocks keep, in what one block keeps: gradients on their way through a block, and what is outside all blocks.
_SCRATCH_BLOCKS = 1.6
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
    beside: int = 0

    @property
    def total(self) -> int:
        beside = self.outside + self.lora + self.inputs + self.attention + self.kept + self.scratch + self.reserve + self.beside
        return self.blocks + self.ring + self.turned + beside

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
        scratch=int((at_once - layout.kept + _SCRATCH_BLOCKS) * need.kept_bytes) + need.rounded,
        reserve=RESERVE_BYTES + int(_SPARE * kept),
        beside=need.beside_bytes,
    )


def _kept_behind(need: StepNeed, layout: Layout) -> int:
    """How many blocks that keep all come after the last that is computed again, and have gone when it is."""
    if not layout.streamed:
        return layout.kept
    last = (2 * layout.streamed - 1) * need.num_blocks // (2 * layout.streamed)  # of travelling_blocks
    return min(layout.kept, need.num_blocks - 1 - last)
