"""Every optimizer in both engines: it learns, both engines go the same way, a bad step changes nothing, and a resumed one is exact.

float32, seed 0. After five updates the two engines' adapters differ by less than 1e-6.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, get_args

import pytest
import torch
from step_engine import ALL_ATTENTIONS, CPU, F32, random_block
from torch import Tensor, nn

from ltx2core.caching.tensors import read_tensors, write_tensors
from ltx2core.config.optimizers import Rule
from ltx2core.errors import ConfigError
from ltx2core.lora.layers import modality_of
from ltx2core.models.fused_block import build_skeleton
from ltx2core.planning.method_costs import state_bytes
from ltx2core.training.adapter import AdapterSettings
from ltx2core.training.average import AverageSettings
from ltx2core.training.flat_adapter import FlatAdapter
from ltx2core.training.flat_optimizer import FlatOptimizer
from ltx2core.training.optimizer import AdamSettings, AdapterOptimizer
from ltx2core.training.rules import RuleOptimizer, RuleSettings, check_package

if TYPE_CHECKING:
    from pathlib import Path

TRUE, FALSE = torch.tensor(True), torch.tensor(False)
RULES = [rule for rule in get_args(Rule) if rule != "adamw"]
RATE = {"prodigy": 1.0}


class Pair:
    """One adapter twice: in flat buffers, and as tensors of their own."""

    def __init__(self, rule: Rule, *, average: AverageSettings | None = None) -> None:
        groups = build_skeleton(random_block(), targets=ALL_ATTENTIONS).groups
        self.adapter = FlatAdapter(groups, num_blocks=1, rank=3, seed=0, device=CPU, dtype=F32)
        self.plain = {name: nn.Parameter(value.detach().clone()) for name, value in self.adapter.parameters.items()}
        settings = RuleSettings(rule=rule, adam=AdamSettings(weight_decay=0.1))
        self.rate = RATE.get(rule, 1e-2)
        self.flat = RuleOptimizer(self.adapter.parameters, settings, average=average, flat=self.adapter)
        self.usual = RuleOptimizer(self.plain, settings, average=average)

    def step(self, number: int, *, finite: Tensor = TRUE, sound: bool = True) -> None:
        generator = torch.Generator().manual_seed(number)
        self.adapter.forget_gradients()
        self.flat.reached = frozenset({"video", "audio", "both"} if sound else {"video"})
        for name, parameter in self.plain.items():
            gradient = torch.randn(parameter.shape, generator=generator) + parameter.detach()
            if sound or modality_of(name) == "video":
                parameter.grad = gradient
                self.adapter.gradient_of(name).copy_(gradient)
        for optimizer in (self.flat, self.usual):
            optimizer.clip(1.0)
            optimizer.step(self.rate, finite=finite)

    def values(self) -> dict[str, Tensor]:
        return {name: value.detach().clone() for name, value in self.adapter.parameters.items()}


@pytest.mark.parametrize("rule", RULES)
def test_both_engines_go_the_same_way_and_a_batch_without_sound_leaves_sound_as_it_is(rule: Rule) -> None:
    pair = Pair(rule)
    start = pair.values()
    for number in range(5):
        before = pair.values()
        pair.step(number, sound=number % 2 == 0)
        for name, value in pair.values().items():
            if number % 2 and modality_of(name) != "video":
                assert torch.equal(value, before[name])
            torch.testing.assert_close(value, pair.plain[name].detach(), rtol=0, atol=1e-6)
    assert all(not torch.equal(value, start[name]) for name, value in pair.values().items())


@pytest.mark.parametrize("rule", get_args(Rule))
def test_the_plan_counts_what_the_state_takes(rule: Rule) -> None:
    parameters = {"a.lora_A.weight": nn.Parameter(torch.randn(8, 256)), "a.lora_B.weight": nn.Parameter(torch.randn(256, 8))}
    settings = RuleSettings(rule=rule)
    optimizer = AdapterOptimizer(parameters, settings.adam) if rule == "adamw" else RuleOptimizer(parameters, settings)
    for parameter in parameters.values():
        parameter.grad = torch.randn(parameter.shape)
    optimizer.clip(None)
    optimizer.step(1e-3, finite=TRUE)
    numbers = sum(parameter.numel() for parameter in parameters.values())
    held = sum(value.nbytes for value in optimizer.state().values() if value.dim())
    assert held / numbers <= state_bytes(rule, eight_bit=False, rank=8) < held / numbers + 0.3


@pytest.mark.parametrize("rule", RULES)
def test_it_lowers_a_loss(rule: Rule) -> None:
    torch.manual_seed(0)
    parameters = {"a.lora_A.weight": nn.Parameter(torch.randn(4, 8)), "a.lora_B.weight": nn.Parameter(torch.zeros(8, 4))}
    goal = torch.randn(8, 8) / 4
    optimizer = RuleOptimizer(parameters, RuleSettings(rule=rule, adam=AdamSettings(weight_decay=0.0)))

    def loss() -> Tensor:
        return (parameters["a.lora_B.weight"] @ parameters["a.lora_A.weight"] - goal).square().sum()

    first = float(loss().detach())
    for _ in range(150):
        loss().backward()
        optimizer.clip(None)
        optimizer.step(RATE.get(rule, 2e-2), finite=TRUE)
    with optimizer.at_rest():
        assert float(loss().detach()) < 0.65 * first  # the best of rank 4 is 0.1


@pytest.mark.parametrize("rule", RULES)
def test_a_step_that_is_not_finite_changes_neither_values_nor_state(rule: Rule) -> None:
    pair = Pair(rule)
    for number in range(2):
        pair.step(number)
    values, state = pair.values(), {name: value.clone() for name, value in pair.flat.state().items()}
    pair.step(2, finite=FALSE)
    assert all(torch.equal(values[name], value) for name, value in pair.values().items())
    assert state.keys() == pair.flat.state().keys()
    assert all(torch.equal(state[name], value) for name, value in pair.flat.state().items())


@pytest.mark.parametrize("rule", RULES)
def test_a_state_read_back_from_a_file_goes_on_bit_for_bit_in_either_engine(rule: Rule, tmp_path: Path) -> None:
    first = Pair(rule, average=AverageSettings(decay=0.9))
    for number in range(3):
        first.step(number)
    write_tensors(tmp_path / "state.safetensors", first.flat.state())
    second = Pair(rule, average=AverageSettings(decay=0.9))
    with torch.no_grad():
        for name, value in first.values().items():
            second.adapter.parameters[name].copy_(value)
            second.plain[name].copy_(value)
    tensors = read_tensors(tmp_path / "state.safetensors")
    assert tensors is not None
    second.flat.load_state(tensors)
    second.usual.load_state(tensors)
    for number in range(3, 6):
        first.step(number)
        second.step(number)
    assert all(torch.equal(value, second.values()[name]) for name, value in first.values().items())
    averaged, again = first.flat.averaged(), second.flat.averaged()
    assert averaged is not None
    assert again is not None
    assert all(torch.equal(value, again[name]) for name, value in averaged.items())
    assert all(torch.allclose(value, second.plain[name], rtol=0, atol=1e-6) for name, value in first.values().items())


def test_a_state_of_another_adapter_is_refused() -> None:
    with pytest.raises(KeyError, match="strange"):
        Pair("muon").flat.load_state({"momentum_buffer.strange": torch.zeros(1)})


def test_schedule_free_is_measured_at_its_average_and_trains_on_where_it_was() -> None:
    pair = Pair("schedule-free")
    for number in range(3):
        pair.step(number)
    training = pair.values()
    z = {name: pair.flat.state()[f"z.{name}"] for name in training}
    with pair.flat.at_rest():
        resting = pair.values()
        assert pair.adapter.leaves(0)["attn1.to_qkv.lora_b"].abs().sum() > 0  # what the blocks compute with follows
    for name, value in training.items():
        torch.testing.assert_close(value, 0.1 * z[name] + 0.9 * resting[name], rtol=0, atol=1e-6)  # y = (1 - beta1) z + beta1 x
        assert not torch.equal(value, resting[name])
    assert all(torch.equal(value, training[name]) for name, value in pair.values().items())


def test_a_missing_package_is_named_before_training(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "prodigyopt", None)
    with pytest.raises(ConfigError, match=r"Prodigy needs the package prodigyopt.*\n?.*pip install"):
        check_package("prodigy")


@pytest.mark.parametrize("rule", ["adamw", "adafactor", "muon"])
def test_layers_learn_at_their_own_rates_and_at_0_stay_as_they_are(rule: Rule) -> None:
    settings = AdapterSettings(rank=3, alpha=3.0, rate_pattern=(("attn2", 0.0),), audio_rate=0.5)
    inner = {name: settings.shape_of(f"transformer_blocks.0.{name}") for name in ALL_ATTENTIONS}
    adapter = FlatAdapter(
        build_skeleton(random_block(), targets=ALL_ATTENTIONS, shapes=inner).groups, num_blocks=1, rank=0, seed=0, device=CPU, dtype=F32
    )
    plain = {name: nn.Parameter(value.detach().clone()) for name, value in adapter.parameters.items()}
    adam, rates = AdamSettings(weight_decay=0.0), settings.rates(plain)
    if rule == "adamw":
        flat, usual = FlatOptimizer(adapter, adam), AdapterOptimizer(plain, adam, rates=rates)
    else:
        chosen = RuleSettings(rule=rule, adam=adam)
        flat, usual = RuleOptimizer(adapter.parameters, chosen, rates=rates, flat=adapter), RuleOptimizer(plain, chosen, rates=rates)
    before = {name: value.detach().clone() for name, value in plain.items()}
    generator = torch.Generator().manual_seed(0)
    for name, parameter in plain.items():
        parameter.grad = torch.randn(parameter.shape, generator=generator)
        adapter.gradient_of(name).copy_(parameter.grad)
    for optimizer in (flat, usual):
        optimizer.clip(None)
        optimizer.step(1e-2, finite=TRUE)
    moved = {name: float((value - before[name]).detach().abs().max()) for name, value in plain.items()}
    for name, value in plain.items():
        torch.testing.assert_close(adapter.parameters[name], value, rtol=0, atol=1e-7)
    assert moved["transformer_blocks.0.attn2.to_q.lora_B.weight"] == 0
    full, half = (moved[f"transformer_blocks.0.{name}.to_q.lora_B.weight"] for name in ("attn1", "audio_attn1"))
    if rule == "adamw":
        assert half == pytest.approx(0.5 * full, rel=1e-3)
    assert 0 < half < full


@pytest.mark.parametrize("by", ["norm", "value"])
def test_clipping_by_value_limits_each_number_and_by_norm_the_whole(by: str) -> None:
    pair = Pair("muon")
    adam = FlatOptimizer(pair.adapter, AdamSettings()), AdapterOptimizer(pair.plain, AdamSettings())
    for name, parameter in pair.plain.items():
        parameter.grad = torch.full(parameter.shape, -3.0)
        pair.adapter.gradient_of(name).fill_(-3.0)
    norms = [optimizer.clip(0.5, by=by) for optimizer in adam]
    torch.testing.assert_close(norms[0], norms[1])
    gradient = next(iter(pair.plain.values())).grad
    assert gradient is not None
    expected = -0.5 if by == "value" else -3.0 * 0.5 / float(norms[0])
    torch.testing.assert_close(gradient, torch.full_like(gradient, expected), rtol=1e-4, atol=0)
    torch.testing.assert_close(pair.adapter.gradient_of(next(iter(pair.plain))), gradient)
