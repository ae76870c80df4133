"""Runs that start from a LoRA file, and runs that keep an average: stopped and resumed, they end with the same bytes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch
from engine_fixtures import MakeConfig, OpenRun, events_of, watch

from ltx2core.lora.read import read_lora
from ltx2core.lora.start import start_from
from ltx2core.runs.control import Control
from ltx2core.runs.events import Event, LoraExported, Notice, StepDone
from ltx2core.training.average import AdapterAverage, AverageSettings, _OnHost
from ltx2core.training.export import average_path

if TYPE_CHECKING:
    from ltx2core.training.session import TrainingSession


def _bytes(session: TrainingSession) -> list[bytes]:
    return [path.read_bytes() for path in (session.folder.lora, average_path(session.folder.lora))]


def test_a_run_from_a_lora_keeps_its_average_and_origin_over_a_stop_even_when_the_file_is_gone(
    make_config: MakeConfig, open_run: OpenRun
) -> None:
    first = open_run(make_config(max_train_steps=2, lora_alpha=8), "first")
    assert first.run() == "finished", first.failure
    start = first.folder.lora
    loaded = make_config(max_train_steps=5, lora_rank=6, init_lora=str(start), use_ema=True, ema_decay=0.9, lr_scheduler="cosine")
    whole = open_run(loaded, "whole")
    assert whole.run() == "finished", whole.failure
    control = Control()
    parts = open_run(loaded, "parts", control=control)

    def stop(event: Event) -> None:
        if isinstance(event, StepDone) and event.step == 2:
            control.stop()

    watch(parts, do=stop)
    assert parts.outcome == "stopped"
    metadata = read_lora(whole.folder.lora).metadata
    assert metadata["init_lora"] == read_lora(start).fingerprint
    start.unlink()
    parts = open_run(loaded, "parts", resume=True)
    assert parts.run() == "finished", parts.failure
    assert _bytes(parts) == _bytes(whole)
    assert read_lora(average_path(whole.folder.lora)).metadata["average"] == "decay 0.9 every 1 steps"
    told = [event.path for event in events_of(whole) if isinstance(event, LoraExported)]
    assert told == ["lora/whole-ema.safetensors", "lora/whole.safetensors"]
    assert [event.code for event in events_of(whole) if isinstance(event, Notice)].count("init_lora") == 1


def test_a_lora_wider_than_the_run_is_refused_before_anything_is_cached(make_config: MakeConfig, open_run: OpenRun) -> None:
    first = open_run(make_config(max_train_steps=1, lora_rank=8), "wide")
    assert first.run() == "finished", first.failure
    session = open_run(make_config(lora_rank=4, init_lora=str(first.folder.lora)), "narrow")
    assert session.run() == "failed"
    assert session.failure is not None
    assert "rank 8" in session.failure.text
    assert session.failure.fix == "Set lora_rank to 8 or more."


@pytest.mark.parametrize("every", [1, 3])
def test_an_average_follows_its_plain_formula_and_restores_bit_for_bit(every: int) -> None:
    settings = AverageSettings(decay=0.5, every=every)
    parameters = {"a": torch.nn.Parameter(torch.zeros(3))}
    average = AdapterAverage(parameters, settings)
    expected = torch.zeros(3)
    for step in range(1, 10):
        with torch.no_grad():
            parameters["a"].copy_(torch.full((3,), float(step)))
        average.update()
        if step % every == 0:
            decay = min(0.5, (1 + step // every) / (10 + step // every))
            expected = decay * expected + (1 - decay) * step
        torch.testing.assert_close(average.values()["a"], expected)
        restored = AdapterAverage(parameters, settings)
        restored.load_state({name: value.clone() for name, value in average.state().items()})
        assert torch.equal(restored.values()["a"], average.values()["a"])
        average = restored


@pytest.mark.parametrize("every", [1, 3])
def test_an_average_in_host_memory_is_that_beside_the_adapter(every: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its updates are computed one later, and before anybody sees them. Here without a card, whose copies are the only difference."""
    settings = AverageSettings(decay=0.5, every=every)
    parameters = {"a": torch.nn.Parameter(torch.zeros(3)), "b": torch.nn.Parameter(torch.ones(2, 2))}
    beside = AdapterAverage(parameters, settings)
    monkeypatch.setattr("ltx2core.training.average._Beside", _OnHost)
    looked_at, left_alone = AdapterAverage(parameters, settings), AdapterAverage(parameters, settings)
    for step in range(1, 10):
        with torch.no_grad():
            for parameter in parameters.values():
                parameter.copy_(torch.full(parameter.shape, float(step)))
        for average in (beside, looked_at, left_alone):
            average.update()
        if step == 5:
            for average in (beside, looked_at, left_alone):
                average.restart()
        assert all(torch.equal(value, looked_at.values()[name]) for name, value in beside.values().items())
    restored = AdapterAverage(parameters, settings)
    restored.load_state({name: value.clone() for name, value in left_alone.state().items()})
    assert all(torch.equal(value, restored.values()[name]) for name, value in beside.values().items())
    assert left_alone.state()["average_updates"] == beside.state()["average_updates"]


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_an_average_in_host_memory_takes_nothing_of_the_card_and_is_never_waited_for() -> None:
    parameter = torch.nn.Parameter(torch.randn(1 << 20, device="cuda"))
    beside, on_host = (AdapterAverage({"a": parameter}, AverageSettings(decay=0.5, on_host=host)) for host in (False, True))
    before = torch.cuda.memory_allocated()
    torch.cuda.set_sync_debug_mode("error")
    try:
        for _ in range(5):
            with torch.no_grad():
                parameter.add_(1.0)
            beside.update()
            on_host.update()
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert torch.cuda.memory_allocated() == before
    value = on_host.values()["a"]
    assert value.device.type == "cpu"
    torch.testing.assert_close(value, beside.values()["a"].cpu(), rtol=1e-6, atol=1e-6)


def test_widening_a_lora_adds_the_same_and_can_learn_in_the_new_width(tmp_path) -> None:
    from lora_fixtures import answer_of, tiny_transformer, trained_adapter

    from ltx2core.training.adapter import AdapterSettings, add_adapter
    from ltx2core.training.export import ExportSettings, export_lora

    narrow, wide = tiny_transformer(), tiny_transformer()
    path = tmp_path / "a.safetensors"
    export_lora(
        path, trained_adapter(narrow), ExportSettings(adapter=AdapterSettings(rank=4, alpha=10.0), dtype=torch.float32), metadata={}
    )
    parameters = add_adapter(wide, AdapterSettings(rank=6, alpha=3.0), audio=True, seed=0)
    assert start_from(parameters, read_lora(path), scale=3.0 / 6) == 0
    expected = answer_of(narrow)
    assert float((answer_of(wide) - expected).abs().max() / expected.abs().max()) < 1e-5
    down, up = (parameters[f"transformer_blocks.0.attn1.to_q.lora_{side}.weight"] for side in "AB")
    assert bool((down[4:] != 0).all())
    assert not bool(up[:, 4:].any())
