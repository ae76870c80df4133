"""How the step engine will hold a checkpoint on this machine: what the card and the RAM have, and the plans that follow from it."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from ltx2core.distributed.ranks import ALONE, Ranks
from ltx2core.hardware.cards import find_card, rates_of
from ltx2core.hardware.device_memory import free_device_memory
from ltx2core.hardware.limits import available_memory, lock_limit
from ltx2core.hardware.probe import probe_machine
from ltx2core.offload.block_files import block_files, check_room
from ltx2core.planning.block_time import measured_speed
from ltx2core.planning.flops import BatchShape
from ltx2core.planning.host_plan import HostPlan, place_blocks
from ltx2core.planning.method_costs import alignment_bytes, state_bytes
from ltx2core.planning.model_sizes import sizes_as_released
from ltx2core.planning.several import shared_rates
from ltx2core.planning.step_plan import StepNeed, StepPlan, plan_step
from ltx2core.runs.events import Notice
from ltx2core.training.block_facts import BlockFacts, describe_blocks
from ltx2core.training.fast_model import FastSettings
from ltx2core.training.rungs import Rungs

if TYPE_CHECKING:
    from collections.abc import Callable

    from ltx2core.hardware.rates import Rates
    from ltx2core.models.checkpoint import Checkpoint
    from ltx2core.offload.masters import Masters
    from ltx2core.planning.flops import ModelShape
    from ltx2core.planning.step_time import StepSpeed
    from ltx2core.runs.events import Event
    from ltx2core.training.trainee import TrainSettings

_VIDEO_TO_SOUND = 50  # tokens of a picture to one of its sound, at 512x768; larger pictures have more, and sound weighs less then
_TOKENS_OF_TEXT = 1024  # every caption is padded to so many
_TOKENS_OF_SOUND = 512  # as wide as those of pictures, which is what 40 s of sound come to


@dataclass(frozen=True, slots=True, kw_only=True)
class Holding:
    """What is held, how on the card, and where the rest waits."""

    blocks: BlockFacts
    plan: StepPlan
    host: HostPlan
    free_bytes: int | None  # of the card; None without one

    @property
    def because(self) -> list[str]:
        return [*self.plan.because, *filter(None, [self.host.because])]

    def settings(self, *, compiled: bool, disk: Path | None) -> FastSettings:
        plan = self.plan
        return FastSettings(
            storage=plan.storage,
            precision=plan.precision,
            streamed=plan.streamed,
            slots=plan.slots,
            kept=plan.kept,
            attention=plan.attention,
            turned=plan.turned,
            inputs_to_host=plan.inputs_to_host,
            compile=compiled,
            waiting=self.host.waiting,
            disk=disk,
        )


def hold(
    checkpoint: Checkpoint,
    settings: TrainSettings,
    *,
    video: bool = True,
    audio: bool,
    device: torch.device,
    dtype: torch.dtype,
    ranks: Ranks = ALONE,
) -> Holding:
    """How the step is laid out on this device and beside it. Raises RunError when nothing fits, StorageError when a disk has no room.

    ranks: which lay it out alike, for blocks that travel wait in memory that they share: by the device with the least room.
    """
    blocks = describe_blocks(checkpoint, storage=settings.wish.storage, adapter=settings.adapter, video=video, audio=audio, dtype=dtype)
    tokens = settings.tokens if video else _TOKENS_OF_SOUND
    batch = BatchShape(
        count=settings.batch_size,
        video=tokens,
        audio=max(1, tokens // _VIDEO_TO_SOUND) if audio else 0,
        text=_TOKENS_OF_TEXT,
    )
    need = StepNeed(
        tokens=tokens * settings.batch_size,
        width=blocks.width,
        itemsize=dtype.itemsize,
        num_blocks=blocks.count,
        block_bytes=blocks.block_bytes,
        outside_bytes=blocks.outside_bytes,
        lora_numbers=blocks.lora_numbers,
        joint=audio and video,
        **(_released_bytes(checkpoint.version, blocks.shape, batch, settings, joint=audio) if video else {}),
        state_bytes=_state_bytes(settings),
        beside_bytes=_beside_bytes(settings, tokens=tokens * settings.batch_size, width=blocks.width) if video else 0,
    )
    free_bytes, free_ram = _least_free(device, ranks)

    def planned() -> tuple[StepPlan, HostPlan]:
        plan = plan_step(
            need, settings.wish, free_bytes=free_bytes, speed=_speed(blocks, batch, settings, device, ranks.size) if video else None
        )
        host = place_blocks(
            blocks_bytes=plan.streamed * blocks.block_bytes,
            inputs_bytes=ranks.size * blocks.count * need.inputs_bytes if plan.inputs_to_host else 0,
            free_bytes=free_ram,
            disk=settings.disk is not None,
            storage=plan.storage,
        )
        return plan, host

    plan, host = planned() if ranks.size == 1 else _same_for_all(ranks, planned)
    holding = Holding(blocks=blocks, plan=plan, host=host, free_bytes=free_bytes)
    if settings.disk is not None and host.waiting == "disk":
        files = block_files(settings.disk, weights=checkpoint.fingerprint("transformer"), layout=blocks.layout)
        travelling = holding.settings(compiled=False, disk=None).streamed_blocks(blocks.count)
        check_room(settings.disk, files.missing_bytes(travelling))
    return holding


def _least_free(device: torch.device, ranks: Ranks) -> tuple[int | None, int]:
    """Bytes free of the card, None without one, and of RAM: the least that a rank finds."""
    own = [free_device_memory(device) if device.type == "cuda" else None, available_memory()]
    found = [json.loads(each) for each in ranks.meet(json.dumps(own))]
    return None if own[0] is None else min(free for free, _ in found), min(ram for _, ram in found)


def _same_for_all(ranks: Ranks, planned: Callable[[], tuple[StepPlan, HostPlan]]) -> tuple[StepPlan, HostPlan]:
    """The plans of rank 0. Each could make its own, but for free memory and rates that differ."""
    if ranks.owner:
        plan, host = planned()
        ranks.told(json.dumps([asdict(plan), asdict(host)]))
        return plan, host
    of_step, of_host = json.loads(ranks.told())
    return StepPlan(**{**of_step, "because": tuple(of_step["because"])}), HostPlan(**of_host)


def _state_bytes(settings: TrainSettings) -> float:
    """Of the optimizer's state, and of a running average that lies beside it, for each number of the LoRA."""
    state = state_bytes(settings.rule.rule, eight_bit=settings.rule.adam.eight_bit, rank=settings.adapter.least_rank)
    return state + (4 if settings.average and not settings.average.on_host else 0)


def _beside_bytes(settings: TrainSettings, *, tokens: int, width: int) -> int:
    return 0 if settings.crepa is None else alignment_bytes(tokens=tokens, width=width, to=settings.crepa.width or width)


def _released_bytes(version: str, shape: ModelShape, batch: BatchShape, settings: TrainSettings, *, joint: bool) -> dict[str, Any]:
    """What was counted for the release that this is, by StepNeed's names; nothing for a model of another shape, which is estimated."""
    sizes = sizes_as_released(version, shape, joint=joint)
    if sizes is None:
        return {}
    video, audio, text = (batch.count * tokens for tokens in (batch.video, batch.audio, batch.text))
    return {
        "kept": sizes.kept.bytes(video=video, audio=audio, text=text, rank=settings.adapter.most_rank),
        "inputs": sizes.inputs_bytes(video=video, audio=audio),
        "rounded": sizes.rounded_bytes(settings.wish.storage),
        "packed": settings.wish.storage == "nf4",
    }


def _speed(blocks: BlockFacts, batch: BatchShape, settings: TrainSettings, device: torch.device, processes: int) -> StepSpeed | None:
    """How fast this card computes and loads blocks while all load theirs; None on a CPU, and for a card that was neither measured nor is
    known."""
    rates = known_rates(device) if device.type == "cuda" else None
    if rates is None:
        return None
    wish, rates = settings.wish, shared_rates(rates, processes)
    speed = measured_speed(blocks.shape, batch, rates, width=blocks.width, storage=wish.storage, precision=wish.precision)
    return replace(speed, looks=settings.looks)


def known_rates(device: torch.device) -> Rates | None:
    """The rates that were measured on this card with this driver and PyTorch, else those of its datasheet; None for an unknown card."""
    measured = probe_machine(Path()).rates
    if measured is not None:
        return measured
    properties = torch.cuda.get_device_properties(device)
    card = find_card(properties.name, memory_bytes=properties.total_memory)
    return None if card is None else rates_of(card)


def rungs_of(settings: TrainSettings, holding: Holding, *, device: torch.device) -> Rungs | None:
    """What earlier runs have learned about memory on this card with this model; None where memory does not run out that way."""
    if settings.rungs is None or holding.free_bytes is None:
        return None
    blocks, properties = holding.blocks, torch.cuda.get_device_properties(device)
    name = (
        f"{properties.name}, {properties.total_memory / 2**30:.0f} GiB; {blocks.count} blocks of {blocks.block_bytes} bytes in "
        f"{holding.plan.storage} ({holding.plan.precision}), {blocks.lora_numbers} numbers of LoRA; PyTorch {torch.__version__}"
    )
    return Rungs(settings.rungs, name=name, free_bytes=holding.free_bytes)


def tell_unlocked(masters: Masters, emit: Callable[[Event], None]) -> None:
    """What the system would not lock, and what that costs."""
    if masters.unlocked:
        text = (
            f"{masters.unlocked} of {len(masters.found)} blocks that travel wait in memory that the system did not lock for the GPU "
            f"(CUDA error {masters.refused}): they pass through small locked buffers, and steps are not captured."
        )
        emit(Notice(code="memory_not_locked", level="warning", text=text, fix=f"Raise the limit of locked memory: {_lock_limit_words()}."))


def _lock_limit_words() -> str:
    limit = lock_limit()
    return "`ulimit -l` says that there is none, so it is the driver's" if limit is None else f"`ulimit -l` is {limit / 2**20:.0f} MiB"
