"""Trains nano from nothing on one GPU: `python -m ltx2core.models.nano.pretrain --out DIR`.

Four stages, each with its own seed and written to its own file as soon as it is done, so that a stage can be made again alone:
video VAE, audio VAE, vocoder, and the denoiser (transformer, connectors and text encoder together, on latents of the shipped,
bf16-rounded VAEs). `assemble` joins them into the combined file. The same seeds, step counts, card and libraries give the same
weights; other cards round differently.

A machine without a GPU can train the denoiser on, from what is shipped, in an hour or two:
`--stage denoiser --start shipped --clips 5120 --batch 16 --steps 1700`.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from safetensors.torch import load_file, save_file
from torch import nn

from ltx2core.models import components
from ltx2core.models.checkpoint import open_checkpoint
from ltx2core.models.nano import architecture, nano_checkpoint, nano_text_encoder
from ltx2core.models.nano.autoencoders import train_audio_vae, train_video_vae, train_vocoder
from ltx2core.models.nano.denoiser import train_denoiser
from ltx2core.models.text import load_text_encoder

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from ltx2core.models.nano.architecture import Modules


@dataclass(frozen=True, slots=True)
class Steps:
    """Optimizer steps of each stage."""

    video_vae: int = 3400
    audio_vae: int = 1800
    vocoder: int = 2500
    denoiser: int = 4000


_STAGES: dict[str, tuple[tuple[str, ...], Callable[..., object]]] = {
    "video_vae": (("video_vae",), train_video_vae),
    "audio_vae": (("audio_vae",), train_audio_vae),
    "vocoder": (("vocoder",), train_vocoder),
    "denoiser": (("transformer", "connectors", "text_encoder"), train_denoiser),
}

_SHIPPED: dict[str, Callable[..., nn.Module]] = {
    "transformer": components.load_transformer,
    "connectors": components.load_connectors,
    "video_vae": components.load_video_vae,
    "audio_vae": components.load_audio_vae,
    "vocoder": components.load_vocoder,
}


def _save(modules: Modules | nn.ModuleDict, names: Sequence[str], path: Path) -> None:
    tensors = {}
    for name in names:
        for key, tensor in (modules[name] if isinstance(modules, nn.ModuleDict) else getattr(modules, name)).state_dict().items():
            keep = "scale_shift_table" in key or key.startswith("latents_")
            tensors[f"{name}.{key}"] = tensor.detach().to("cpu", torch.float32 if keep else torch.bfloat16).contiguous()
    save_file(tensors, path)


def _load(modules: Modules, names: tuple[str, ...], path: Path) -> None:
    """Load a stage's file; a stage that was not run here is the shipped model's, so that one can be made again alone."""
    if not path.exists():
        _load_shipped(modules, names)
        return
    tensors = load_file(path)
    for name in names:
        part = {key.removeprefix(f"{name}."): tensor.float() for key, tensor in tensors.items() if key.startswith(f"{name}.")}
        getattr(modules, name).load_state_dict(part)


def _load_shipped(modules: Modules, names: tuple[str, ...]) -> None:
    shipped = open_checkpoint(nano_checkpoint())
    for name in names:
        found = (
            load_text_encoder(nano_text_encoder(), dtype=torch.float32).model
            if name == "text_encoder"
            else _SHIPPED[name](shipped, dtype=torch.float32)
        )
        getattr(modules, name).load_state_dict(found.state_dict())


def _run(stage: str, modules: Modules, steps: int, device: torch.device, arguments: argparse.Namespace) -> None:
    """Train one stage and write its file."""
    names, train = _STAGES[stage]
    path = arguments.out / f"{stage}.safetensors"
    if stage == "denoiser":
        for earlier in ("video_vae", "audio_vae"):
            _load(modules, (earlier,), arguments.out / f"{earlier}.safetensors")
        if arguments.start == "shipped":
            _load_shipped(modules, names)

        def keep(averaged: nn.ModuleDict) -> None:  # the longest stage: what it has by then survives its being cut off
            _save(averaged, names, path)

        train = partial(train, batch=arguments.batch, count=arguments.clips, after=keep)
    train(modules, steps, device, seconds=arguments.seconds)
    _save(modules, names, path)


def main() -> None:
    parser = argparse.ArgumentParser(description="Train nano, the embedded model, from nothing.")
    parser.add_argument("--out", type=Path, required=True, help="where the stages' files and the joined model go")
    parser.add_argument("--stage", choices=[*_STAGES, "assemble", "all"], default="all")
    parser.add_argument("--steps", type=int, help="instead of the stage's own number, to try something")
    parser.add_argument("--seconds", type=float, help="set the number of steps to what fits in this time, and print it")
    parser.add_argument("--start", choices=["fresh", "shipped"], default="fresh", help="weights that the denoiser starts from")
    parser.add_argument("--clips", type=int, default=65536, help="of the first size, for the denoiser")
    parser.add_argument("--batch", type=int, default=128, help="clips a step of the denoiser, each at four noise levels")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    torch.backends.cudnn.deterministic = True
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
    torch.use_deterministic_algorithms(True, warn_only=True)
    modules = architecture.build(seed=0)
    device = torch.device(arguments.device)
    stages = list(_STAGES) if arguments.stage == "all" else [arguments.stage] if arguments.stage != "assemble" else []
    for stage in stages:
        started = time.perf_counter()
        _run(stage, modules, arguments.steps or getattr(Steps(), stage), device, arguments)
        print(f"{stage}: {time.perf_counter() - started:.0f} s", flush=True)
    if arguments.stage in ("all", "assemble"):
        for stage, (names, _) in _STAGES.items():
            _load(modules, names, arguments.out / f"{stage}.safetensors")
        architecture.write(modules, arguments.out / "weights")


if __name__ == "__main__":
    main()
