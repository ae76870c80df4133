"""Measures what each lever of the video VAE costs and saves: peak memory, seconds, and how far its values are from the whole's.

    python tests/benchmarks/vae_memory.py --device cuda                     # the released shape, 121x704x1280, bf16
    python tests/benchmarks/vae_memory.py                                   # released widths, one layer a block, 49x256x384, float32
    python tests/benchmarks/vae_memory.py --device cuda --version 2.3.0 --halves encode

Weights are random. Prints one JSON line a half and lever. `peak_gib` has weights in it, of that half alone, as the cache loads it: on a GPU
what the allocator handed out at most; on the CPU the tensors alive at most, without what a kernel takes for itself. `max_error` and
`rms_error` are against the same clip at once, over the largest value and over the RMS of its values; `max_rounding` and `rms_rounding`
are what computing at once in this precision costs against float32.
"""

from __future__ import annotations

import argparse
import json
import time
from typing import TYPE_CHECKING, Any

import torch
from diffusers import AutoencoderKLLTX2Video
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from ltx2core.models import header, vae_chunks
from ltx2core.models.latents import SPATIAL, TEMPORAL, decode_video, encode_video
from ltx2core.models.released import released_config
from ltx2core.models.vae_levers import VaeLevers

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

GIB = 2**30
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
RUNS: dict[str, tuple[int, VaeLevers]] = {  # clips together, and the levers
    "none": (1, VaeLevers()),
    "tiling": (1, VaeLevers(tiling=True)),
    "patch_conv": (1, VaeLevers(patch_conv=True)),
    "temporal_roll": (1, VaeLevers(temporal_roll=True)),
    "patch_conv + temporal_roll": (1, VaeLevers(patch_conv=True, temporal_roll=True)),
    "tiling + patch_conv + temporal_roll": (1, VaeLevers(tiling=True, patch_conv=True, temporal_roll=True)),
    "none, 2 clips": (2, VaeLevers()),
    "slicing, 2 clips": (2, VaeLevers(slicing=True)),
}


class LiveBytes(TorchDispatchMode):
    """The most bytes of tensors made inside the block that were alive at once."""

    def __init__(self) -> None:
        super().__init__()
        self.peak = 0
        self._alive: dict[int, tuple[StorageWeakRef, int]] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(result):
            if isinstance(tensor, torch.Tensor):
                storage = tensor.untyped_storage()
                self._alive[storage._cdata] = (StorageWeakRef(storage), storage.nbytes())
        self._alive = {key: entry for key, entry in self._alive.items() if not entry[0].expired()}
        self.peak = max(self.peak, sum(size for _, size in self._alive.values()))
        return result


def build(version: str, *, layers: int, half: str, dtype: torch.dtype, device: str) -> AutoencoderKLLTX2Video:
    """A VAE of a release's shape with random weights; layers: that many a block, 0 for as many as it has."""
    arguments = header.video_vae_arguments(released_config(version))
    if layers:
        for name in ("layers_per_block", "decoder_layers_per_block"):
            arguments[name] = (layers,) * len(arguments[name])
    torch.manual_seed(0)
    with torch.device(device):
        vae = AutoencoderKLLTX2Video(**arguments).to(dtype)
    setattr(vae, "decoder" if half == "encode" else "encoder", None)
    vae.eval().requires_grad_(False)
    return vae


def run(work: Callable[[], Tensor], *, device: str, given: int) -> tuple[Tensor, float, float]:
    """(result on the CPU, peak GiB, seconds). given: bytes of weights and input that are there before."""
    if device == "cpu":
        with LiveBytes() as live:
            begin = time.perf_counter()
            result = work()
            seconds = time.perf_counter() - begin
        return result, (live.peak + given) / GIB, seconds
    work()  # cuDNN is loaded and chooses
    torch.cuda.empty_cache()
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    begin = time.perf_counter()
    result = work()
    torch.cuda.synchronize()
    seconds = time.perf_counter() - begin
    return result.cpu(), torch.cuda.max_memory_allocated() / GIB, seconds


def errors(found: Tensor, expected: Tensor) -> tuple[float, float]:
    """(largest difference over the largest value, RMS of the difference over the RMS of the values)."""
    difference = (found - expected).abs()
    return float(difference.max() / expected.abs().max()), float(difference.square().mean().sqrt() / expected.square().mean().sqrt())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--version", default="2.0.0")
    parser.add_argument("--frames", type=int)
    parser.add_argument("--height", type=int)
    parser.add_argument("--width", type=int)
    parser.add_argument("--layers", type=int, help="layers a block; 0: as many as the release has")
    parser.add_argument("--window-mib", type=int, help="of the chunked levers; on the CPU as many frames of this size as on the GPU")
    parser.add_argument("--dtype", choices=tuple(DTYPES))
    parser.add_argument("--halves", nargs="+", choices=("encode", "decode"), default=["encode", "decode"])
    parser.add_argument("--levers", nargs="+", choices=tuple(RUNS), default=list(RUNS))
    options = parser.parse_args()
    on_gpu = options.device == "cuda"
    frames, height, width = options.frames or (121 if on_gpu else 49), options.height or (704 if on_gpu else 256), options.width or 0
    width = width or (1280 if on_gpu else 384)
    layers = options.layers if options.layers is not None else (0 if on_gpu else 1)
    dtype = DTYPES[options.dtype or ("bf16" if on_gpu else "fp32")]
    torch.backends.cudnn.allow_tf32 = False
    window = options.window_mib or (vae_chunks.WINDOW_BYTES >> 20 if on_gpu else 24)
    vae_chunks.WINDOW_BYTES, vae_chunks.PATCH_BYTES = window << 20, window << 18
    for half in options.halves:
        measure(options, half, frames=frames, height=height, width=width, layers=layers, dtype=dtype)


def measure(options: argparse.Namespace, half: str, *, frames: int, height: int, width: int, layers: int, dtype: torch.dtype) -> None:
    device = options.device
    generator = torch.Generator().manual_seed(1)
    if half == "encode":
        clips = torch.randint(0, 256, (2, 3, frames, height, width), generator=generator, dtype=torch.uint8)
    else:
        clips = torch.randn(2, 128, (frames - 1) // TEMPORAL + 1, height // SPATIAL, width // SPATIAL, generator=generator)
    clips = clips.pin_memory() if device == "cuda" else clips
    apply = encode_video if half == "encode" else decode_video

    def at_once(dtype: torch.dtype) -> Tensor:
        return apply(build(options.version, layers=layers, half=half, dtype=dtype, device=device), clips[:1]).cpu()

    expected = at_once(dtype)
    rounding = errors(expected, at_once(torch.float32)) if dtype != torch.float32 else (0.0, 0.0)
    vae = build(options.version, layers=layers, half=half, dtype=dtype, device=device)
    weights = sum(parameter.numel() * parameter.element_size() for parameter in vae.parameters())
    for name in options.levers:
        count, levers = RUNS[name]
        given = clips[:count]

        def work(given: Tensor = given, levers: VaeLevers = levers) -> Tensor:
            return apply(vae, given, levers=levers)

        result, peak, seconds = run(work, device=device, given=weights + given.numel() * given.element_size())
        max_error, rms_error = errors(result[:1], expected)
        line = {
            "benchmark": "vae_memory",
            "half": half,
            "lever": name,
            "peak_gib": round(peak, 2),
            "reserved_gib": round(torch.cuda.max_memory_reserved() / GIB, 2) if device == "cuda" else None,
            "seconds": round(seconds, 3),
            "max_error": float(f"{max_error:.3g}"),
            "rms_error": float(f"{rms_error:.3g}"),
            "max_rounding": float(f"{rounding[0]:.3g}"),
            "rms_rounding": float(f"{rounding[1]:.3g}"),
            "weights_gib": round(weights / GIB, 2),
            "clip": f"{width}x{height}@{frames}",
            "version": options.version,
            "layers": layers or "all",
            "dtype": str(dtype).removeprefix("torch."),
            "device": torch.cuda.get_device_name() if device == "cuda" else "cpu",
        }
        print(json.dumps(line), flush=True)


if __name__ == "__main__":
    main()
