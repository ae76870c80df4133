"""The layers of LTX-2's transformer that a LoRA can sit on, in diffusers' names, and what each of them computes on.

All versions together: 2.0 has the caption projections, 2.3 and later the prompt's modulation and gates. Loads no torch, so that a
LoRA for another architecture is told from its key names alone. A test compares the list with diffusers' modules.
"""

from __future__ import annotations

import re
from typing import Literal

Modality = Literal["video", "audio", "both"]  # both: one attends to, or is scaled by, the other

VIDEO_ATTENTIONS = ("attn1", "attn2")
AUDIO_ATTENTIONS = ("audio_attn1", "audio_attn2")
CROSS_ATTENTIONS = ("audio_to_video_attn", "video_to_audio_attn")
PROJECTIONS = ("to_q", "to_k", "to_v", "to_out.0")

_MODULATIONS = (
    "time_embed",
    "audio_time_embed",
    "prompt_adaln",
    "audio_prompt_adaln",
    "av_cross_attn_video_scale_shift",
    "av_cross_attn_audio_scale_shift",
    "av_cross_attn_video_a2v_gate",
    "av_cross_attn_audio_v2a_gate",
)
_PARTS_OF_MODULATION = ("linear", "emb.timestep_embedder.linear_1", "emb.timestep_embedder.linear_2")
_CAPTIONS = ("caption_projection", "audio_caption_projection")

OUTSIDE_BLOCKS = (
    *("proj_in", "proj_out", "audio_proj_in", "audio_proj_out"),
    *(f"{name}.linear_{number}" for name in _CAPTIONS for number in (1, 2)),
    *(f"{name}.{part}" for name in _MODULATIONS for part in _PARTS_OF_MODULATION),
)
IN_A_BLOCK = (
    *(f"{name}.{part}" for name in VIDEO_ATTENTIONS + AUDIO_ATTENTIONS + CROSS_ATTENTIONS for part in (*PROJECTIONS, "to_gate_logits")),
    *(f"{name}.{part}" for name in ("ff", "audio_ff") for part in ("net.0.proj", "net.2")),
)
ATTENTIONS_AND_FEED_FORWARD = tuple(name for name in IN_A_BLOCK if not name.endswith("to_gate_logits"))
_BLOCK = re.compile(r"transformer_blocks\.(\d+)\.(.+)")


def is_layer(name: str) -> bool:
    """Whether some version of LTX-2 has a linear layer of this name."""
    match = _BLOCK.fullmatch(name)
    return match[2] in IN_A_BLOCK if match else name in OUTSIDE_BLOCKS


def kind_of(name: str) -> str:
    """The layer's name without its block: `attn1.to_q`."""
    match = _BLOCK.fullmatch(name)
    return match[2] if match else name


def modality_of(name: str) -> Modality:
    """What a layer computes on. Only `both` connects the two, so a run without one of them cannot train it."""
    first = kind_of(name).split(".")[0]
    if first in CROSS_ATTENTIONS or first.startswith("av_cross_attn_"):
        return "both"
    return "audio" if first.startswith("audio_") else "video"
