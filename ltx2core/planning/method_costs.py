"""What training methods add to a step's memory, beside the model and its LoRA: an optimizer's state, CREPA's alignment. Loads no torch."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ltx2core.config.optimizers import Rule

_LEAST_SIDE = 32  # of the layers that adapters are trained for: gates have a row for each head
MOMENTS_BYTES = 8.0  # of AdamW's two, a number
EIGHT_BIT_MOMENTS_BYTES = 2 * (1 + 4 / 256)  # the same; training/adam.py, which loads torch, has a scale for each 256 numbers


def state_bytes(rule: Rule, *, eight_bit: bool, rank: int) -> float:
    """Bytes of an optimizer's state for each number of an adapter whose smallest rank this is. eight_bit: of AdamW alone.

    A factored moment of an r x n matrix holds r + n numbers: at most one in r, and the few of the short side.
    """
    factored = 4 * (1 / rank + 1 / _LEAST_SIDE)
    return {
        "adamw": EIGHT_BIT_MOMENTS_BYTES if eight_bit else MOMENTS_BYTES,
        "adafactor": factored,
        "came": 4 + 2 * factored,  # the mean, and two factored moments
        "prodigy": 16,  # two moments, the start, and the sum that tells the rate
        "schedule-free": 8,  # the second moment, and the point that gradients move
        "muon": 4,  # the mean
    }[rule]


def alignment_bytes(*, tokens: int, width: int, to: int) -> int:
    """What CREPA holds. tokens: of a batch's pictures; width: of the block's features, to: of those that they are compared with.

    The head with its gradient and moments in float32; and, until the block's backward, the normalised features in float32 and in the
    model's precision, what the head makes of them, the encoder's, and the gradients of all of these.
    """
    head = 16 * (2 * width + (width + 1) * to)
    return head + tokens * (12 * width + 24 * to)
