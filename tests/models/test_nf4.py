"""Weights in 4 bits: the levels, their order in bytes, the blocks, and that it is bitsandbytes' format where that is installed."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from ltx2core.models.nf4 import BLOCK, LEVELS, fits, quantise_nf4, widen_nf4

F32 = torch.float32


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def plain(weight: Tensor) -> Tensor:
    """The nearest level of each number, times the largest of its block, one block after another."""
    levels = torch.tensor(LEVELS)
    blocks = []
    for block in weight.reshape(-1, BLOCK):
        most = block.abs().max()
        nearest = (block[:, None] / most - levels).abs().argmin(dim=1)
        blocks.append(levels[nearest] * most)
    return torch.cat(blocks).view(weight.shape)


def test_the_levels_are_the_quantiles_of_a_bell_curve() -> None:
    """Eight of its positive half, seven of its negative one and 0, the outermost left at the same small chance (arXiv 2305.14314)."""
    outermost = 0.9677083
    upper, lower = (torch.special.ndtri(torch.linspace(outermost, 0.5, count, dtype=torch.float64))[:-1] for count in (9, 8))
    expected = torch.cat([-lower, torch.zeros(1, dtype=torch.float64), upper.flip(0)]) / upper[0]
    torch.testing.assert_close(torch.tensor(LEVELS, dtype=torch.float64), expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("shape", [(8, 64), (8, 160), (3, 128), (160, 2)])
def test_every_number_becomes_the_nearest_level_of_its_block(shape: tuple[int, int]) -> None:
    """Blocks run on from row to row, as those of 160 numbers show."""
    weight = random(*shape)
    packed, scale, snr = quantise_nf4(weight)
    assert packed.shape == (shape[0], shape[1] // 2)
    assert scale.shape == (weight.numel() // BLOCK,)
    wide = widen_nf4(packed, scale, F32)
    assert torch.equal(wide, plain(weight))
    noise = (wide - weight).double().square().sum() / weight.double().square().sum()
    assert snr == pytest.approx(-10 * float(noise.log10()), abs=1e-3)


def test_the_first_of_two_numbers_is_in_the_high_half_of_their_byte() -> None:
    weight = torch.zeros(1, BLOCK)
    weight[0, 0], weight[0, 3] = 1.0, -1.0
    packed, scale, snr = quantise_nf4(weight)
    assert packed[0, :3].tolist() == [0xF7, 0x70, 0x77]  # the largest level, 0, 0, the smallest, 0, 0
    assert scale.tolist() == [1.0]
    assert snr == float("inf")


def test_a_large_weight_is_rounded_in_pieces_to_the_same_bits(monkeypatch: pytest.MonkeyPatch) -> None:
    weight = random(96, 64)
    whole = quantise_nf4(weight)
    monkeypatch.setattr("ltx2core.models.nf4._PIECE_BLOCKS", 7)
    pieces = quantise_nf4(weight)
    assert torch.equal(whole[0], pieces[0])
    assert torch.equal(whole[1], pieces[1])
    assert whole[2] == pytest.approx(pieces[2], abs=1e-6)


@given(st.integers(1, 300), st.integers(1, 300))
@settings(max_examples=60, deadline=None)
def test_what_does_not_divide_into_blocks_is_refused_and_all_else_is_taken(rows: int, columns: int) -> None:
    weight = random(rows, columns)
    if fits(rows, columns):
        packed, scale, _ = quantise_nf4(weight)
        assert widen_nf4(packed, scale, F32).shape == weight.shape
        return
    with pytest.raises(ValueError, match="blocks of 64"):
        quantise_nf4(weight)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_it_is_the_format_of_bitsandbytes(dtype: torch.dtype) -> None:
    """Scales and widened weights to the last bit; a number half way between two levels may go to either.

    Rows are multiples of 64 wide here: its kernel for CPUs gives other numbers than its format says for those that are not (0.50.2).
    """
    functional = pytest.importorskip("bitsandbytes.functional")
    weight = random(96, 256).to(dtype)
    theirs, state = functional.quantize_4bit(weight, blocksize=BLOCK, quant_type="nf4")
    packed, scale, _ = quantise_nf4(weight)
    assert torch.equal(scale, state.absmax)
    ours = torch.stack([packed >> 4, packed & 15], dim=-1).view(weight.shape).int()
    other = torch.stack([theirs >> 4, theirs & 15], dim=-1).view(weight.shape).int()
    assert (ours - other).abs().max() <= 1
    assert (ours != other).float().mean() < 1e-3
    assert torch.equal(widen_nf4(theirs.view(96, 128), state.absmax, dtype), functional.dequantize_4bit(theirs, state))
