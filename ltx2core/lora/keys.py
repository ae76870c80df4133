"""The keys of LoRA files: what layer and which matrix a key means, in every layout, and how each layout spells it.

    official    diffusion_model.transformer_blocks.0.attn1.to_q.lora_A.weight     ComfyUI and Lightricks' own code
    diffusers   transformer.transformer_blocks.0.attn1.to_q.lora_A.weight         diffusers' names outside the blocks too
    kohya       lora_unet_transformer_blocks_0_attn1_to_q.lora_down.weight        with an .alpha for each layer
    peft        base_model.model.transformer_blocks.0.attn1.to_q.lora_A.weight    read only

Outside the blocks the official names differ from diffusers' (`patchify_proj`, `proj_in`); both are read behind every prefix, because
other trainers mix them. Loads no torch.
"""

from __future__ import annotations

import re
from functools import cache
from typing import Literal

from ltx2core.lora.layers import IN_A_BLOCK, OUTSIDE_BLOCKS, is_layer
from ltx2core.models.names import to_diffusers, to_official

Layout = Literal["official", "diffusers", "kohya", "peft", "bare"]
Matrix = Literal["down", "up", "alpha"]  # [rank, in], [out, rank], a number

_MATRIX = re.compile(r"\.(?:lora_(?P<letter>[AB])(?:\.\w+)?\.weight|lora[._](?P<word>down|up)\.weight|(?P<alpha>alpha))\Z")
_FLAT_BLOCK = re.compile(r"transformer_blocks_(\d+)_(.+)")
_PREFIXES: tuple[tuple[str, Layout], ...] = (
    ("base_model.model.", "peft"),
    ("model.diffusion_model.", "official"),
    ("diffusion_model.", "official"),
    ("transformer.", "diffusers"),
    ("lora_unet_", "kohya"),
    ("lora_transformer_", "kohya"),
)
_OFFICIAL_ROOT = "model."  # of a checkpoint's keys, which LoRA files leave out


def parse_key(key: str) -> tuple[str, Matrix] | None:
    """The layer, in diffusers' name, and the matrix that a key holds; None for a key that is no LoRA of LTX-2."""
    match = _MATRIX.search(key)
    if match is None:
        return None
    name, layout = _without_prefixes(key[: match.start()])
    layer = _unflatten(name) if layout == "kohya" else to_diffusers(name, "transformer")
    if layer is None or not is_layer(layer):
        return None
    if match["alpha"]:
        return layer, "alpha"
    return layer, "down" if match["letter"] == "A" or match["word"] == "down" else "up"


def is_lora_key(key: str) -> bool:
    """Whether a key belongs to a LoRA of any kind and for any model."""
    return ".lora_" in key or ".lora." in key or key.startswith("lora_") or ".hada_" in key or ".lokr_" in key


def layout_of(key: str) -> Layout:
    """The layout that a key is written in."""
    return _without_prefixes(key)[1]


def official_key(name: str) -> str:
    """`proj_in.lora_A.weight`, as training names it -> `diffusion_model.patchify_proj.lora_A.weight`."""
    return to_official(name, "transformer").removeprefix(_OFFICIAL_ROOT)


def key_of(layer: str, matrix: Matrix, layout: Literal["official", "diffusers", "kohya"]) -> str:
    """The key of a layer's matrix in a file of this layout."""
    if layout == "kohya":
        flat = official_key(layer).removeprefix("diffusion_model.").replace(".", "_")
        return f"lora_unet_{flat}.{'alpha' if matrix == 'alpha' else f'lora_{matrix}.weight'}"
    ending = {"down": "lora_A.weight", "up": "lora_B.weight", "alpha": "alpha"}[matrix]
    return official_key(f"{layer}.{ending}") if layout == "official" else f"transformer.{layer}.{ending}"


def _without_prefixes(name: str) -> tuple[str, Layout]:
    layout: Layout = "bare"
    for prefix, means in _PREFIXES:
        if name.startswith(prefix):
            name = name.removeprefix(prefix)
            layout = means if layout == "bare" else layout
    return name, layout


def _unflatten(flat: str) -> str | None:
    """The layer whose name this is with underscores for dots; None for no layer."""
    if match := _FLAT_BLOCK.fullmatch(flat):
        kind = _flat_names().get(match[2])
        return None if kind is None else f"transformer_blocks.{match[1]}.{kind}"
    return _flat_names().get(flat)


@cache
def _flat_names() -> dict[str, str]:
    names = {name.replace(".", "_"): name for name in (*IN_A_BLOCK, *OUTSIDE_BLOCKS)}
    official = {official_key(name).removeprefix("diffusion_model.").replace(".", "_"): name for name in OUTSIDE_BLOCKS}
    return names | official
