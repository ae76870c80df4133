"""A sample video with a LoRA file, outside of any run. Loads torch."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from ltx2core.caching.passes import free_memory
from ltx2core.errors import CheckpointError
from ltx2core.hardware.device_memory import limit_device, spilling_driver
from ltx2core.lora.read import read_lora
from ltx2core.lora.start import start_from
from ltx2core.lora.verify import refuse_misfit
from ltx2core.models.checkpoint import find_checkpoint, open_checkpoint
from ltx2core.models.components import load_transformer
from ltx2core.models.text import load_text_models
from ltx2core.planning.wishes import text_settings
from ltx2core.training.adapter import AdapterSettings, add_adapter
from ltx2core.training.settings import find_text_encoder, pick_device, sample_settings
from ltx2core.training.step import Model
from ltx2core.validation.media import write_sample

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from torch import nn

    from ltx2core.config.load import LoadedConfig


def sample_with_lora(
    loaded: LoadedConfig,
    *,
    prompt: str,
    lora: Path | None,
    folder: Path,
    on_step: Callable[[int, int], None] | None = None,
    tell: Callable[[str], None] = lambda _: None,
) -> Path:
    """Write sample.mp4 of a prompt into `folder` with the config's model, sizes, seed and guidance; its path.

    lora: a LoRA file of any layout, None for the model as it is. tell: is given sentences about a download or a limit of memory. Raises
    CheckpointError when model or LoRA cannot be used.
    """
    config = loaded.config
    device, dtype = pick_device(config)
    if capped := limit_device(device, config.gpu_memory_limit_gib, spills=spilling_driver()):
        tell(capped)
    checkpoint = open_checkpoint(
        find_checkpoint(
            config.pretrained_model_name_or_path,
            filename=config.ltx2_checkpoint_filename,
            base=loaded.base,
            revision=config.revision,
            tell=tell,
        )
    )
    if lora is not None:  # before minutes of loading
        refuse_misfit(lora, checkpoint)
    encoder = find_text_encoder(config, checkpoint, base=loaded.base, tell=tell)
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
    """Put a LoRA file of any layout on a transformer. Raises CheckpointError for a file that is no LoRA, or one of another model."""
    lora = read_lora(path)
    layers = {name for name, module in transformer.named_modules() if isinstance(module, torch.nn.Linear)}
    if lost := [layer for layer in lora.pairs if layer not in layers]:
        raise CheckpointError(f"{path} is not for this model: it has no layer for {lost[0]}.", fix="Use the model that it was trained on.")
    settings = AdapterSettings(rank=lora.rank, alpha=float(lora.rank), targets=tuple(lora.pairs))
    start_from(add_adapter(transformer, settings, audio=True, seed=0), lora, scale=1.0)
