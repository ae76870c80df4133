"""From the `config` in a checkpoint's header to the arguments of diffusers' classes. Nothing is guessed from a version's name:
widths, depths, channels and switches are what the header says, so nano, 2.0, 2.3 and 2.5 go the same way. A key that a header leaves
out has the value of 2.0, which had no name for it yet."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

from ltx2core.errors import CheckpointError

if TYPE_CHECKING:
    from collections.abc import Mapping

Json = dict[str, Any]

_COMPRESSIONS = {"compress_space": "spatial", "compress_time": "temporal", "compress_all": "spatiotemporal"}


def transformer_arguments(config: Mapping[str, Any]) -> Json:
    """Arguments of LTX2VideoTransformer3DModel."""
    part = _section(config, "transformer")
    gated, text_modulated = part.get("apply_gated_attention", False), part.get("cross_attention_adaln", False)
    max_time, max_height, max_width = part.get("positional_embedding_max_pos", (20, 2048, 2048))
    sound = sound_arguments(config)
    return {
        "in_channels": part["in_channels"],
        "out_channels": part["out_channels"],
        "num_attention_heads": part["num_attention_heads"],
        "attention_head_dim": part["attention_head_dim"],
        "cross_attention_dim": part["cross_attention_dim"],
        "vae_scale_factors": (8, 32, 32),
        "pos_embed_max_pos": max_time,
        "base_height": max_height,
        "base_width": max_width,
        "gated_attn": gated,
        "cross_attn_mod": text_modulated,
        "audio_in_channels": part.get("audio_in_channels", 128),
        "audio_out_channels": part.get("audio_out_channels", 128),
        "audio_num_attention_heads": part["audio_num_attention_heads"],
        "audio_attention_head_dim": part["audio_attention_head_dim"],
        "audio_cross_attention_dim": part["audio_cross_attention_dim"],
        "audio_scale_factor": 4,
        "audio_pos_embed_max_pos": part.get("audio_positional_embedding_max_pos", (20,))[0],
        "audio_sampling_rate": sound["sample_rate"],
        "audio_hop_length": sound["mel_hop_length"],
        "audio_gated_attn": gated,
        "audio_cross_attn_mod": text_modulated,
        "num_layers": part["num_layers"],
        "activation_fn": part.get("activation_fn", "gelu-approximate"),
        "qk_norm": "rms_norm_across_heads",
        "norm_elementwise_affine": part.get("norm_elementwise_affine", False),
        "norm_eps": part.get("norm_eps", 1e-6),
        "caption_channels": part["caption_channels"],
        "attention_bias": part.get("attention_bias", True),
        "rope_theta": part.get("positional_embedding_theta", 10000.0),
        "rope_double_precision": part.get("frequencies_precision", "float32") == "float64",
        "timestep_scale_multiplier": part.get("timestep_scale_multiplier", 1000),
        "cross_attn_timestep_scale_multiplier": int(part.get("av_ca_timestep_scale_multiplier", 1000)),
        "rope_type": part.get("rope_type", "split"),
        "use_prompt_embeddings": not part.get("caption_proj_before_connector", False),
        "ff_bias": part.get("ff_bias", True),
        "audio_ff_bias": part.get("audio_ff_bias", True),
        "use_prompt_adaln_single": part.get("use_prompt_adaln_single", True),
        "use_keyframes_abs_pos_embedding": part.get("use_keyframes_abs_pos_embedding", False),
    }


def connector_arguments(config: Mapping[str, Any], *, num_states: int) -> Json:
    """Arguments of LTX2TextConnectors. num_states: hidden states of the text encoder that are stacked (its layers + 1)."""
    part = _section(config, "transformer")
    heads, head_dim = part["connector_num_attention_heads"], part["connector_attention_head_dim"]
    audio_heads = part.get("audio_connector_num_attention_heads") or heads
    audio_head_dim = part.get("audio_connector_attention_head_dim") or head_dim
    layers, registers = part.get("connector_num_layers", 2), part.get("connector_num_learnable_registers", 128)
    gated, projects_before = part.get("connector_apply_gated_attention", False), part.get("caption_proj_before_connector", False)
    return {
        "caption_channels": part["caption_channels"],
        "text_proj_in_factor": num_states,
        "video_connector_num_attention_heads": heads,
        "video_connector_attention_head_dim": head_dim,
        "video_connector_num_layers": layers,
        "video_connector_num_learnable_registers": registers,
        "video_gated_attn": gated,
        "audio_connector_num_attention_heads": audio_heads,
        "audio_connector_attention_head_dim": audio_head_dim,
        "audio_connector_num_layers": part.get("audio_connector_num_layers", layers),
        "audio_connector_num_learnable_registers": registers,
        "audio_gated_attn": gated,
        "connector_rope_base_seq_len": part.get("connector_positional_embedding_max_pos", (4096,))[0],
        "rope_theta": part.get("positional_embedding_theta", 10000.0),
        "rope_double_precision": part.get("frequencies_precision", "float32") == "float64",
        "rope_type": part.get("rope_type", "split"),
        # From 2.3 each modality has its own projection, with a bias, onto its connector's width; 2.0 has one for both.
        "per_modality_projections": projects_before,
        "proj_bias": projects_before,
        "video_hidden_dim": heads * head_dim,
        "audio_hidden_dim": audio_heads * audio_head_dim,
    }


def text_width(config: Mapping[str, Any]) -> int:
    """Channels of the text encoder's states."""
    return int(_section(config, "transformer")["caption_channels"])


def text_projection(config: Mapping[str, Any]) -> str:
    """The official name of what projects the stacked states; where each modality has its own, video's."""
    return "video_aggregate_embed" if _section(config, "transformer").get("caption_proj_before_connector") else "aggregate_embed"


def video_vae_arguments(config: Mapping[str, Any]) -> Json:
    """Arguments of AutoencoderKLLTX2Video, from the lists of encoder and decoder blocks."""
    part = _section(config, "vae")
    padding = part.get("spatial_padding_mode")
    width = part.get("encoder_base_channels", part["latent_channels"])
    encoder_layers, downsamples, encoder_widths = [], [], []
    for kind, options in part["encoder_blocks"]:
        if kind == "res_x":
            encoder_layers.append(options["num_layers"])
        else:
            width *= options.get("multiplier", 1)
            downsamples.append(_COMPRESSIONS[kind.removesuffix("_res")])
            encoder_widths.append(width)
    decoder_layers, upsamples, factors, residual = [], [], [], []
    for kind, options in part["decoder_blocks"]:
        if kind == "res_x":
            decoder_layers.append(options["num_layers"])
        else:
            upsamples.append(_COMPRESSIONS[kind])
            factors.append(options.get("multiplier", 1))
            residual.append(options.get("residual", False))
    # The header lists the decoder from its output end, as diffusers' arguments do, all but the upsampling types. Each factor is a
    # narrowing on the way to the output, which has the base width.
    decoder_widths, width = [], part.get("decoder_base_channels", 128)
    for factor in factors:
        width *= factor
        decoder_widths.append(width)
    return {
        "in_channels": part["in_channels"],
        "out_channels": part["out_channels"],
        "latent_channels": part["latent_channels"],
        "block_out_channels": tuple(encoder_widths),
        "down_block_types": ("LTX2VideoDownBlock3D",) * len(encoder_widths),
        "decoder_block_out_channels": tuple(decoder_widths),
        "layers_per_block": tuple(encoder_layers),
        "decoder_layers_per_block": tuple(decoder_layers),
        "spatio_temporal_scaling": (True,) * len(encoder_widths),
        "decoder_spatio_temporal_scaling": (True,) * len(decoder_widths),
        "decoder_inject_noise": (False,) * len(decoder_layers),
        "downsample_type": tuple(downsamples),
        "upsample_type": tuple(reversed(upsamples)),
        "upsample_residual": tuple(residual),
        "upsample_factor": tuple(factors),
        "timestep_conditioning": part.get("timestep_conditioning", False),
        "patch_size": part["patch_size"],
        "scaling_factor": part.get("scaling_factor", 1.0),
        "encoder_causal": True,
        "decoder_causal": part.get("causal_decoder", False),
        "encoder_spatial_padding_mode": part.get("encoder_spatial_padding_mode", padding or "zeros"),
        "decoder_spatial_padding_mode": part.get("decoder_spatial_padding_mode", padding or "reflect"),
        "spatial_compression_ratio": part["patch_size"] * 2 ** sum(kind != "temporal" for kind in downsamples),
        "temporal_compression_ratio": 2 ** sum(kind != "spatial" for kind in downsamples),
    }


def audio_vae_arguments(config: Mapping[str, Any]) -> Json:
    """Arguments of AutoencoderKLLTX2Audio."""
    part = _section(config, "audio_vae")["model"]["params"]["ddconfig"]
    sound = sound_arguments(config)
    return {
        "base_channels": part["ch"],
        "output_channels": part["out_ch"],
        "ch_mult": tuple(part["ch_mult"]),
        "num_res_blocks": part["num_res_blocks"],
        "attn_resolutions": tuple(part.get("attn_resolutions") or ()) or None,
        "in_channels": part["in_channels"],
        "resolution": part["resolution"],
        "latent_channels": part["z_channels"],
        "norm_type": part["norm_type"],
        "causality_axis": part["causality_axis"],
        "mid_block_add_attention": part["mid_block_add_attention"],
        "sample_rate": sound["sample_rate"],
        "mel_hop_length": sound["mel_hop_length"],
        "is_causal": sound["is_causal"],
        "mel_bins": sound["mel_bins"],
        "double_z": part.get("double_z", True),
    }


def vocoder_arguments(config: Mapping[str, Any]) -> Json:
    """Arguments of LTX2Vocoder (the plain HiFi-GAN of 2.0)."""
    part = _section(config, "vocoder")
    return {**_generator_arguments(part, config), "output_sampling_rate": part["output_sampling_rate"]}


def extends_bandwidth(config: Mapping[str, Any]) -> bool:
    """Whether the vocoder is the one of 2.3 and later: two stages, of which the second adds the high frequencies."""
    return "bwe" in _section(config, "vocoder")


def extending_vocoder_arguments(config: Mapping[str, Any]) -> Json:
    """Arguments of LTX2VocoderWithBWE.

    The official first stage clamps its sound to -1..1, unless the header says otherwise; diffusers' own default does not.
    """
    part = _section(config, "vocoder")
    first, second = part["vocoder"], part["bwe"]
    return {
        **_generator_arguments(first, config),
        **{f"bwe_{name}": value for name, value in _generator_arguments(second, config).items()},
        "filter_length": second["n_fft"],
        "hop_length": second["hop_length"],
        "window_length": second["win_size"],
        "num_mel_channels": second["num_mels"],
        "input_sampling_rate": second["input_sampling_rate"],
        "output_sampling_rate": second["output_sampling_rate"],
    }


def _generator_arguments(part: Mapping[str, Any], config: Mapping[str, Any]) -> Json:
    """What describes one stage that turns mel frames into sound."""
    channels = 2 if part.get("stereo", True) else 1
    last = "tanh" if part.get("use_tanh_at_final", True) else "clamp"
    return {
        "in_channels": part.get("num_mels", sound_arguments(config)["mel_bins"]) * channels,
        "hidden_channels": part["upsample_initial_channel"],
        "out_channels": channels,
        "upsample_kernel_sizes": part["upsample_kernel_sizes"],
        "upsample_factors": part["upsample_rates"],
        "resnet_kernel_sizes": part["resblock_kernel_sizes"],
        "resnet_dilations": part["resblock_dilation_sizes"],
        "act_fn": part.get("activation", "snakebeta") if part.get("resblock") == "AMP1" else "leaky_relu",
        "antialias": part.get("resblock") == "AMP1",
        "final_act_fn": last if part.get("apply_final_activation", True) else None,
        "final_bias": part.get("use_bias_at_final", True),
    }


def sound_arguments(config: Mapping[str, Any]) -> Json:
    """What turns sound into mel frames: sample_rate (Hz), mel_hop_length and n_fft (samples), mel_bins, f_min and f_max (Hz), is_causal."""
    preprocessing = cast("Json", config.get("audio_vae", {})).get("preprocessing", {})
    stft, mel = preprocessing.get("stft", {}), preprocessing.get("mel", {})
    return {
        "sample_rate": preprocessing.get("audio", {}).get("sampling_rate", 16000),
        "mel_hop_length": stft.get("hop_length", 160),
        "n_fft": stft.get("filter_length", 1024),
        "is_causal": stft.get("causal", True),
        "mel_bins": mel.get("n_mel_channels", 64),
        "f_min": mel.get("mel_fmin", 0),
        "f_max": mel.get("mel_fmax", 8000),
    }


def _section(config: Mapping[str, Any], name: str) -> Json:
    section = config.get(name)
    if not isinstance(section, dict):
        raise CheckpointError(f"The checkpoint's header describes no {name!r}.", fix="Use the combined LTX-2 checkpoint file.")
    return section
