"""A checkpoint beside which rounded weights are kept, for the tests on their files."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

import torch
from step_engine import CPU, F32, SETTINGS

from ltx2core.models.checkpoint import Checkpoint, open_checkpoint
from ltx2core.models.nano import nano_checkpoint
from ltx2core.models.safetensors_header import read_header
from ltx2core.training.fast_model import FastModel, FastSettings, load_fast
from ltx2core.training.rounded_weights import RoundedStore

if TYPE_CHECKING:
    from pathlib import Path

    from ltx2core.models.quantised import Storage
    from ltx2core.runs.events import Notice
    from ltx2core.training.adapter import AdapterSettings

STORAGES: tuple[Storage, ...] = ("int8", "fp8", "nf4")
ONE = "transformer_blocks.0.attn1.to_q.weight"


class Place:
    """A checkpoint in a folder of its own, a cache, and what was told."""

    def __init__(self, folder: Path) -> None:
        self.checkpoint_path = folder / "models" / "model.safetensors"
        self.checkpoint_path.parent.mkdir()
        shutil.copy(nano_checkpoint(), self.checkpoint_path)
        self.folder = folder / "cache" / "weights"
        self.told: list[Notice] = []

    @property
    def checkpoint(self) -> Checkpoint:
        return open_checkpoint(self.checkpoint_path)

    @property
    def store(self) -> RoundedStore:
        return RoundedStore(folder=self.folder, emit=lambda event: self.told.append(event))  # type: ignore[arg-type]

    def load(
        self,
        storage: Storage = "int8",
        *,
        audio: bool = True,
        keep: bool = True,
        adapter: AdapterSettings = SETTINGS,
        streamed: int = 2,
        device: torch.device = CPU,
    ) -> FastModel:
        return load_fast(
            self.checkpoint,
            settings=FastSettings(storage=storage, streamed=streamed, compile=False),
            adapter=adapter,
            audio=audio,
            seed=0,
            dtype=F32,
            device=device,
            kept=self.store if keep else None,
        )

    def codes(self) -> list[str]:
        """Of what was told since it was last asked."""
        found = [notice.code for notice in self.told]
        self.told.clear()
        return found

    def file(self, storage: Storage = "int8") -> Path:
        return self.checkpoint_path.with_name(f"model.{storage}.rounded")

    def spoil(self) -> None:
        """Make the checkpoint's weights others than they were, unnoticed: a model that comes from it now is not the same."""
        _, entries = read_header(self.checkpoint_path)
        entry = next(entry for key, entry in entries.items() if key.endswith(ONE))
        with self.checkpoint_path.open("r+b") as file:
            file.seek(entry.start + 1024)  # past what a fingerprint looks at
            file.write(bytes(1024))


def alike(one: FastModel, other: FastModel) -> bool:
    """Whether all that blocks compute with, and what is told of rounding, is the same to the last bit."""
    for mine, theirs in zip(one.blocks.weights, other.blocks.weights, strict=True):
        first, second = (
            {name: tensor for name, tensor in weights.tensors(weights.matrices).items() if tensor is not None} for weights in (mine, theirs)
        )
        if first.keys() != second.keys():
            return False
        if not all(torch.equal(first[name].view(torch.uint8), second[name].view(torch.uint8)) for name in first if first[name].ndim):
            return False
    return one.rounding == other.rounding
