"""The fused block against diffusers' own with the LoRA merged into its weights (float32, relative 1e-5 of the largest value)."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

import pytest
import torch
from step_engine import ALL_ATTENTIONS, FEED_FORWARD, KINDS, Fused, block_inputs, fuse, random_block
from torch import Tensor, nn

from ltx2core.models.fused_block import rotate
from ltx2core.models.modalities import leave_out

if TYPE_CHECKING:
    from collections.abc import Sequence

SOME = ("attn1.to_q", "attn2.to_v", "audio_to_video_attn.to_k", "ff.net.2", "audio_ff.net.0.proj")
TARGETS: dict[str, Sequence[str]] = {
    "none": (),
    "attentions": ALL_ATTENTIONS,
    "with feed-forward": (*ALL_ATTENTIONS, *FEED_FORWARD),
    "some members": SOME,
}


def merged_outputs(block: nn.Module, fused: Fused, inputs: dict[str, Any]) -> tuple[Tensor, Tensor, dict[str, tuple[Tensor, Tensor]]]:
    """diffusers' own block with W + scale B A for each LoRA, and the pairs of A and B that it learns by."""
    learned = {name: (a.clone().requires_grad_(), b.clone().requires_grad_()) for name, (a, b) in fused.lora.items()}
    weights = {f"{name}.weight": block.get_submodule(name).weight + fused.scale * b @ a for name, (a, b) in learned.items()}
    video, audio = torch.func.functional_call(block, weights, (), inputs)
    return video, audio, learned


def assert_same(block: nn.Module, fused: Fused, inputs: dict[str, Any]) -> None:
    """Outputs, the gradients of both streams, and those of every A and B."""
    streams = [inputs[name].requires_grad_() for name in ("hidden_states", "audio_hidden_states")]
    video, audio, learned = merged_outputs(block, fused, inputs)
    (video.square().mean() + audio.square().mean()).backward()
    wanted = [stream.grad for stream in streams]
    for stream in streams:
        stream.grad = None
    found = fused.skeleton.block(**inputs)
    (found[0].square().mean() + found[1].square().mean()).backward()
    for one, other in zip([*found, *(stream.grad for stream in streams)], [video, audio, *wanted], strict=True):
        close(one, other)
    gradients = fused.gradients()
    assert gradients.keys() == learned.keys()
    for name, pair in learned.items():
        for one, other in zip(gradients[name], pair, strict=True):
            assert other.grad is not None
            assert float(other.grad.abs().max()) > 0, name
            close(one, other.grad)


def close(found: Tensor | None, expected: Tensor | None) -> None:
    assert found is not None
    assert expected is not None
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5 * max(float(expected.detach().abs().max()), 1e-6))


@pytest.mark.parametrize("targets", TARGETS.values(), ids=TARGETS)
@pytest.mark.parametrize("kind", KINDS)
def test_outputs_and_gradients_are_those_of_diffusers_block(kind: str, targets: Sequence[str]) -> None:
    block = random_block(kind)
    assert_same(block, fuse(block, targets=targets), block_inputs(kind))


def test_a_gate_learns_when_it_is_asked_for() -> None:
    block = random_block("2.3")
    assert_same(block, fuse(block, targets=("attn1.to_gate_logits", "audio_to_video_attn.to_gate_logits")), block_inputs("2.3"))


@pytest.mark.parametrize("left_out", ["video", "audio"])
@pytest.mark.parametrize("kind", ["2.0", "2.3"])
def test_a_block_of_one_modality_is_the_same_too(kind: str, left_out: str) -> None:
    block = random_block(kind)
    holder = nn.Module()
    holder.transformer_blocks = nn.ModuleList([block])
    leave_out(holder, left_out)  # type: ignore[arg-type]
    targets = [name for name in (*ALL_ATTENTIONS, *FEED_FORWARD) if has_layer(block, name)]
    assert len(targets) == 10
    inputs = block_inputs(kind) | {"use_a2v_cross_attention": False, "use_v2a_cross_attention": False}
    fused = fuse(block, targets=targets)
    assert all(name.startswith("audio") == (left_out == "video") for name in fused.lora)
    assert_same(block, fused, inputs)


def has_layer(block: nn.Module, name: str) -> bool:
    try:
        return isinstance(block.get_submodule(name), nn.Linear)
    except AttributeError:
        return False


@pytest.mark.parametrize("kept", [[1.0, 0.0], [0.0, 0.0], [1.0, 1.0]])
def test_a_skip_for_guidance_does_what_diffusers_does(kept: list[float]) -> None:
    block = random_block("2.3")
    mask = torch.tensor(kept)[:, None, None]
    for all_perturbed in (None, bool((mask == 0).all()), (mask == 0).all()):
        inputs = block_inputs("2.3") | {"perturbation_mask": mask, "all_perturbed": all_perturbed}
        fused = fuse(block, targets=())
        expected = block(**inputs)
        for one, other in zip(fused.skeleton.block(**inputs), expected, strict=True):
            close(one, other)


@pytest.mark.parametrize("kind", ["2.0", "2.3"])
def test_masks_of_text_and_of_tokens_are_heeded(kind: str) -> None:
    block, inputs = random_block(kind), block_inputs(kind)
    inputs["encoder_attention_mask"] = torch.zeros(2, 1, 7).index_fill(2, torch.tensor([5, 6]), -10000.0)
    inputs["self_attention_mask"] = torch.zeros(2, 12, 12).index_fill(2, torch.tensor([0]), -10000.0)
    fused = fuse(block, targets=ALL_ATTENTIONS)
    video, _, _ = merged_outputs(block, fused, inputs)
    close(fused.skeleton.block(**inputs)[0], video)
    unmasked, _, _ = merged_outputs(block, fused, block_inputs(kind))
    assert not torch.allclose(video, unmasked, atol=1e-3)


def test_projections_that_read_one_input_are_one_product_unless_only_some_of_them_learn() -> None:
    block = random_block()
    together = {group.name: group for group in fuse(block, targets=ALL_ATTENTIONS).skeleton.groups}
    assert together["attn1.to_qkv"].members == ("attn1.to_q", "attn1.to_k", "attn1.to_v")
    assert together["attn2.to_kv"].members == ("attn2.to_k", "attn2.to_v")
    assert "attn2.to_q" in together
    assert together["video_to_audio_attn.to_kv"].columns == 64  # keys of the sound's stream, read from the video's
    apart = {group.name: group.lora for group in fuse(block, targets=("attn1.to_q",)).skeleton.groups}
    assert (apart["attn1.to_q"], apart["attn1.to_k"], apart["attn1.to_v"]) == (True, False, False)
    assert "attn2.to_kv" in apart


def test_one_skeleton_serves_block_after_block_and_holds_no_weights() -> None:
    first, second, inputs = random_block(seed=1), random_block(seed=2), block_inputs()
    fused = [fuse(block, targets=ALL_ATTENTIONS) for block in (first, second)]
    skeleton = fused[0].skeleton
    assert not list(skeleton.block.parameters())
    for block, its in zip((first, second), fused, strict=True):
        skeleton.point(its.weights.tensors(its.weights.matrices) | its.leaves)
        video, audio, _ = merged_outputs(block, its, inputs)
        found = skeleton.block(**inputs)
        close(found[0], video)
        close(found[1], audio)


def test_building_a_skeleton_leaves_the_block_as_it_was() -> None:
    block, inputs = random_block(), block_inputs()
    before, expected = copy.deepcopy(block.state_dict()), block(**inputs)
    fuse(block, targets=ALL_ATTENTIONS)
    assert all(torch.equal(before[name], tensor) for name, tensor in block.state_dict().items())
    assert torch.equal(block(**inputs)[0], expected[0])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_positions_turn_heads_by_the_same_bits_with_a_gradient_and_without(dtype: torch.dtype) -> None:
    """Without one and without the compiler the halves are turned one by one, in less memory."""
    attention = random_block("2.0").attn1
    inputs = block_inputs("2.0")
    x, table = inputs["hidden_states"].to(dtype), inputs["video_rotary_emb"]
    with torch.no_grad():
        halves = rotate(attention, x, table)
    pairs = rotate(attention, x.requires_grad_(), table)
    assert halves.dtype == pairs.dtype == dtype
    assert torch.equal(halves, pairs)
    assert not torch.equal(halves, x)
