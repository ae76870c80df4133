"""Measuring a device's rates in under ten seconds: products, copies, memory, launches, and a block of LTX-2's own shape.

Loads torch; `rates.py` has what comes back. Each number is the median of as many runs as its share of the time allows, after a warm-up.
"""

from __future__ import annotations

import statistics
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from ltx2core.hardware.rates import BlockTime, Rates

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor, nn

SECONDS = 0.6  # for one number; eight of them and the warm-ups stay under ten
_FP8_CAPABILITY = (8, 9)
_LAUNCHES = 500


@dataclass(frozen=True, slots=True, kw_only=True)
class Sizes:
    """How large what is measured is. product: rows, columns and depth of a square product; eight_bit: [T, K] x [K, N]."""

    product: int
    eight_bit: tuple[int, int, int]
    copy_bytes: int
    video_tokens: int
    audio_tokens: int
    text_tokens: int
    video_width: int
    audio_width: int
    heads: int


# The products are those that facts about LTX-2's speed were measured with; 2,688 tokens are 49 frames of 512 x 768.
GPU_SIZES = Sizes(
    product=8192,
    eight_bit=(6144, 4096, 16384),
    copy_bytes=256 << 20,
    video_tokens=2688,
    audio_tokens=50,
    text_tokens=1024,
    video_width=4096,
    audio_width=2048,
    heads=32,
)
CPU_SIZES = Sizes(
    product=1024,
    eight_bit=(512, 512, 2048),
    copy_bytes=64 << 20,
    video_tokens=256,
    audio_tokens=16,
    text_tokens=64,
    video_width=512,
    audio_width=256,
    heads=8,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """The rates, and what could not be measured, each with the reason."""

    rates: Rates
    notes: tuple[str, ...]


def measure(device: torch.device | None = None, *, sizes: Sizes | None = None, seconds: float = SECONDS) -> Measured:
    """The rates of a device, the first GPU by default and the CPU where there is none. seconds: for each number."""
    device = device or torch.device("cuda" if torch.cuda.is_available() else "cpu")
    bench = _Bench(device, sizes or (GPU_SIZES if device.type == "cuda" else CPU_SIZES), seconds)
    with torch.inference_mode():
        rates = bench.rates()
    if device.type == "cuda":
        torch.cuda.empty_cache()
    return Measured(rates=rates, notes=tuple(bench.notes))


class _Bench:
    def __init__(self, device: torch.device, sizes: Sizes, seconds: float) -> None:
        self.device, self.sizes, self.seconds = device, sizes, seconds
        self.on_gpu = device.type == "cuda"
        self.dtype = torch.bfloat16 if self.on_gpu else torch.float32
        self.notes: list[str] = []

    def rates(self) -> Rates:
        return Rates(
            device=torch.cuda.get_device_name(self.device) if self.on_gpu else _cpu_name(),
            source="measured",
            bf16_flops_per_second=self.product(),
            int8_ops_per_second=self._tried("int8 products", self.int8),
            fp8_flops_per_second=self._tried("fp8 products", self.fp8) if self._has_fp8() else None,
            to_device_bytes_per_second=self._tried("copies from page-locked memory", self.to_device) if self.on_gpu else None,
            memory_bytes_per_second=self.memory(),
            launch_seconds=self.launch(),
            block=self._tried("a block", self.block) if self._has_room() else None,
        )

    def _tried(self, what: str, measure: Callable[[], Any]) -> Any:
        """A number that this device may lack; why is noted, never hidden."""
        try:
            return measure()
        except (RuntimeError, NotImplementedError) as error:
            reason = str(error).strip() or type(error).__name__
            self.notes.append(f"Not measured: {what} ({reason.splitlines()[0][:120]}).")
            return None

    def _has_fp8(self) -> bool:
        return self.on_gpu and torch.cuda.get_device_capability(self.device) >= _FP8_CAPABILITY

    def _has_room(self) -> bool:
        """Whether the block's weights and what it computes fit, twice over."""
        if not self.on_gpu:
            return True
        free, _ = torch.cuda.mem_get_info(self.device)
        if fits := free > 4 << 30:
            return fits
        self.notes.append(f"Not measured: a block (it needs 4 GiB, {free / 2**30:.1f} GiB is free).")
        return False

    def product(self) -> float:
        n = self.sizes.product
        a, b = (torch.randn(n, n, device=self.device, dtype=self.dtype) for _ in range(2))
        return 2 * n**3 / self.time(lambda: a @ b)

    def int8(self) -> float:
        tokens, depth, columns = self.sizes.eight_bit
        a = torch.randint(-127, 127, (tokens, depth), device=self.device, dtype=torch.int8)
        b = torch.randint(-127, 127, (columns, depth), device=self.device, dtype=torch.int8)
        return 2 * tokens * depth * columns / self.time(lambda: torch._int_mm(a, b.t()))

    def fp8(self) -> float:
        """With a scale for each row, as the step engine multiplies."""
        tokens, depth, columns = self.sizes.eight_bit
        a = torch.randn(tokens, depth, device=self.device).to(torch.float8_e4m3fn)
        b = torch.randn(columns, depth, device=self.device).to(torch.float8_e4m3fn)
        rows, row = torch.ones(tokens, 1, device=self.device), torch.ones(1, columns, device=self.device)
        call = lambda: torch._scaled_mm(a, b.t(), scale_a=rows, scale_b=row, out_dtype=torch.bfloat16)  # noqa: E731
        return 2 * tokens * depth * columns / self.time(call)

    def to_device(self) -> float:
        host = torch.empty(self.sizes.copy_bytes, dtype=torch.uint8, pin_memory=True)
        there = torch.empty_like(host, device=self.device)
        return self.sizes.copy_bytes / self.time(lambda: there.copy_(host, non_blocking=True))

    def memory(self) -> float:
        source = torch.zeros(self.sizes.copy_bytes, dtype=torch.uint8, device=self.device)
        there = torch.empty_like(source)
        return 2 * self.sizes.copy_bytes / self.time(lambda: there.copy_(source))

    def launch(self) -> float:
        tiny = torch.zeros(1, device=self.device)

        def many() -> None:
            for _ in range(_LAUNCHES):
                tiny.add_(1)

        return self.time(many) / _LAUNCHES

    def block(self) -> BlockTime:
        block, inputs = ltx2_block(self.sizes, self.device, self.dtype)
        return BlockTime(
            video_tokens=self.sizes.video_tokens,
            audio_tokens=self.sizes.audio_tokens,
            video_width=self.sizes.video_width,
            audio_width=self.sizes.audio_width,
            captured=self.on_gpu,
            seconds=self.time(self._captured(lambda: block(**inputs))),
        )

    def _captured(self, call: Callable[[], object]) -> Callable[[], object]:
        """What gives a GPU the call's kernels all at once, so that the card is timed and not the host that launches them: one that did
        other things, too, took 8.1 ms for a block that an H200 computes in 4.6."""
        if not self.on_gpu:
            return call
        with torch.cuda.device(self.device):
            beside, current = torch.cuda.Stream(), torch.cuda.current_stream()  # type: ignore[no-untyped-call]
            beside.wait_stream(current)
            with torch.cuda.stream(beside):  # what kernels set up at their first call cannot be captured
                for _ in range(2):
                    call()
            current.wait_stream(beside)
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph):
                call()
        return graph.replay

    def time(self, call: Callable[[], object]) -> float:
        """Seconds of a call until its work is done: the median of what fits into this number's time, at least three."""
        for _ in range(2):
            call()
        self._wait()
        runs: list[float] = []
        begin = time.perf_counter()
        while len(runs) < 3 or time.perf_counter() - begin < self.seconds:
            before = time.perf_counter()
            call()
            self._wait()
            runs.append(time.perf_counter() - before)
        return statistics.median(runs)

    def _wait(self) -> None:
        if self.on_gpu:
            torch.cuda.synchronize(self.device)


def ltx2_block(sizes: Sizes, device: torch.device, dtype: torch.dtype) -> tuple[nn.Module, dict[str, Any]]:
    """A block of LTX-2 with random weights, and what it is called with: batch 1, modulation for each sample."""
    from diffusers.models.transformers.transformer_ltx2 import LTX2VideoTransformerBlock

    width, audio_width, heads = sizes.video_width, sizes.audio_width, sizes.heads
    with torch.device("meta"):
        block = LTX2VideoTransformerBlock(
            dim=width,
            num_attention_heads=heads,
            attention_head_dim=width // heads,
            cross_attention_dim=width,
            audio_dim=audio_width,
            audio_num_attention_heads=heads,
            audio_attention_head_dim=audio_width // heads,
            audio_cross_attention_dim=audio_width,
            qk_norm="rms_norm_across_heads",
            rope_type="split",
        )
    block = block.to(dtype).to_empty(device=device).eval().requires_grad_(False)
    for parameter in block.parameters():
        parameter.normal_(std=0.02)
    return block, _block_inputs(sizes, device, dtype)


def _block_inputs(sizes: Sizes, device: torch.device, dtype: torch.dtype) -> dict[str, Any]:
    video, audio = sizes.video_tokens, sizes.audio_tokens
    width, audio_width, heads = sizes.video_width, sizes.audio_width, sizes.heads

    def random(*shape: int) -> Tensor:
        return torch.randn(shape, device=device, dtype=dtype)

    def table(length: int, wide: int) -> tuple[Tensor, Tensor]:
        angle = random(1, heads, length, wide // heads // 2)
        return angle.cos(), angle.sin()

    return {
        "hidden_states": random(1, video, width),
        "audio_hidden_states": random(1, audio, audio_width),
        "encoder_hidden_states": random(1, sizes.text_tokens, width),
        "audio_encoder_hidden_states": random(1, sizes.text_tokens, audio_width),
        "temb": random(1, 1, 6 * width),
        "temb_audio": random(1, 1, 6 * audio_width),
        "temb_ca_scale_shift": random(1, 1, 4 * width),
        "temb_ca_audio_scale_shift": random(1, 1, 4 * audio_width),
        "temb_ca_gate": random(1, 1, width),
        "temb_ca_audio_gate": random(1, 1, audio_width),
        "video_rotary_emb": table(video, width),
        "audio_rotary_emb": table(audio, audio_width),
        "ca_video_rotary_emb": table(video, audio_width),
        "ca_audio_rotary_emb": table(audio, audio_width),
    }


def _cpu_name() -> str:
    from ltx2core.hardware.probe import cpu_name

    return cpu_name()
