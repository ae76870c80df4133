"""A linear layer with a LoRA, or several that share one input, as one operation with a backward of its own.

    y_g = x W_g^T + b_g + scale (x A_g^T) B_g^T        g: the members of the group, such as to_q, to_k and to_v

One matrix product for the frozen weights of all members, one for all A; what B gives is added where the product lies already, and
neither the gradient of W nor a float32 copy of x is ever made. W may be stored in 8 or 4 bits (quantised.py): it is widened for each
product, or multiplied as it is.

A's product and B's gradients are short and limited by memory: they run on a CUDA stream beside the long product, in the gaps that its last
tiles leave.

The two operations are registered with torch so that the compiler takes each as a whole: left to itself it would add B's product in a
pass of its own over the result.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from ltx2core.models.quantised import EightBit, columns_of, matmul_input_gradient, matmul_weight

if TYPE_CHECKING:
    from collections.abc import Iterator
LEAVES = ("weight", "weight_scale", "weight_turned", "bias", "lora_a", "lora_b")
"""The tensors of a GroupedLinear."""

_streams: dict[tuple[int, int], torch.cuda.Stream] = {}  # beside each stream that products run on


@contextmanager
def beside(device: torch.device) -> Iterator[None]:
    """Run what is inside on a stream beside the current one, of which it sees all that came before, until `join_beside`. Tensors that it
    writes must be allocated before. On a CPU: here."""
    if device.type != "cuda":
        yield
        return
    current = torch.cuda.current_stream(device)
    key = current.device_index, current.cuda_stream
    if key not in _streams:
        _streams[key] = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
    _streams[key].wait_stream(current)
    with torch.cuda.stream(_streams[key]):
        yield


def join_beside(device: torch.device) -> None:
    """Have the current stream wait for what runs beside it."""
    if device.type == "cuda":
        current = torch.cuda.current_stream(device)
        current.wait_stream(_streams[current.device_index, current.cuda_stream])


@torch.library.custom_op("ltx2::grouped_linear", mutates_args=())
def grouped_linear(
    x: Tensor,
    weight: Tensor,
    weight_scale: Tensor | None,
    turned: Tensor | None,
    bias: Tensor | None,
    lora_a: Tensor | None,
    lora_b: Tensor | None,
    scale: float,
    precision: str,
) -> tuple[Tensor, Tensor]:
    """y [T, G N] and the inner products x A^T [T, G r] that its backward needs (empty without a LoRA).

    x: [T, K]. weight: [G N, K], bf16 or 8 bits with weight_scale [G N] or [G N, K / group], or nf4 [G N, K / 2] with [G N K / 64].
    turned: its transpose [K, G N], for its backward, where memory has room for it. bias: [G N]. lora_a: [G r, K]. lora_b: [G, N, r].
    precision: of the products with a weight of 8 bits, as in quantised.py.
    """
    if lora_a is None or lora_b is None:
        return matmul_weight(x, weight, weight_scale, bias, precision=precision), x.new_empty(0)
    inner = x.new_empty(x.shape[0], lora_a.shape[0])
    with beside(x.device):
        torch.mm(x, lora_a.t(), out=inner)
    y = matmul_weight(x, weight, weight_scale, bias, precision=precision)
    join_beside(x.device)
    groups, width, rank = lora_b.shape
    if groups == 1:
        y.addmm_(inner, lora_b[0].t(), alpha=scale)
    else:
        y.view(-1, groups, width).transpose(0, 1).baddbmm_(
            inner.view(-1, groups, rank).transpose(0, 1), lora_b.transpose(1, 2), alpha=scale
        )
    return y, inner


@grouped_linear.register_fake
def _(
    x: Tensor,
    weight: Tensor,
    weight_scale: Tensor | None,
    turned: Tensor | None,
    bias: Tensor | None,
    lora_a: Tensor | None,
    lora_b: Tensor | None,
    scale: float,
    precision: str,
) -> tuple[Tensor, Tensor]:
    inner = x.new_empty(0) if lora_a is None else x.new_empty(x.shape[0], lora_a.shape[0])
    return x.new_empty(x.shape[0], weight.shape[0]), inner


@torch.library.custom_op("ltx2::grouped_linear_backward", mutates_args=())
def grouped_linear_backward(
    grad: Tensor,
    x: Tensor,
    inner: Tensor,
    weight: Tensor,
    weight_scale: Tensor | None,
    turned: Tensor | None,
    lora_a: Tensor | None,
    lora_b: Tensor | None,
    scale: float,
    precision: str,
    needs_x: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of x [T, K], A [G r, K] and B [G, N, r]; empty where there is none to give."""
    grad = grad.contiguous()
    if lora_a is None or lora_b is None:
        grad_x = matmul_input_gradient(grad, weight, weight_scale, turned, precision=precision) if needs_x else grad.new_empty(0)
        return grad_x, grad.new_empty(0), grad.new_empty(0)  # no two answers may share memory, not even empty ones
    groups, width, rank = lora_b.shape
    grad_inner, grad_a, grad_b = torch.empty_like(inner), torch.empty_like(lora_a), torch.empty_like(lora_b)
    with beside(grad.device):
        if groups == 1:  # plain products: half the launches of batched ones
            torch.mm(grad, lora_b[0], out=grad_inner)
            torch.addmm(lora_b[0], grad.t(), inner, beta=0, alpha=scale, out=grad_b[0])
        else:
            split = grad.view(-1, groups, width).transpose(0, 1)  # [G, T, N]
            inner_split = inner.view(-1, groups, rank).transpose(0, 1)
            torch.bmm(split, lora_b, out=grad_inner.view(-1, groups, rank).transpose(0, 1))
            torch.baddbmm(lora_b, split.transpose(1, 2), inner_split, beta=0, alpha=scale, out=grad_b)
        torch.addmm(lora_a, grad_inner.t(), x, beta=0, alpha=scale, out=grad_a)
    grad_x = matmul_input_gradient(grad, weight, weight_scale, turned, precision=precision) if needs_x else grad.new_empty(0)
    join_beside(grad.device)
    if needs_x:
        grad_x.addmm_(grad_inner, lora_a, alpha=scale)
    return grad_x, grad_a, grad_b


@grouped_linear_backward.register_fake
def _(
    grad: Tensor,
    x: Tensor,
    inner: Tensor,
    weight: Tensor,
    weight_scale: Tensor | None,
    turned: Tensor | None,
    lora_a: Tensor | None,
    lora_b: Tensor | None,
    scale: float,
    precision: str,
    needs_x: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    grad_x = grad.new_empty(grad.shape[0], columns_of(weight)) if needs_x else grad.new_empty(0)
    if lora_a is None or lora_b is None:
        return grad_x, grad.new_empty(0), grad.new_empty(0)
    return grad_x, torch.empty_like(lora_a), torch.empty_like(lora_b)


# What waits for the backward: x and x A^T, both in the model's precision. The weight is saved as the view that it is: a slot of the ring
# that was overwritten since raises there instead of giving wrong gradients.
def _remember(ctx, inputs, output) -> None:  # type: ignore[no-untyped-def]
    x, weight, weight_scale, turned, _, lora_a, lora_b, scale, precision = inputs
    ctx.save_for_backward(x if lora_a is not None else None, output[1], weight, weight_scale, turned, lora_a, lora_b)
    ctx.scale, ctx.precision = scale, precision


def _backward(ctx, grad: Tensor, _grad_inner: Tensor | None) -> tuple[Tensor | None, ...]:  # type: ignore[no-untyped-def]
    x, inner, weight, weight_scale, turned, lora_a, lora_b = ctx.saved_tensors
    needs_x = ctx.needs_input_grad[0]
    grad_x, grad_a, grad_b = grouped_linear_backward(
        grad, x if x is not None else grad, inner, weight, weight_scale, turned, lora_a, lora_b, ctx.scale, ctx.precision, needs_x
    )
    of_lora = (grad_a, grad_b) if lora_a is not None else (None, None)
    return grad_x if needs_x else None, None, None, None, None, *of_lora, None, None


grouped_linear.register_autograd(_backward, setup_context=_remember)


class GroupedLinear(nn.Module):
    """Linear layers that read one input, their weights one below the other. Holds no values: weights are pointed at before each use.

    Buffers, not parameters: the compiler then takes them as inputs, and one compiled block serves all.
    """

    weight: Tensor
    weight_scale: Tensor | None
    weight_turned: Tensor | None
    bias: Tensor | None
    lora_a: Tensor | None
    lora_b: Tensor | None

    def __init__(self, *, scale: float, precision: EightBit) -> None:
        super().__init__()
        for name in LEAVES:
            self.register_buffer(name, None)
        self.scale, self.precision = scale, precision

    def forward(self, x: Tensor) -> Tensor:
        """[..., K] to [..., G N]."""
        if self.lora_a is None and self.weight_scale is None:
            return nn.functional.linear(x, self.weight, self.bias)
        rows = x.reshape(-1, x.shape[-1])
        frozen = self.weight, self.weight_scale, self.weight_turned, self.bias
        y, _ = grouped_linear(rows, *frozen, self.lora_a, self.lora_b, self.scale, self.precision)
        shaped: Tensor = y.view(*x.shape[:-1], -1)
        return shaped
