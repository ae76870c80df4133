"""What should be known before a run starts: about the card, its link, memory, the disk, and what the plan asks of them.

Arithmetic on plain values: nothing is looked up, nothing is loaded. A Notice says what was found, with its numbers, and what helps.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from ltx2core.hardware.cards import find_card, link_bytes_per_second
from ltx2core.runs.events import Notice

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ltx2core.config.load import LoadedConfig
    from ltx2core.config.train import TrainConfig
    from ltx2core.hardware.machine import Gpu, Machine

GIB = 1 << 30
_HELD = GIB  # less is a desktop's own
_POWER_SHARE = 0.9  # a limit just below the default costs nothing that is felt
_MORE_THAN_A_LITTLE = 1.05  # of what training needs: samples that need this, and fit, are told
_LINK_SHARE = 0.6  # of what the card's own link could carry
_HOT = ("heat (driver)", "heat (hardware)", "hardware protection", "power supply")

# LoRA numbers per rank of all 48 blocks: inputs and outputs of q, k, v and out added up. Video 4096 wide, sound 2048; what connects them
# computes 2048 wide. 213.9 M at rank 32 for all, as counted on the model (100.7 M for video alone).
_BLOCKS = 48
_VIDEO_PER_RANK = 8 * (4096 + 4096) * _BLOCKS
_AUDIO_PER_RANK = 8 * (2048 + 2048) * _BLOCKS
_CROSS_PER_RANK = (2 * (4096 + 2048) + 2 * (2048 + 2048) + 2 * (2048 + 2048) + 2 * (4096 + 2048)) * _BLOCKS
_CHECKPOINT_BYTES = 12  # of a number: itself and two moments, float32
_AVERAGE_BYTES = 4
_SAMPLE_BYTES_PER_PIXEL = 0.08  # of a frame, in H.264 as samples are written


@dataclass(frozen=True, slots=True, kw_only=True)
class Forecast:
    """What a plan says that a run needs. None: it does not say."""

    train_peak_bytes: int | None = None  # of the GPU
    sample_peak_bytes: int | None = None
    host_peak_bytes: int | None = None
    pinned_bytes: int | None = None
    cache_bytes: int | None = None  # that are still to be written
    checkpoint_bytes: int | None = None
    sample_bytes: int | None = None  # of one sample's file


def warnings_before(machine: Machine, loaded: LoadedConfig, forecast: Forecast | None = None) -> list[Notice]:
    """What should be known before this config runs on this machine; empty when all is well."""
    told = forecast or Forecast()
    first = next(iter(machine.usable_gpus), None)
    found = list(_of_software(machine, loaded.config))
    if first is not None:
        found += [
            *_of_order(machine),
            *_of_idle(machine, first, loaded.config),
            *_of_others(first),
            *_of_power(first, machine),
            *_of_link(first, machine),
            *_of_spilling(machine),
        ]
    return [*found, *_of_memory(machine, told), *_of_samples(told, loaded.config, first), *_of_disk(machine, loaded, told)]


def _of_software(machine: Machine, config: TrainConfig) -> Iterator[Notice]:
    if machine.software_problem is not None:
        yield Notice(code="software", level="warning", text=machine.software_problem)
    elif machine.no_gpu_because is not None and config.pretrained_model_name_or_path != "nano":
        text = f"No GPU can be used, and LTX-2 trains far too slowly without one. {machine.no_gpu_because}"
        yield Notice(code="no_gpu", level="warning", text=text, fix="Train on a machine with a card; nano trains anywhere.")


def _of_order(machine: Machine) -> Iterator[Notice]:
    """Of cards that differ CUDA takes the one that it counts first, which need not be the first along the bus."""
    names = [gpu.name for gpu in machine.usable_gpus]
    if len(set(names)) < 2 or machine.device_order == "PCI_BUS_ID" or "GPU-" in (machine.visible_devices or ""):
        return
    text = f"This machine has {' and '.join(dict.fromkeys(names))}: a run takes the one that CUDA counts as the fastest."
    fix = "To choose, set CUDA_DEVICE_ORDER=PCI_BUS_ID and CUDA_VISIBLE_DEVICES to its number in `ltx2tui probe`."
    yield Notice(code="several_cards", text=text, fix=fix)


def _of_idle(machine: Machine, first: Gpu, config: TrainConfig) -> Iterator[Notice]:
    """Of cards of one kind a run of one process uses the first alone."""
    same = sum(gpu.name == first.name for gpu in machine.usable_gpus)
    if same > 1 and config.num_processes == 1 and config.pretrained_model_name_or_path != "nano":
        text = f"This machine has {same} {first.name}, and this run uses one of them."
        fix = f"num_processes = {same} trains on all of them together; `ltx2tui plan` says what that gives."
        yield Notice(code="idle_cards", text=text, fix=fix)


def _of_others(gpu: Gpu) -> Iterator[Notice]:
    held = gpu.used_by_others_bytes or 0
    if held < _HELD or gpu.free_bytes is None or gpu.total_bytes is None:
        return
    named = [f"{process.name or 'process'} {process.pid}" for process in gpu.processes if (process.used_bytes or 0) >= _HELD // 4]
    who = f" ({', '.join(named)})" if named else ""
    text = f"Other processes{who} hold {_gib(held)} of the GPU's memory; {_gib(gpu.free_bytes)} of {_gib(gpu.total_bytes)} is left."
    yield Notice(code="gpu_in_use", level="warning", text=text, fix="End them for more room; do not start more there while this trains.")


def _of_power(gpu: Gpu, machine: Machine) -> Iterator[Notice]:
    if machine.on_battery:
        text = "This machine runs on its battery, on which a GPU is held to a fraction of its speed."
        yield Notice(code="on_battery", level="warning", text=text, fix="Plug it in.")
    limit, usual = gpu.power_limit_watts, gpu.default_power_limit_watts
    if limit is not None and usual is not None and limit < _POWER_SHARE * usual:
        whose = "This laptop's GPU" if gpu.laptop else "The GPU"
        text = f"{whose} may draw {limit:.0f} W of its usual {usual:.0f} W, so that it computes slower than it could."
        fix = (
            "Choose the performance mode of the laptop."
            if gpu.laptop
            else f"Raise it with nvidia-smi -pl {usual:.0f} if that is not meant."
        )
        yield Notice(code="power_limit", level="warning", text=text, fix=fix)
    hot = [reason for reason in gpu.slowed_by if reason in _HOT]
    if hot:
        degrees = f" at {gpu.temperature_celsius} °C" if gpu.temperature_celsius is not None else ""
        text = f"The GPU is being slowed down by {' and '.join(hot)}{degrees}."
        yield Notice(code="gpu_slowed", level="warning", text=text, fix="See to its cooling and its power before a long run.")


def _of_link(gpu: Gpu, machine: Machine) -> Iterator[Notice]:
    """A link with few lanes. The generation now says nothing: a card at rest lowers it; what it and the slot reach together counts."""
    generation, width = gpu.best_pcie_generation or gpu.pcie_generation, gpu.pcie_width
    if generation is None or width is None or generation not in (3, 4, 5, 6):
        return
    card = find_card(gpu.name, memory_bytes=gpu.total_bytes)
    own = card.link_bytes_per_second if card else link_bytes_per_second(generation, gpu.best_pcie_width or width)
    could = f"PCIe {card.pcie_generation} x{card.pcie_width}" if card else f"x{gpu.best_pcie_width}"
    now = link_bytes_per_second(generation, width)
    reached = machine.rates.to_device_bytes_per_second if machine.rates else None
    if now < _LINK_SHARE * own or width <= 4:
        text = f"The GPU is linked by PCIe {generation} x{width}, {_gb(now)}, where it could be by {could}: blocks in RAM come slower."
        fix = "Put it into the slot nearest to the processor, or take other cards and drives off its lanes."
        yield Notice(code="slow_link", level="warning", text=text, fix=fix)
    elif reached is not None and reached < _LINK_SHARE * now:
        text = f"Copies to the GPU reach {_gb(reached)} of the {_gb(now)} that PCIe {generation} x{width} can carry."
        yield Notice(
            code="slow_copies", level="warning", text=text, fix="Look for a riser cable, or a link that does not go up under load."
        )


def _of_spilling(machine: Machine) -> Iterator[Notice]:
    if machine.wsl or machine.system.startswith("Windows"):
        text = "Windows' driver moves memory of the GPU into RAM when it is full, instead of failing: a step then takes minutes."
        fix = "In the NVIDIA Control Panel set CUDA - Sysmem Fallback Policy to Prefer No Sysmem Fallback."
        yield Notice(code="driver_spill", level="warning", text=text, fix=fix)


def _of_memory(machine: Machine, told: Forecast) -> Iterator[Notice]:
    if told.host_peak_bytes is not None and told.host_peak_bytes > machine.ram_available_bytes:
        short = told.host_peak_bytes - machine.ram_available_bytes
        free_swap = max(0, machine.swap_total_bytes - machine.swap_used_bytes)
        then = "swap would be used, and steps crawl" if short <= free_swap else "the system would end the run"
        text = f"The run needs {_gib(told.host_peak_bytes)} of RAM, {_gib(machine.ram_available_bytes)} is free: {then}."
        fix = "End other programs, or hold the weights in 8 bits (base_model_precision int8-torchao)."
        yield Notice(code="little_ram", level="warning", text=text, fix=fix)
    if told.pinned_bytes is not None and machine.pinned_limit_bytes is not None and told.pinned_bytes > machine.pinned_limit_bytes:
        why = "Windows lets half of the memory be page-locked" if machine.wsl else "that is all the memory there is"
        text = f"The run would page-lock {_gib(told.pinned_bytes)} for copies, {_gib(machine.pinned_limit_bytes)} can be: {why}."
        fix = "Keep more blocks on the GPU, or raise memory= in .wslconfig." if machine.wsl else "Keep more blocks on the GPU."
        yield Notice(code="pinned_limit", level="warning", text=text, fix=fix)


def _of_samples(told: Forecast, config: TrainConfig, gpu: Gpu | None) -> Iterator[Notice]:
    sample, train = told.sample_peak_bytes, told.train_peak_bytes
    if sample is None or train is None or config.validation_disable:
        return
    free = gpu.free_bytes if gpu is not None else None
    fails = free is not None and sample > free
    if sample <= (train if fails else _MORE_THAN_A_LITTLE * train):
        return
    then = f", of which {_gib(free)} is free: they would be drawn and decoded in parts, or left out" if fails and free is not None else ""
    text = f"Samples need {_gib(sample)} of the GPU{then}, training {_gib(train)}."
    size = f"{config.validation_resolution} and {config.validation_num_video_frames} frames"
    fix = f"Make them smaller than {size}, or set vae_enable_temporal_roll."
    yield Notice(code="samples_need_more", level="warning" if fails else "info", text=text, fix=fix)


def _of_disk(machine: Machine, loaded: LoadedConfig, told: Forecast) -> Iterator[Notice]:
    config = loaded.config
    checkpoint = told.checkpoint_bytes if told.checkpoint_bytes is not None else checkpoint_bytes(loaded)
    sample = told.sample_bytes if told.sample_bytes is not None else _sample_bytes(config)
    cache, free = told.cache_bytes or 0, machine.disk_free_bytes
    if cache > free:
        text = f"The cache needs {_gib(cache)}, {_gib(free)} is free on the disk of {machine.disk_path}."
        yield Notice(code="disk_full", level="warning", text=text, fix="Free some space, or choose another place with --root.")
        return
    last = config.max_train_steps  # 0: epochs decide, and steps are not known yet
    if checkpoint is None or not last or written_bytes(last, config, checkpoint, sample) + cache <= free:
        return
    step = _first_step(config, checkpoint, sample, free - cache)
    kept = f"the last {config.checkpoints_total_limit} of them" if config.checkpoints_total_limit else "all of them"
    text = (
        f"The disk will be full at step {step:,} of {last:,}: {_gib(free)} is free there, a checkpoint takes {_gib(checkpoint)} every "
        f"{config.checkpoint_step_interval or last:,} steps and {kept} are kept."
    )
    yield Notice(code="disk_fills", level="warning", text=text, fix="Free some space, or set a smaller checkpoints_total_limit.")


def written_bytes(step: int, config: TrainConfig, checkpoint: int, sample: int) -> int:
    """Bytes that a run's folder has grown by until a step, the moment counted at which a new checkpoint lies beside the one it replaces."""
    saves = step // config.checkpoint_step_interval if config.checkpoint_step_interval else 0
    saves = max(saves, 1 if step >= config.max_train_steps else 0)
    most = config.checkpoints_total_limit + 1 if config.checkpoints_total_limit else saves
    interval = 0 if config.validation_disable else config.validation_step_interval
    samples = step // interval if interval else 0
    return checkpoint * min(saves, most) + sample * samples


def _first_step(config: TrainConfig, checkpoint: int, sample: int, free: int) -> int:
    """The first step after which more than `free` is written."""
    low, high = 0, config.max_train_steps
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if written_bytes(middle, config, checkpoint, sample) > free else (middle, high)
    return high


def checkpoint_bytes(loaded: LoadedConfig) -> int | None:
    """What a checkpoint of a LoRA on LTX-2's attentions takes; None for other layers, and for nano, whose are too small to matter."""
    config = loaded.config
    if config.pretrained_model_name_or_path == "nano" or config.peft_lora_target_modules is not None:
        return None
    trained = loaded.datasets.videos
    sound_alone = bool(trained) and all(
        dataset.dataset_type == "audio" or (dataset.audio is not None and dataset.audio.audio_only) for dataset in trained
    )
    sound = any(dataset.audio is not None for dataset in trained)
    per_rank = _AUDIO_PER_RANK if sound_alone else _VIDEO_PER_RANK + (_AUDIO_PER_RANK + _CROSS_PER_RANK if sound else 0)
    return per_rank * config.lora_rank * (_CHECKPOINT_BYTES + (_AVERAGE_BYTES if config.use_ema else 0))


def _sample_bytes(config: TrainConfig) -> int:
    height, width = config.validation_size
    return int(height * width * config.validation_num_video_frames * _SAMPLE_BYTES_PER_PIXEL)


def _gib(value: int) -> str:
    return f"{value / GIB:.1f} GiB"


def _gb(rate: float) -> str:
    return f"{rate / 1e9:.1f} GB/s"
