"""How a block's weights lie in flat buffers: aligned, each layer's found again by its name, and nothing larger than it must be."""

from __future__ import annotations

from itertools import pairwise
from math import prod

import pytest
import torch
from step_engine import ALL_ATTENTIONS, KINDS, fuse, random_block

from ltx2core.models.fused_block import build_skeleton
from ltx2core.models.quantised import STORED, Storage, quantise
from ltx2core.offload.layout import BlockWeights, Layout, Place, make_layout, state_of

CPU = torch.device("cpu")


def layout_of(kind: str = "2.3", *, storage: Storage = "bf16", dtype: torch.dtype = torch.bfloat16, width: int = 64) -> Layout:
    return make_layout(build_skeleton(random_block(kind, width=width), targets=ALL_ATTENTIONS, scale=1.0), storage=storage, dtype=dtype)


def empty(layout: Layout) -> BlockWeights:
    return BlockWeights(layout, device=CPU, matrices_on=torch.empty(layout.matrix_bytes, dtype=torch.uint8))


@pytest.mark.parametrize("storage", STORED)
@pytest.mark.parametrize("kind", KINDS)
def test_tensors_begin_at_multiples_of_256_bytes_and_never_overlap(kind: str, storage: Storage) -> None:
    layout = layout_of(kind, storage=storage)
    for places, size in ((layout.matrices, layout.matrix_bytes), (layout.rest, layout.rest_bytes)):
        end = 0
        for place in sorted(places.values(), key=lambda place: place.start):
            assert place.start % 256 == 0
            assert place.start >= end
            end = place.start + prod(place.shape) * place.dtype.itemsize
        assert end <= size < end + 256


@pytest.mark.parametrize("kind", KINDS)
def test_every_tensor_of_diffusers_block_has_a_place(kind: str) -> None:
    layout, state = layout_of(kind), random_block(kind).state_dict()
    assert layout.members.keys() == state.keys()
    rows: dict[str, list[tuple[int, int]]] = {}
    for name, member in layout.members.items():
        place = layout.matrices.get(member.name) or layout.rest[member.name]
        assert place.shape[1:] == tuple(state[name].shape)[1:]
        rows.setdefault(member.name, []).append((member.first, member.first + member.rows))
    for name, spans in rows.items():
        place = layout.matrices.get(name) or layout.rest[name]
        ordered = sorted(spans)
        assert ordered[0][0] == 0
        assert ordered[-1][1] == (place.shape[0] if place.shape else 1)
        assert all(before[1] == after[0] for before, after in pairwise(ordered))


@pytest.mark.parametrize("kind", KINDS)
def test_what_was_put_comes_back_under_its_name(kind: str) -> None:
    block = random_block(kind)
    fused = fuse(block, targets=("attn1.to_q",))
    found = state_of(fused.weights.layout, fused.weights)
    assert found.keys() == block.state_dict().keys()
    assert all(torch.equal(found[name], tensor) for name, tensor in block.state_dict().items())


@pytest.mark.parametrize(("storage", "decibels"), [("int8", 38.0), ("fp8", 30.0), ("nf4", 19.0)])
def test_rounded_weights_come_back_near_to_what_they_were_and_all_else_as_it_was(storage: Storage, decibels: float) -> None:
    block = random_block("2.3")
    fused = fuse(block, targets=ALL_ATTENTIONS, storage=storage, dtype=torch.bfloat16)
    found = state_of(fused.weights.layout, fused.weights)
    assert fused.weights.snr_db.keys() == {
        name for name, member in fused.weights.layout.members.items() if member.name in fused.weights.layout.matrices
    }
    for name, tensor in block.state_dict().items():
        if name not in fused.weights.snr_db:
            assert torch.equal(found[name], tensor.bfloat16())
            continue
        noise = (found[name].float() - tensor).square().mean() / tensor.square().mean()
        assert float(-10 * noise.log10()) > decibels
        assert fused.weights.snr_db[name] > decibels


def test_gates_stay_out_of_the_buffer_that_travels_and_in_full_precision() -> None:
    layout = layout_of(storage="int8")
    gates = [name for name in layout.members if "to_gate_logits" in name]
    assert len(gates) == 12
    assert all(layout.members[name].name in layout.rest and layout.rest[name].dtype == torch.bfloat16 for name in gates)


def test_a_member_whose_rows_lose_too_much_gives_its_whole_group_scales_by_groups_of_columns() -> None:
    """One row of to_k has one large number; to_q and to_v keep their one scale a row, written once for each group."""
    block = random_block(width=256)
    block.attn1.to_k.weight.data[:, 5] = 60.0
    layout = make_layout(build_skeleton(block, targets=(), scale=1.0), storage="int8")
    weights = empty(layout)
    names = [name for name in block.state_dict() if name.startswith("attn1.to_")]
    for order in (names, names[::-1]):
        for name in order:
            weights.put(name, block.state_dict()[name])
        scale = weights.scales["attn1.to_qkv.weight_scale"]
        assert scale.shape == (768, 2)
        assert torch.equal(scale[:256, 0], scale[:256, 1])
        assert not torch.equal(scale[256:512, 0], scale[256:512, 1])
    found = state_of(layout, weights)
    expected = block.state_dict()
    assert all((found[name].float() - expected[name]).abs().max() < 0.3 for name in names)
    assert (found["attn1.to_q.weight"].float() - expected["attn1.to_q.weight"]).abs().max() < 0.002


def test_scales_of_4_bit_weights_travel_with_them_and_those_of_a_group_lie_one_below_the_other() -> None:
    block = random_block()
    layout = make_layout(build_skeleton(block, targets=(), scale=1.0), storage="nf4")
    weights = empty(layout)
    for name in ("to_v", "to_q", "to_k"):
        weights.put(f"attn1.{name}.weight", block.state_dict()[f"attn1.{name}.weight"])
    assert weights.scales == {}
    elsewhere = weights.matrices.clone()
    weights.matrices.zero_()
    tensors = weights.tensors(elsewhere)
    alone = quantise(torch.cat([block.state_dict()[f"attn1.{name}.weight"] for name in ("to_q", "to_k", "to_v")]), "nf4")
    assert torch.equal(tensors["attn1.to_qkv.weight"], alone.weight)
    assert torch.equal(tensors["attn1.to_qkv.weight_scale"], alone.scale)


def test_a_matrix_that_no_blocks_of_4_bits_fit_in_stays_as_it_is() -> None:
    """20 wide, so that a matrix of 20 x 20 is no multiple of 64 numbers; those of 20 x 80 are."""
    block = random_block(width=20, audio_width=20)
    fused = fuse(block, targets=(), storage="nf4", dtype=torch.bfloat16)
    found, layout = state_of(fused.weights.layout, fused.weights), fused.weights.layout
    assert not layout.is_rounded("attn1.to_q.weight")
    assert layout.is_rounded("ff.net.2.weight")
    assert torch.equal(found["attn1.to_q.weight"], block.attn1.to_q.weight.bfloat16())
    assert "attn1.to_q.weight" not in fused.weights.snr_db


def test_a_member_that_is_put_again_replaces_its_scales() -> None:
    layout = make_layout(build_skeleton(random_block(), targets=(), scale=1.0), storage="int8")
    weights = empty(layout)
    for size in (1.0, 3.0):
        for name in ("to_q", "to_k", "to_v"):
            weights.put(f"attn1.{name}.weight", torch.full((64, 64), size))
    assert torch.allclose(weights.scales["attn1.to_qkv.weight_scale"], torch.tensor(3.0 / 127))


def test_a_tensor_of_another_shape_or_of_no_block_is_refused() -> None:
    weights = empty(layout_of())
    with pytest.raises(ValueError, match=r"attn1\.to_q\.weight is \[3, 3\], not \[64, 64\]"):
        weights.put("attn1.to_q.weight", torch.zeros(3, 3))
    with pytest.raises(ValueError, match=r"attn1\.norm_q\.weight is \[3\], not \[64\]"):
        weights.put("attn1.norm_q.weight", torch.zeros(3))
    with pytest.raises(KeyError):
        weights.put("attn1.to_x.weight", torch.zeros(3, 3))


def test_8_bits_are_half_of_bf16_and_scales_and_small_tensors_do_not_weigh() -> None:
    """At the real width of the audio stream, 2048: the numbers of all matrices times their bytes, to within 0.1 %."""
    with torch.device("meta"):
        from diffusers.models.transformers.transformer_ltx2 import LTX2VideoTransformerBlock

        block = LTX2VideoTransformerBlock(4096, 32, 128, 4096, 2048, 32, 64, 2048, qk_norm="rms_norm_across_heads", rope_type="split")
    skeleton = build_skeleton(block, targets=(), scale=1.0)
    numbers = sum(parameter.numel() for name, parameter in block.named_parameters() if parameter.ndim == 2 and "table" not in name)
    full, byte, eight, four = (make_layout(skeleton, storage=storage) for storage in ("bf16", "int8", "fp8", "nf4"))
    assert full.matrix_bytes == pytest.approx(2 * numbers, rel=1e-3)
    assert byte.matrix_bytes == eight.matrix_bytes == pytest.approx(numbers, rel=1e-3)
    assert four.matrix_bytes == pytest.approx(0.5625 * numbers, rel=1e-3)
    assert full.rest_bytes < 0.002 * full.matrix_bytes
    assert full.matrix_bytes == pytest.approx(772e6, rel=0.01)  # what a ring's slot takes of the 19B
    assert full.block_bytes == full.matrix_bytes + full.rest_bytes


def test_a_view_shares_memory_and_a_scalar_is_one_too() -> None:
    flat = torch.zeros(512, dtype=torch.uint8)
    Place(256, (2, 3), torch.float32).view(flat).fill_(1.0)
    assert flat[:256].sum() == 0
    assert Place(256, (), torch.float32).view(flat) == 1.0
