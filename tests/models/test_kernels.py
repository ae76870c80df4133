"""Triton kernels and fp8 products against plain torch. They need a card, and nothing else: pytest -m gpu tests/models/test_kernels.py"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from step_engine import ALL_ATTENTIONS, block_inputs, fuse, random_block
from torch import Tensor

from ltx2core.models.quantised import (
    EightBit,
    Storage,
    has_fp8,
    matmul_input_gradient,
    matmul_weight,
    quantise,
    snr_db,
    widen,
)

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")]
BF16, F32 = torch.bfloat16, torch.float32
SHAPES = [(1, 1), (3, 5), (64, 128), (33, 160), (100, 4096), (7, 5000)]


def random(*shape: int, seed: int = 0, dtype: torch.dtype = F32) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to("cuda", dtype)


def needs_fp8() -> None:
    if not has_fp8(torch.cuda.current_device()):
        pytest.skip("this card does not multiply fp8")


@pytest.mark.parametrize("dtype", [BF16, F32])
@pytest.mark.parametrize("shape", [(64, 1), (4, 160), (33, 64), (100, 4096), (7, 5120)])
def test_widening_levels_of_4_bits_is_bit_for_bit_that_of_torch(shape: tuple[int, int], dtype: torch.dtype) -> None:
    weight = random(*shape) if shape[1] > 1 else random(64, 2)
    found = quantise(weight, "nf4")
    on_host = quantise(weight.cpu(), "nf4")
    assert torch.equal(found.scale.cpu(), on_host.scale)
    assert (found.weight.cpu() != on_host.weight).float().mean() < 1e-4  # a quotient whose last bit differs at a border
    assert torch.equal(widen(found.weight, found.scale, dtype).cpu(), widen(found.weight.cpu(), found.scale.cpu(), dtype))


@pytest.mark.parametrize("dtype", [BF16, F32])
@pytest.mark.parametrize("storage", ["int8", "fp8"])
@pytest.mark.parametrize("shape", SHAPES)
def test_widening_is_bit_for_bit_that_of_torch(shape: tuple[int, int], storage: Storage, dtype: torch.dtype) -> None:
    found = quantise(random(*shape), storage)
    expected = widen(found.weight.cpu(), found.scale.cpu(), dtype)
    assert torch.equal(widen(found.weight, found.scale, dtype).cpu(), expected)


def test_widening_by_groups_is_too() -> None:
    weight = random(64, 1024)
    weight[:, 3] = 200.0
    found = quantise(weight, "int8")
    assert found.scale.shape == (64, 8)
    assert torch.equal(widen(found.weight, found.scale, BF16).cpu(), widen(found.weight.cpu(), found.scale.cpu(), BF16))


@pytest.mark.parametrize("dtype", [torch.int8, torch.float8_e4m3fn])
@pytest.mark.parametrize("shape", SHAPES)
def test_rows_are_rounded_as_torch_rounds_them(shape: tuple[int, int], dtype: torch.dtype) -> None:
    """But for a division whose last bit differs: a few in a thousand may be a step apart. A row of zeros stays one."""
    from ltx2core.models.kernels import round_rows
    from ltx2core.models.quantised import _rows

    x = random(*shape, dtype=BF16)
    x[0] = 0
    rounded, levels = round_rows(x, dtype)
    expected, expected_levels = _rows(x.cpu(), dtype)
    torch.testing.assert_close(levels.cpu(), expected_levels, rtol=1e-6, atol=0)
    different = rounded.cpu().float() != expected.float()
    assert float(different.float().mean()) <= 5e-3
    step = 1.0 if dtype == torch.int8 else 32.0
    assert float((rounded.cpu().float() - expected.float()).abs().max()) <= step
    assert (rounded[0].float() == 0).all()


def test_rows_can_be_multiplied_by_scales_before_they_are_rounded() -> None:
    from ltx2core.models.kernels import round_rows

    x, scale = random(40, 160), random(160, seed=1).abs()
    rounded, levels = round_rows(x, torch.float8_e4m3fn, scale)
    assert snr_db(x * scale, rounded.float() * levels[:, None]) > 28


@pytest.mark.parametrize("shape", SHAPES)
def test_bytes_are_transposed(shape: tuple[int, int]) -> None:
    from ltx2core.models.kernels import transpose_bytes

    weight = random(*shape).to(torch.float8_e4m3fn)
    found = transpose_bytes(weight)
    assert found.is_contiguous()
    assert torch.equal(found.view(torch.uint8), weight.view(torch.uint8).t())


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("shape", SHAPES)
def test_whole_products_are_scaled_back(shape: tuple[int, int], bias: bool) -> None:
    from ltx2core.models.kernels import rescale

    rows, columns = shape
    whole = torch.randint(-(10**6), 10**6, shape, dtype=torch.int32, device="cuda")
    levels, scale, added = random(rows).abs(), random(columns, seed=1).abs(), random(columns, seed=2) if bias else None
    expected = whole.float() * levels[:, None] * scale + (0 if added is None else added)
    torch.testing.assert_close(rescale(whole, levels, scale, added, F32), expected, rtol=1e-5, atol=1e-2)


@pytest.mark.parametrize("rows", [17, 40, 2688])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize(("storage", "decibels"), [("int8", 36.0), ("fp8", 26.0)])
def test_8_bit_products_are_close_to_those_of_the_stored_weight(storage: Storage, decibels: float, bias: bool, rows: int) -> None:
    if storage == "fp8":
        needs_fp8()
    found = quantise(random(96, 256), storage)
    x, added = random(rows, 256, seed=1, dtype=BF16), random(96, seed=3, dtype=BF16) if bias else None
    exact = torch.nn.functional.linear(x.float(), widen(found.weight, found.scale, F32), None if added is None else added.float())
    for precision in ("w8a8", "w8a8_full"):
        product = matmul_weight(x, found.weight, found.scale, added, precision=precision)
        assert product.dtype == BF16
        assert snr_db(exact, product) > decibels


@pytest.mark.parametrize(("storage", "precision", "decibels"), [("int8", "w8a8_full", 45), ("fp8", "w8a8", 45), ("fp8", "w8a8_full", 26)])
def test_input_gradients_are_bf16_or_fp8_as_the_precision_says(storage: Storage, precision: EightBit, decibels: float) -> None:
    if storage == "fp8":
        needs_fp8()
    found, grad = quantise(random(96, 256), storage), random(40, 96, seed=1, dtype=BF16) * 1e-6
    exact = grad.float() @ widen(found.weight, found.scale, F32)
    assert snr_db(exact, matmul_input_gradient(grad, found.weight, found.scale, precision=precision)) > decibels


@pytest.mark.parametrize("shape", [(97, 253), (96, 250), (40, 256)])
@pytest.mark.parametrize("dtype", [BF16, F32])
def test_sizes_and_types_that_fp8_units_do_not_take_are_widened(shape: tuple[int, int], dtype: torch.dtype) -> None:
    found = quantise(random(*shape), "fp8")
    x, grad = random(5, shape[1], seed=1, dtype=dtype), random(5, shape[0], seed=2, dtype=dtype)
    wide = widen(found.weight, found.scale, F32)
    for precision in ("w8a8", "w8a8_full"):
        product = matmul_weight(x, found.weight, found.scale, None, precision=precision)
        gradient = matmul_input_gradient(grad, found.weight, found.scale, precision=precision)
        assert product.dtype == gradient.dtype == dtype
        assert snr_db(x.float() @ wide.t(), product) > 26
        assert snr_db(grad.float() @ wide, gradient) > 26


ROUNDINGS = [*((storage, precision) for storage in ("int8", "fp8") for precision in ("dequant", "w8a8", "w8a8_full")), ("nf4", "dequant")]
LEAST_DB = {"int8": 18, "fp8": 9, "nf4": 2}  # of the worst leaf, of about 60; a gradient of 0 has 0 dB
TOGETHER_DB = {"int8": 25, "fp8": 15, "nf4": 8}  # of all of them


@pytest.mark.parametrize(("storage", "precision"), ROUNDINGS)
def test_the_lora_of_a_rounded_block_learns_as_one_in_bf16_does(storage: Storage, precision: EightBit) -> None:
    """Gradients of every A and B through three stacked blocks, against float32 on the same card."""
    if storage == "fp8":
        needs_fp8()
    blocks = [random_block(seed=seed) for seed in range(3)]
    inputs = block_inputs(tokens=24, audio_tokens=20)
    low = [
        fuse(block, targets=ALL_ATTENTIONS, storage=storage, precision=precision, dtype=BF16, device=torch.device("cuda"))
        for block in blocks
    ]
    high = [fuse(block, targets=ALL_ATTENTIONS, dtype=F32, device=torch.device("cuda")) for block in blocks]
    for stack, dtype in ((low, BF16), (high, F32)):
        cast = {name: on_card(value, dtype) for name, value in inputs.items()}
        video, audio = cast.pop("hidden_states"), cast.pop("audio_hidden_states")
        for fused in stack:
            video, audio = fused.skeleton.block(hidden_states=video, audio_hidden_states=audio, **cast)
        (video.float().square().mean() + audio.float().square().mean()).backward()
    exact, found = [], []
    for one, other in zip(low, high, strict=True):
        for name, leaf in other.leaves.items():
            grad = one.leaves[name].grad
            assert leaf.grad is not None
            assert grad is not None
            assert float(leaf.grad.norm()) > 0
            assert snr_db(leaf.grad, grad) > LEAST_DB[storage]
            exact.append(leaf.grad.flatten())
            found.append(grad.float().flatten())
    assert snr_db(torch.cat(exact), torch.cat(found)) > TOGETHER_DB[storage]


def on_card(value: Tensor | tuple[Tensor, ...], dtype: torch.dtype) -> Any:
    """Rotary tables, which come in pairs, stay in float32 as the model makes them."""
    return tuple(part.cuda() for part in value) if isinstance(value, tuple) else value.to("cuda", dtype)
