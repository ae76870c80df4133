"""Frozen weights of transformer blocks: how a block lies in memory, and how blocks travel from host memory to the card."""
