"""A sample video with a LoRA file, outside of any run. Loads torch."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from ltx2core.caching.passes import free_memory
from ltx2core.caching.tensors import read_tensors
from ltx2core.errors import CheckpointError
from ltx2core.models.checkpoint import find_checkpoint, open_checkpoint
from ltx2core.models.components import load_transformer
from ltx2core.models.text import load_text_models
from ltx2core.training.adapter import AdapterSettings, add_adapter, load_adapter
from ltx2core.training.export import lora_info, official_key
from ltx2core.training.settings import find_text_encoder, pick_device, sample_settings, text_settings
from ltx2core.training.step import Model
from ltx2core.validation.media import write_sample

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from torch import nn

    from ltx2core.config.load import LoadedConfig


def sample_with_lora(
    loaded: LoadedConfig, *, prompt: str, lora: Path | None, folder: Path, on_step: Callable[[int, int], None] | None = None
) -> Path:
    """Write sample.mp4 of a prompt into `folder` with the config's model, sizes, seed and guidance; its path.

    lora: a file in the official layout, None for the model as it is. Raises CheckpointError when model or LoRA cannot be used.
    """
    config = loaded.config
    device, dtype = pick_device(config)
    checkpoint = open_checkpoint(
        find_checkpoint(config.pretrained_model_name_or_path, filename=config.ltx2_checkpoint_filename, base=loaded.base)
    )
    encoder = find_text_encoder(config, checkpoint, base=loaded.base)
    models = load_text_models(checkpoint, encoder, settings=text_settings(config), dtype=dtype, device=device)
    texts = models.embed([prompt, config.validation_negative_prompt])
    del models
    free_memory(device)
    transformer = load_transformer(checkpoint, dtype=dtype, device=device, audio=True)
    if lora is not None:
        apply_lora(transformer, lora)
    return write_sample(
        Model(transformer=transformer, device=device, dtype=dtype),
        checkpoint,
        folder,
        text=texts[0],
        negative=texts[1],
        settings=sample_settings(config, audio=True),
        on_step=on_step,
    )


def apply_lora(transformer: nn.Module, path: Path) -> None:
    """Put a LoRA file on a transformer. Raises CheckpointError for a file that is no LoRA, or one of another model."""
    info = lora_info(path)
    tensors = read_tensors(path) or {}
    layers = [name for name, module in transformer.named_modules() if isinstance(module, torch.nn.Linear)]
    wanted = [name for name in layers if official_key(f"{name}.lora_A.weight") in tensors]
    if 2 * len(wanted) != len(tensors):
        lost = sorted(set(tensors) - {official_key(f"{name}.lora_{side}.weight") for name in layers for side in "AB"})
        why = f"is not for this model: it has no layer for {lost[0]}" if lost else "lacks one of the two matrices of a layer"
        raise CheckpointError(f"{path} {why}.", fix="Use the whole file, with the model that it was trained on.")
    # The file's B holds alpha / rank already, so here both are the rank.
    parameters = add_adapter(
        transformer, AdapterSettings(rank=info.rank, alpha=float(info.rank), targets=tuple(wanted)), audio=True, seed=0
    )
    try:
        load_adapter(parameters, {name: tensors[official_key(name)].float() for name in parameters})
    except (KeyError, ValueError) as error:
        raise CheckpointError(f"{path} does not fit this model: {error}.", fix="Use the model that it was trained on.") from error
