"""Sizes of the released transformers, which plans rest on, are those of diffusers' own modules."""

from __future__ import annotations

import pytest
import torch

from ltx2core.planning.flops import model_shape
from ltx2core.planning.measure_sizes import VERSIONS, kept_bytes, one_block, shapes_of
from ltx2core.planning.model_sizes import released_sizes, sizes_as_released
from ltx2core.training.adapter import AdapterSettings
from ltx2core.training.block_facts import facts_of


@pytest.mark.parametrize("joint", [True, False])
@pytest.mark.parametrize("version", VERSIONS)
def test_sizes_of_every_version_are_those_of_its_modules(version: str, joint: bool) -> None:
    sizes = released_sizes(version, joint=joint)
    shapes = shapes_of(version, joint=joint)
    facts = facts_of(shapes, storage="bf16", adapter=AdapterSettings(rank=16), audio=joint, dtype=torch.bfloat16)
    assert (sizes.blocks, sizes.width) == (facts.count, facts.width)
    assert 2 * sizes.block_numbers == pytest.approx(facts.block_bytes, rel=1e-4)
    assert 2 * sizes.outside_numbers + sizes.blocks * sizes.small_bytes == pytest.approx(facts.outside_bytes, rel=1e-4)
    assert sizes_as_released(version, model_shape(shapes, ranks={}), joint=joint) == sizes
    kept = sizes.kept.bytes(video=2688, audio=49 if joint else 0, text=1024, rank=32)
    low, high = (17, 20) if joint else (13, 16)
    assert low < kept / (2 * sizes.width * 2688) < high
    assert sizes.inputs_bytes(video=2688, audio=49) == 2 * (2688 * 4096 + (49 * 2048 if joint else 0))


@pytest.mark.parametrize("version", ["2.0.0", "2.3.0"])
def test_a_clip_of_which_a_part_is_given_keeps_no_modulation_for_every_token(version: str) -> None:
    """A token's modulation is one of two rows: the backward picks it again."""
    small = {"num_attention_heads": 2, "attention_head_dim": 64, "cross_attention_dim": 128}
    small |= {"audio_num_attention_heads": 2, "audio_attention_head_dim": 32, "audio_cross_attention_dim": 64}
    block = one_block(version, joint=True, rank=2, **small)

    lengths = (256, 128, 16)
    plain, levelled = (kept_bytes(block, lengths, joint=True, given=found) for found in ((), ("video", "audio")))
    row = 2 * 64 * 128  # of the sound's modulation for every token, in bf16; the picture's is four times as large
    assert plain < levelled < plain + row
