"""A block in parts against the whole block (float32): what it gives, what it learns, and what it need not compute a second time."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from step_engine import ALL_ATTENTIONS, KINDS, block_inputs, fuse, random_block
from torch import Tensor, nn

from ltx2core.models.attention import attend, attend_kept
from ltx2core.models.block_parts import BlockInParts, check_parts
from ltx2core.models.modalities import leave_out

TARGETS = (*ALL_ATTENTIONS, "ff.net.2", "audio_ff.net.0.proj")


def in_parts(block: nn.Module) -> BlockInParts:
    parts = BlockInParts(block, compiled=lambda part: part)
    parts.use_attention("cpu")
    return parts


def context_of(inputs: dict[str, Any], **others: Any) -> dict[str, Any]:
    streams = ("hidden_states", "audio_hidden_states")
    return {name: value for name, value in inputs.items() if name not in streams} | {"levels": (None, None)} | others


def learn(found: tuple[Tensor, Tensor], leaves: list[Tensor]) -> list[Tensor | None]:
    return list(torch.autograd.grad(found[0].square().mean() + found[1].square().mean(), leaves, allow_unused=True))


@pytest.mark.parametrize("tied", [True, False], ids=["tied", "isolated"])
@pytest.mark.parametrize("kind", KINDS)
def test_parts_give_and_learn_what_the_whole_block_does_bit_for_bit(kind: str, tied: bool) -> None:
    fused = fuse(random_block(kind), targets=TARGETS)
    ties = {"use_a2v_cross_attention": tied, "use_v2a_cross_attention": tied}
    inputs = block_inputs(kind) | ties
    streams = [inputs[name].requires_grad_() for name in ("hidden_states", "audio_hidden_states")]
    leaves = [*streams, *fused.leaves.values()]
    whole = fused.skeleton.block(**inputs)
    found = in_parts(fused.skeleton.block)(streams[0], streams[1], context_of(inputs))
    assert torch.equal(found.video, whole[0])
    assert torch.equal(found.audio, whole[1])
    for one, other in zip(learn((found.video, found.audio), leaves), learn(whole, leaves), strict=True):
        assert (one is None) == (other is None)
        if one is not None and other is not None:
            torch.testing.assert_close(one, other, rtol=0, atol=1e-6 * float(other.abs().max()))


def test_only_what_is_as_short_as_the_sound_goes_from_stream_to_stream() -> None:
    fused = fuse(random_block(), targets=TARGETS)
    inputs = block_inputs(tokens=40, audio_tokens=5)
    found = in_parts(fused.skeleton.block)(inputs["hidden_states"], inputs["audio_hidden_states"], context_of(inputs))
    assert len(found.between) == 4
    assert {tensor.shape[1] for tensor in found.between} == {5}


def test_kept_self_attention_is_not_computed_again_and_changes_no_bit() -> None:
    fused = fuse(random_block(), targets=TARGETS)
    inputs = block_inputs()
    parts, context = in_parts(fused.skeleton.block), context_of(inputs)
    video, audio = inputs["hidden_states"].requires_grad_(), inputs["audio_hidden_states"].requires_grad_()
    leaves = [video, audio, *fused.leaves.values()]
    with torch.no_grad():
        first = parts(video, audio, context)
    assert first.attended is not None
    again, new = parts(video, audio, context, kept=first.attended), parts(video, audio, context)
    assert torch.equal(again.video, new.video)
    for one, other in zip(learn((again.video, again.audio), leaves), learn((new.video, new.audio), leaves), strict=True):
        assert one is not None
        assert other is not None
        assert torch.equal(one, other)
    # Were the attention computed again, what is kept would not matter.
    other_answer = parts(video, audio, context, kept=(first.attended[0] + 1, first.attended[1]))
    assert not torch.equal(other_answer.video, new.video)


@pytest.mark.parametrize("left_out", ["video", "audio"])
def test_a_modality_that_was_left_out_comes_back_as_it_went_in(left_out: str) -> None:
    block = random_block()
    holder = nn.Module()
    holder.transformer_blocks = nn.ModuleList([block])
    leave_out(holder, left_out)  # type: ignore[arg-type]
    fused = fuse(block, targets=("attn1.to_q",) if left_out == "audio" else ("audio_attn1.to_q",))
    inputs = block_inputs() | {"use_a2v_cross_attention": False, "use_v2a_cross_attention": False}
    whole = fused.skeleton.block(**inputs)
    found = in_parts(fused.skeleton.block)(inputs["hidden_states"], inputs["audio_hidden_states"], context_of(inputs))
    assert torch.equal(found.video, whole[0])
    assert torch.equal(found.audio, whole[1])


def test_masks_and_a_skip_of_some_samples_are_refused() -> None:
    context, mask = context_of(block_inputs()), torch.zeros(2, 1, 1)
    for allowed in ({}, {"all_perturbed": False}, {"perturbation_mask": mask, "all_perturbed": True}):
        check_parts(context | allowed)
    with pytest.raises(ValueError, match="take no encoder_attention_mask"):
        check_parts(context | {"encoder_attention_mask": torch.zeros(2, 1, 7)})
    for some in ({}, {"all_perturbed": False}):
        with pytest.raises(ValueError, match="for all samples or for none"):
            check_parts(context | {"perturbation_mask": mask} | some)


@pytest.mark.parametrize("kind", KINDS)
@torch.no_grad()
def test_parts_skip_self_attention_as_the_whole_block_does(kind: str) -> None:
    inputs = block_inputs(kind)
    skip = {"perturbation_mask": torch.zeros(2, 1, 1), "all_perturbed": torch.tensor(True)}
    block = fuse(random_block(kind), targets=TARGETS).skeleton.block
    block.perturbed_attn = True
    whole = block(**inputs | skip)
    found = in_parts(block)(inputs["hidden_states"], inputs["audio_hidden_states"], context_of(inputs, **skip))
    assert torch.equal(found.video, whole[0])
    assert torch.equal(found.audio, whole[1])
    assert not torch.allclose(found.video, block(**inputs)[0], atol=1e-3)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_attention_by_name_is_pytorch_s(dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(0)
    q, k, v, grad = (torch.randn(2, 33, 4, 16, generator=generator).to(dtype) for _ in range(4))
    leaves = [part.requires_grad_() for part in (q, k, v)]
    query, key, value = (part.transpose(1, 2) for part in leaves)
    expected = nn.functional.scaled_dot_product_attention(query, key, value).transpose(1, 2)
    out, lse = attend(q, k, v, "cpu")
    kept = attend_kept(q, k, v, out.detach(), lse.detach(), "cpu")
    assert torch.equal(out, expected)
    assert torch.equal(kept, expected)
    wanted = torch.autograd.grad(expected, leaves, grad)
    for found in (torch.autograd.grad(out, leaves, grad), torch.autograd.grad(kept, leaves, grad)):
        for one, other in zip(found, wanted, strict=True):
            assert torch.equal(one, other)
