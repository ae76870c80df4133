"""AdamW against PyTorch's own (float32, seed 0), its state bit for bit, and updates skipped without asking the host."""

from __future__ import annotations

import pytest
import torch

from ltx2core.training.optimizer import AdamSettings, AdapterOptimizer

TRUE, FALSE = torch.tensor(True), torch.tensor(False)


def _parameters() -> dict[str, torch.nn.Parameter]:
    torch.manual_seed(0)
    return {name: torch.nn.Parameter(torch.randn(3, 4)) for name in ("a", "b")}


def _step(parameters: dict[str, torch.nn.Parameter], optimizer: AdapterOptimizer, number: int, *, finite: torch.Tensor = TRUE) -> None:
    generator = torch.Generator().manual_seed(number)
    for parameter in parameters.values():
        parameter.grad = torch.randn(3, 4, generator=generator)
    optimizer.step(1e-2, finite=finite)


def test_it_is_adamw() -> None:
    parameters, plain = _parameters(), _parameters()
    optimizer = AdapterOptimizer(parameters, AdamSettings(weight_decay=0.1))
    reference = torch.optim.AdamW(plain.values(), lr=1e-2, weight_decay=0.1, foreach=False, fused=False)
    for number in range(5):
        _step(parameters, optimizer, number)
        generator = torch.Generator().manual_seed(number)
        for parameter in plain.values():
            parameter.grad = torch.randn(3, 4, generator=generator)
        reference.step()
    for name in plain:
        torch.testing.assert_close(parameters[name], plain[name])


def test_a_step_that_is_not_finite_changes_nothing() -> None:
    parameters = _parameters()
    optimizer = AdapterOptimizer(parameters, AdamSettings())
    _step(parameters, optimizer, 1)
    before = {name: parameter.detach().clone() for name, parameter in parameters.items()}
    state = {name: value.clone() for name, value in optimizer.state().items()}
    for parameter in parameters.values():
        parameter.grad = torch.full((3, 4), float("nan"))
    optimizer.step(1e-2, finite=FALSE)
    assert all(torch.equal(before[name], parameters[name]) for name in before)
    assert all(torch.equal(state[name], value) for name, value in optimizer.state().items())
    assert all(parameter.grad is None for parameter in parameters.values())


def test_a_restored_state_goes_on_bit_for_bit() -> None:
    parameters = _parameters()
    optimizer = AdapterOptimizer(parameters, AdamSettings())
    for number in range(3):
        _step(parameters, optimizer, number)
    copies = {name: torch.nn.Parameter(parameter.detach().clone()) for name, parameter in parameters.items()}
    restored = AdapterOptimizer(copies, AdamSettings())
    restored.load_state({name: value.clone() for name, value in optimizer.state().items()})
    for number in range(3, 6):
        _step(parameters, optimizer, number)
        _step(copies, restored, number)
    assert all(torch.equal(parameters[name], copies[name]) for name in parameters)


def test_a_state_from_before_a_parameter_s_first_gradient_goes_on_bit_for_bit() -> None:
    parameters = _parameters()
    optimizer = AdapterOptimizer(parameters, AdamSettings())
    parameters["a"].grad = torch.ones(3, 4)  # "b" is sound's, and this clip had none
    optimizer.step(1e-2, finite=TRUE)
    copies = {name: torch.nn.Parameter(parameter.detach().clone()) for name, parameter in parameters.items()}
    restored = AdapterOptimizer(copies, AdamSettings())
    restored.load_state({name: value.clone() for name, value in optimizer.state().items()})
    for number in range(2):
        _step(parameters, optimizer, number)
        _step(copies, restored, number)
    assert all(torch.equal(parameters[name], copies[name]) for name in parameters)


def test_the_state_of_another_adapter_is_refused() -> None:
    optimizer = AdapterOptimizer(_parameters(), AdamSettings())
    with pytest.raises(KeyError):
        optimizer.load_state({"exp_avg.c": torch.zeros(3, 4)})


def test_clipping_shortens_a_long_gradient_and_tells_its_norm() -> None:
    parameters = _parameters()
    optimizer = AdapterOptimizer(parameters, AdamSettings())
    for parameter in parameters.values():
        parameter.grad = torch.ones(3, 4)
    assert float(optimizer.clip(1.0)) == pytest.approx(24**0.5)
    assert float(optimizer.clip(0)) == pytest.approx(1.0, abs=1e-4)


def test_adapters_in_less_than_float32_are_refused() -> None:
    with pytest.raises(ValueError, match="float32"):
        AdapterOptimizer({"a": torch.nn.Parameter(torch.zeros(2, dtype=torch.bfloat16))}, AdamSettings())
