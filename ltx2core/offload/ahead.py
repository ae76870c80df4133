"""How far ahead a block's inputs come back from host memory. Plain numbers: the planner counts them, too."""

from __future__ import annotations

_BYTES, _MOST = 100 * 2**20, 4


def inputs_ahead(nbytes: int) -> int:
    """Of how many blocks the inputs, of so many bytes each, are on their way while one is computed.

    A card copies in one direction one after another, so inputs wait behind weights that are under way: 14 ms a block in bf16 at 55 GB/s, in
    which a card computes two small blocks. With one block ahead, each load of weights held a step at 2,688 tokens up for 2 ms on an H100.
    """
    return max(1, min(_MOST, _BYTES // max(1, nbytes)))
