"""Frozen weights in 8 or 4 bits, and products with them: int8 by rows or groups, fp8 (e4m3) by rows, nf4 by blocks. torch alone.

Stored: int8 with a float32 scale for each row, [N], or for each 128 numbers of a row, [N, K / 128], where one scale a row would lose
too much (SNR below 36 dB); or float8_e4m3fn with a scale a row; or two nf4 levels in a byte (nf4.py), which are only ever widened. On
LTX-2's own weights int8 by rows keeps 41 dB, fp8 32 dB, nf4 21 dB.

Three ways to multiply. `dequant`: the weight becomes bf16 for each product; exact for what is stored. `w8a8`: the input is rounded to 8
bits by rows as well and the product runs on the 8-bit units; the gradient of the input is computed in bf16, so that a LoRA below learns
as well as ever (libraries whose 8-bit linear has no backward train with zeros, silently). `w8a8_full`: that gradient in fp8 too, its rows
rounded after they are multiplied by the weight's scales; fp8 weights only, int8 ones are as in `w8a8`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache
from typing import Literal

import torch
from torch import Tensor, nn

from ltx2core.models.nf4 import quantise_nf4, widen_nf4

Storage = Literal["bf16", "int8", "fp8", "nf4"]
EightBit = Literal["dequant", "w8a8", "w8a8_full"]
STORED: dict[Storage, torch.dtype] = {"bf16": torch.bfloat16, "int8": torch.int8, "fp8": torch.float8_e4m3fn, "nf4": torch.uint8}
GROUP = 128
LEAST_SNR_DB = 36.0  # below it a scale a row gives way to one a group
_FEWEST_ROWS = 17  # _int_mm takes no fewer rows of input
_INT8_MOST = 127.0
_FP8_MOST = 448.0
_LEAST_SCALE = torch.finfo(torch.float32).tiny  # a smaller one may be taken for 0, and be divided by
_LEAST_ROW = 1e-30  # what a row of input is taken for when it is 0


@dataclass(frozen=True, slots=True)
class Quantised:
    """A weight [N, K] in 8 bits with its scales [N] or [N, K / 128], or [N, K / 2] bytes of nf4 with [N K / 64], and how far it is from
    the original. Scales are float32."""

    weight: Tensor
    scale: Tensor
    snr_db: float


def quantise(weight: Tensor, storage: Storage, *, least_snr_db: float = LEAST_SNR_DB) -> Quantised:
    """The weight in fewer bits. int8 goes from rows to groups of 128 where rows lose too much. Waits for the device: for loading only."""
    if storage == "nf4":
        return Quantised(*quantise_nf4(weight))
    full = weight.float()
    if storage == "fp8":
        scale = (full.abs().amax(dim=1) / _FP8_MOST).clamp(min=_LEAST_SCALE)
        stored = (full / scale[:, None]).clamp(-_FP8_MOST, _FP8_MOST).to(torch.float8_e4m3fn)
        return Quantised(stored, scale, snr_db(full, stored.float() * scale[:, None]))
    if storage != "int8":
        raise ValueError(f"expected int8, fp8 or nf4, got {storage}")
    stored, scale = _to_int8(full)
    found = snr_db(full, stored.float() * scale[:, None])
    if found >= least_snr_db or full.shape[1] % GROUP or full.shape[1] == GROUP:
        return Quantised(stored, scale, found)
    grouped, scales = _to_int8(full.view(-1, GROUP))
    stored, scale = grouped.view_as(full), scales.view(full.shape[0], -1)
    return Quantised(stored, scale, snr_db(full, widen(stored, scale, torch.float32)))


def snr_db(original: Tensor, stored: Tensor) -> float:
    """Signal to noise of a stored weight, in dB."""
    noise = (original.float() - stored.float()).square().sum()
    signal = original.float().square().sum()
    return math.inf if float(noise) == 0 else float(10 * torch.log10(signal / noise))


def widen(weight: Tensor, scale: Tensor | None, dtype: torch.dtype) -> Tensor:
    """The weight [N, K] in a float type."""
    if scale is None:
        return weight.to(dtype)
    if weight.dtype == torch.uint8:
        return widen_nf4(weight, scale, dtype)
    if weight.is_cuda:
        from ltx2core.models.kernels import widen_rows

        return widen_rows(weight, scale, dtype)
    return _widen(weight, scale, dtype)


def columns_of(weight: Tensor) -> int:
    """K of a stored weight [N, K]: the width of what it is multiplied with."""
    return weight.shape[1] * (2 if weight.dtype == torch.uint8 else 1)


def matmul_weight(x: Tensor, weight: Tensor, scale: Tensor | None, bias: Tensor | None, *, precision: str) -> Tensor:
    """x W^T + b: [T, N] in the type of x [T, K]. precision: an EightBit, for weights that have scales; nf4 is widened whatever it is."""
    if scale is None:
        return nn.functional.linear(x, weight, bias)
    by_rows = scale.ndim == 1 and weight.dtype != torch.uint8
    if precision != "dequant" and by_rows and (product := _eight_bit_product(x, weight, scale, bias)) is not None:
        return product
    return nn.functional.linear(x, widen(weight, scale, x.dtype), bias)


def matmul_input_gradient(grad: Tensor, weight: Tensor, scale: Tensor | None, turned: Tensor | None = None, *, precision: str) -> Tensor:
    """grad W: [T, K] for grad [T, N]. turned: W transposed [K, N], which saves turning it each time where that is needed."""
    if scale is None:
        return grad @ weight
    if precision == "w8a8_full" and scale.ndim == 1 and _multiplies_fp8(grad, weight):
        from ltx2core.models.kernels import round_rows, transpose_bytes

        rounded, levels = round_rows(grad, torch.float8_e4m3fn, scale)
        if turned is None:
            turned = transpose_bytes(weight)  # the unit takes both operands along the axis that is summed over
        ones = _ones(weight.shape[1], grad.device)
        product: Tensor = torch._scaled_mm(
            rounded, turned.t(), scale_a=levels[:, None], scale_b=ones, out_dtype=grad.dtype, use_fast_accum=True
        )
        return product
    return grad @ widen(weight, scale, grad.dtype)


@cache
def _ones(width: int, device: torch.device) -> Tensor:
    """[1, width] of 1, made once: a step asks for them 900 times."""
    return torch.ones(1, width, device=device)


def _multiplies_fp8(x: Tensor, weight: Tensor) -> bool:
    """Whether the card's fp8 units take this product: rows scaled one by one come out in bf16 only, from multiples of 16."""
    fits = x.dtype == torch.bfloat16 and not any(size % 16 for size in weight.shape)
    return weight.dtype == torch.float8_e4m3fn and fits and x.is_cuda and has_fp8(x.device.index or 0)


def _eight_bit_product(x: Tensor, weight: Tensor, scale: Tensor, bias: Tensor | None) -> Tensor | None:
    """The product on 8-bit units; None where the card, or the shape, has none."""
    if weight.dtype == torch.float8_e4m3fn:
        if not _multiplies_fp8(x, weight):
            return None
        rounded, levels = _rows(x, torch.float8_e4m3fn)
        within = bias is not None and _adds_bias(x.shape[0], *weight.shape, x.dtype, x.device)
        product = _fp8_product(rounded, weight, levels, scale, bias if within else None, x.dtype)
        return product if bias is None or within else product.add_(bias)
    if x.shape[0] < _FEWEST_ROWS or x.shape[1] % 8 or weight.shape[0] % 8:
        return None
    rounded, levels = _rows(x, torch.int8)
    return _rescale(torch._int_mm(rounded, weight.t()), levels, scale, bias, x.dtype)


def _fp8_product(x: Tensor, weight: Tensor, levels: Tensor, scale: Tensor, bias: Tensor | None, dtype: torch.dtype) -> Tensor:
    product: Tensor = torch._scaled_mm(
        x, weight.t(), scale_a=levels[:, None], scale_b=scale[None, :], bias=bias, out_dtype=dtype, use_fast_accum=True
    )
    return product


@cache
def _adds_bias(rows: int, width: int, inner: int, dtype: torch.dtype, device: torch.device) -> bool:
    """Whether the product can add the bias itself: cuBLAS has no such kernel for some small shapes. Found out once a shape."""
    x, weight = (torch.zeros(size, inner, dtype=torch.float8_e4m3fn, device=device) for size in (rows, width))
    levels, scale = torch.ones(rows, device=device), torch.ones(width, device=device)
    try:
        _fp8_product(x, weight, levels, scale, torch.zeros(width, dtype=dtype, device=device), dtype)
    except RuntimeError:
        return False
    return True


@cache
def has_fp8(device: int) -> bool:
    """Whether the card multiplies fp8 (Ada and later)."""
    return torch.cuda.get_device_capability(device) >= (8, 9)


def _to_int8(full: Tensor) -> tuple[Tensor, Tensor]:
    scale = (full.abs().amax(dim=1) / _INT8_MOST).clamp(min=_LEAST_SCALE)
    return (full / scale[:, None]).round().clamp(-_INT8_MOST, _INT8_MOST).to(torch.int8), scale


def _widen(weight: Tensor, scale: Tensor, dtype: torch.dtype) -> Tensor:
    if scale.ndim == 1:
        return (weight.float() * scale[:, None]).to(dtype)
    grouped = weight.view(weight.shape[0], scale.shape[1], -1).float() * scale[:, :, None]
    return grouped.view(weight.shape).to(dtype)


def _rows(x: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """x [T, K] in 8 bits, and a scale for each row [T]."""
    if x.is_cuda:
        from ltx2core.models.kernels import round_rows

        return round_rows(x, dtype)
    most = _INT8_MOST if dtype == torch.int8 else _FP8_MOST
    full = x.float()
    level = full.abs().amax(dim=1).clamp(min=_LEAST_ROW) / most
    scaled = full / level[:, None]
    return (scaled.round() if dtype == torch.int8 else scaled).clamp(-most, most).to(dtype), level


def _rescale(whole: Tensor, levels: Tensor, scale: Tensor, bias: Tensor | None, dtype: torch.dtype) -> Tensor:
    if whole.is_cuda:
        from ltx2core.models.kernels import rescale

        return rescale(whole, levels, scale, bias, dtype)
    product = whole.float() * levels[:, None] * scale
    return (product if bias is None else product + bias.float()).to(dtype)
