"""Builds the step engine's model from a checkpoint: blocks in flat buffers, on the card, in host memory or on disk, with a flat adapter.

Tensors go from the file to where they stay, one at a time; a block that is to be streamed never lies on the card as a whole, and one
that waits on disk lies in memory alone while its file is written.
"""

from __future__ import annotations

import contextlib
import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from ltx2core.errors import CheckpointError
from ltx2core.models.components import check_transformer, load_outside_blocks
from ltx2core.models.fused_block import build_skeleton
from ltx2core.offload.block_files import BlockFiles, block_files
from ltx2core.offload.layout import BlockWeights, Layout, make_layout
from ltx2core.offload.masters import Masters, Waiting
from ltx2core.planning.sweeps import travelling_blocks
from ltx2core.training.adapter import AdapterSettings, target_modules
from ltx2core.training.block_facts import in_block, lora_shapes
from ltx2core.training.fast_blocks import FastBlocks, Keep
from ltx2core.training.flat_adapter import FlatAdapter

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Sequence
    from pathlib import Path

    from diffusers import LTX2VideoTransformer3DModel

    from ltx2core.models.checkpoint import Checkpoint
    from ltx2core.models.quantised import EightBit, Storage
    from ltx2core.models.rounded_file import RoundedWriter
    from ltx2core.offload.shared_memory import Group
    from ltx2core.planning.step_plan import StepPlan
    from ltx2core.training.rounded_weights import RoundedStore

_BLOCK = re.compile(r"transformer_blocks\.(\d+)\.(.+)")


@dataclass(frozen=True, slots=True, kw_only=True)
class FastSettings:
    """How the engine holds and computes a model. streamed: how many blocks travel, through how many slots, and where they wait."""

    storage: Storage = "bf16"
    precision: EightBit = "dequant"  # of products with 8-bit weights
    streamed: int = 0
    slots: int = 2
    kept: int = 0  # blocks that keep all they computed; the others are computed again
    attention: int = 0  # of those, how many keep what their self-attention found
    inputs_to_host: bool = False
    turned: bool = False  # whether blocks that lie on the card hold their 8-bit matrices transposed, too
    compile: bool = True
    backend: str = "inductor"  # of the compiler
    beside: bool = True  # whether the sound's kernels run beside the picture's
    waiting: Waiting = "locked"
    disk: Path | None = None  # where blocks lie that wait on disk

    def streamed_blocks(self, count: int) -> list[int]:
        """Which blocks travel."""
        return travelling_blocks(self.streamed, count)

    def attending(self, policy: Sequence[Keep]) -> frozenset[int]:
        """The blocks that are computed again without their self-attention."""
        again = [index for index, keep in enumerate(policy) if keep != "all"]
        return frozenset(again[max(0, len(again) - self.attention) :])  # the last: they are freed first

    def policy(self, count: int, *, streamed: Collection[int] | None = None) -> list[Keep]:
        """What each block keeps. Only resident blocks can keep all. streamed: the blocks that travel, if not those of these settings."""
        streamed = set(self.streamed_blocks(count)) if streamed is None else streamed
        resident = [index for index in range(count) if index not in streamed]
        kept = set(resident[max(0, len(resident) - self.kept) :])  # the last: they are freed first
        rest: Keep = "host" if self.inputs_to_host else "inputs"
        return ["all" if index in kept else rest for index in range(count)]


@dataclass(slots=True, kw_only=True)
class FastModel:
    """A transformer whose blocks the engine runs, and its adapter."""

    transformer: LTX2VideoTransformer3DModel
    blocks: FastBlocks
    adapter: FlatAdapter
    layout: Layout
    targets: list[str]
    settings: FastSettings
    masters: Masters

    @property
    def rounding(self) -> dict[str, float]:
        """Signal to noise of each matrix that is stored in 8 bits, in dB, by diffusers' name."""
        return {
            f"transformer_blocks.{index}.{name.removesuffix('.weight')}": value
            for index, weights in enumerate(self.blocks.weights)
            for name, value in weights.snr_db.items()
        }

    @property
    def matrix_names(self) -> frozenset[str]:
        """The tensors of a block, by diffusers' names, that lie in its matrices."""
        return frozenset(name for name, member in self.layout.members.items() if member.name in self.layout.matrices)

    def apply(self, plan: StepPlan) -> None:
        """Hold the blocks as another plan says. More blocks may travel than before, never fewer."""
        blocks, count = self.blocks, len(self.blocks.weights)
        settings = replace(
            self.settings,
            streamed=plan.streamed,
            slots=plan.slots,
            kept=plan.kept,
            attention=plan.attention,
            inputs_to_host=plan.inputs_to_host,
            turned=plan.turned,
        )
        travelling = set(self.masters.found)
        if plan.streamed != len(travelling) or plan.slots != self.settings.slots:
            wanted = [index for index in settings.streamed_blocks(count) if index not in travelling]
            for index in wanted[: max(0, plan.streamed - len(travelling))]:
                self._send_off(index)
                travelling.add(index)
            self.stream(slots=plan.slots)
            blocks.settle()
        if self.settings.turned and not plan.turned:
            for weights in blocks.weights:
                weights.turned = {}
            blocks.weights_changed()
        self.settings = settings
        blocks.keep = settings.policy(count, streamed=travelling)
        blocks.attention = settings.attending(blocks.keep)

    def stream(self, *, slots: int) -> None:
        """Let every block that has a master travel."""
        ordered = {index: self.masters.found[index] for index in sorted(self.masters.found)}
        self.blocks.stream(ordered, slots=slots, staged=self.masters.staged)

    def _send_off(self, index: int) -> None:
        """Bring a block from the card to where travelling ones wait."""
        weights, files = self.blocks.weights[index], self.masters.files
        weights.turned = {}
        if files is not None and files.find(index) is None:
            files.write(index, weights.matrices, weights.scales, weights.snr_db)
        master = self.masters.add(index)
        if files is None:
            master.tensor.copy_(weights.matrices)
        weights.matrices = master.tensor

    @property
    def resident_bytes(self) -> int:
        """Of the matrices that lie on the device and do not travel."""
        return sum(weights.matrices.nbytes for index, weights in enumerate(self.blocks.weights) if not self.blocks.streamed(index))

    @contextlib.contextmanager
    def put_away(self) -> Iterator[None]:
        """Keep in RAM, inside, what `resident_bytes` counts, and give the slots of travelling blocks away. No forward may run meanwhile;
        graphs of before are void."""
        resident = [weights for index, weights in enumerate(self.blocks.weights) if not self.blocks.streamed(index)]
        device = self.blocks.weights[0].rest.device
        try:
            self.blocks.let_go()
            if self.blocks.ring is not None:
                self.blocks.ring.rest()
            for weights in resident:
                weights.turned = {}
                weights.matrices = weights.matrices.cpu()
            yield
        finally:
            for weights in resident:
                weights.matrices = weights.matrices.to(device)
            turn(self)
            self.blocks.weights_changed()

    def graph_memory(self) -> object:
        """What a captured step reads and newer things may take the place of: rotary tables, host memory for activations."""
        tables = [dict(module.kept) for module in self.transformer.modules() if hasattr(module, "kept")]
        return tables, self.blocks.host.buffers()

    def close(self) -> None:
        """Give locked host memory and files back."""
        self.blocks.stream({}, slots=1)
        self.masters.close()


def load_fast(
    checkpoint: Checkpoint,
    *,
    settings: FastSettings,
    adapter: AdapterSettings,
    audio: bool,
    seed: int,
    dtype: torch.dtype,
    device: torch.device,
    video: bool = True,
    group: Group | None = None,
    kept: RoundedStore | None = None,
) -> FastModel:
    """The model of a checkpoint. group: processes of this host that load the same, and share the blocks that travel. kept: where rounded
    weights lie between runs; None to round them anew.

    Raises CheckpointError for a file that does not fit, RunError where host memory is not to be had, StorageError where blocks cannot be
    written to disk.
    """
    transformer = load_outside_blocks(checkpoint, dtype=dtype, device=device, video=video, audio=audio)
    shapes = check_transformer(checkpoint, video=video, audio=audio)
    targets = target_modules(shapes, video=video, audio=audio, wanted=adapter.targets)
    model = build_fast(
        transformer,
        shapes,
        targets=targets,
        settings=settings,
        adapter=adapter,
        seed=seed,
        dtype=dtype,
        device=device,
        weights_name=checkpoint.fingerprint("transformer") if settings.disk is not None else "",
        group=group,
    )
    if kept is None or settings.storage == "bf16" or model.masters.files is not None:  # blocks on disk have files of their own
        fill(model, _block_tensors(checkpoint, model, device))
    else:
        _fill_rounded(model, checkpoint, kept, device)
    return model


def _fill_rounded(model: FastModel, checkpoint: Checkpoint, kept: RoundedStore, device: torch.device) -> None:
    """Fill the model from the file of rounded weights and, for what is not in it, from the checkpoint; write the file if there is none."""
    matrices = {
        f"transformer_blocks.{index}.{name}": (weights, name)
        for index, weights in enumerate(model.blocks.weights)
        for name in model.layout.members
        if model.layout.is_rounded(name) and not name.endswith("to_gate_logits.weight")  # a matrix only where it gets a LoRA
    }

    def make(writer: RoundedWriter | None) -> None:
        fill(model, _block_tensors(checkpoint, model, device), writer=writer, write=matrices.keys())

    if kept.load(checkpoint, model.settings.storage, matrices, device=device, make=make, write=model.masters.filler):
        fill(model, _block_tensors(checkpoint, model, device, without=matrices.keys()), filled=matrices.keys())


def build_fast(
    transformer: LTX2VideoTransformer3DModel,
    shapes: nn.Module,
    *,
    targets: Sequence[str],
    settings: FastSettings,
    adapter: AdapterSettings,
    seed: int,
    dtype: torch.dtype,
    device: torch.device,
    weights_name: str = "",
    group: Group | None = None,
) -> FastModel:
    """The model, its blocks' weights still to be filled. shapes: the whole transformer on meta; targets: the layers that get a LoRA;
    weights_name: the checkpoint's fingerprint, by which blocks on disk are found again.

    Raises ValueError for what the engine has not: a target outside the blocks or in some of them only, one whose LoRA differs between
    blocks, and LoRA dropout.
    """
    if outside := [name for name in targets if not name.startswith("transformer_blocks.")]:
        raise ValueError(f"{outside[0]} lies outside the blocks")
    if adapter.dropout:
        raise ValueError("LoRA dropout is not computed by the step engine")
    meta_blocks: Any = shapes.transformer_blocks
    count = len(meta_blocks)
    inside = in_block(targets)
    everywhere = {f"transformer_blocks.{index}.{name}" for index in range(count) for name in inside}
    if missing := sorted(everywhere - set(targets)):
        raise ValueError(f"{missing[0]} is no target, unlike that of other blocks")
    skeleton = build_skeleton(meta_blocks[0], targets=inside, shapes=lora_shapes(adapter, targets), precision=settings.precision)
    layout = make_layout(skeleton, storage=settings.storage, dtype=dtype)
    files = block_files(settings.disk, weights=weights_name, layout=layout) if settings.disk is not None else None
    masters = Masters(layout.matrix_bytes, waiting=settings.waiting, lock=device.type == "cuda", files=files, group=group)
    masters.begin(settings.streamed_blocks(count))
    weights = [BlockWeights(layout, device=device, matrices_on=_room(masters, index, layout, device)) for index in range(count)]
    flat = FlatAdapter(skeleton.groups, num_blocks=count, rank=adapter.rank, seed=seed, device=device, dtype=dtype)
    policy = settings.policy(count)
    blocks = FastBlocks(
        skeleton=skeleton,
        weights=weights,
        adapter=flat,
        keep=policy,
        attention=settings.attending(policy),
        compile=settings.compile,
        backend=settings.backend,
        beside=settings.beside,
    )
    blocks.install(transformer)
    model = FastModel(
        transformer=transformer, blocks=blocks, adapter=flat, layout=layout, targets=list(targets), settings=settings, masters=masters
    )
    model.stream(slots=settings.slots)
    if not masters.filler and files is None:
        for index in masters.found:
            weights[index].written = False
            weights[index].given = model.matrix_names if layout.storage == "bf16" else frozenset()  # scales are found anew
    return model


def _room(masters: Masters, index: int, layout: Layout, device: torch.device) -> Tensor:
    """Where a block's matrices are put. Those of a block on disk have no place of their own."""
    if index not in masters.found:
        return torch.empty(layout.matrix_bytes, dtype=torch.uint8, device=device)
    if masters.files is not None:
        return torch.empty(layout.matrix_bytes, dtype=torch.uint8, device="meta")
    return masters.found[index].tensor


def fill(
    model: FastModel,
    tensors: Iterable[tuple[str, Tensor]],
    *,
    filled: Collection[str] = (),
    writer: RoundedWriter | None = None,
    write: Collection[str] = (),
) -> None:
    """Put the blocks' tensors, under diffusers' names, where they belong. Raises CheckpointError unless all come, in the right shapes.

    filled: what is there already. writer: gets those named in `write` as they are stored.
    """
    missing = {(index, name) for index in range(len(model.blocks.weights)) for name in model.layout.members}
    missing -= {(int(match[1]), match[2]) for name in filled if (match := _BLOCK.fullmatch(name))}
    for name, tensor in tensors:
        match = _BLOCK.fullmatch(name)
        if match is None:
            continue
        index, inner = int(match[1]), match[2]
        weights = model.blocks.weights[index]
        try:
            weights.put(inner, tensor)
        except ValueError as error:
            raise CheckpointError(f"In the transformer, block {index}: {error}.", fix="Download the file again.") from error
        if writer is not None and name in write:
            writer.add(name, weights.rows_of(inner), weights.scale_of(inner), weights.snr_db[inner])
        missing.discard((index, inner))
    missing -= {(index, name) for index, weights in enumerate(model.blocks.weights) for name in weights.given}
    if missing:
        index, name = min(missing)
        raise CheckpointError(
            f"{len(missing)} tensors of blocks are missing, like transformer_blocks.{index}.{name}.", fix="Download it again."
        )
    model.masters.wait()  # for the process that fills what this one shares
    turn(model)
    model.blocks.weights_changed()


def turn(model: FastModel) -> None:
    """Transpose the matrices of the blocks that lie on the card, where the settings ask for it: once they are filled."""
    if model.settings.turned:
        for index, weights in enumerate(model.blocks.weights):
            if not model.blocks.streamed(index):
                weights.turn()


def _block_tensors(
    checkpoint: Checkpoint, model: FastModel, device: torch.device, *, without: Collection[str] = ()
) -> Iterable[tuple[str, Tensor]]:
    """The blocks' tensors in file order, those named left out. What goes to host memory as it is does not take the way over the card.

    Blocks on disk come last, one after another: each is written, or found, before the next comes.
    """
    travelling, files = model.masters.found, model.masters.files
    on_host = set(travelling) if model.layout.storage == "bf16" and files is None else set()
    on_disk = sorted(travelling) if files is not None else []

    def tensors(blocks: Collection[int], place: torch.device | str, names: Collection[str]) -> Iterable[tuple[str, Tensor]]:
        def wanted(name: str) -> bool:
            match = _BLOCK.fullmatch(name)
            return name not in without and match is not None and int(match[1]) in blocks and match[2] in names

        return checkpoint.tensors("transformer", wanted=wanted, device=place)

    members = model.layout.members
    small = model.layout.members.keys() - model.matrix_names
    yield from tensors(set(range(len(model.blocks.weights))) - on_host - set(on_disk), device, members)
    if on_host:
        yield from tensors(on_host, "cpu", members if model.masters.filler else small)
    if on_disk and not model.masters.filler:
        model.masters.wait()  # until they are written
    for index in on_disk:
        assert files is not None
        there = _take_from_disk(model, files, index)
        if not there:
            model.blocks.weights[index].matrices = torch.empty(model.layout.matrix_bytes, dtype=torch.uint8)
        yield from tensors({index}, device if model.layout.storage != "bf16" else "cpu", small if there else members)
        if not there:
            _leave_on_disk(model, files, index)
    if on_disk and model.masters.filler:
        model.masters.wait()


def _take_from_disk(model: FastModel, files: BlockFiles, index: int) -> bool:
    """Whether a block's matrices are on disk from an earlier run; its scales are taken over then."""
    found, weights = files.find(index), model.blocks.weights[index]
    if found is None:
        return False
    weights.scales = {name: scale.to(weights.rest.device) for name, scale in found[0].items()}
    weights.snr_db = found[1]
    weights.matrices = model.masters.found[index].tensor
    weights.given = model.matrix_names
    return True


def _leave_on_disk(model: FastModel, files: BlockFiles, index: int) -> None:
    """Write a block that has just been filled, and free its memory."""
    weights = model.blocks.weights[index]
    files.write(index, weights.matrices, weights.scales, weights.snr_db)
    weights.matrices = model.masters.found[index].tensor
