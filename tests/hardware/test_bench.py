from __future__ import annotations

import dataclasses
import json
from typing import TYPE_CHECKING

import pytest
import torch

from ltx2core.hardware.bench import CPU_SIZES, GPU_SIZES, Measured, ltx2_block, measure
from ltx2core.hardware.machine import TorchBuild
from ltx2core.hardware.nvml import Nvml
from ltx2core.hardware.probe import probe_machine
from ltx2core.hardware.rates import rates_from_json
from ltx2core.hardware.rates_store import key_of, rates_file, remember_rates, remembered_rates
from tests.hardware.nvml_answers import FakeNvml, NVMLError_LibraryNotFound

if TYPE_CHECKING:
    from pathlib import Path

    from ltx2core.hardware.machine import Machine

SMALL = dataclasses.replace(
    CPU_SIZES, product=128, eight_bit=(64, 64, 64), copy_bytes=1 << 20, video_tokens=32, video_width=64, audio_width=32, heads=4
)


@pytest.fixture(scope="module")
def on_cpu() -> Measured:
    return measure(torch.device("cpu"), sizes=SMALL, seconds=0.01)


def test_every_rate_of_a_cpu_is_measured_and_what_it_lacks_is_none(on_cpu: Measured) -> None:
    rates = on_cpu.rates
    assert rates.source == "measured"
    assert rates.device
    assert 1e6 < rates.bf16_flops_per_second < 1e14
    assert rates.int8_ops_per_second is not None or any("int8" in note for note in on_cpu.notes)
    assert rates.to_device_bytes_per_second is None  # nothing is copied to where it is already
    assert 1e7 < rates.memory_bytes_per_second < 1e13
    assert 1e-8 < rates.launch_seconds < 1e-2
    assert rates.block is not None
    assert (rates.block.video_width, rates.block.video_tokens) == (64, 32)
    assert 0 < rates.block.seconds < 10


def test_measured_rates_come_back_from_json(on_cpu: Measured) -> None:
    assert rates_from_json(json.loads(json.dumps(on_cpu.rates.as_json()))) == on_cpu.rates


def test_a_number_that_a_device_cannot_give_is_none_and_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    def cannot(*_: object) -> None:
        raise RuntimeError("int8 is not for this device\nand more")

    monkeypatch.setattr(torch, "_int_mm", cannot)
    measured = measure(torch.device("cpu"), sizes=SMALL, seconds=0.001)
    assert measured.rates.int8_ops_per_second is None
    assert measured.notes == ("Not measured: int8 products (int8 is not for this device).",)


def test_the_block_is_as_wide_as_ltx2() -> None:
    sizes = dataclasses.replace(GPU_SIZES, video_tokens=4, audio_tokens=2, text_tokens=3)
    block, inputs = ltx2_block(sizes, torch.device("meta"), torch.bfloat16)
    assert sum(parameter.numel() for parameter in block.parameters()) == pytest.approx(386.1e6, rel=0.001)
    assert inputs["hidden_states"].shape == (1, 4, 4096)


def _machine(tmp_path: Path, *, driver: str = "580.65", torch_version: str = "2.13", gpu: bool = True) -> Machine:
    library = FakeNvml(driver=driver) if gpu else FakeNvml(broken=NVMLError_LibraryNotFound("none"))
    build = TorchBuild(version=torch_version, cuda="13.0")
    return probe_machine(tmp_path, nvml=Nvml(library), torch=build, environment={"XDG_CACHE_HOME": str(tmp_path)})


def test_rates_are_remembered_for_the_card_with_its_driver_and_pytorch(tmp_path: Path, on_cpu: Measured) -> None:
    machine = _machine(tmp_path)
    file = rates_file({"XDG_CACHE_HOME": str(tmp_path)})
    assert remembered_rates(machine, file) is None
    remember_rates(machine, on_cpu.rates, file)
    assert _machine(tmp_path).rates == on_cpu.rates
    for other in (_machine(tmp_path, driver="590.1"), _machine(tmp_path, torch_version="2.14"), _machine(tmp_path, gpu=False)):
        assert other.rates is None
        assert key_of(other) != key_of(machine)


def test_a_damaged_file_of_rates_is_measured_anew(tmp_path: Path, on_cpu: Measured) -> None:
    file = rates_file({"XDG_CACHE_HOME": str(tmp_path)})
    file.parent.mkdir(parents=True)
    machine = _machine(tmp_path)
    for text in ("{", "[]", json.dumps({key_of(machine): {"device": "x"}})):
        file.write_text(text)
        assert remembered_rates(machine, file) is None
    remember_rates(machine, on_cpu.rates, file)
    assert remembered_rates(machine, file) == on_cpu.rates


@pytest.mark.gpu
def test_the_rates_of_a_gpu_are_measured_in_ten_seconds() -> None:
    if not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")
    import time

    torch.zeros(1, device="cuda")
    begin = time.monotonic()
    rates = measure().rates
    assert time.monotonic() - begin < 10
    assert rates.bf16_flops_per_second > 1e12
    assert rates.to_device_bytes_per_second is not None
    assert rates.to_device_bytes_per_second > 1e9
    assert rates.block is not None, measure().notes
    if torch.cuda.get_device_capability() >= (8, 9):
        assert rates.fp8_flops_per_second is not None
        assert rates.fp8_flops_per_second > rates.bf16_flops_per_second
