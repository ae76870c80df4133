"""The `config` of Lightricks' released files, for files that came without one: repackings drop the header, not the sizes.

Sources: the headers of the released 2.0, 2.3 and 2.5 files; the parameter counts that follow from them are in the tests.
"""

from __future__ import annotations

import copy
from typing import Any

Json = dict[str, Any]

_TRANSFORMER: Json = {
    "_class_name": "AVTransformer3DModel",
    "activation_fn": "gelu-approximate",
    "attention_bias": True,
    "attention_head_dim": 128,
    "caption_channels": 3840,
    "cross_attention_dim": 4096,
    "in_channels": 128,
    "norm_elementwise_affine": False,
    "norm_eps": 1e-06,
    "num_attention_heads": 32,
    "num_layers": 48,
    "out_channels": 128,
    "qk_norm": "rms_norm",
    "standardization_norm": "rms_norm",
    "positional_embedding_type": "rope",
    "positional_embedding_theta": 10000.0,
    "positional_embedding_max_pos": [20, 2048, 2048],
    "timestep_scale_multiplier": 1000,
    "av_ca_timestep_scale_multiplier": 1000.0,
    "causal_temporal_positioning": True,
    "audio_num_attention_heads": 32,
    "audio_attention_head_dim": 64,
    "use_audio_video_cross_attention": True,
    "share_ff": False,
    "audio_out_channels": 128,
    "audio_cross_attention_dim": 2048,
    "audio_positional_embedding_max_pos": [20],
    "av_cross_ada_norm": True,
    "use_embeddings_connector": True,
    "connector_attention_head_dim": 128,
    "connector_num_attention_heads": 30,
    "connector_num_layers": 2,
    "connector_positional_embedding_max_pos": [4096],
    "connector_num_learnable_registers": 128,
    "connector_norm_output": True,
    "use_middle_indices_grid": True,
    "rope_type": "split",
    "frequencies_precision": "float64",
}
_TRANSFORMER_FROM_2_3: Json = {
    "apply_gated_attention": True,
    "connector_apply_gated_attention": True,
    "caption_projection_first_linear": False,
    "caption_projection_second_linear": False,
    "caption_proj_input_norm": False,
    "caption_proj_before_connector": True,
    "connector_learnable_registers_std": 1,
    "connector_num_attention_heads": 32,
    "connector_num_layers": 8,
    "audio_connector_attention_head_dim": 64,
    "audio_connector_num_attention_heads": 32,
    "cross_attention_adaln": True,
    "text_encoder_norm_type": "per_token_rms",
}
_TRANSFORMER_FROM_2_5: Json = {"ff_bias": False, "use_keyframes_abs_pos_embedding": True}
_VAE: Json = {
    "_class_name": "CausalVideoAutoencoder",
    "dims": 3,
    "in_channels": 3,
    "out_channels": 3,
    "latent_channels": 128,
    "scaling_factor": 1.0,
    "norm_layer": "pixel_norm",
    "patch_size": 4,
    "latent_log_var": "uniform",
    "use_quant_conv": False,
    "causal_decoder": False,
    "timestep_conditioning": False,
    "normalize_latent_channels": False,
    "encoder_base_channels": 128,
    "decoder_base_channels": 128,
}
_AUDIO_VAE: Json = {
    "model": {
        "params": {
            "ddconfig": {
                "double_z": True,
                "mel_bins": 64,
                "z_channels": 8,
                "resolution": 256,
                "downsample_time": False,
                "in_channels": 2,
                "out_ch": 2,
                "ch": 128,
                "ch_mult": [1, 2, 4],
                "num_res_blocks": 2,
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
        "audio": {"sampling_rate": 16000, "max_wav_value": 32768.0, "duration": 5.12, "stereo": True, "causal_padding": 3},
        "stft": {"filter_length": 1024, "hop_length": 160, "win_length": 1024, "causal": True},
        "mel": {"n_mel_channels": 64, "mel_fmin": 0, "mel_fmax": 8000},
    },
}
_RESBLOCKS: Json = {"resblock_kernel_sizes": [3, 7, 11], "resblock_dilation_sizes": [[1, 3, 5], [1, 3, 5], [1, 3, 5]], "stereo": True}
_BIGVGAN: Json = {"resblock": "AMP1", "activation": "snakebeta", "use_bias_at_final": False, "use_tanh_at_final": False, **_RESBLOCKS}


def released_config(version: str) -> Json:
    """The header's `config` of a released file of a version ("2.3.0"), a copy to change freely."""
    recent = not version.startswith("2.0")
    transformer = {**_TRANSFORMER, **(_TRANSFORMER_FROM_2_3 if recent else {}), **(_TRANSFORMER_FROM_2_5 if version >= "2.5" else {})}
    return copy.deepcopy(
        {
            "transformer": transformer,
            "vae": {**_VAE, **(_vae_blocks_from_2_3() if recent else _vae_blocks_of_2_0())},
            "scheduler": {"_class_name": "RectifiedFlowScheduler", "num_train_timesteps": 1000, "sampler": "LinearQuadratic"},
            "audio_vae": _AUDIO_VAE,
            "vocoder": _vocoder_from_2_3() if recent else _vocoder_of_2_0(),
        }
    )


def _vae_blocks_of_2_0() -> Json:
    decoder: list[tuple[str, Json]] = [("res_x", {"num_layers": 5, "inject_noise": False})]
    for _ in range(3):
        decoder += [("compress_all", {"residual": True, "multiplier": 2}), ("res_x", {"num_layers": 5, "inject_noise": False})]
    return {
        "encoder_blocks": _encoder_blocks((4, 6, 6, 2, 2), (2, 2, 2, 2)),
        "decoder_blocks": decoder,
        "encoder_spatial_padding_mode": "zeros",
        "decoder_spatial_padding_mode": "reflect",
    }


def _vae_blocks_from_2_3() -> Json:
    layers, compressions = (4, 6, 4, 2, 2), (("compress_space", 2), ("compress_time", 2), ("compress_all", 1), ("compress_all", 2))
    decoder: list[tuple[str, Json]] = [("res_x", {"num_layers": layers[0]})]
    for (kind, multiplier), count in zip(compressions, layers[1:], strict=True):
        decoder += [(kind, {"multiplier": multiplier}), ("res_x", {"num_layers": count})]
    return {
        "encoder_blocks": _encoder_blocks((4, 6, 4, 2, 2), (2, 2, 2, 1)),
        "decoder_blocks": decoder,
        "spatial_padding_mode": "zeros",
    }


def _encoder_blocks(layers: tuple[int, ...], multipliers: tuple[int, ...]) -> list[tuple[str, Json]]:
    kinds = ("compress_space_res", "compress_time_res", "compress_all_res", "compress_all_res")
    blocks: list[tuple[str, Json]] = [("res_x", {"num_layers": layers[0]})]
    for kind, multiplier, count in zip(kinds, multipliers, layers[1:], strict=True):
        blocks += [(kind, {"multiplier": multiplier}), ("res_x", {"num_layers": count})]
    return blocks


def _vocoder_of_2_0() -> Json:
    return {
        "resblock": "1",
        **_RESBLOCKS,
        "upsample_rates": [6, 5, 2, 2, 2],
        "upsample_kernel_sizes": [16, 15, 8, 4, 4],
        "upsample_initial_channel": 1024,
        "output_sampling_rate": 24000,
    }


def _vocoder_from_2_3() -> Json:
    first = {
        **_BIGVGAN,
        "upsample_initial_channel": 1536,
        "upsample_rates": [5, 2, 2, 2, 2, 2],
        "upsample_kernel_sizes": [11, 4, 4, 4, 4, 4],
    }
    second = {
        **_BIGVGAN,
        "upsample_initial_channel": 512,
        "upsample_rates": [6, 5, 2, 2, 2],
        "upsample_kernel_sizes": [12, 11, 4, 4, 4],
        "apply_final_activation": False,
        "input_sampling_rate": 16000,
        "output_sampling_rate": 48000,
        "hop_length": 80,
        "n_fft": 512,
        "win_size": 512,
        "num_mels": 64,
    }
    return {"vocoder": first, "bwe": second}
