"""The ways of decoding a sample, from the one that was asked for down to the one that needs the least of the card. Loads no torch."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from ltx2core.models.vae_levers import VaeLevers


@dataclass(frozen=True, slots=True)
class DecodeWay:
    """How samples are decoded. alone: with the model's weights away from the card."""

    levers: VaeLevers
    alone: bool = False

    def words(self, asked: VaeLevers) -> str:
        """What is other than was asked for."""
        added = [
            f"vae_enable_{field.name}" for field in fields(self.levers) if getattr(self.levers, field.name) > getattr(asked, field.name)
        ]
        words = [f"{' and '.join(added)} {'are' if len(added) > 1 else 'is'} on"] if added else []
        if self.alone:
            words.append("the transformer's weights wait in RAM meanwhile")
        return ", ".join(words)


def decode_ways(levers: VaeLevers) -> list[DecodeWay]:
    """From the asked one down. Parts of time and rows give the same picture within rounding; tiles do not at their seams: they are last,
    and beside the weights only where those cannot leave."""
    parts = replace(levers, temporal_roll=True, patch_conv=True)
    tiles = replace(parts, tiling=True)
    ways = [DecodeWay(levers), DecodeWay(parts), DecodeWay(parts, alone=True), DecodeWay(tiles, alone=True), DecodeWay(tiles)]
    return [way for index, way in enumerate(ways) if way not in ways[:index]]


def in_any_case(way: DecodeWay, less: Iterable[DecodeWay]) -> bool:
    """Whether a way is tried without asking whether there is room for it. less: those that come after it.

    What is not tried is made up for by parts or by room, which give the same picture; tiles do not.
    """
    return way.alone or all(other.levers.tiling for other in less)
