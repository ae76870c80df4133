"""The counted operations of a step are those that PyTorch counts while it runs one."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from step_engine import SETTINGS, draw_batch, fast_nano, make_batch, nano, reference_nano
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from ltx2core.models.components import check_transformer, load_transformer
from ltx2core.models.lora_linear import grouped_linear, grouped_linear_backward
from ltx2core.planning.flops import BatchShape, ModelShape, count_step, model_shape
from ltx2core.training.adapter import AdapterSettings, add_adapter, target_modules
from ltx2core.training.fast_model import FastSettings
from ltx2core.training.step import Drawn, Model, losses_of

TEXT = 16
OPERATIONS = {"ltx2.grouped_linear": grouped_linear, "ltx2.grouped_linear_backward": grouped_linear_backward}
# Products of [L, L] with heads' width: scores and values, and twice that backwards. The kernels count none of them on a CPU.
ATTENTION = {"ltx2.attend": 2, "ltx2.attend_kept": 0, "ltx2.attend_backward": 4}


def shape(settings: AdapterSettings = SETTINGS, *, audio: bool = True) -> ModelShape:
    empty = check_transformer(nano(), audio=audio)
    targets = target_modules(empty, audio=audio, wanted=settings.targets)
    return model_shape(empty, ranks=dict.fromkeys(targets, settings.rank))


class Counted(TorchDispatchMode):
    """PyTorch's own formulas for what is dispatched, within the engine's operations, too.

    Not its FlopCounterMode: that hooks modules, which the engine's nodes do not allow, and does not look into operations.
    """

    def __init__(self) -> None:
        super().__init__()
        self.flops = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if (products := ATTENTION.get(str(func._overloadpacket))) is not None:
            batch, length, heads, width = args[0].shape
            self.flops += products * 2 * batch * heads * length * length * width
            return func(*args, **kwargs)
        with self:
            if (own := OPERATIONS.get(str(func._overloadpacket))) is not None:
                return own._init_fn(*args, **kwargs)
            if (parts := func.decompose(*args, **kwargs)) is not NotImplemented:
                return parts
        found = func(*args, **kwargs)
        name = func._overloadpacket.__name__.removesuffix("_")  # addmm_ takes what addmm does
        if (formula := flop_registry.get(getattr(torch.ops.aten, name, None))) is not None:
            self.flops += formula(*args, out_val=found)
        return found


def counted(model: Model, drawn: Drawn) -> tuple[int, int]:
    """Operations of the forward, and of the backward; attention in products that can be counted."""
    with sdpa_kernel(SDPBackend.MATH):
        with Counted() as forward:
            losses = losses_of(model, drawn, audio_weight=1.0)
        with Counted() as backward:
            losses.total.backward()  # type: ignore[no-untyped-call]
    return forward.flops, backward.flops


@pytest.mark.parametrize("targets", [None, ("attn1.to_q", "ff.net.2", "audio_ff.net.0.proj"), ("transformer_blocks.2.attn2.to_k",)])
def test_a_step_of_the_reference_takes_what_pytorch_counts(targets: tuple[str, ...] | None) -> None:
    settings = AdapterSettings(rank=4, alpha=8.0, targets=targets)
    transformer = load_transformer(nano(), dtype=torch.float32)
    add_adapter(transformer, settings, audio=True, seed=0)
    model = Model(transformer=transformer, device=torch.device("cpu"), dtype=torch.float32)
    forward, backward = counted(model, draw_batch(make_batch(count=2, grid=(2, 3, 4), audio=9)))
    found = count_step(shape(settings), BatchShape(count=2, video=24, audio=9, text=TEXT))
    assert found.forward == forward
    if targets is None:
        assert found.backward == backward
    else:  # no layer below the first LoRA learns, so that PyTorch leaves gradients out which a LoRA on all attentions needs
        assert found.backward >= backward


def test_without_sound_a_step_takes_what_pytorch_counts() -> None:
    model, _ = reference_nano(audio=False)
    forward, backward = counted(model, draw_batch(make_batch(audio=None)))
    found = count_step(shape(audio=False), BatchShape(count=1, video=12, audio=0, text=TEXT))
    assert found.forward == pytest.approx(forward, rel=0.01)
    assert found.backward == pytest.approx(backward, rel=0.01)


@pytest.mark.parametrize("kept", [0, 2, 5])
def test_a_step_of_the_engine_does_what_is_counted_with_the_blocks_it_computes_again(kept: int) -> None:
    model, _ = fast_nano(FastSettings(compile=False, kept=kept))
    forward, backward = counted(model, draw_batch(make_batch()))
    again = range(5 - kept)
    found = count_step(shape(), BatchShape(count=1, video=12, audio=9, text=TEXT), again=again, into_first=True)
    assert forward == found.forward
    assert backward == pytest.approx(found.backward + found.again, rel=0.02)
    assert found.needed == count_step(shape(), BatchShape(count=1, video=12, audio=9, text=TEXT), into_first=True).needed
    assert (found.again > 0) == (kept < 5)


def test_a_block_that_keeps_its_attention_does_not_compute_that_again() -> None:
    model, _ = fast_nano(FastSettings(compile=False, kept=1, attention=2))
    _, backward = counted(model, draw_batch(make_batch(grid=(4, 6, 8))))
    batch = BatchShape(count=1, video=192, audio=9, text=TEXT)
    found = count_step(shape(), batch, again=range(4), attention_kept=range(2), into_first=True)
    all_again = count_step(shape(), batch, again=range(4), into_first=True)
    assert backward == pytest.approx(found.backward + found.again, rel=0.005)
    assert all_again.again - found.again == 2 * 4 * 192 * 192 * 160


def test_routed_blocks_count_the_tokens_that_go_through_them() -> None:
    whole = BatchShape(count=1, video=12, audio=9, text=TEXT)
    routed = BatchShape(count=1, video=12, audio=9, text=TEXT, routed=((1, 3, 6),))
    fewer = BatchShape(count=1, video=6, audio=9, text=TEXT)
    model = shape()
    inside = ModelShape(blocks=model.blocks[1:4], outside=())
    saved = count_step(inside, whole, into_first=True).done - count_step(inside, fewer, into_first=True).done
    assert count_step(model, whole).done - count_step(model, routed).done == saved > 0


def test_the_2_0_step_at_its_smallest_bucket_takes_what_its_floor_was_measured_from() -> None:
    """0.22 s of arithmetic without recompute on an H100, which multiplies 650 to 750 TFLOP/s in bf16."""
    from tests.benchmarks.random_models import shapes_of

    empty = shapes_of(audio=True, layers=48)
    model = model_shape(empty, ranks=dict.fromkeys(target_modules(empty, audio=True), 32))
    needed = count_step(model, BatchShape(count=1, video=2688, audio=49, text=1024)).needed
    assert 1.3e14 < needed < 1.8e14
