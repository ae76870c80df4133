"""Weights in 4 bits: NormalFloat, 16 levels at the quantiles of a bell curve, scaled by the largest of each 64 numbers.

The format is that of bitsandbytes without double quantisation (QLoRA, arXiv 2305.14314, appendix E), to the last bit, but nothing of it is
needed: rounding is done here in torch, widening in torch or, on a card, by one Triton kernel. (Its own kernel for CPUs, up to 0.50.2 at
least, gives wrong numbers for rows that are no multiple of 64 wide.) Blocks run on through a matrix, row after row, so that matrices of
one height lie below one another as if they were one. 0.5625 bytes a number; on LTX-2's weights 21 dB, where int8 keeps 41.
"""

from __future__ import annotations

import math
from functools import cache

import torch
from torch import Tensor

BLOCK = 64  # numbers that share a scale
_LOWER = (-1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453, -0.28444138169288635, -0.18477343022823334)
_MIDDLE = (-0.09105003625154495, 0.0, 0.07958029955625534, 0.16093020141124725)
_UPPER = (0.24611230194568634, 0.33791524171829224, 0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1.0)
LEVELS = (*_LOWER, *_MIDDLE, *_UPPER)
_LEAST_SCALE = torch.finfo(torch.float32).tiny  # what a block of zeros is divided by
_PIECE_BLOCKS = 1 << 16  # rounded at a time: 4 M numbers, so that a large matrix takes no memory of its size


def fits(rows: int, columns: int) -> bool:
    """Whether a matrix divides into whole blocks; one that does not stays as it is."""
    return columns % 2 == 0 and rows * columns % BLOCK == 0


def quantise_nf4(weight: Tensor) -> tuple[Tensor, Tensor, float]:
    """The levels of a weight [N, K], two in a byte (uint8 [N, K / 2], the first in the high half), the scales of its blocks, float32
    [N K / 64], and its signal to noise in dB. Raises ValueError unless N K is a multiple of 64 and K of 2. Waits for the device."""
    rows, columns = weight.shape
    if not fits(rows, columns):
        raise ValueError(f"[{rows}, {columns}] does not divide into blocks of {BLOCK}")
    blocks = weight.reshape(-1, BLOCK)
    packed = torch.empty(rows, columns // 2, dtype=torch.uint8, device=weight.device)
    scale = torch.empty(blocks.shape[0], device=weight.device)
    signal, noise = (torch.zeros((), dtype=torch.float64, device=weight.device) for _ in range(2))
    levels, between = _levels(weight.device), _between(weight.device)
    for piece, into, most in zip(*(torch.split(each, _PIECE_BLOCKS) for each in (blocks, packed.view(-1, BLOCK // 2), scale)), strict=True):
        full = piece.float()
        most.copy_(full.abs().amax(dim=1))
        codes = torch.bucketize(full / most.clamp(min=_LEAST_SCALE)[:, None], between, out_int32=True)
        into.copy_(codes[:, ::2] << 4 | codes[:, 1::2])
        signal += full.square().sum()
        noise += (levels[codes] * most[:, None] - full).square().sum()
    return packed, scale, math.inf if float(noise) == 0 else 10 * math.log10(float(signal / noise))


def widen_nf4(weight: Tensor, scale: Tensor, dtype: torch.dtype) -> Tensor:
    """The weight [N, K] in a float type."""
    if weight.is_cuda:
        from ltx2core.models.kernels import widen_levels

        return widen_levels(weight, scale, _levels(weight.device), dtype)
    pairs = _pairs(weight.device)[weight.view(-1, BLOCK // 2).int()]  # [blocks, 32, 2]
    return (pairs.view(-1, BLOCK) * scale[:, None]).to(dtype).view(weight.shape[0], -1)


@cache
def _levels(device: torch.device) -> Tensor:
    with torch.inference_mode(False):  # kept for every later use, with gradients or without
        return torch.tensor(LEVELS, device=device)


@cache
def _between(device: torch.device) -> Tensor:
    """The 15 borders of the levels: half way."""
    with torch.inference_mode(False):
        levels = _levels(device)
        return (levels[1:] + levels[:-1]) / 2


@cache
def _pairs(device: torch.device) -> Tensor:
    """What each byte stands for: [256, 2]."""
    with torch.inference_mode(False):
        levels, byte = _levels(device), torch.arange(256, device=device)
        return torch.stack([levels[byte >> 4], levels[byte & 15]], dim=1)
