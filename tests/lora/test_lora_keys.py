"""Key names: every linear layer of every version has a name in every layout, and is found again under it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from lora_fixtures import VERSIONS, linear_layers, tiny_transformer

from ltx2core.lora.keys import is_lora_key, key_of, layout_of, official_key, parse_key
from ltx2core.lora.layers import IN_A_BLOCK, OUTSIDE_BLOCKS, is_layer, kind_of, modality_of
from ltx2core.models.checkpoint import read_header
from ltx2core.models.names import component_of

FOLDERS = [Path(__file__).parents[1] / "data" / "reference", *map(Path, filter(None, [os.environ.get("LTX2_REFERENCE_DIR")]))]


@pytest.fixture(scope="module")
def layers() -> dict[str, list[str]]:
    with torch.device("meta"):
        return {version: linear_layers(tiny_transformer(version)) for version in VERSIONS}


def test_the_list_of_layers_is_that_of_all_versions_together(layers: dict[str, list[str]]) -> None:
    assert {kind_of(name) for names in layers.values() for name in names} == {*IN_A_BLOCK, *OUTSIDE_BLOCKS}
    assert all(is_layer(name) for names in layers.values() for name in names)


@pytest.mark.parametrize("layout", ["official", "diffusers", "kohya"])
def test_every_layer_is_found_again_under_its_name_in_each_layout(layers: dict[str, list[str]], layout) -> None:
    names = {name for version in layers.values() for name in version}
    keys = {key_of(name, matrix, layout): (name, matrix) for name in names for matrix in ("down", "up", "alpha")}
    assert len(keys) == 3 * len(names)  # no two layers share a key
    assert all(parse_key(key) == place for key, place in keys.items())
    assert {layout_of(key) for key in keys} == {layout}


def test_other_trainers_mixtures_of_prefix_and_names_are_read(layers: dict[str, list[str]]) -> None:
    for name in {name for version in layers.values() for name in version}:
        official = official_key(name).removeprefix("diffusion_model.")
        flat = name.replace(".", "_")
        for key in (
            f"diffusion_model.{name}.lora_A.weight",  # SimpleTuner's comfyui layout renames nothing
            f"transformer.{official}.lora_A.weight",
            f"base_model.model.{name}.lora_A.default.weight",
            f"base_model.model.diffusion_model.{official}.lora_A.weight",
            f"model.diffusion_model.{official}.lora_down.weight",
            f"{name}.lora.down.weight",
            f"lora_unet_{flat}.lora_down.weight",
            f"lora_transformer_{flat}.lora_down.weight",
        ):
            assert parse_key(key) == (name, "down"), key


def test_the_official_names_are_those_of_the_official_checkpoints() -> None:
    seen = 0
    for folder in FOLDERS:
        for path in sorted(folder.glob("ltx-*-tiny.safetensors")):
            _, entries = read_header(path)
            for key, entry in entries.items():
                if component_of(key) != "transformer" or not key.endswith(".weight") or len(entry.shape) != 2:
                    continue
                place = parse_key(key.removesuffix("weight") + "lora_A.weight")
                assert place is not None, key
                assert key_of(place[0], "down", "official") == key.removeprefix("model.").removesuffix("weight") + "lora_A.weight"
                seen += 1
    assert seen >= 110


@pytest.mark.parametrize(
    "key",
    [
        "diffusion_model.blocks.0.self_attn.q.lora_A.weight",  # Wan
        "transformer.single_transformer_blocks.0.attn.to_q.lora_A.weight",  # Flux
        "lora_unet_double_blocks_0_img_attn_qkv.lora_down.weight",
        "unet.down_blocks.0.attentions.0.proj_in.lora_A.weight",
        "diffusion_model.transformer_blocks.0.attn1.to_q.weight",  # a weight, no LoRA
        "transformer_blocks.0.attn1.to_q",
        "",
    ],
)
def test_keys_of_other_models_are_none_of_ours(key: str) -> None:
    assert parse_key(key) is None


@given(st.text(max_size=80) | st.from_regex(r"(diffusion_model\.|lora_unet_)?[a-z_.0-9]{0,40}\.(lora_A\.weight|alpha)", fullmatch=True))
def test_no_key_breaks_the_reader(key: str) -> None:
    place = parse_key(key)
    assert place is None or is_layer(place[0])
    assert is_lora_key(key) in (True, False)


def test_a_layer_belongs_to_what_it_computes_on() -> None:
    assert modality_of("transformer_blocks.3.attn2.to_k") == "video"
    assert modality_of("transformer_blocks.3.audio_ff.net.2") == "audio"
    assert modality_of("audio_time_embed.linear") == "audio"
    assert modality_of("transformer_blocks.3.audio_to_video_attn.to_k") == "both"
    assert modality_of("av_cross_attn_video_scale_shift.linear") == "both"  # has no audio in its name, but only scales what sound adds
