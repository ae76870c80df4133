"""What nano is made of: the header that its file carries, its text encoder, and writing both in the official layout.

Only widths, depths and latent channels are small. Compression (32 x 32 pixels, 8 frames, 25 audio latents a second), split RoPE,
modulation, connectors with 128 registers and the mel front end are those of LTX-2 2.0. Everything that reads nano reads this header.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from diffusers import AutoencoderKLLTX2Audio, AutoencoderKLLTX2Video, LTX2VideoTransformer3DModel
from diffusers.pipelines.ltx2.connectors import LTX2TextConnectors
from diffusers.pipelines.ltx2.vocoder import LTX2Vocoder
from safetensors.torch import save_file
from transformers import Gemma3TextConfig, Gemma3TextModel

from ltx2core.models import header
from ltx2core.models.names import Component, to_official
from ltx2core.models.nano.tokenizer import VOCABULARY, train_tokenizer
from ltx2core.runs.files import replacing

if TYPE_CHECKING:
    from pathlib import Path

_HEADS, _HEAD_DIM, _AUDIO_HEAD_DIM = 5, 32, 16
_TEXT_WIDTH, _TEXT_LAYERS = 64, 3

HEADER: dict[str, Any] = {
    "transformer": {
        "_class_name": "AVTransformer3DModel",
        "activation_fn": "gelu-approximate",
        "attention_bias": True,
        "attention_head_dim": _HEAD_DIM,
        "caption_channels": _TEXT_WIDTH,
        "cross_attention_dim": _HEADS * _HEAD_DIM,
        "in_channels": 32,
        "norm_elementwise_affine": False,
        "norm_eps": 1e-06,
        "num_attention_heads": _HEADS,
        "num_layers": 5,
        "out_channels": 32,
        "qk_norm": "rms_norm",
        "standardization_norm": "rms_norm",
        "positional_embedding_type": "rope",
        "positional_embedding_theta": 10000.0,
        "positional_embedding_max_pos": [20, 2048, 2048],
        "timestep_scale_multiplier": 1000,
        "av_ca_timestep_scale_multiplier": 1000.0,
        "causal_temporal_positioning": True,
        "audio_num_attention_heads": _HEADS,
        "audio_attention_head_dim": _AUDIO_HEAD_DIM,
        "use_audio_video_cross_attention": True,
        "share_ff": False,
        "audio_in_channels": 32,
        "audio_out_channels": 32,
        "audio_cross_attention_dim": _HEADS * _AUDIO_HEAD_DIM,
        "audio_positional_embedding_max_pos": [20],
        "av_cross_ada_norm": True,
        "use_embeddings_connector": True,
        "connector_attention_head_dim": 16,
        "connector_num_attention_heads": _TEXT_WIDTH // 16,
        "connector_num_layers": 2,
        "connector_positional_embedding_max_pos": [4096],
        "connector_num_learnable_registers": 128,
        "connector_norm_output": True,
        "use_middle_indices_grid": True,
        "rope_type": "split",
        "frequencies_precision": "float64",
    },
    "vae": {
        "_class_name": "CausalVideoAutoencoder",
        "dims": 3,
        "in_channels": 3,
        "out_channels": 3,
        "latent_channels": 32,
        "encoder_blocks": [
            ["res_x", {"num_layers": 1}],
            ["compress_space_res", {"multiplier": 2}],
            ["res_x", {"num_layers": 1}],
            ["compress_time_res", {"multiplier": 1}],
            ["res_x", {"num_layers": 1}],
            ["compress_all_res", {"multiplier": 2}],
            ["res_x", {"num_layers": 1}],
            ["compress_all_res", {"multiplier": 1}],
            ["res_x", {"num_layers": 1}],
        ],
        "decoder_blocks": [
            ["res_x", {"num_layers": 2, "inject_noise": False}],
            ["compress_all", {"residual": True, "multiplier": 2}],
            ["res_x", {"num_layers": 2, "inject_noise": False}],
            ["compress_all", {"residual": True, "multiplier": 2}],
            ["res_x", {"num_layers": 2, "inject_noise": False}],
            ["compress_all", {"residual": True, "multiplier": 2}],
            ["res_x", {"num_layers": 1, "inject_noise": False}],
        ],
        "scaling_factor": 1.0,
        "norm_layer": "pixel_norm",
        "patch_size": 4,
        "latent_log_var": "uniform",
        "use_quant_conv": False,
        "causal_decoder": False,
        "timestep_conditioning": False,
        "encoder_base_channels": 32,
        "decoder_base_channels": 16,
        "encoder_spatial_padding_mode": "zeros",
        "decoder_spatial_padding_mode": "reflect",
    },
    "scheduler": {"_class_name": "RectifiedFlowScheduler", "num_train_timesteps": 1000, "sampler": "LinearQuadratic"},
    "audio_vae": {
        "model": {
            "params": {
                "ddconfig": {
                    "double_z": True,
                    "mel_bins": 64,
                    "z_channels": 2,
                    "resolution": 256,
                    "downsample_time": False,
                    "in_channels": 2,
                    "out_ch": 2,
                    "ch": 32,
                    "ch_mult": [1, 1, 2],
                    "num_res_blocks": 1,
                    "attn_resolutions": [],
                    "dropout": 0.0,
                    "mid_block_add_attention": False,
                    "norm_type": "pixel",
                    "causality_axis": "height",
                },
                "sampling_rate": 16000,
            }
        },
        "preprocessing": {
            "audio": {"sampling_rate": 16000, "stereo": True, "causal_padding": 3},
            "stft": {"filter_length": 1024, "hop_length": 160, "win_length": 1024, "causal": True},
            "mel": {"n_mel_channels": 64, "mel_fmin": 0, "mel_fmax": 8000},
        },
    },
    "vocoder": {
        "resblock": "1",
        "resblock_kernel_sizes": [3, 7, 11],
        "resblock_dilation_sizes": [[1, 3, 5], [1, 3, 5], [1, 3, 5]],
        "upsample_rates": [6, 5, 2, 2, 2],
        "upsample_kernel_sizes": [16, 15, 8, 4, 4],
        "upsample_initial_channel": 80,
        "stereo": True,
        "output_sampling_rate": 24000,
    },
}


@dataclass(slots=True)
class Modules:
    """Every part of nano, in float32."""

    transformer: LTX2VideoTransformer3DModel
    connectors: LTX2TextConnectors
    video_vae: AutoencoderKLLTX2Video
    audio_vae: AutoencoderKLLTX2Audio
    vocoder: LTX2Vocoder
    text_encoder: Gemma3TextModel


def build(*, seed: int = 0) -> Modules:
    """nano with fresh random weights: the same for the same seed."""
    torch.manual_seed(seed)
    return Modules(
        transformer=LTX2VideoTransformer3DModel(**header.transformer_arguments(HEADER)),
        connectors=LTX2TextConnectors(**header.connector_arguments(HEADER, num_states=_TEXT_LAYERS + 1)),
        video_vae=AutoencoderKLLTX2Video(**header.video_vae_arguments(HEADER)),
        audio_vae=AutoencoderKLLTX2Audio(**header.audio_vae_arguments(HEADER)),
        vocoder=LTX2Vocoder(**header.vocoder_arguments(HEADER)),
        text_encoder=Gemma3TextModel(text_config()),
    )


def text_config() -> Gemma3TextConfig:
    return Gemma3TextConfig(
        vocab_size=VOCABULARY,
        hidden_size=_TEXT_WIDTH,
        intermediate_size=192,
        num_hidden_layers=_TEXT_LAYERS,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=16,
        query_pre_attn_scalar=16,
        sliding_window=1024,
        max_position_embeddings=1024,
        pad_token_id=0,
        eos_token_id=1,
        bos_token_id=2,
    )


def write(modules: Modules, folder: Path) -> None:
    """Write nano.safetensors and text_encoder/: bf16, with scale-shift tables and statistics in float32, as official files."""
    tensors: dict[str, torch.Tensor] = {}
    parts: tuple[tuple[Component, torch.nn.Module], ...] = (
        ("transformer", modules.transformer),
        ("connectors", modules.connectors),
        ("video_vae", modules.video_vae),
        ("audio_vae", modules.audio_vae),
        ("vocoder", modules.vocoder),
    )
    for component, module in parts:
        for name, tensor in module.state_dict().items():
            dtype = torch.float32 if "scale_shift_table" in name or name.startswith("latents_") else torch.bfloat16
            key = to_official(name, component, num_encoder_blocks=len(HEADER["vae"]["encoder_blocks"]))
            tensors[key] = tensor.detach().to("cpu", dtype).contiguous()
    folder.mkdir(parents=True, exist_ok=True)
    with replacing(folder / "nano.safetensors") as path:
        save_file(tensors, path, metadata={"model_version": "2.0.0", "config": json.dumps(HEADER)})
    text_folder = folder / "text_encoder"
    with replacing(text_folder / "model.safetensors") as path:
        weights = {
            name: tensor.detach().to("cpu", torch.bfloat16).contiguous() for name, tensor in modules.text_encoder.state_dict().items()
        }
        save_file(weights, path, metadata={"format": "pt"})
    modules.text_encoder.config.architectures = ["Gemma3TextModel"]
    modules.text_encoder.config.save_pretrained(text_folder)
    train_tokenizer().save_pretrained(text_folder)


def write_random(folder: Path, *, seed: int = 0) -> None:
    """nano with random weights, for tests of everything but quality."""
    write(build(seed=seed), folder)
