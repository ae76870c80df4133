"""Sizes of the released transformers, which plans rest on, are those of diffusers' own modules."""

from __future__ import annotations

import pytest
import torch

from ltx2core.planning.flops import model_shape
from ltx2core.planning.measure_sizes import VERSIONS, shapes_of
from ltx2core.planning.model_sizes import released_sizes, sizes_as_released
from ltx2core.training.adapter import AdapterSettings
from ltx2core.training.fast_model import facts_of


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
