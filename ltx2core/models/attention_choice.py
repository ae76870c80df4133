"""Which attention kernel is fastest for a shape on this card: measured in a fraction of a second, never guessed from its name."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

if TYPE_CHECKING:
    from collections.abc import Iterable

_CANDIDATES = (SDPBackend.FLASH_ATTENTION, SDPBackend.CUDNN_ATTENTION, SDPBackend.EFFICIENT_ATTENTION)
_ROUNDS = 5


@dataclass(frozen=True, slots=True)
class AttentionChoice:
    """The kernel to use, None for PyTorch's own choice, and the milliseconds of a forward and backward with each."""

    backend: SDPBackend | None
    milliseconds: dict[str, float]

    @property
    def name(self) -> str:
        return "PyTorch's choice" if self.backend is None else self.backend.name.removesuffix("_ATTENTION").lower()

    @property
    def words(self) -> str:
        """The kernel, and what each has taken."""
        measured = ", ".join(f"{name} {time:g} ms" for name, time in self.milliseconds.items())
        return f"{self.name}{f' ({measured})' if measured else ''}"


@dataclass(kw_only=True)
class AttentionKernels:
    """The choice for each shape of a batch, measured when the first of it comes; not again where there was no room: trying costs time in
    each step."""

    heads: int
    head_dim: int
    dtype: torch.dtype
    device: torch.device
    _found: dict[tuple[int, int], AttentionChoice] = field(default_factory=dict)

    def of(self, *, tokens: int, batch: int) -> AttentionChoice:
        if (tokens, batch) not in self._found:
            shape = {"heads": self.heads, "head_dim": self.head_dim}
            self._found[tokens, batch] = choose_attention(tokens=tokens, batch=batch, **shape, dtype=self.dtype, device=self.device)
        return self._found[tokens, batch]


def choose_attention(*, tokens: int, heads: int, head_dim: int, batch: int, dtype: torch.dtype, device: torch.device) -> AttentionChoice:
    """The fastest kernel for self-attention over `tokens`. On the CPU there is one. Where the card has no room to measure in, nothing is
    measured and PyTorch chooses."""
    if device.type != "cuda":
        return AttentionChoice(None, {})
    return measure_attention((batch, tokens, 3, heads, head_dim), _CANDIDATES, dtype=dtype, device=device)


def measure_attention(
    shape: tuple[int, ...], candidates: Iterable[SDPBackend], *, dtype: torch.dtype, device: torch.device
) -> AttentionChoice:
    """The fastest of these for q, k and v packed in [B, T, 3, H, D]. One that is not there for this card, type or shape is left out."""
    measured: dict[SDPBackend, float] | None = None
    with contextlib.suppress(torch.OutOfMemoryError):  # what others have taken cannot be told from what is slow: none of it counts
        measured = _each(shape, candidates, dtype=dtype, device=device)
    if measured is None:
        if device.type == "cuda":
            torch.cuda.empty_cache()  # here, where no traceback keeps the tensors
        return AttentionChoice(None, {})
    best = min(measured, key=lambda backend: measured[backend], default=None)
    return AttentionChoice(best, {backend.name.removesuffix("_ATTENTION").lower(): round(time, 3) for backend, time in measured.items()})


def _each(shape: tuple[int, ...], candidates: Iterable[SDPBackend], *, dtype: torch.dtype, device: torch.device) -> dict[SDPBackend, float]:
    query = torch.randn(shape, device=device, dtype=dtype, requires_grad=True)
    measured: dict[SDPBackend, float] = {}
    for backend in candidates:
        try:
            measured[backend] = _milliseconds(query, backend)
        except torch.OutOfMemoryError:
            raise
        except RuntimeError:
            continue
    return measured


def _milliseconds(packed: Tensor, backend: SDPBackend) -> float:
    """Of a forward and backward, after two that warm up. packed: [B, T, 3, H, D], laid out as the block's own product gives it."""
    begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))  # type: ignore[no-untyped-call]
    for index in range(_ROUNDS + 2):
        if index == 2:
            begin.record()
        with sdpa_kernel(backend):
            query, key, value = packed.permute(2, 0, 3, 1, 4).unbind(0)
            out = nn.functional.scaled_dot_product_attention(query, key, value)
        out.backward(out)  # type: ignore[no-untyped-call]
        packed.grad = None
    end.record()
    end.synchronize()
    return float(begin.elapsed_time(end)) / _ROUNDS
