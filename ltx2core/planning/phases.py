"""What each phase of a run takes: memory of the card and of the host, part by part, and seconds. Arithmetic on shapes; loads no torch.

Memory is what the process holds at the phase's peak. Coefficients were measured on an H100 with LTX-2 2.0's true sizes: docs/BENCHMARKS.md
has the runs and their commands. Sizes scale with pixels and frames, seconds with the card's rates.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from ltx2core.hardware.device_memory import CONTEXT_BYTES
from ltx2core.hardware.limits import locked_for
from ltx2core.models.text_memory import TextBytes, choose_placement
from ltx2core.planning import vae_sizes
from ltx2core.planning.host_plan import STAGING_BYTES
from ltx2core.planning.step_memory import GIB, step_bytes

if TYPE_CHECKING:
    from ltx2core.hardware.rates import Rates
    from ltx2core.models.text_memory import TextSettings
    from ltx2core.models.vae_levers import VaeLevers
    from ltx2core.offload.masters import Waiting
    from ltx2core.planning.clips import ClipShape
    from ltx2core.planning.job import Version
    from ltx2core.planning.samples import SampleShape
    from ltx2core.planning.step_plan import StepNeed, StepPlan
    from ltx2core.planning.step_time import StepSpeed
    from ltx2core.validation.decode_ways import DecodeWay

PhaseName = Literal["text", "encode", "train", "sample", "decode"]

# Host memory of a process on a machine with a GPU, beside what is counted: 1.5 to 1.9 GiB while latents are encoded, 2.04 with the text
# encoder on the card and 2.9 beside a streamed one, 2.45 to 2.57 in training with sound and 1.94 to 1.96 without (36 presets on H200s),
# 0.2 to 0.8 more where clips come with a given frame and without (9 on H100s).
_PROCESS_BYTES = int(1.65 * GIB)
_CAPTION_BYTES = {False: int(0.39 * GIB), True: int(1.24 * GIB)}  # more with captions: on the card, streamed
_COMPILER_BYTES = {True: int(0.86 * GIB), False: int(0.3 * GIB)}  # more once blocks were compiled: with sound, without
_COMPILED_AGAIN_BYTES = int(0.4 * GIB)

# Gemma3-12B and the connectors of each version, weighed on the meta device by models/text_memory.py; a test weighs them again. 2.5's Gemma4
# has the same width and depth.
_GEMMA = {"layers": 21_518_303_232, "largest_layer": 448_297_984, "embedding": 2_013_757_440}
_GEMMA_INT8 = {"layers": 10_768_859_136, "largest_layer": 224_351_232, "embedding": 2_013_757_440}
_CONNECTORS = {"2.0": (2_862_950_400, 1_445_068_800), "2.3": (6_344_455_168, 1_541_414_912), "2.5": (6_344_455_168, 1_541_414_912)}
_STATES, _TEXT_ACTIVATIONS = 385_351_680, 243_793_920
_TEXT_RESERVE = GIB // 2
# 14.0 s for 16 captions and two prompts with Gemma on the card, its 23.5 GB read at what a disk gives; 0.13 s a caption of 1,024 tokens.
_READ_BYTES_A_SECOND = 2.0e9
_CAPTION_SECONDS = 0.13

_NEXT_CLIP_BYTES = 3.0  # a pixel: the next clip is copied while one is encoded
_ENCODER_BUSY = 0.887  # of the pass over clips, 16 decoders beside it
_AHEAD_BYTES = 4 * GIB  # of decoded clips that wait at most, or an eighth of what is free (caching/passes.py)

_AHEAD_CLIPS = 16  # where it is not known how many there are
# A process that decodes: 45 MB with its libraries, 118 after a 768x512 clip of 49 frames (55 MB) of a 720p file, 198 after one of 121 (136
# MB), 389 after 1280x704 of 1080p (312 MB): the clip, a twentieth more, and this. Of larger files it holds some frames: 30 MB at 1080p.
_DECODER_BYTES, _DECODER_CLIPS = 60 << 20, 1.05
_MOST_DECODERS = 16  # caching/ahead.py

# A sample is drawn without the compiler. diffusers' 48 blocks take 0.64 s a forward however few tokens there are, since the host launches
# their kernels one by one: a quarter of the 2.57 s of its eager step (forward, forward again, and a backward of twice as many). With many
# tokens the kernels themselves count: 0.91 s of a step where compiled ones are 0.58.
_LAUNCHED_BLOCK_SECONDS = 0.0134
_UNCOMPILED = 1.57
_LAUNCH_SECONDS = 6e-6  # on that machine
# cuBLAS's workspaces, what the blocks' kernels keep, the sound's decoder: 0.70 GiB at the peak of decoding at once beside weights, the
# LoRA's state and the VAE, 0.5 to 0.65 in parts, and 0.44 to 0.47 without sound (43 runs of presets on H200s).
_SAMPLE_BESIDE_BYTES = {True: 65 * GIB // 100, False: 45 * GIB // 100}  # with sound, without
_DRAWING_RESERVE = GIB // 5  # what lies idle while a sample is drawn and is in no other part: 0.27 to 0.47 GiB in six of these runs in all
_FRAME_BYTES = 9.2  # of host memory, a pixel of a sample: as the VAE gives it, as bytes, and on its way into a file
_SAMPLE_FILE_SECONDS = 2.5  # loading decoders, writing the video

_START_SECONDS = 37.0  # importing 23, compiling 14; reading weights comes on top: 51.5 s from a run's first line to its first step
_EXPORT_SECONDS = 5.0
_SAVE_BYTES_A_SECOND = 1.0e9


@dataclass(frozen=True, slots=True, kw_only=True)
class Phase:
    """vram, ram: bytes by part, at the phase's peak. seconds: of all of the phase in a run, all its clips or samples; None: not known."""

    name: PhaseName
    vram: dict[str, int]
    ram: dict[str, int]
    seconds: float | None

    @property
    def vram_bytes(self) -> int:
        return sum(self.vram.values())

    @property
    def ram_bytes(self) -> int:
        return sum(self.ram.values())


def text_bytes(version: Version, *, int8: bool) -> TextBytes:
    """What the text path of a released version weighs."""
    connectors, largest = _CONNECTORS[version]
    gemma = _GEMMA_INT8 if int8 else _GEMMA
    return TextBytes(**gemma, connectors=connectors, largest_connector=largest, states=_STATES, activations=_TEXT_ACTIVATIONS)


def text_phase(
    version: Version, settings: TextSettings, *, free_bytes: int, ram_bytes: int, captions: int | None, rates: Rates
) -> tuple[Phase, str]:
    """Encoding captions, and a sentence on where the text encoder lies. Raises DoesNotFit."""
    need = text_bytes(version, int8=settings.int8)
    room = max(0, ram_bytes - _PROCESS_BYTES - _CAPTION_BYTES[True])
    placement = choose_placement(need, settings=settings, free_device_bytes=free_bytes - CONTEXT_BYTES, free_host_bytes=room)
    ram = {"process": _PROCESS_BYTES + _CAPTION_BYTES[placement.streamed]}
    if placement.streamed:
        vram = {"text encoder, in turn": need.streamed_on_device}
        ram["text encoder"] = need.on_host
        link = rates.to_device_bytes_per_second or rates.memory_bytes_per_second
        each = max(_seconds(_CAPTION_SECONDS, rates), (need.layers + need.connectors) / link)
    else:
        vram = {"text encoder": need.layers + need.embedding, "connectors": need.connectors}
        vram["hidden states"] = 5 * need.states + need.activations
        each = _seconds(_CAPTION_SECONDS, rates)
    reading = need.on_host * (2 if settings.int8 else 1) / _READ_BYTES_A_SECOND
    vram |= {"CUDA context": CONTEXT_BYTES} | ({} if placement.streamed else {"reserve": _TEXT_RESERVE})
    seconds = None if captions is None else reading + (captions + 2) * each
    return Phase(name="text", vram=vram, ram=ram, seconds=seconds), placement.because


def encode_phase(
    version: Version,
    clip: ClipShape,
    levers: VaeLevers,
    *,
    together: int,
    audio: bool,
    clips: int | None,
    ram_bytes: int,
    cores: int | None,
    rates: Rates,
) -> Phase:
    """Encoding clips to latents. together: clips of one batch. cores: None for as many as decoders can use."""
    at_once = 1 if levers.slicing else together
    activations = at_once * vae_sizes.activations(version, "encode", clip, levers)
    weights = vae_sizes.WEIGHTS[version]["encode"]
    vram = {"VAE encoder": weights, "activations": activations, "next clip": int(_NEXT_CLIP_BYTES * clip.megapixels * 1e6)}
    if together > at_once:
        vram["clips of the batch"] = int((together - at_once) * vae_sizes.CLIP_BYTES * clip.megapixels * 1e6)
    vram |= {"CUDA context": CONTEXT_BYTES, "reserve": vae_sizes.reserve("encode", activations)}
    frames = int(3 * clip.megapixels * 1e6)
    ahead, count = min(_AHEAD_BYTES, ram_bytes // 8), _AHEAD_CLIPS if clips is None else max(1, clips)
    locked = locked_for(frames)
    decoders = max(1, min(cores or _MOST_DECODERS, _MOST_DECODERS, count, ahead // locked))
    ram = {
        "process": _PROCESS_BYTES,
        "decoded clips": locked * max(1, min(ahead // locked, count)),
        "decoders": int(decoders * (_DECODER_BYTES + _DECODER_CLIPS * frames)),
    }
    each = vae_sizes.seconds("encode", clip, levers, rates) / _ENCODER_BUSY + (0.1 if audio else 0.0)  # 1.6 s for the sound of 16 clips
    return Phase(name="encode", vram=vram, ram=ram, seconds=None if clips is None else clips * each)


def train_phase(
    need: StepNeed, plan: StepPlan, *, waiting: Waiting, steps: int | None, evaluations: float, speed: StepSpeed, saves: int
) -> Phase:
    """Training itself. plan: with its seconds; evaluations: forwards of the held-out loss, all together; saves: checkpoints."""
    vram = step_bytes(need, plan.layout).parts
    vram["CUDA context"] = CONTEXT_BYTES
    seconds = None
    if steps is not None and plan.seconds is not None:
        weights = need.num_blocks * need.block_bytes + need.outside_bytes
        measuring = evaluations * need.num_blocks * speed.forward
        saving = saves * 12 * need.lora_numbers / _SAVE_BYTES_A_SECOND
        start = _START_SECONDS + weights / _READ_BYTES_A_SECOND
        seconds = start + steps * plan.seconds + measuring + saving + _EXPORT_SECONDS
    return Phase(name="train", vram=vram, ram=host_bytes(need, plan, waiting=waiting), seconds=seconds)


def host_bytes(need: StepNeed, plan: StepPlan, *, waiting: Waiting) -> dict[str, int]:
    """Host memory while training. Pages of files that the system keeps are not counted: it drops them when it needs to."""
    ram = {"process": _PROCESS_BYTES, "compiler": _COMPILER_BYTES[need.joint] + need.given * _COMPILED_AGAIN_BYTES}
    if plan.streamed and waiting != "disk":
        ram["blocks that travel"] = plan.streamed * need.block_bytes
    if plan.inputs_to_host:
        ram["inputs of blocks"] = (need.num_blocks - plan.kept) * need.inputs_bytes
    if waiting != "locked":
        ram["staging"] = STAGING_BYTES
    return ram


def locked_bytes(ram: dict[str, int]) -> int:
    """What of `host_bytes` is locked for copies."""
    return sum(ram.get(part, 0) for part in ("blocks that travel", "inputs of blocks"))


def forward_seconds(need: StepNeed, plan: StepPlan, *, speed: StepSpeed, rates: Rates, turns: int = 1) -> float:
    """Of a forward with the training engine's own weights, as samples are drawn. speed: of the forward's own samples; turns: in which
    these go through a block."""
    launched = turns * _LAUNCHED_BLOCK_SECONDS * rates.launch_seconds / _LAUNCH_SECONDS
    computed = need.num_blocks * max(_UNCOMPILED * speed.forward, launched)
    if not plan.streamed:
        return computed
    loads = max(0, plan.streamed - plan.slots) * need.block_bytes / (speed.link or float("inf"))
    return computed + loads if plan.slots == 1 else max(computed, loads)


def sample_phase(need: StepNeed, plan: StepPlan, sample: SampleShape, *, scratch: int, drawing: float, ram: dict[str, int]) -> Phase:
    """Drawing samples. scratch: bytes of the largest forward; drawing: seconds of all forwards of a run's samples."""
    vram = _held(need, plan) | {"scratch": scratch, "CUDA context": CONTEXT_BYTES, "reserve": _DRAWING_RESERVE}
    return Phase(name="sample", vram=vram, ram=dict(ram), seconds=drawing + sample.count * _SAMPLE_FILE_SECONDS)


def decode_phase(
    need: StepNeed, plan: StepPlan, version: Version, sample: SampleShape, way: DecodeWay, *, ram: dict[str, int], rates: Rates
) -> Phase:
    """Decoding samples beside the weights, whose graphs and activations are dropped before, or with these away from the card."""
    activations = max(vae_sizes.activations(version, "decode", size, way.levers) for size in sample.sizes)
    held, lent = _held(need, plan), 0
    if way.alone:
        lent = held.pop("blocks", 0)
        held.pop("transposed blocks", None)  # made anew from these
        held.pop("ring", None)  # filled anew
    vram = held | {"VAE decoder": vae_sizes.WEIGHTS[version]["decode"], "activations": activations, "CUDA context": CONTEXT_BYTES}
    vram["reserve"] = vae_sizes.reserve("decode", activations)
    frames = int(_FRAME_BYTES * max(size.megapixels for size in sample.sizes) * 1e6)
    ram = {**ram, "frames": frames} | ({"weights meanwhile": lent} if lent else {})
    seconds = sample.times * sample.each * sum(vae_sizes.seconds("decode", size, way.levers, rates) for size in sample.sizes)
    return Phase(name="decode", vram=vram, ram=ram, seconds=seconds)


def _held(need: StepNeed, plan: StepPlan) -> dict[str, int]:
    """What of training stays on the card while a sample is made."""
    parts = step_bytes(need, plan.layout).parts
    held = ("blocks", "ring", "transposed blocks", "outside the blocks", "LoRA and optimizer")
    return {name: parts[name] for name in held if name in parts} | {"workspaces": _SAMPLE_BESIDE_BYTES[need.joint]}


def _seconds(measured: float, rates: Rates) -> float:
    """On a card of other rates than the one that was measured."""
    return measured * vae_sizes.MEASURED_FLOPS / rates.bf16_flops_per_second
