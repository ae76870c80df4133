"""The flat optimizer against AdapterOptimizer, one tensor at a time (float32; equal to 1e-7 of each other after five steps)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch
from step_engine import ALL_ATTENTIONS, CPU, F32, random_block
from torch import Tensor, nn

from ltx2core.caching.tensors import read_tensors, write_tensors
from ltx2core.lora.layers import Modality, modality_of
from ltx2core.models.fused_block import build_skeleton
from ltx2core.training.average import AverageSettings
from ltx2core.training.flat_adapter import FlatAdapter
from ltx2core.training.flat_optimizer import FlatOptimizer
from ltx2core.training.optimizer import AdamSettings, AdapterOptimizer

if TYPE_CHECKING:
    from pathlib import Path

TRUE, FALSE = torch.tensor(True), torch.tensor(False)
ADAM = AdamSettings(weight_decay=0.1)
ALL: frozenset[Modality] = frozenset({"video", "audio", "both"})
PICTURES: frozenset[Modality] = frozenset({"video"})
SOUND: frozenset[Modality] = frozenset({"audio"})


class Pair:
    """One adapter twice: flat, and as tensors of their own."""

    def __init__(self, *, average: AverageSettings | None = None) -> None:
        groups = build_skeleton(random_block(), targets=ALL_ATTENTIONS, scale=1.0).groups
        self.adapter = FlatAdapter(groups, num_blocks=2, rank=3, seed=0, device=CPU, dtype=torch.bfloat16)
        self.plain = {name: nn.Parameter(parameter.detach().clone()) for name, parameter in self.adapter.parameters.items()}
        self.flat = FlatOptimizer(self.adapter, ADAM, average=average)
        self.usual = AdapterOptimizer(self.plain, ADAM, average=average)

    def step(
        self,
        number: int,
        *,
        reached: frozenset[Modality] = ALL,
        max_norm: float | None = None,
        finite: Tensor = TRUE,
        spoilt: bool = False,
    ) -> tuple[Tensor, Tensor]:
        """One update of both with the same gradients; their norms come back."""
        self.give(number, reached=reached, spoilt=spoilt)
        self.flat.reached = reached
        norms = self.flat.clip(max_norm), self.usual.clip(max_norm)
        self.flat.step(1e-2, finite=finite)
        self.usual.step(1e-2, finite=finite)
        return norms

    def give(self, number: int, *, reached: frozenset[Modality] = ALL, spoilt: bool = False) -> None:
        generator = torch.Generator().manual_seed(number)
        self.adapter.forget_gradients()
        for name, parameter in self.plain.items():
            gradient = torch.randn(parameter.shape, generator=generator)
            if modality_of(name) in reached:
                parameter.grad = gradient * (float("nan") if spoilt else 1)
                self.adapter.gradient_of(name).copy_(parameter.grad)

    def apart(self) -> float:
        """The largest difference of any number of the two adapters."""
        return max(float((self.adapter.parameters[name] - parameter).detach().abs().max()) for name, parameter in self.plain.items())


def test_five_steps_are_those_of_the_usual_optimizer() -> None:
    pair = Pair()
    for number in range(5):
        pair.step(number)
        assert pair.apart() <= 1e-7


@pytest.mark.parametrize("max_norm", [0.5, 1e6, None, 0.0])
def test_clipping_gives_the_same_norm_and_the_same_steps(max_norm: float | None) -> None:
    pair = Pair()
    for number in range(5):
        found, expected = pair.step(number, max_norm=max_norm)
        torch.testing.assert_close(found, expected)
        assert pair.apart() <= 1e-7


def test_batches_without_sound_and_of_sound_alone_leave_the_other_s_part_as_it_is() -> None:
    """Neither weight decay nor momentum moves what a batch did not reach."""
    pair = Pair()
    for number, reached in enumerate([PICTURES, ALL, PICTURES, SOUND, PICTURES | SOUND, SOUND, ALL]):
        before = [segment.values.detach().clone() for segment in pair.adapter.segments]
        found, expected = pair.step(number, reached=reached, max_norm=1.0)
        torch.testing.assert_close(found, expected)
        for segment, values in zip(pair.adapter.segments, before, strict=True):
            assert torch.equal(segment.values, values) != (segment.modality in reached)
        assert pair.apart() <= 1e-7


def test_a_step_that_is_not_finite_changes_nothing_and_the_next_one_is_as_if_it_had_not_been() -> None:
    pair = Pair()
    for number in range(2):
        pair.step(number)
    before = {name: value.clone() for name, value in pair.flat.state().items()}
    values = {name: parameter.detach().clone() for name, parameter in pair.adapter.parameters.items()}
    norm, _ = pair.step(2, max_norm=1.0, finite=FALSE, spoilt=True)
    assert norm.isnan()
    assert all(torch.equal(values[name], parameter) for name, parameter in pair.adapter.parameters.items())
    assert all(torch.equal(before[name], value) for name, value in pair.flat.state().items())
    pair.step(3)
    assert pair.apart() <= 1e-7


def test_what_blocks_compute_with_follows_every_step() -> None:
    pair = Pair()
    before = pair.adapter.leaves(0)["attn1.to_qkv.lora_b"].detach().clone()
    pair.step(0)
    after = pair.adapter.leaves(0)["attn1.to_qkv.lora_b"]
    assert not torch.equal(before, after)
    assert torch.equal(after[1], pair.adapter.parameters["transformer_blocks.0.attn1.to_k.lora_B.weight"].bfloat16())


def test_an_update_that_reaches_no_target_changes_nothing() -> None:
    groups = build_skeleton(random_block(), targets=("attn1.to_q",), scale=1.0).groups
    adapter = FlatAdapter(groups, num_blocks=1, rank=3, seed=0, device=CPU, dtype=F32)
    optimizer, before = FlatOptimizer(adapter, ADAM), adapter.segments[0].values.detach().clone()
    optimizer.reached = SOUND
    assert optimizer.clip(1.0) == 0
    optimizer.step(1e-2, finite=TRUE)
    assert torch.equal(adapter.segments[0].values, before)


def written(optimizer: FlatOptimizer | AdapterOptimizer, path: Path) -> dict[str, Tensor]:
    """The state as a checkpoint holds it."""
    write_tensors(path, optimizer.state())
    found = read_tensors(path)
    assert found is not None
    return found


def copy_of(pair: Pair, *, average: AverageSettings | None = None) -> Pair:
    """A pair with the same parameters and no state yet."""
    other = Pair(average=average)
    with torch.no_grad():
        for name, parameter in pair.adapter.parameters.items():
            other.adapter.parameters[name].copy_(parameter)
            other.plain[name].copy_(pair.plain[name])
    other.adapter.refresh()
    return other


@pytest.mark.parametrize("average", [None, AverageSettings(decay=0.9, every=2)])
def test_a_restored_state_goes_on_bit_for_bit(average: AverageSettings | None, tmp_path: Path) -> None:
    pair = Pair(average=average)
    for number, reached in enumerate([PICTURES, ALL, SOUND]):
        pair.step(number, reached=reached)
    other = copy_of(pair, average=average)
    other.flat.load_state(written(pair.flat, tmp_path / "flat.safetensors"))
    other.usual.load_state(written(pair.usual, tmp_path / "usual.safetensors"))
    for number in range(3, 6):
        pair.step(number)
        other.step(number)
    assert all(torch.equal(parameter, other.adapter.parameters[name]) for name, parameter in pair.adapter.parameters.items())
    state = other.flat.state()
    assert state.keys() == pair.flat.state().keys()
    assert all(torch.equal(value, state[name]) for name, value in pair.flat.state().items())


@pytest.mark.parametrize("average", [None, AverageSettings(decay=0.9)])
@pytest.mark.parametrize("reached", [[ALL, ALL, ALL], [PICTURES, PICTURES], [PICTURES, ALL, SOUND], []])
def test_either_optimizer_goes_on_from_the_state_of_the_other(
    reached: list[frozenset[Modality]], average: AverageSettings | None, tmp_path: Path
) -> None:
    pair = Pair(average=average)
    for number, which in enumerate(reached):
        pair.step(number, reached=which)
    flat, usual = written(pair.flat, tmp_path / "flat.safetensors"), written(pair.usual, tmp_path / "usual.safetensors")
    assert flat.keys() == usual.keys()
    for name, value in usual.items():
        torch.testing.assert_close(flat[name], value, rtol=1e-6, atol=1e-7)
    other = copy_of(pair, average=average)
    other.flat.load_state(usual)
    other.usual.load_state(flat)
    for number in range(3, 6):
        pair.step(number)
        other.step(number)
    assert pair.apart() <= 1e-7
    assert other.apart() <= 1e-6
    assert max(float((other.plain[name] - parameter).detach().abs().max()) for name, parameter in pair.plain.items()) <= 1e-6


def test_the_state_of_another_adapter_is_refused_by_name() -> None:
    pair = Pair()
    with pytest.raises(KeyError, match=r"exp_avg\.somewhere\.else"):
        pair.flat.load_state({"exp_avg.somewhere.else": torch.zeros(3)})


def test_the_average_is_that_of_the_usual_optimizer() -> None:
    pair = Pair(average=AverageSettings(decay=0.9, every=2))
    for number in range(5):
        pair.step(number)
    found, expected = pair.flat.averaged(), pair.usual.averaged()
    assert found is not None
    assert expected is not None
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=0, atol=1e-7)
    pair.flat.restart_average()
    again = pair.flat.averaged()
    assert again is not None
    assert all(torch.equal(again[name], parameter) for name, parameter in pair.adapter.parameters.items())
    assert Pair().flat.averaged() is None


def test_a_state_is_not_changed_by_steps_that_come_after_it_was_loaded() -> None:
    pair = Pair()
    pair.step(0)
    saved = {name: value.clone() for name, value in pair.flat.state().items()}
    kept = {name: value.clone() for name, value in saved.items()}
    other = copy_of(pair)
    other.flat.load_state(saved)
    other.step(1)
    assert all(torch.equal(saved[name], value) for name, value in kept.items())
