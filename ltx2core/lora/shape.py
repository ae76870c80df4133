"""How wide a layer's LoRA is, how strong, and how fast it learns. Loads no torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from ltx2core.lora.layers import IN_A_BLOCK

if TYPE_CHECKING:
    from collections.abc import Iterable

Pattern = tuple[tuple[str, float], ...]  # parts of layers' names, and the number of each


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerShape:
    """rank: width of A and B. scale: what B A is multiplied by. rate: of the run's learning rate."""

    rank: int
    scale: float
    rate: float = 1.0


def value_for(layer: str, pattern: Pattern, default: float) -> float:
    """The number of the longest name in `pattern` that is the layer's, or whole parts of it in a row: `attn1`, `transformer_blocks.3`."""
    fitting = [(len(name), value) for name, value in pattern if names(name, layer)]
    return max(fitting)[1] if fitting else default


def names_single_block(name: str) -> bool:
    """Whether a name in a pattern tells blocks apart (`transformer_blocks.3`), where `ff.net.2` names a layer of each."""
    in_every_block = any(name == target or name.endswith(f".{target}") for target in IN_A_BLOCK)
    return not in_every_block and any(part.isdigit() for part in name.split("."))


def names(part: str, layer: str) -> bool:
    """Whether `part` is whole parts of a layer's name in a row."""
    return f".{part}." in f".{layer}."


def unmatched(pattern: Pattern, layers: Iterable[str]) -> list[str]:
    """The names in a pattern that no layer has."""
    known = list(layers)
    return [part for part, _ in pattern if not any(names(part, layer) for layer in known)]


def makes_sound(layer: str) -> bool:
    """Whether what a layer computes goes into the sound: its own layers, and the attention through which it sees pictures."""
    parts = layer.split(".")
    kind = parts[2] if parts[0] == "transformer_blocks" and len(parts) > 2 else parts[0]
    return (kind.startswith("audio_") and kind != "audio_to_video_attn") or kind in ("video_to_audio_attn", _AUDIO_MODULATION, _AUDIO_GATE)


_AUDIO_MODULATION, _AUDIO_GATE = "av_cross_attn_audio_scale_shift", "av_cross_attn_audio_v2a_gate"
