"""Layers that share an input as one operation, against a plain linear and low-rank products for each of them (float64, 1e-12)."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from ltx2core.models.lora_linear import GroupedLinear, grouped_linear, grouped_linear_backward

F64 = torch.float64


def make(
    groups: int, *, width: int = 6, columns: int = 10, rank: int = 3, bias: bool = True, lora: bool = True, dtype: torch.dtype = F64
) -> GroupedLinear:
    generator = torch.Generator().manual_seed(groups)

    def random(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator, dtype=F64).to(dtype)

    layer = GroupedLinear(scale=0.25, precision="dequant")
    layer.weight = random(groups * width, columns)
    layer.bias = random(groups * width) if bias else None
    if lora:
        layer.lora_a = random(groups * rank, columns).requires_grad_()
        layer.lora_b = random(groups, width, rank).requires_grad_()
    return layer


def plain(layer: GroupedLinear, x: Tensor) -> Tensor:
    """What the layer computes, member by member."""
    answer = nn.functional.linear(x, layer.weight, layer.bias)
    if layer.lora_a is None or layer.lora_b is None:
        return answer
    groups, _, rank = layer.lora_b.shape
    parts = [x @ layer.lora_a[index * rank : (index + 1) * rank].t() @ layer.lora_b[index].t() for index in range(groups)]
    return answer + layer.scale * torch.cat(parts, dim=-1)


def gradients(layer: GroupedLinear, answer: Tensor, x: Tensor) -> list[Tensor | None]:
    given = torch.linspace(-1, 1, answer.numel(), dtype=answer.dtype).view(answer.shape)
    return list(torch.autograd.grad(answer, [x, *(leaf for leaf in (layer.lora_a, layer.lora_b) if leaf is not None)], given))


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("lora", [True, False])
@pytest.mark.parametrize("groups", [1, 2, 3])
def test_it_is_its_members_side_by_side(groups: int, lora: bool, bias: bool) -> None:
    layer = make(groups, lora=lora, bias=bias)
    x = torch.randn(2, 7, 10, dtype=F64, generator=torch.Generator().manual_seed(9)).requires_grad_()
    found, expected = layer(x), plain(layer, x)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)
    for one, other in zip(gradients(layer, found, x), gradients(layer, expected, x), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-12)


@given(st.integers(1, 4), st.integers(1, 5), st.integers(1, 9), st.integers(1, 6), st.integers(1, 5))
@settings(max_examples=40, deadline=None)
def test_any_shape_will_do(groups: int, width: int, columns: int, rank: int, tokens: int) -> None:
    layer = make(groups, width=width, columns=columns, rank=rank)
    x = torch.randn(tokens, columns, dtype=F64, generator=torch.Generator().manual_seed(1)).requires_grad_()
    found, expected = layer(x), plain(layer, x)
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-10)
    for one, other in zip(gradients(layer, found, x), gradients(layer, expected, x), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-10)


def test_an_input_and_a_gradient_that_are_not_contiguous_are_taken() -> None:
    layer = make(3)
    x = torch.randn(10, 7, 2, dtype=F64, generator=torch.Generator().manual_seed(2)).requires_grad_()
    for answer in (layer(x.transpose(0, 2)), plain(layer, x.transpose(0, 2))):
        query, _, value = answer.chunk(3, dim=-1)
        (query.transpose(0, 1).square().sum() + value.sum()).backward()
    first = x.grad
    assert first is not None
    other = x.detach().clone().requires_grad_()
    query, _, value = plain(layer, other.transpose(0, 2)).chunk(3, dim=-1)
    (query.square().sum() + value.sum()).backward()
    assert other.grad is not None
    torch.testing.assert_close(first, 2 * other.grad)


def test_an_input_that_learns_nothing_gets_no_gradient_and_the_lora_does() -> None:
    layer = make(2)
    x = torch.randn(4, 10, dtype=F64)
    layer(x).sum().backward()
    assert x.grad is None
    assert layer.lora_a is not None
    assert layer.lora_a.grad is not None
    inner, ones = x @ layer.lora_a.t(), torch.ones(4, 12, dtype=F64)
    found = grouped_linear_backward(ones, x, inner, layer.weight, None, None, layer.lora_a, layer.lora_b, 1.0, "dequant", False)
    assert found[0].numel() == 0


def test_what_the_compiler_is_told_of_shapes_is_true() -> None:
    layer = make(2)
    x = torch.randn(4, 10, dtype=F64).requires_grad_()
    for a, b in ((layer.lora_a, layer.lora_b), (None, None)):
        torch.library.opcheck(
            grouped_linear,
            (x, layer.weight, None, None, layer.bias, a, b, 0.5, "dequant"),
            test_utils=("test_schema", "test_faketensor", "test_autograd_registration"),
        )
        low, high = (None if leaf is None else leaf.detach() for leaf in (a, b))
        inner = x.new_empty(0) if low is None else x.detach() @ low.t()
        ones = torch.ones(4, 12, dtype=F64)
        for needs_x in (True, False):
            torch.library.opcheck(
                grouped_linear_backward,
                (ones, x.detach(), inner, layer.weight, None, None, low, high, 0.5, "dequant", needs_x),
                test_utils=("test_schema", "test_faketensor"),
            )


def test_what_waits_for_the_backward_is_the_input_and_the_small_products_alone() -> None:
    """Neither a float32 copy of x, nor y, nor a second copy of the weight."""
    layer = make(3, width=64, columns=128, rank=4, dtype=torch.bfloat16)
    x = torch.randn(32, 128, dtype=torch.bfloat16, requires_grad=True)
    saved: list[Tensor] = []
    with torch.autograd.graph.saved_tensors_hooks(lambda tensor: (saved.append(tensor), tensor)[1], lambda tensor: tensor):
        layer(x)
    own = {tensor.data_ptr() for tensor in (layer.weight, layer.lora_a, layer.lora_b, x) if tensor is not None}
    others = [tensor for tensor in saved if tensor.data_ptr() not in own]
    assert [tuple(tensor.shape) for tensor in others] == [(32, 12)]
    assert all(tensor.dtype == torch.bfloat16 for tensor in saved)


def test_a_weight_that_is_overwritten_before_the_backward_is_an_error_and_no_wrong_gradient() -> None:
    """As a slot of the ring is: who forgot to compute a streamed block again must hear of it."""
    layer = make(1)
    slot = layer.weight.clone()
    layer.weight = slot.view(slot.shape)
    answer = layer(torch.randn(4, 10, dtype=F64).requires_grad_())
    slot.copy_(torch.zeros_like(slot))
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        answer.sum().backward()


def test_bf16_gradients_are_as_near_to_float32_as_the_plain_ones() -> None:
    """Relative to float32: no more than 1.1 times the error of bf16 autograd through the plain formula."""
    exact, rounded = (
        make(3, width=64, columns=128, rank=8, dtype=torch.float32),
        make(3, width=64, columns=128, rank=8, dtype=torch.bfloat16),
    )
    x = torch.randn(256, 128, generator=torch.Generator().manual_seed(4))
    low = x.bfloat16().requires_grad_()
    high = low.detach().float().requires_grad_()
    for name in ("weight", "bias", "lora_a", "lora_b"):
        value = getattr(rounded, name).detach().float()
        setattr(exact, name, value.requires_grad_() if "lora" in name else value)
    true = gradients(exact, plain(exact, high), high)
    ours = gradients(rounded, rounded(low), low)
    usual = gradients(rounded, plain(rounded, low), low)
    for want, found, plainly in zip(true, ours, usual, strict=True):
        assert float((found.float() - want).norm()) <= 1.1 * float((plainly.float() - want).norm())  # type: ignore[union-attr, operator]
