"""The transformer that draws a sample outside of any run: whole where it fits, else by the step engine, as training holds it.

The engine lets blocks travel and rounds weights, so a LoRA can be looked at on the card that it was trained on. A LoRA is put on diffusers'
layers in the first case, and beside the engine's in the second.
"""

from __future__ import annotations

import contextlib
from dataclasses import replace
from typing import TYPE_CHECKING

import torch

from ltx2core.errors import CheckpointError, RunError
from ltx2core.hardware.device_memory import GIB, free_device_memory
from ltx2core.hardware.free_memory import free_memory
from ltx2core.hardware.limits import available_memory
from ltx2core.lora.read import read_lora
from ltx2core.lora.start import start_from
from ltx2core.models.components import load_transformer
from ltx2core.planning.host_plan import place_blocks
from ltx2core.planning.step_plan import StepNeed, StepPlan, plan_step
from ltx2core.planning.wishes import step_wish
from ltx2core.training.adapter import AdapterSettings, add_adapter
from ltx2core.training.block_facts import describe_blocks
from ltx2core.training.fast_model import FastSettings, load_fast
from ltx2core.training.step import Model
from ltx2core.validation.adapters import Extra

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from torch import nn

    from ltx2core.config.train import TrainConfig
    from ltx2core.models.checkpoint import Checkpoint
    from ltx2core.training.block_facts import BlockFacts

_NO_ADAPTER = AdapterSettings(rank=1, alpha=1.0)  # the engine always has one; its B is 0
_BESIDE_BYTES = 6 * GIB  # of a sample's activations, beside a transformer that lies on the card as a whole


@contextlib.contextmanager
def sample_model(
    config: TrainConfig,
    checkpoint: Checkpoint,
    *,
    lora: Path | None,
    tokens: int,
    device: torch.device,
    dtype: torch.dtype,
    tell: Callable[[str], None],
) -> Iterator[tuple[Model, tuple[Extra, ...]]]:
    """The model with the LoRA, and what has to be given beside it; inside, it is in memory. tokens: of the largest sample's pictures, two
    at once where there is guidance. Raises CheckpointError when one of the two cannot be used, RunError when nothing fits."""
    wish = step_wish(config)
    blocks = describe_blocks(checkpoint, storage=wish.storage, adapter=_NO_ADAPTER, audio=True, dtype=dtype)
    if not _by_engine(config, blocks, device=device, dtype=dtype):
        transformer = load_transformer(checkpoint, dtype=dtype, device=device, audio=True)
        if lora is not None:
            apply_lora(transformer, lora)
        yield Model(transformer=transformer, device=device, dtype=dtype), ()
        del transformer
    else:
        plan = _plan(config, blocks, tokens=tokens, device=device, dtype=dtype)
        if plan.streamed or plan.storage != "bf16":
            travel = f", {plan.streamed} of {blocks.count} blocks pass through the card" if plan.streamed else ""
            tell(f"The transformer is held in {plan.storage}{travel}.")
        host = place_blocks(
            blocks_bytes=plan.streamed * blocks.block_bytes, inputs_bytes=0, free_bytes=available_memory(), disk=False, storage=plan.storage
        )
        settings = FastSettings(
            storage=plan.storage,
            precision=plan.precision,
            streamed=plan.streamed,
            slots=plan.slots,
            compile=False,
            waiting=host.waiting,
        )
        fast = load_fast(checkpoint, settings=settings, adapter=_NO_ADAPTER, audio=True, seed=0, dtype=dtype, device=device)
        extras = () if lora is None else (Extra(lora=read_lora(lora)),)
        try:
            yield Model(transformer=fast.transformer, device=device, dtype=dtype, mixed=False), extras
        finally:
            fast.close()
        del fast
    free_memory(device)


def _by_engine(config: TrainConfig, blocks: BlockFacts, *, device: torch.device, dtype: torch.dtype) -> bool:
    if config.step_engine != "auto":
        return config.step_engine == "fast"
    if device.type != "cuda":
        return False
    wish = step_wish(config)
    whole = blocks.outside_bytes + blocks.count * blocks.block_bytes
    return wish.storage != "bf16" or whole + _BESIDE_BYTES > free_device_memory(device)


def _plan(config: TrainConfig, blocks: BlockFacts, *, tokens: int, device: torch.device, dtype: torch.dtype) -> StepPlan:
    """As for a step of that many tokens that keeps nothing, which needs more than drawing does."""
    need = StepNeed(
        tokens=tokens,
        width=blocks.width,
        itemsize=dtype.itemsize,
        num_blocks=blocks.count,
        block_bytes=blocks.block_bytes,
        outside_bytes=blocks.outside_bytes,
        lora_numbers=blocks.lora_numbers,
        joint=True,
    )
    wish = replace(step_wish(config), recompute_all=True, keep_all=False, inputs_to_host=True)
    try:
        return plan_step(need, wish, free_bytes=free_device_memory(device) if device.type == "cuda" else None)
    except RunError as error:
        raise RunError(f"A sample does not fit. {error.text}", fix="Lower validation_resolution or validation_num_video_frames.") from error


def apply_lora(transformer: nn.Module, path: Path) -> None:
    """Put a LoRA file of any layout on a transformer. Raises CheckpointError for a file that is no LoRA, or one of another model."""
    lora = read_lora(path)
    layers = {name for name, module in transformer.named_modules() if isinstance(module, torch.nn.Linear)}
    if lost := [layer for layer in lora.pairs if layer not in layers]:
        raise CheckpointError(f"{path} is not for this model: it has no layer for {lost[0]}.", fix="Use the model that it was trained on.")
    settings = AdapterSettings(rank=lora.rank, alpha=float(lora.rank), targets=tuple(lora.pairs))
    start_from(add_adapter(transformer, settings, audio=True, seed=0), lora, scale=1.0)
