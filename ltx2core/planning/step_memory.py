"""What a training step holds on the card, part by part, for a way of laying it out. Arithmetic on bytes; nothing is looked up."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from ltx2core.offload.ahead import inputs_ahead

if TYPE_CHECKING:
    from ltx2core.planning.step_plan import Layout, StepNeed

GIB = 1024**3
# What a step needs beyond what can be counted. Measured on an H100 under caps (docs/BENCHMARKS.md has the runs): the context and kernels
# that are loaded later, cuBLAS's workspaces on four streams, graphs, and what the allocator rounds up.
RESERVE_BYTES = GIB + GIB // 2
# Of what one block keeps: the block that is computed again, and the gradients on their way through it.
_AGAIN_BLOCKS = 1.7
# Where all blocks lie on the card and some keep all, these come last and have gone when another is computed again: what is left is a
# forward's own.
_FORWARD_BLOCKS = 0.4
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
        return sum(self.parts.values())

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
    """The peak of a step."""
    again = need.num_blocks - layout.kept
    resident = need.num_blocks - layout.streamed
    early = layout.kept >= 2 and not layout.streamed
    scratch = int((_FORWARD_BLOCKS if early or not again else _AGAIN_BLOCKS) * need.kept_bytes)
    return StepBytes(
        blocks=resident * need.block_bytes,
        ring=layout.slots * need.block_bytes,
        turned=resident * need.block_bytes if layout.turned else 0,
        outside=need.outside_bytes,
        lora=int(need.lora_numbers * (_LORA_BYTES + need.state_bytes)),
        inputs=(min(1 + inputs_ahead(need.inputs_bytes), again) if layout.inputs_to_host else again) * need.inputs_bytes,
        attention=layout.attention * need.attended_bytes,
        kept=layout.kept * need.kept_bytes,
        scratch=scratch,
        reserve=RESERVE_BYTES,
        beside=need.beside_bytes,
    )
