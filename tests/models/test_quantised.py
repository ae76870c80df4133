"""Weights in 8 bits: how exact they are stored (dB), and products with them against plain ones."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, get_args

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ltx2core.models.lora_linear import GroupedLinear, grouped_linear
from ltx2core.models.quantised import (
    GROUP,
    LEAST_SNR_DB,
    EightBit,
    Storage,
    matmul_input_gradient,
    matmul_weight,
    quantise,
    snr_db,
    widen,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

PRECISIONS: tuple[EightBit, ...] = get_args(EightBit)
STORAGES: tuple[Storage, ...] = ("int8", "fp8", "nf4")


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def with_outliers(rows: int = 64, columns: int = 512) -> Tensor:
    """A weight whose rows have one large number each: a scale a row leaves little for the others."""
    weight = random(rows, columns)
    weight[:, 3] = 150.0
    return weight


def test_weights_of_a_bell_curve_keep_their_known_signal_to_noise() -> None:
    """LTX-2's own weights, which are wider and have longer tails, keep 41 dB in int8 by rows, 32 dB in fp8 and 21 dB in nf4."""
    weight = random(512, 1024)
    assert quantise(weight, "int8").snr_db == pytest.approx(42.1, abs=0.5)
    assert quantise(weight, "fp8").snr_db == pytest.approx(31.5, abs=0.5)
    assert quantise(weight, "nf4").snr_db == pytest.approx(20.7, abs=0.3)


def test_rows_give_way_to_groups_only_where_they_lose_too_much() -> None:
    plain, lost = quantise(random(64, 512), "int8"), quantise(with_outliers(), "int8")
    assert plain.scale.ndim == 1
    assert lost.scale.shape == (64, 512 // GROUP)
    by_rows = quantise(with_outliers(), "int8", least_snr_db=-math.inf)
    assert by_rows.scale.ndim == 1
    assert by_rows.snr_db < LEAST_SNR_DB
    assert lost.snr_db > by_rows.snr_db


def test_a_weight_that_no_group_fits_in_stays_in_rows() -> None:
    assert quantise(with_outliers(64, 500), "int8").scale.shape == (64,)  # 500 is no multiple of 128
    assert quantise(with_outliers(64, GROUP), "int8").scale.shape == (64,)  # a group is a row


@pytest.mark.parametrize("storage", STORAGES)
def test_the_signal_to_noise_is_that_of_the_widened_weight(storage: Storage) -> None:
    for weight in (random(64, 512), with_outliers()):
        found = quantise(weight, storage)
        assert found.snr_db == pytest.approx(snr_db(weight, widen(found.weight, found.scale, torch.float32)), abs=1e-3)


@given(st.integers(0, 2**31), st.floats(1e-30, 1e30), st.sampled_from(STORAGES), st.sampled_from([16, 128, 256]))
@settings(max_examples=60, deadline=None)
def test_no_number_moves_by_more_than_its_step(seed: int, size: float, storage: Storage, columns: int) -> None:
    """int8: half a step of its row or group. fp8, with 3 bits of mantissa: 1/16 of itself, or half the smallest step. nf4: half the widest
    gap between levels, 0.304, of its block's largest."""
    weight = random(4, columns, seed=seed) * size
    found = quantise(weight, storage)
    error = (widen(found.weight, found.scale, torch.float32) - weight).abs()
    if storage == "int8":
        steps = found.scale[:, None] if found.scale.ndim == 1 else found.scale.repeat_interleave(GROUP, dim=1)
        assert (error <= 0.5001 * steps).all()
    elif storage == "nf4":
        assert (error <= 0.1521 * found.scale.repeat_interleave(64).view_as(error)).all()
    else:
        assert (error <= torch.maximum(weight.abs() / 16 * 1.001, found.scale[:, None] * 2**-10 * 1.001)).all()


@pytest.mark.parametrize("storage", STORAGES)
def test_rows_of_zeros_and_of_tiny_numbers_stay_what_they_are(storage: Storage) -> None:
    weight = torch.zeros(3, 256)
    weight[1] = 1e-38
    found = quantise(weight, storage)
    wide = widen(found.weight, found.scale, torch.float32)
    assert wide.isfinite().all()
    assert (wide[0] == 0).all()
    assert quantise(torch.zeros(4, 16), storage).snr_db == math.inf


def test_what_is_no_8_bit_storage_is_refused() -> None:
    with pytest.raises(ValueError, match="int8, fp8 or nf4"):
        quantise(random(4, 4), "bf16")


def test_fp8_is_the_same_after_a_way_through_bytes() -> None:
    found = quantise(random(32, 64), "fp8")
    flat = torch.empty(32 * 64, dtype=torch.uint8)
    flat.view(torch.float8_e4m3fn).view(32, 64).copy_(found.weight)
    again = flat.clone().view(torch.float8_e4m3fn).view(32, 64)
    assert torch.equal(widen(again, found.scale, torch.float32), widen(found.weight, found.scale, torch.float32))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("storage", STORAGES)
@pytest.mark.parametrize("make", [lambda: random(96, 256), lambda: with_outliers(96, 256)], ids=["rows", "groups"])
def test_dequant_is_the_layer_that_holds_the_widened_weight_bit_for_bit(
    make: Callable[[], Tensor], storage: Storage, dtype: torch.dtype
) -> None:
    found = quantise(make(), storage)
    wide = widen(found.weight, found.scale, dtype)
    x, grad, bias = random(40, 256, seed=1).to(dtype), random(40, 96, seed=2).to(dtype), random(96, seed=3).to(dtype)
    product = matmul_weight(x, found.weight, found.scale, bias, precision="dequant")
    assert torch.equal(product, torch.nn.functional.linear(x, wide, bias))
    assert torch.equal(matmul_input_gradient(grad, found.weight, found.scale, precision="dequant"), grad @ wide)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("storage", STORAGES)
def test_8_bit_products_are_close_to_those_of_the_stored_weight(storage: Storage, precision: EightBit, bias: bool) -> None:
    """Rounding the input by rows keeps 40 dB in int8; fp8 has no units on a CPU and is widened."""
    found = quantise(random(96, 256), storage)
    x, added = random(40, 256, seed=1), random(96, seed=3) if bias else None
    exact = torch.nn.functional.linear(x, widen(found.weight, found.scale, torch.float32), added)
    product = matmul_weight(x, found.weight, found.scale, added, precision=precision)
    rounds = storage == "int8" and precision != "dequant"
    assert snr_db(exact, product) > 38
    assert torch.equal(product, exact) != rounds
    grad = random(40, 96, seed=2)
    exact_gradient = grad @ widen(found.weight, found.scale, torch.float32)
    assert torch.equal(matmul_input_gradient(grad, found.weight, found.scale, precision=precision), exact_gradient)


def test_weights_in_groups_and_shapes_that_8_bit_units_do_not_take_are_widened() -> None:
    grouped, few, odd = quantise(with_outliers(96, 256), "int8"), quantise(random(96, 256), "int8"), quantise(random(97, 253), "int8")
    for rows, found in ((40, grouped), (16, few), (40, odd)):
        x = random(rows, found.weight.shape[1], seed=1)
        product = matmul_weight(x, found.weight, found.scale, None, precision="w8a8")
        assert torch.equal(product, x @ widen(found.weight, found.scale, torch.float32).t())


def test_rows_of_input_are_rounded_each_by_its_own_scale() -> None:
    """A row a thousand times larger, or of zeros, takes nothing from the others."""
    found = quantise(random(96, 256), "int8")
    x = random(40, 256, seed=1)
    alone = matmul_weight(x, found.weight, found.scale, None, precision="w8a8")
    x = x.clone()
    x[0], x[1] = 1000 * x[0], 0
    product = matmul_weight(x, found.weight, found.scale, None, precision="w8a8")
    assert torch.equal(product[2:], alone[2:])
    torch.testing.assert_close(product[0], 1000 * alone[0], rtol=1e-3, atol=1e-2)
    assert (product[1] == 0).all()
    tiny = matmul_weight(1e-18 * x, found.weight, found.scale, None, precision="w8a8")
    torch.testing.assert_close(1e18 * tiny, product, rtol=1e-4, atol=1e-4)


# Gradient parity: what reaches the layers below, through a stack. One published int8 linear trains with zeros there, silently.


def stack_gradients(linear: Callable[[Tensor, GroupedLinear], Tensor], layers: list[GroupedLinear], x: Tensor) -> list[tuple[Tensor, ...]]:
    """Gradients of A and B of each layer, after three of them with something curved in between."""
    for layer in layers:
        x = x + torch.tanh(linear(x, layer))
    loss = x.square().mean()
    leaves = [leaf for layer in layers for leaf in (layer.lora_a, layer.lora_b)]
    found = torch.autograd.grad(loss, [leaf for leaf in leaves if leaf is not None], allow_unused=True)
    zero = [torch.zeros_like(leaf) if grad is None else grad for grad, leaf in zip(found, leaves, strict=True) if leaf is not None]
    return list(zip(zero[::2], zero[1::2], strict=True))


def layers_of(storage: Storage, precision: EightBit, *, exact: bool = False, outliers: bool = False) -> list[GroupedLinear]:
    """Three layers of 64 with a LoRA. exact: with the widened weights in float32 instead of the stored ones."""
    layers = []
    for seed in range(3):
        layer = GroupedLinear(scale=0.5, precision=precision)
        weight = (with_outliers(256, 256) if outliers else random(256, 256, seed=seed)) / 16
        found = quantise(weight, storage)
        layer.weight, layer.weight_scale = found.weight, found.scale
        if exact:
            layer.weight, layer.weight_scale = widen(found.weight, found.scale, torch.float32), None
        layer.bias = random(256, seed=seed + 10)
        layer.lora_a = (random(8, 256, seed=seed + 20) / 16).requires_grad_()
        layer.lora_b = random(1, 256, 8, seed=seed + 30).requires_grad_()
        layers.append(layer)
    return layers


def parity(linear: Callable[[Tensor, GroupedLinear], Tensor], storage: Storage, precision: EightBit, *, outliers: bool = False) -> float:
    """The worst signal to noise, in dB, of the gradients of three stacked layers, against those of the exact layers."""
    x = random(24, 256, seed=99)
    found = stack_gradients(linear, layers_of(storage, precision, outliers=outliers), x)
    expected = stack_gradients(lambda x, layer: layer(x), layers_of(storage, precision, exact=True, outliers=outliers), x)
    pairs = [(one, other) for ours, theirs in zip(found, expected, strict=True) for one, other in zip(ours, theirs, strict=True)]
    assert len(pairs) == 6
    assert all(float(other.norm()) > 0 for _, other in pairs)
    return min(snr_db(other, one) for one, other in pairs)


def run(x: Tensor, layer: GroupedLinear) -> Tensor:
    return layer(x)  # type: ignore[no-any-return]


@pytest.mark.parametrize("outliers", [False, True], ids=["rows", "groups"])
@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("storage", STORAGES)
def test_every_layer_of_a_stack_gets_the_gradient_that_it_should(storage: Storage, precision: EightBit, outliers: bool) -> None:
    rounds = storage == "int8" and precision != "dequant" and not outliers
    assert parity(run, storage, precision, outliers=outliers) > (25 if rounds else 90)


def test_a_linear_that_gives_no_gradient_to_what_is_below_it_would_be_found() -> None:
    """The mistake that the test above is for: forwards right, the LoRA of the layer itself right, zeros below."""

    def broken(x: Tensor, layer: GroupedLinear) -> Tensor:
        assert layer.weight_scale is not None
        frozen = matmul_weight(x.detach(), layer.weight, layer.weight_scale, layer.bias, precision=layer.precision)
        assert layer.lora_a is not None
        assert layer.lora_b is not None
        return frozen + layer.scale * (x.detach() @ layer.lora_a.t()) @ layer.lora_b[0].t()

    class Zero(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x, layer):  # type: ignore[no-untyped-def]
            frozen = layer.weight, layer.weight_scale, layer.weight_turned, layer.bias
            return grouped_linear(x, *frozen, layer.lora_a, layer.lora_b, layer.scale, layer.precision)[0]

        @staticmethod
        def backward(ctx, grad):  # type: ignore[no-untyped-def]
            return torch.zeros_like(grad), None

    assert parity(broken, "int8", "w8a8") < 10
    assert parity(lambda x, layer: Zero.apply(x, layer) + 0 * layer.lora_a.sum(), "int8", "w8a8") < 10  # type: ignore[no-untyped-call, union-attr]
