from __future__ import annotations

import json
from threading import Event
from typing import TYPE_CHECKING

import pytest

from ltx2core.hardware import limits
from ltx2core.hardware.nvml import Nvml
from ltx2core.hardware.probe import as_json, probe_machine
from ltx2core.hardware.telemetry import Telemetry
from tests.hardware.nvml_answers import FakeNvml, NVMLError_LibraryNotFound

if TYPE_CHECKING:
    from pathlib import Path

    from ltx2core.runs.events import MemorySampled


def test_a_card_is_told_with_its_memory_and_capability(tmp_path: Path) -> None:
    machine = probe_machine(tmp_path, nvml=Nvml(FakeNvml()))
    assert machine.driver == "580.65"
    (gpu,) = machine.gpus
    assert (gpu.name, gpu.total_bytes, gpu.free_bytes, gpu.capability) == ("NVIDIA H100", 80 << 30, 77 << 30, (9, 0))
    assert gpu.power_watts == 350.5


@pytest.mark.parametrize(
    "silent",
    [
        ("nvmlDeviceGetMemoryInfo",),
        ("nvmlDeviceGetName", "nvmlDeviceGetPowerUsage"),
        ("nvmlDeviceGetCudaComputeCapability", "nvmlSystemGetDriverVersion"),
    ],
)
def test_a_card_that_hides_values_is_still_listed(tmp_path: Path, silent: tuple[str, ...]) -> None:
    machine = probe_machine(tmp_path, nvml=Nvml(FakeNvml(silent=silent)))
    assert len(machine.gpus) == 1
    assert json.dumps(as_json(machine))


def test_no_driver_is_a_normal_machine_and_says_so_kindly(tmp_path: Path) -> None:
    machine = probe_machine(
        tmp_path / "not" / "there" / "yet", nvml=Nvml(FakeNvml(broken=NVMLError_LibraryNotFound("not found")), bus=tmp_path)
    )
    assert machine.gpus == ()
    assert machine.no_gpu_because == "No NVIDIA driver was found on this machine."
    assert machine.cores >= 1
    assert 0 < machine.ram_available_bytes <= machine.ram_total_bytes
    assert machine.disk_path == str(tmp_path)
    assert machine.disk_free_bytes > 0


def test_a_driver_that_answers_with_an_error_is_quoted(tmp_path: Path) -> None:
    machine = probe_machine(tmp_path, nvml=Nvml(FakeNvml(broken=RuntimeError("Driver/library version mismatch"))))
    assert "version mismatch" in (machine.no_gpu_because or "")


def _cgroup(tmp_path: Path, lines: str, files: dict[str, str]) -> dict[str, Path]:
    for name, text in files.items():
        path = tmp_path / "cgroup" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    proc = tmp_path / "proc"
    proc.write_text(lines)
    return {"proc": proc, "root": tmp_path / "cgroup"}


def test_the_tightest_cgroup_v2_limit_above_the_process_counts(tmp_path: Path) -> None:
    files = {
        "a/memory.max": "4294967296\n",
        "a/b/memory.max": "max\n",
        "a/b/memory.current": "1000",
        "a/b/memory.stat": "anon 5\ninactive_file 400\n",
        "a/cpu.max": "150000 100000",
    }
    place = _cgroup(tmp_path, "0::/a/b\n", files)
    assert limits.memory_limit(**place) == 4 << 30
    assert limits.memory_used(**place) == 600
    assert limits.cpu_limit(**place) == 1.5


def test_cgroup_v1_without_a_limit_is_no_limit(tmp_path: Path) -> None:
    files = {"memory/x/memory.limit_in_bytes": "9223372036854771712", "cpu/x/cpu.cfs_quota_us": "-1", "cpu/x/cpu.cfs_period_us": "100000"}
    place = _cgroup(tmp_path, "4:memory:/x\n3:cpu,cpuacct:/x\n", files)
    assert limits.memory_limit(**place) is None
    assert limits.cpu_limit(**place) is None


def test_a_container_that_hides_the_host_path_is_read_at_its_root(tmp_path: Path) -> None:
    place = _cgroup(tmp_path, "0::/docker/abc\n", {"memory.max": "1048576"})
    assert limits.memory_limit(**place) == 1 << 20


def test_cgroup_v1_tells_the_limit_of_groups_that_a_container_does_not_see(tmp_path: Path) -> None:
    stat = "inactive_file 10\nhierarchical_memory_limit 2147483648\ntotal_inactive_file 300\n"
    files = {"memory/x/memory.limit_in_bytes": str(2**63 - 4096), "memory/x/memory.stat": stat, "memory/x/memory.usage_in_bytes": "1000"}
    place = _cgroup(tmp_path, "4:memory:/x\n", files)
    assert limits.memory_limit(**place) == 2 << 30
    assert limits.memory_used(**place) == 700


@pytest.mark.parametrize(
    ("lines", "files", "expected"),
    [
        ("0::/a/b\n", {"a/memory.swap.max": "1048576", "a/b/memory.swap.max": "max"}, 1 << 20),
        ("0::/a\n", {"a/memory.swap.max": "0"}, 0),
        ("0::/a\n", {"a/memory.swap.max": "max"}, None),
        ("4:memory:/x\n", {"memory/x/memory.limit_in_bytes": "1000", "memory/x/memory.memsw.limit_in_bytes": "1500"}, 500),
        ("4:memory:/x\n", {"memory/x/memory.limit_in_bytes": "1000"}, None),
    ],
)
def test_the_swap_of_a_container_is_what_its_groups_allow(tmp_path: Path, lines: str, files: dict[str, str], expected: int | None) -> None:
    assert limits.swap_limit(**_cgroup(tmp_path, lines, files)) == expected


def test_no_cgroup_at_all_is_no_limit(tmp_path: Path) -> None:
    assert limits.memory_limit(proc=tmp_path / "none", root=tmp_path) is None


def test_telemetry_samples_at_once_and_stops_when_closed() -> None:
    samples: list[MemorySampled] = []
    two = Event()

    def emit(sample: MemorySampled) -> None:
        samples.append(sample)
        if len(samples) == 2:
            two.set()

    with Telemetry(emit, seconds=0.01, nvml=Nvml(FakeNvml())) as telemetry:
        assert two.wait(10)
    count = len(samples)
    telemetry.close()
    assert len(samples) == count
    assert samples[0].vram_used_bytes == 3 << 30
    assert samples[0].gpu_percent == 42
    assert samples[0].ram_used_bytes > 1 << 20
