"""The layout of diffusers: transformer/, connectors/, vae/, audio_vae/ and vocoder/, each with config.json and weights in files.

It is told here as the combined file tells it: official keys, and the `config` of an official header. So the rest of the program knows
one layout, and what the official header says holds where diffusers' default differs.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from ltx2core.errors import CheckpointError
from ltx2core.models.names import Component, to_official
from ltx2core.models.safetensors_header import Entry, first_five, read_header

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

Json = dict[str, Any]

_FOLDERS: dict[Component, str] = {
    "transformer": "transformer",
    "connectors": "connectors",
    "video_vae": "vae",
    "audio_vae": "audio_vae",
    "vocoder": "vocoder",
}
_COMPRESSIONS = {"spatial": "compress_space", "temporal": "compress_time", "spatiotemporal": "compress_all"}

# official header -> diffusers' argument
_TRANSFORMER = {
    **{
        same: same
        for same in (
            "in_channels",
            "out_channels",
            "num_attention_heads",
            "attention_head_dim",
            "cross_attention_dim",
            "audio_in_channels",
            "audio_out_channels",
            "audio_num_attention_heads",
            "audio_attention_head_dim",
            "audio_cross_attention_dim",
            "num_layers",
            "activation_fn",
            "norm_elementwise_affine",
            "norm_eps",
            "caption_channels",
            "attention_bias",
            "timestep_scale_multiplier",
            "rope_type",
            "ff_bias",
            "use_keyframes_abs_pos_embedding",
        )
    },
    "positional_embedding_theta": "rope_theta",
    "av_ca_timestep_scale_multiplier": "cross_attn_timestep_scale_multiplier",
    "apply_gated_attention": "gated_attn",
    "cross_attention_adaln": "cross_attn_mod",
}
_CONNECTORS = {
    "connector_num_attention_heads": "video_connector_num_attention_heads",
    "connector_attention_head_dim": "video_connector_attention_head_dim",
    "connector_num_layers": "video_connector_num_layers",
    "connector_num_learnable_registers": "video_connector_num_learnable_registers",
    "audio_connector_num_attention_heads": "audio_connector_num_attention_heads",
    "audio_connector_attention_head_dim": "audio_connector_attention_head_dim",
    "audio_connector_num_layers": "audio_connector_num_layers",
    "connector_apply_gated_attention": "video_gated_attn",
    "caption_proj_before_connector": "per_modality_projections",
}
_VAE = {
    same: same for same in ("in_channels", "out_channels", "latent_channels", "patch_size", "scaling_factor", "timestep_conditioning")
} | {
    "causal_decoder": "decoder_causal",
    "encoder_spatial_padding_mode": "encoder_spatial_padding_mode",
    "decoder_spatial_padding_mode": "decoder_spatial_padding_mode",
}
_AUDIO_VAE = {
    same: same
    for same in ("ch_mult", "num_res_blocks", "attn_resolutions", "in_channels", "resolution", "norm_type", "causality_axis", "double_z")
} | {
    "ch": "base_channels",
    "out_ch": "output_channels",
    "z_channels": "latent_channels",
    "mid_block_add_attention": "mid_block_add_attention",
}
_GENERATOR = {
    "upsample_initial_channel": "hidden_channels",
    "upsample_kernel_sizes": "upsample_kernel_sizes",
    "upsample_rates": "upsample_factors",
    "resblock_kernel_sizes": "resnet_kernel_sizes",
    "resblock_dilation_sizes": "resnet_dilations",
}


def read_diffusers_folder(folder: Path) -> tuple[dict[str, str], dict[str, Entry]]:
    """Metadata and entries of a folder, as if it were a combined file. Raises CheckpointError when a part is missing or damaged."""
    configs = {component: _read_config(folder / name) for component, name in _FOLDERS.items()}
    try:
        config = official_config(configs)
    except (KeyError, TypeError, ValueError, IndexError) as error:
        raise CheckpointError(
            f"{folder} holds a config.json that is not one of LTX-2: {error!s} is missing or of another kind.",
            fix="Use the folder of an LTX-2 model, such as a download of Lightricks/LTX-2.",
        ) from error
    blocks = len(config["vae"]["encoder_blocks"])
    entries = {
        to_official(name, component, num_encoder_blocks=blocks): entry
        for component, part in _FOLDERS.items()
        for name, entry in _read_part(folder / part).items()
    }
    return {"config": json.dumps(config)}, entries


def official_config(configs: Mapping[Component, Json]) -> Json:
    """The `config` of a header for the config.json of each component. Raises KeyError for one of another class."""
    transformer, connectors = configs["transformer"], configs["connectors"]
    return {
        "transformer": {
            "_class_name": "AVTransformer3DModel",
            **_renamed(transformer, _TRANSFORMER),
            **_renamed(connectors, _CONNECTORS),
            "positional_embedding_max_pos": [transformer["pos_embed_max_pos"], transformer["base_height"], transformer["base_width"]],
            "audio_positional_embedding_max_pos": [transformer["audio_pos_embed_max_pos"]],
            "connector_positional_embedding_max_pos": [connectors["connector_rope_base_seq_len"]],
            "frequencies_precision": "float64" if transformer["rope_double_precision"] else "float32",
        },
        "vae": _video_vae(configs["video_vae"]),
        "audio_vae": _audio_vae(configs["audio_vae"]),
        "vocoder": _vocoder(configs["vocoder"]),
    }


def _video_vae(config: Json) -> Json:
    encoder: list[list[Any]] = [["res_x", {"num_layers": config["layers_per_block"][0]}]]
    width = config["latent_channels"]  # the official encoder starts as wide as its latents
    for kind, wider, layers in zip(config["downsample_type"], config["block_out_channels"], config["layers_per_block"][1:], strict=True):
        encoder += [[f"{_COMPRESSIONS[kind]}_res", {"multiplier": wider // width}], ["res_x", {"num_layers": layers}]]
        width = wider
    # The header lists the decoder from its output end, as diffusers' arguments do, all but the upsampling types.
    decoder: list[list[Any]] = [["res_x", {"num_layers": config["decoder_layers_per_block"][0]}]]
    stages = zip(
        reversed(config.get("upsample_type", ["spatiotemporal"] * len(config["upsample_factor"]))),  # 2.0's was saved before it had a name
        config["upsample_factor"],
        config["upsample_residual"],
        config["decoder_layers_per_block"][1:],
        strict=True,
    )
    for kind, factor, residual, layers in stages:
        decoder += [[_COMPRESSIONS[kind], {"multiplier": factor, "residual": residual}], ["res_x", {"num_layers": layers}]]
    return {
        **_renamed(config, _VAE),
        "encoder_base_channels": config["latent_channels"],
        "decoder_base_channels": config["decoder_block_out_channels"][0] // config["upsample_factor"][0],
        "encoder_blocks": encoder,
        "decoder_blocks": decoder,
    }


def _audio_vae(config: Json) -> Json:
    rate = config["sample_rate"]
    return {
        "model": {"params": {"ddconfig": {**_renamed(config, _AUDIO_VAE), "mel_bins": config["mel_bins"]}, "sampling_rate": rate}},
        "preprocessing": {
            "audio": {"sampling_rate": rate},
            "stft": {"hop_length": config["mel_hop_length"], "causal": config["is_causal"]},
            "mel": {"n_mel_channels": config["mel_bins"]},
        },
    }


def _vocoder(config: Json) -> Json:
    if "bwe_hidden_channels" not in config:
        return {**_generator(config), "resblock": "1", "output_sampling_rate": config["output_sampling_rate"]}
    second = {name.removeprefix("bwe_"): value for name, value in config.items() if name.startswith("bwe_")}
    return {
        "vocoder": {**_generator(config), **_BIGVGAN, "activation": config["act_fn"]},
        "bwe": {
            **_generator(second),
            **_BIGVGAN,
            "activation": second["act_fn"],
            "apply_final_activation": False,
            "n_fft": config["filter_length"],
            "hop_length": config["hop_length"],
            "win_size": config["window_length"],
            "num_mels": config["num_mel_channels"],
            "input_sampling_rate": config["input_sampling_rate"],
            "output_sampling_rate": config["output_sampling_rate"],
        },
    }


_BIGVGAN = {"resblock": "AMP1", "use_bias_at_final": False, "use_tanh_at_final": False}


def _generator(config: Json) -> Json:
    return {**_renamed(config, _GENERATOR), "stereo": config["out_channels"] == 2}


def _renamed(config: Json, names: Mapping[str, str]) -> Json:
    return {official: config[name] for official, name in names.items() if name in config}


def _read_config(folder: Path) -> Json:
    value = _read_json(folder / "config.json")
    if not isinstance(value, dict):
        raise CheckpointError(f"{folder / 'config.json'} holds no settings.", fix="Download it again.")
    return value


def _read_part(folder: Path) -> dict[str, Entry]:
    """The tensors of one component by their diffusers names, from one file or from the shards that an index lists."""
    index = next(iter(sorted(folder.glob("*.safetensors.index.json"), key=lambda path: len(path.name))), None)
    if index is not None:
        value = _read_json(index)
        names = sorted(set(value.get("weight_map", {}).values())) if isinstance(value, dict) else []
        absent = [f"{folder.name}/{name}" for name in names if not (folder / name).is_file()]
        if absent or not names:
            raise CheckpointError(f"{folder} is incomplete. {', '.join(absent[:5]) or index.name} is missing.", fix="Download it again.")
        paths = [folder / name for name in names]
    else:
        # Of several, the one without a variant in its name, such as fp16, is what the config describes.
        paths = sorted(folder.glob("*.safetensors"), key=lambda path: len(path.name))[:1]
    entries: dict[str, Entry] = {}
    for path in paths:
        entries |= read_header(path)[1]
    if not entries:
        raise CheckpointError(f"{folder} holds no weights.", fix="Download the folder again, with its .safetensors files.")
    if index is not None and (lost := [key for key in value["weight_map"] if key not in entries]):
        raise CheckpointError(f"{folder} does not hold what {index.name} lists. {first_five(lost)}.", fix="Download it again.")
    return entries


def _read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise CheckpointError(f"{path} does not exist.", fix="Download the whole model folder.") from error
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(f"{path} cannot be read.", fix="Download it again.") from error
