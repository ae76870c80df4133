from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

import pytest

from ltx2core.config.load import load_config_dict
from ltx2core.hardware.before_start import Forecast, checkpoint_bytes, warnings_before, written_bytes
from ltx2core.hardware.machine import Gpu, GpuProcess, Machine
from ltx2core.hardware.rates import Rates

if TYPE_CHECKING:
    from pathlib import Path

    from ltx2core.config.load import LoadedConfig
    from ltx2core.runs.events import Notice

GIB = 1 << 30
CARD = Gpu(
    index=0,
    name="NVIDIA GeForce RTX 4090",
    total_bytes=24 * GIB,
    free_bytes=23 * GIB,
    capability=(8, 9),
    percent=0,
    temperature_celsius=38,
    power_watts=22.0,
    used_by_others_bytes=GIB // 3,
    power_limit_watts=450.0,
    default_power_limit_watts=450.0,
    pcie_generation=1,  # at rest
    pcie_width=16,
    best_pcie_generation=4,
    best_pcie_width=16,
)
MACHINE = Machine(
    gpus=(CARD,),
    driver="580.65",
    no_gpu_because=None,
    cpu_name="CPU",
    cores=8,
    machine_cores=8,
    ram_total_bytes=64 * GIB,
    ram_available_bytes=50 * GIB,
    ram_limited_by="machine",
    disk_path="/data",
    disk_total_bytes=1000 * GIB,
    disk_free_bytes=500 * GIB,
    system="Linux 6.8",
    python="3.12.4",
    pinned_limit_bytes=64 * GIB,
)


@pytest.fixture
def config(tmp_path: Path) -> LoadedConfig:
    return _config(tmp_path)


def _config(folder: Path, *, audio: bool = False, **keys: object) -> LoadedConfig:
    values = {"pretrained_model_name_or_path": "Lightricks/LTX-2", "max_train_steps": 2000, "checkpoint_step_interval": 100} | keys
    sound: dict[str, object] = {"audio": {}} if audio else {}
    return load_config_dict(values, base=folder, datasets=[{"id": "clips", "instance_data_dir": str(folder)} | sound])


def _with(gpu: dict[str, Any] | None = None, **machine: Any) -> Machine:
    return dataclasses.replace(MACHINE, gpus=(dataclasses.replace(CARD, **(gpu or {})),), **machine)


def _only(machine: Machine, config: LoadedConfig, forecast: Forecast | None = None) -> Notice:
    (notice,) = warnings_before(machine, config, forecast)
    assert notice.text.endswith(".")
    return notice


def test_a_machine_on_which_all_is_well_gets_no_warning_even_while_its_card_rests(config: LoadedConfig) -> None:
    roomy = Forecast(
        train_peak_bytes=20 * GIB, sample_peak_bytes=15 * GIB, host_peak_bytes=30 * GIB, pinned_bytes=20 * GIB, cache_bytes=GIB
    )
    assert warnings_before(MACHINE, config) == []
    assert warnings_before(MACHINE, config, roomy) == []


def test_memory_that_others_hold_is_told_with_who_they_are(config: LoadedConfig) -> None:
    processes = (GpuProcess(pid=4711, name="python3", used_bytes=9 * GIB), GpuProcess(pid=900, name="Xorg", used_bytes=GIB // 10))
    notice = _only(_with({"used_by_others_bytes": 9 * GIB, "free_bytes": 15 * GIB, "processes": processes}), config)
    assert notice.code == "gpu_in_use"
    assert "python3 4711" in notice.text
    assert "Xorg" not in notice.text
    assert "9.0 GiB" in notice.text
    assert "15.0 GiB of 24.0 GiB is left" in notice.text


def test_a_card_that_is_hidden_is_not_warned_about(config: LoadedConfig) -> None:
    hidden = dataclasses.replace(CARD, visible=False, used_by_others_bytes=20 * GIB)
    machine = dataclasses.replace(MACHINE, gpus=(hidden, dataclasses.replace(CARD, index=1)))
    assert warnings_before(machine, config) == []


def test_of_cards_that_differ_it_is_told_which_one_a_run_takes_unless_the_order_or_the_choice_is_the_users(config: LoadedConfig) -> None:
    other = dataclasses.replace(CARD, index=1, name="NVIDIA GeForce RTX 3060")
    both = dataclasses.replace(MACHINE, gpus=(CARD, other))
    notice = _only(both, config)
    assert notice.code == "several_cards"
    assert "RTX 4090 and NVIDIA GeForce RTX 3060" in notice.text
    assert "CUDA_VISIBLE_DEVICES" in notice.fix
    twins = dataclasses.replace(MACHINE, gpus=(CARD, dataclasses.replace(CARD, index=1)))
    for settled in (twins, dataclasses.replace(both, device_order="PCI_BUS_ID"), dataclasses.replace(both, visible_devices="GPU-1,GPU-2")):
        assert "several_cards" not in {notice.code for notice in warnings_before(settled, config)}


@pytest.mark.parametrize(
    ("name", "whose"), [("NVIDIA GeForce RTX 4090 Laptop GPU", "laptop's GPU"), ("NVIDIA GeForce RTX 4090", "The GPU")]
)
def test_a_power_limit_below_the_usual_one_is_told(config: LoadedConfig, name: str, whose: str) -> None:
    notice = _only(_with({"name": name, "power_limit_watts": 80.0, "default_power_limit_watts": 150.0}), config)
    assert notice.code == "power_limit"
    assert whose in notice.text
    assert "80 W of its usual 150 W" in notice.text


def test_a_laptop_on_its_battery_is_told(config: LoadedConfig) -> None:
    assert _only(_with(on_battery=True), config).code == "on_battery"


def test_heat_that_slows_a_card_is_told_and_a_power_limit_at_work_is_not(config: LoadedConfig) -> None:
    notice = _only(_with({"slowed_by": ("power limit", "heat (hardware)"), "temperature_celsius": 92}), config)
    assert notice.code == "gpu_slowed"
    assert "heat (hardware) at 92 °C" in notice.text
    assert warnings_before(_with({"slowed_by": ("power limit",)}), config) == []


@pytest.mark.parametrize(
    ("gpu", "said"),
    [
        ({"pcie_width": 4}, "PCIe 4 x4, 7.9 GB/s, where it could be by PCIe 4 x16"),
        ({"pcie_width": 8}, "PCIe 4 x8"),
        ({"pcie_width": 4, "best_pcie_width": 4}, "x4"),  # the slot has no more; the card has
        ({"best_pcie_generation": 3}, "PCIe 3 x16"),
        ({"name": "a card of tomorrow", "pcie_width": 8}, "PCIe 4 x8"),
    ],
)
def test_a_link_that_is_far_below_what_the_card_has_is_told(config: LoadedConfig, gpu: dict[str, Any], said: str) -> None:
    notice = _only(_with(gpu), config)
    assert notice.code == "slow_link"
    assert said in notice.text


def test_a_narrow_card_on_its_own_lanes_is_no_trouble(config: LoadedConfig) -> None:
    assert warnings_before(_with({"name": "NVIDIA GeForce RTX 4060", "pcie_width": 8, "best_pcie_width": 8}), config) == []


def test_copies_that_are_measured_far_below_the_link_are_told(config: LoadedConfig) -> None:
    rates = Rates(
        device="4090",
        source="measured",
        bf16_flops_per_second=1e14,
        int8_ops_per_second=None,
        fp8_flops_per_second=None,
        to_device_bytes_per_second=6e9,
        memory_bytes_per_second=9e11,
        launch_seconds=5e-6,
    )
    notice = _only(_with(rates=rates), config)
    assert notice.code == "slow_copies"
    assert "6.0 GB/s of the 31.5 GB/s" in notice.text
    assert warnings_before(_with(rates=dataclasses.replace(rates, to_device_bytes_per_second=26e9)), config) == []


def test_a_driver_that_spills_into_ram_is_told_under_windows_linux(config: LoadedConfig) -> None:
    assert _only(_with(wsl=True), config).code == "driver_spill"


@pytest.mark.parametrize(("swap", "said"), [(64 * GIB, "swap would be used"), (0, "the system would end the run")])
def test_a_run_that_needs_more_ram_than_is_free_is_told_what_would_happen(config: LoadedConfig, swap: int, said: str) -> None:
    notice = _only(_with(swap_total_bytes=swap), config, Forecast(host_peak_bytes=70 * GIB))
    assert notice.code == "little_ram"
    assert said in notice.text


def test_more_page_locked_memory_than_windows_allows_is_told(config: LoadedConfig) -> None:
    notices = warnings_before(_with(wsl=True, pinned_limit_bytes=32 * GIB), config, Forecast(pinned_bytes=36 * GIB))
    assert [notice.code for notice in notices] == ["driver_spill", "pinned_limit"]


def test_samples_that_need_more_than_training_are_told_and_more_loudly_when_they_do_not_fit_at_once(tmp_path: Path) -> None:
    told = Forecast(train_peak_bytes=16 * GIB, sample_peak_bytes=20 * GIB)
    assert _only(MACHINE, _config(tmp_path), told).level == "info"
    for more, said in ((1.04, []), (1.06, ["samples_need_more"])):  # a little more, where there is room for it, is nobody's concern
        some = Forecast(train_peak_bytes=10 * GIB, sample_peak_bytes=int(more * 10 * GIB))
        assert [notice.code for notice in warnings_before(MACHINE, _config(tmp_path), some)] == said
    little = Forecast(train_peak_bytes=18 * GIB, sample_peak_bytes=18 * GIB + 1)
    assert _only(_with({"free_bytes": 18 * GIB}), _config(tmp_path), little).level == "warning"
    failing = _only(_with({"free_bytes": 18 * GIB}), _config(tmp_path), told)
    assert (failing.code, failing.level) == ("samples_need_more", "warning")
    assert "18.0 GiB is free: they would be drawn and decoded in parts" in failing.text
    assert warnings_before(MACHINE, _config(tmp_path, validation_disable=True), told) == []


def test_a_disk_that_fills_is_told_with_the_first_step_that_no_longer_fits(tmp_path: Path) -> None:
    loaded = _config(tmp_path, checkpoints_total_limit=0, validation_disable=True)
    each = checkpoint_bytes(loaded)
    assert each is not None
    notice = _only(_with(disk_free_bytes=int(each * 3.5)), loaded)
    assert notice.code == "disk_fills"
    assert "full at step 400 of 2,000" in notice.text
    assert written_bytes(399, loaded.config, each, 0) <= each * 3.5 < written_bytes(400, loaded.config, each, 0)


def test_checkpoints_that_replace_each_other_fill_no_disk_that_holds_one_more_than_are_kept(tmp_path: Path) -> None:
    loaded = _config(tmp_path, checkpoints_total_limit=2, validation_disable=True)
    each = checkpoint_bytes(loaded)
    assert each is not None
    assert warnings_before(_with(disk_free_bytes=3 * each), loaded) == []
    assert "step 300 of" in _only(_with(disk_free_bytes=3 * each - 1), loaded).text


def test_samples_fill_a_disk_too(tmp_path: Path) -> None:
    loaded = _config(tmp_path, checkpoint_step_interval=0, validation_step_interval=10)
    told = Forecast(checkpoint_bytes=10, sample_bytes=1000)
    assert "step 510 of" in _only(_with(disk_free_bytes=50_500), loaded, told).text


def test_a_cache_that_has_no_room_is_told_first(config: LoadedConfig) -> None:
    assert _only(MACHINE, config, Forecast(cache_bytes=600 * GIB)).code == "disk_full"


@pytest.mark.parametrize(("audio", "numbers"), [(True, 213.9e6), (False, 100.7e6)])
def test_a_checkpoint_is_the_numbers_of_the_lora_and_their_moments(tmp_path: Path, audio: bool, numbers: float) -> None:
    assert checkpoint_bytes(_config(tmp_path, audio=audio, lora_rank=32)) == pytest.approx(12 * numbers, rel=0.001)
    assert checkpoint_bytes(_config(tmp_path, audio=audio, lora_rank=32, use_ema=True)) == pytest.approx(16 * numbers, rel=0.001)


def test_software_that_does_not_fit_is_told_and_a_missing_card_only_where_one_is_needed(tmp_path: Path, config: LoadedConfig) -> None:
    assert _only(_with(software_problem="The driver is too old."), config).code == "software"
    bare = dataclasses.replace(MACHINE, gpus=(), no_gpu_because="No NVIDIA driver was found on this machine.")
    assert _only(bare, config).code == "no_gpu"
    assert warnings_before(bare, _config(tmp_path, pretrained_model_name_or_path="nano")) == []


def test_cards_that_a_run_leaves_idle_are_told(tmp_path: Path) -> None:
    two = dataclasses.replace(MACHINE, gpus=(CARD, dataclasses.replace(CARD, index=1)))
    notice = _only(two, _config(tmp_path))
    assert notice.text == "This machine has 2 NVIDIA GeForce RTX 4090, and this run uses one of them."
    assert "num_processes = 2" in notice.fix
    assert warnings_before(two, _config(tmp_path, num_processes=2)) == []
