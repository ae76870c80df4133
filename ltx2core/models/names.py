"""Tensor names: as Lightricks' files spell them, and as diffusers' modules do.

A combined checkpoint holds five components under prefixes. Within a component whole words of a name are replaced; the video VAE also
numbers its blocks differently. LoRA files use the official names, so the way back is needed too. The tables hold the words of all
versions: a version that lacks a module has no key with its word.
Source: the key lists of the published checkpoints and diffusers' modules (both Apache-2.0 or plain facts).
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Collection

Component = Literal["transformer", "connectors", "video_vae", "audio_vae", "vocoder"]

COMPONENTS: tuple[Component, ...] = ("transformer", "connectors", "video_vae", "audio_vae", "vocoder")

_TRANSFORMER = "model.diffusion_model."
_CONNECTOR_PREFIXES = (
    f"{_TRANSFORMER}video_embeddings_connector.",
    f"{_TRANSFORMER}audio_embeddings_connector.",
    "text_embedding_projection.",
)

# official -> diffusers, whole words: `ups` is one in `ups.0.weight` and none in `upsample.filter`.
_RENAMES: dict[Component, tuple[tuple[str, str], ...]] = {
    "transformer": (
        ("audio_patchify_proj", "audio_proj_in"),
        ("patchify_proj", "proj_in"),
        ("av_ca_video_scale_shift_adaln_single", "av_cross_attn_video_scale_shift"),
        ("av_ca_audio_scale_shift_adaln_single", "av_cross_attn_audio_scale_shift"),
        ("av_ca_a2v_gate_adaln_single", "av_cross_attn_video_a2v_gate"),
        ("av_ca_v2a_gate_adaln_single", "av_cross_attn_audio_v2a_gate"),
        ("audio_prompt_adaln_single", "audio_prompt_adaln"),
        ("prompt_adaln_single", "prompt_adaln"),
        ("audio_adaln_single", "audio_time_embed"),
        ("adaln_single", "time_embed"),
        ("scale_shift_table_a2v_ca_video", "video_a2v_cross_attn_scale_shift_table"),
        ("scale_shift_table_a2v_ca_audio", "audio_a2v_cross_attn_scale_shift_table"),
        ("q_norm", "norm_q"),
        ("k_norm", "norm_k"),
    ),
    "connectors": (
        ("video_embeddings_connector", "video_connector"),
        ("audio_embeddings_connector", "audio_connector"),
        ("transformer_1d_blocks", "transformer_blocks"),
        ("aggregate_embed", "text_proj_in"),
        ("video_aggregate_embed", "video_text_proj_in"),
        ("audio_aggregate_embed", "audio_text_proj_in"),
        ("q_norm", "norm_q"),
        ("k_norm", "norm_k"),
    ),
    "video_vae": (
        ("per_channel_statistics.mean-of-means", "latents_mean"),
        ("per_channel_statistics.std-of-means", "latents_std"),
        ("res_blocks", "resnets"),
    ),
    "audio_vae": (
        ("per_channel_statistics.mean-of-means", "latents_mean"),
        ("per_channel_statistics.std-of-means", "latents_std"),
    ),
    "vocoder": (
        ("resblocks", "resnets"),
        ("ups", "upsamplers"),
        ("conv_pre", "conv_in"),
        ("conv_post", "conv_out"),
        ("act_post", "act_out"),
        ("downsample.lowpass", "downsample"),
    ),
}


def component_of(key: str) -> Component | None:
    """The component that a key of a combined checkpoint belongs to; None for one that no component reads."""
    if key.startswith(_CONNECTOR_PREFIXES):
        return "connectors"
    if key.startswith(_TRANSFORMER):
        return "transformer"
    if key.startswith("vae."):
        return "video_vae"
    if key.startswith("audio_vae."):
        return "audio_vae"
    return "vocoder" if key.startswith("vocoder.") else None


@lru_cache(maxsize=1 << 14)  # a checkpoint has thousands of keys, and every load of a part asks for all
def to_diffusers(key: str, component: Component, *, num_encoder_blocks: int = 0) -> str | None:
    """The diffusers name of an official key; None for statistics that diffusers' modules do not hold.

    num_encoder_blocks: how many entries the video VAE's `encoder_blocks` has; its last one is the mid block.
    """
    name = key.removeprefix(_prefix(key, component))
    if component == "video_vae":
        name = _vae_block_to_diffusers(name, num_encoder_blocks)
    for official, ours in _RENAMES[component]:
        name = _replace_word(name, official, ours)
    return None if name.startswith("per_channel_statistics.") else name


def to_official(name: str, component: Component, *, num_encoder_blocks: int = 0) -> str:
    """The official key of a diffusers name: the inverse of `to_diffusers`."""
    for official, ours in _RENAMES[component]:
        name = _replace_word(name, ours, official)
    if component == "video_vae":
        name = _vae_block_to_official(name, num_encoder_blocks)
    if component == "connectors":
        return f"text_embedding_projection.{name}" if "aggregate_embed." in name else f"{_TRANSFORMER}{name}"
    return {"transformer": _TRANSFORMER, "video_vae": "vae.", "audio_vae": "audio_vae.", "vocoder": "vocoder."}[component] + name


def version_by_keys(keys: Collection[str]) -> str:
    """The version that a checkpoint's tensors tell: "2.0.0", "2.3.0" or "2.5.0". For files whose header does not say."""
    if f"{_TRANSFORMER}prompt_adaln_single.linear.weight" not in keys:
        return "2.0.0"
    biased = f"{_TRANSFORMER}transformer_blocks.0.ff.net.0.proj.bias" in keys
    return "2.3.0" if biased and f"{_TRANSFORMER}keyframes_abs_pos_embedding" not in keys else "2.5.0"


def _replace_word(name: str, word: str, by: str) -> str:
    return re.sub(rf"(?<![A-Za-z_]){re.escape(word)}(?![A-Za-z_])", by, name)


def _prefix(key: str, component: Component) -> str:
    if component == "connectors" and key.startswith("text_embedding_projection."):
        return "text_embedding_projection."
    return {"transformer": _TRANSFORMER, "connectors": _TRANSFORMER, "video_vae": "vae.", "audio_vae": "audio_vae.", "vocoder": "vocoder."}[
        component
    ]


def _vae_block_to_diffusers(name: str, num_encoder_blocks: int) -> str:
    """Official VAEs number residual stages and compressions in one list; diffusers nests a compression in its stage."""
    match = re.match(r"(encoder\.down_blocks|decoder\.up_blocks)\.(\d+)\.(.*)", name)
    if match is None:
        return name
    side, index, rest = match[1], int(match[2]), match[3]
    if side.startswith("encoder"):
        if index == num_encoder_blocks - 1:
            return f"encoder.mid_block.{rest}"
        stage, is_compression = divmod(index, 2)
        return f"encoder.down_blocks.{stage}.downsamplers.0.{rest}" if is_compression else f"encoder.down_blocks.{stage}.{rest}"
    if index == 0:
        return f"decoder.mid_block.{rest}"
    stage, is_stage = divmod(index - 1, 2)
    return f"decoder.up_blocks.{stage}.{rest}" if is_stage else f"decoder.up_blocks.{stage}.upsamplers.0.{rest}"


def _vae_block_to_official(name: str, num_encoder_blocks: int) -> str:
    name = name.replace("encoder.mid_block", f"encoder.down_blocks.{num_encoder_blocks - 1}@").replace(
        "decoder.mid_block", "decoder.up_blocks.0@"
    )
    name = re.sub(r"down_blocks\.(\d+)\.downsamplers\.0", lambda m: f"down_blocks.{2 * int(m[1]) + 1}@", name)
    name = re.sub(r"up_blocks\.(\d+)\.upsamplers\.0", lambda m: f"up_blocks.{2 * int(m[1]) + 1}@", name)
    name = re.sub(r"down_blocks\.(\d+)(?![@\d])", lambda m: f"down_blocks.{2 * int(m[1])}", name)
    name = re.sub(r"up_blocks\.(\d+)(?![@\d])", lambda m: f"up_blocks.{2 * int(m[1]) + 2}", name)
    return name.replace("@", "")
