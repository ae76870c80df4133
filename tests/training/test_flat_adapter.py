"""The flat adapter: PEFT's adapter under the same names with the same first values, in one buffer."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

import pytest
import torch
from step_engine import ALL_ATTENTIONS, CPU, F32, SETTINGS, fast_nano, nano, random_block

from ltx2core.lora.layers import modality_of
from ltx2core.models.components import load_transformer
from ltx2core.models.fused_block import build_skeleton
from ltx2core.training.adapter import AdapterSettings, add_adapter, load_adapter
from ltx2core.training.fast_model import FastSettings, load_fast
from ltx2core.training.flat_adapter import FlatAdapter

if TYPE_CHECKING:
    from collections.abc import Sequence


def small(targets: Sequence[str] = ALL_ATTENTIONS, *, blocks: int = 2, rank: int = 3, dtype: torch.dtype = F32) -> FlatAdapter:
    groups = build_skeleton(random_block(), targets=targets, scale=1.0).groups
    return FlatAdapter(groups, num_blocks=blocks, rank=rank, seed=0, device=CPU, dtype=dtype)


@pytest.mark.parametrize("targets", [None, ("attn1.to_q", "ff.net.2", "video_to_audio_attn.to_v")], ids=["attentions", "some layers"])
@pytest.mark.parametrize("audio", [True, False], ids=["joint", "video only"])
def test_names_order_and_first_values_are_those_of_the_reference(audio: bool, targets: tuple[str, ...] | None) -> None:
    settings = AdapterSettings(rank=4, targets=targets)
    expected = add_adapter(load_transformer(nano(), dtype=F32, audio=audio), settings, audio=audio, seed=7)
    flat = load_fast(nano(), settings=FastSettings(compile=False), adapter=settings, audio=audio, seed=7, dtype=F32, device=CPU).adapter
    assert list(flat.parameters) == list(expected)
    assert all(torch.equal(flat.parameters[name], parameter) for name, parameter in expected.items())
    assert all(parameter.dtype == F32 for parameter in flat.parameters.values())


def test_loaded_values_are_what_blocks_compute_with_once_they_are_refreshed() -> None:
    adapter = small(dtype=torch.bfloat16)
    generator = torch.Generator().manual_seed(1)
    values = {name: torch.randn(parameter.shape, generator=generator) for name, parameter in adapter.parameters.items()}
    load_adapter(adapter.parameters, values)
    adapter.refresh()
    leaves = adapter.leaves(1)
    a, b = leaves["attn1.to_qkv.lora_a"], leaves["attn1.to_qkv.lora_b"]
    assert a.dtype == b.dtype == torch.bfloat16
    for index, member in enumerate(("to_q", "to_k", "to_v")):
        name = f"transformer_blocks.1.attn1.{member}"
        assert torch.equal(a[3 * index : 3 * index + 3], values[f"{name}.lora_A.weight"].bfloat16())
        assert torch.equal(b[index], values[f"{name}.lora_B.weight"].bfloat16())
    assert all(leaf.requires_grad and leaf.is_leaf for leaf in leaves.values())


def test_segments_hold_all_of_the_adapter_each_number_once() -> None:
    adapter = small()
    for number, segment in enumerate(adapter.segments):
        spans = sorted((start, end, name) for name, (which, start, end) in adapter.span_of.items() if which == number)
        assert all(before[1] <= after[0] for before, after in itertools.pairwise(spans))
        for start, end, name in spans:
            assert modality_of(name) == segment.modality
            assert torch.equal(segment.values[start:end].view(adapter.parameters[name].shape), adapter.parameters[name])
    assert [segment.modality for segment in adapter.segments] == ["video", "audio", "both"]
    assert adapter.span_of.keys() == adapter.parameters.keys()


def test_a_change_of_a_segment_is_one_of_its_parameters() -> None:
    adapter = small()
    with torch.no_grad():
        adapter.segments[0].values.fill_(3.0)
    assert (adapter.parameters["transformer_blocks.0.attn1.to_q.lora_B.weight"] == 3).all()
    assert (adapter.parameters["transformer_blocks.0.audio_attn1.to_q.lora_B.weight"] == 0).all()


def test_matrices_begin_where_a_matrix_unit_can_load_from() -> None:
    adapter = small(rank=3)
    leaves = [leaf for block in range(2) for leaf in adapter.leaves(block).values()]
    assert all(leaf.storage_offset() % 128 == 0 for leaf in leaves)


def test_only_modalities_that_have_targets_have_a_segment() -> None:
    assert [segment.modality for segment in small(("attn1.to_q",)).segments] == ["video"]
    assert [segment.modality for segment in small(("audio_ff.net.2", "audio_to_video_attn.to_q")).segments] == ["audio", "both"]


def test_gradients_replace_those_before_or_are_added_and_what_has_none_is_0() -> None:
    adapter = small(("attn1.to_q", "attn2.to_q"), blocks=1, dtype=torch.bfloat16)
    gradients = [torch.full_like(leaf, index + 1.0) for index, leaf in enumerate(adapter.leaves(0).values())]
    names = [f"transformer_blocks.0.{layer}.lora_{which}.weight" for layer in ("attn1.to_q", "attn2.to_q") for which in "AB"]

    def found() -> list[float]:
        return [float(adapter.gradient_of(name).unique()) for name in names]

    adapter.add_gradients(0, gradients)
    assert found() == [1, 2, 3, 4]
    adapter.add_gradients(0, gradients)
    assert found() == [1, 2, 3, 4]
    adapter.accumulate = True
    adapter.add_gradients(0, [gradients[0], None, None, gradients[3]])
    assert found() == [2, 2, 3, 8]
    adapter.accumulate = False
    adapter.add_gradients(0, [gradients[0], None, gradients[2], None])
    assert found() == [1, 0, 3, 0]
    adapter.add_gradients(0, [None] * 4)
    assert found() == [0, 0, 0, 0]
    assert adapter.segments[0].gradient.dtype == F32


def test_small_gradients_of_many_batches_are_added_in_float32() -> None:
    """256 times 1/256 on top of 1: bf16 would stay at 1."""
    adapter = small(("attn1.to_q",), blocks=1, dtype=torch.bfloat16)
    ones = [torch.ones_like(leaf) for leaf in adapter.leaves(0).values()]
    adapter.add_gradients(0, ones)
    adapter.accumulate = True
    for _ in range(256):
        adapter.add_gradients(0, [one / 256 for one in ones])
    assert (adapter.gradient_of("transformer_blocks.0.attn1.to_q.lora_A.weight") == 2).all()


def test_the_engine_s_adapter_is_as_large_as_its_parameters_but_for_alignment() -> None:
    adapter = fast_nano(settings=SETTINGS)[1].adapter
    numbers = sum(parameter.numel() for parameter in adapter.parameters.values())
    held = sum(segment.values.numel() for segment in adapter.segments)
    assert numbers <= held <= numbers + 128 * 2 * len(adapter.parameters)
