"""Self-attention as an operation of its own, whose answer can outlive a block that is computed a second time.

    out = softmax(q k^T / sqrt(d)) v,   lse = log sum exp of the rows of q k^T / sqrt(d)

Its backward needs q, k, v, out and lse; q, k and v come cheaply from the block's input, out is what costs. So a block that is computed
again for its backward may be given out and lse from the first time: `attend_kept` then multiplies nothing. They are as wide as the
block's input, an eighth of all that a block keeps, and save a fifth of a long clip's second forward.

Kernels are PyTorch's own (cuDNN, FlashAttention, its CPU kernel), called by name so that lse is at hand.
"""

from __future__ import annotations

from functools import cache
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend

Kernel = Literal["cudnn", "flash", "cpu"]
aten: Any = torch.ops.aten


def kernel_for(backend: SDPBackend | None, device: torch.device) -> Kernel | None:
    """The kernel by PyTorch's name for it; None for one whose lse is not to be had, or when PyTorch is to choose."""
    if device.type == "cpu":
        return "cpu"
    named: dict[SDPBackend | None, Kernel] = {SDPBackend.CUDNN_ATTENTION: "cudnn", SDPBackend.FLASH_ATTENTION: "flash"}
    return named.get(backend)


@torch.library.custom_op("ltx2::attend", mutates_args=())
def attend(q: Tensor, k: Tensor, v: Tensor, kernel: str) -> tuple[Tensor, Tensor]:
    """out [B, T, H, D], like q, and lse [B, H, T] in float32. q, k, v: [B, T, H, D]. kernel: a Kernel."""
    query, key, value = (part.transpose(1, 2) for part in (q, k, v))
    if kernel == "cpu":
        out, lse = aten._scaled_dot_product_flash_attention_for_cpu(query, key, value)
    elif kernel == "flash":
        out, lse = aten._scaled_dot_product_flash_attention(query, key, value)[:2]
    else:
        out, lse = aten._scaled_dot_product_cudnn_attention(query, key, value, None, True)[:2]
    return out.transpose(1, 2).contiguous(), lse.reshape(lse.shape[:3]).contiguous()


@attend.register_fake
def _(q: Tensor, k: Tensor, v: Tensor, kernel: str) -> tuple[Tensor, Tensor]:
    return q.new_empty(q.shape), q.new_empty((q.shape[0], q.shape[2], q.shape[1]), dtype=torch.float32)


@torch.library.custom_op("ltx2::attend_kept", mutates_args=())
def attend_kept(q: Tensor, k: Tensor, v: Tensor, out: Tensor, lse: Tensor, kernel: str) -> Tensor:
    """What `attend` gave for the same q, k and v: out, with the same backward."""
    return out.clone()


@attend_kept.register_fake
def _(q: Tensor, k: Tensor, v: Tensor, out: Tensor, lse: Tensor, kernel: str) -> Tensor:
    return torch.empty_like(out)


@torch.library.custom_op("ltx2::attend_backward", mutates_args=())
def attend_backward(grad: Tensor, q: Tensor, k: Tensor, v: Tensor, out: Tensor, lse: Tensor, kernel: str) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of q, k and v, [B, T, H, D]."""
    parts = [part.transpose(1, 2) for part in (grad.contiguous(), q, k, v, out)]
    length = q.shape[1]
    if kernel == "cpu":
        found = aten._scaled_dot_product_flash_attention_for_cpu_backward(*parts, lse, 0.0, False)
    else:
        # Seeds of a dropout that there is none of; the kernels want them all the same.
        seed, offset = (torch.zeros(size, dtype=torch.int64, device=q.device) for size in _seed_sizes(kernel))
        if kernel == "flash":
            found = aten._scaled_dot_product_flash_attention_backward(*parts, lse, None, None, length, length, 0.0, False, seed, offset)
        else:
            stats = lse if _cudnn_stats(q.device) == 3 else lse[..., None]
            found = aten._scaled_dot_product_cudnn_attention_backward(
                *parts, stats, seed, offset, None, None, None, length, length, 0.0, False
            )
    first, second, third = (part.transpose(1, 2).contiguous() for part in found)
    return first, second, third


@attend_backward.register_fake
def _(grad: Tensor, q: Tensor, k: Tensor, v: Tensor, out: Tensor, lse: Tensor, kernel: str) -> tuple[Tensor, Tensor, Tensor]:
    return q.new_empty(q.shape), k.new_empty(k.shape), v.new_empty(v.shape)


def _seed_sizes(kernel: str) -> tuple[tuple[int, ...], tuple[int, ...]]:
    return ((2,), ()) if kernel == "flash" else ((), ())


@cache
def _cudnn_stats(device: torch.device) -> int:
    """Dimensions of cuDNN's lse: [B, H, T] in some releases of PyTorch, [B, H, T, 1] in others."""
    probe = torch.zeros(1, 1, 64, 64, dtype=torch.bfloat16, device=device)
    return int(aten._scaled_dot_product_cudnn_attention(probe, probe, probe, None, True)[1].ndim)


def _remember(ctx, inputs, output) -> None:  # type: ignore[no-untyped-def]
    q, k, v, *kept, kernel = inputs
    out, lse = kept or output
    ctx.save_for_backward(q, k, v, out, lse)
    ctx.kernel = kernel
    ctx.kept = len(kept)


def _backward(ctx, grad: Tensor, _grad_lse: Tensor | None = None) -> tuple[Tensor | None, ...]:  # type: ignore[no-untyped-def]
    return (*attend_backward(grad, *ctx.saved_tensors, ctx.kernel), *[None] * ctx.kept, None)


attend.register_autograd(_backward, setup_context=_remember)
attend_kept.register_autograd(_backward, setup_context=_remember)
