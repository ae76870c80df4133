"""What a LoRA file says of itself, from its header alone. Loads no torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from ltx2core.lora.keys import Layout, layout_of, parse_key
from ltx2core.lora.layers import kind_of, modality_of
from ltx2core.lora.read import SHOWN, read_keys

if TYPE_CHECKING:
    from pathlib import Path


@dataclass(frozen=True, slots=True, kw_only=True)
class LoraInfo:
    """What a LoRA file holds. `targets` are the kinds of layers (`attn1.to_q`), blocks left out."""

    path: str
    file_bytes: int
    layout: Layout
    tensors: int
    layers: int
    rank: int  # the widest layer's
    dtype: str
    targets: tuple[str, ...]
    has_video: bool
    has_audio: bool
    has_alpha: bool  # whether it stores alpha beside the matrices
    foreign: tuple[str, ...]  # the first keys that are no LoRA of LTX-2
    metadata: dict[str, str]


def lora_info(path: Path) -> LoraInfo:
    """What a LoRA file says of itself. Raises CheckpointError for a file that is no LoRA.

    One for another architecture is described too: `foreign` is not empty then.
    """
    header = read_keys(path)
    parsed = {key: parse_key(key) for key in header.shapes}
    downs = {place[0]: header.shapes[key] for key, place in parsed.items() if place is not None and place[1] == "down"}
    first = next((key for key, place in parsed.items() if place is not None and place[1] != "alpha"), next(iter(parsed)))
    return LoraInfo(
        path=str(path),
        file_bytes=path.stat().st_size,
        layout=layout_of(first),
        tensors=len(parsed),
        layers=len(downs),
        rank=max((shape[0] for shape in downs.values() if shape), default=0),
        dtype=header.dtypes[first],
        targets=tuple(sorted({kind_of(layer) for layer in downs})),
        has_video=any(modality_of(layer) != "audio" for layer in downs),
        has_audio=any(modality_of(layer) != "video" for layer in downs),
        has_alpha=any(place is not None and place[1] == "alpha" for place in parsed.values()),
        foreign=tuple(key for key, place in parsed.items() if place is None)[:SHOWN],
        metadata=header.metadata,
    )
