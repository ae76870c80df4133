"""Triton kernels around weights of 8 and 4 bits: each one pass over memory where torch alone takes two or three.

Only imported for a CUDA tensor. The same maths in plain torch is in quantised.py and nf4.py and is what these are tested against.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

_INT8_MOST = 127.0
_FP8_MOST = 448.0


@triton.jit
def _widen_kernel(weight, scale, out, columns, group, BLOCK: tl.constexpr):  # noqa: N803
    row = tl.program_id(0).to(tl.int64)
    place = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    inside = place < columns
    level = tl.load(scale + row * (columns // group) + place // group, mask=inside, other=0.0)
    value = tl.load(weight + row * columns + place, mask=inside, other=0.0).to(tl.float32)
    tl.store(out + row * columns + place, (value * level).to(out.dtype.element_ty), mask=inside)


def widen_rows(weight: Tensor, scale: Tensor, dtype: torch.dtype) -> Tensor:
    """weight [N, K] x scale, [N] or [N, K / group], in dtype."""
    rows, columns = weight.shape
    out = torch.empty(rows, columns, dtype=dtype, device=weight.device)
    group = columns if scale.ndim == 1 else columns // scale.shape[1]
    block = 2048
    _widen_kernel[(rows, triton.cdiv(columns, block))](weight, scale, out, columns, group, BLOCK=block)
    return out


@triton.jit
def _widen_levels_kernel(packed, scale, levels, out, count, PER_SCALE: tl.constexpr, BLOCK: tl.constexpr):  # noqa: N803
    place = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    inside = place < count
    byte = tl.load(packed + place, mask=inside, other=0).to(tl.int32)
    scaled = tl.load(scale + place // PER_SCALE, mask=inside, other=0.0)
    high = tl.load(levels + (byte >> 4)) * scaled
    low = tl.load(levels + (byte & 15)) * scaled
    # side by side again, so that the store is one run of memory
    both = tl.program_id(0).to(tl.int64) * BLOCK * 2 + tl.arange(0, BLOCK * 2)
    tl.store(out + both, tl.interleave(high, low).to(out.dtype.element_ty), mask=both < 2 * count)


def widen_levels(weight: Tensor, scale: Tensor, levels: Tensor, dtype: torch.dtype) -> Tensor:
    """weight [N, K / 2], two of 16 levels in a byte, x scale [N K / block], in dtype [N, K]."""
    rows, half = weight.shape
    out = torch.empty(rows, 2 * half, dtype=dtype, device=weight.device)
    count, block = rows * half, 1024
    _widen_levels_kernel[(triton.cdiv(count, block),)](weight, scale, levels, out, count, PER_SCALE=count // scale.numel(), BLOCK=block)
    return out


@triton.jit
def _round_kernel(x, scale, out, levels, columns, MOST: tl.constexpr, WHOLE: tl.constexpr, SCALED: tl.constexpr, BLOCK: tl.constexpr):  # noqa: N803
    row = tl.program_id(0).to(tl.int64)
    place = tl.arange(0, BLOCK)
    inside = place < columns
    value = tl.load(x + row * columns + place, mask=inside, other=0.0).to(tl.float32)
    if SCALED:
        value = value * tl.load(scale + place, mask=inside, other=0.0)
    level = tl.maximum(tl.max(tl.abs(value), axis=0), 1e-30) / MOST
    scaled = value / level
    if WHOLE:
        scaled = tl.extra.libdevice.rint(scaled)
    scaled = tl.minimum(tl.maximum(scaled, -MOST), MOST)
    tl.store(out + row * columns + place, scaled.to(out.dtype.element_ty), mask=inside)
    tl.store(levels + row, level)


def round_rows(x: Tensor, dtype: torch.dtype, scale: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """x [T, K], times scale [K] if one is given, in int8 or fp8, and the scale of each row, float32 [T]."""
    x = x.contiguous()
    rows, columns = x.shape
    out = torch.empty(rows, columns, dtype=dtype, device=x.device)
    levels = torch.empty(rows, dtype=torch.float32, device=x.device)
    whole = dtype == torch.int8
    block = triton.next_power_of_2(columns)
    _round_kernel[(rows,)](
        x,
        levels if scale is None else scale,
        out,
        levels,
        columns,
        MOST=_INT8_MOST if whole else _FP8_MOST,
        WHOLE=whole,
        SCALED=scale is not None,
        BLOCK=block,
        num_warps=8 if block > 4096 else 4,
    )
    return out, levels


@triton.jit
def _transpose_kernel(source, out, rows, columns, TILE: tl.constexpr):  # noqa: N803
    row = tl.program_id(0) * TILE + tl.arange(0, TILE)
    column = tl.program_id(1) * TILE + tl.arange(0, TILE)
    inside = (row[:, None] < rows) & (column[None, :] < columns)
    tile = tl.load(source + row[:, None].to(tl.int64) * columns + column[None, :], mask=inside, other=0)
    tl.store(
        out + column[:, None].to(tl.int64) * rows + row[None, :], tl.trans(tile), mask=(column[:, None] < columns) & (row[None, :] < rows)
    )


def transpose_bytes(weight: Tensor) -> Tensor:
    """A matrix [N, K] of 8-bit numbers as [K, N], in memory too."""
    rows, columns = weight.shape
    out = torch.empty(columns, rows, dtype=torch.uint8, device=weight.device)
    tile = 128
    _transpose_kernel[(triton.cdiv(rows, tile), triton.cdiv(columns, tile))](
        weight.view(torch.uint8), out, rows, columns, TILE=tile, num_warps=8
    )
    return out.view(weight.dtype)


@triton.jit
def _rescale_kernel(whole, levels, scale, bias, out, columns, BIASED: tl.constexpr, BLOCK: tl.constexpr):  # noqa: N803
    row = tl.program_id(0).to(tl.int64)
    place = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    inside = place < columns
    value = tl.load(whole + row * columns + place, mask=inside, other=0).to(tl.float32)
    value = value * tl.load(levels + row) * tl.load(scale + place, mask=inside, other=0.0)
    if BIASED:
        value = value + tl.load(bias + place, mask=inside, other=0.0).to(tl.float32)
    tl.store(out + row * columns + place, value.to(out.dtype.element_ty), mask=inside)


def rescale(whole: Tensor, levels: Tensor, scale: Tensor, bias: Tensor | None, dtype: torch.dtype) -> Tensor:
    """An int32 product [T, N] times the scales of its rows [T] and columns [N], plus bias [N], in dtype."""
    rows, columns = whole.shape
    out = torch.empty(rows, columns, dtype=dtype, device=whole.device)
    block = 1024
    grid = (rows, triton.cdiv(columns, block))
    _rescale_kernel[grid](whole, levels, scale, scale if bias is None else bias, out, columns, BIASED=bias is not None, BLOCK=block)
    return out
