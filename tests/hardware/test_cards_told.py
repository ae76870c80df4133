"""What the driver tells of cards, by recorded answers: see nvml_answers.py."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from ltx2core.errors import ConfigError
from ltx2core.hardware.machine import Gpu, GpuProcess, MigSlice, TorchBuild, as_json, from_json, markdown_page
from ltx2core.hardware.nvml import Nvml
from ltx2core.hardware.probe import is_wsl, probe_machine
from ltx2core.hardware.software import installed_torch, software_problem
from ltx2core.hardware.visible import visible_indices
from tests.hardware import nvml_answers as answers
from tests.hardware.nvml_answers import FakeCard, FakeNvml, Memory, Process

CUDA_13 = TorchBuild(version="2.13.0+cu130", cuda="13.0")


def _gpu(**told: object) -> Gpu:
    (gpu,) = Nvml(FakeNvml(FakeCard(told))).cards().gpus
    return gpu


def test_every_value_of_a_card_is_told() -> None:
    gpu = _gpu(
        nvmlDeviceGetCurrentClocksEventReasons=0x4 | 0x20 | 0x1,
        nvmlDeviceGetEnforcedPowerLimit=450_000,
        nvmlDeviceGetCurrPcieLinkWidth=8,
        nvmlDeviceGetNvLinkState=lambda link: link % 2 if link < 18 else 1 / 0,
    )
    assert gpu.uuid == "GPU-11111111-aaaa-bbbb-cccc-000000000000"
    assert (gpu.ecc, gpu.mig, gpu.nvlinks) == (True, False, 9)
    assert (gpu.power_limit_watts, gpu.default_power_limit_watts) == (450.0, 700.0)
    assert gpu.slowed_by == ("power limit", "heat (driver)")
    assert (gpu.pcie_generation, gpu.pcie_width, gpu.best_pcie_generation, gpu.best_pcie_width) == (5, 8, 5, 16)


@pytest.mark.parametrize("call", list(answers.H100))
def test_no_single_value_that_is_not_supported_keeps_the_others_from_being_told(call: str) -> None:
    gpu = _gpu(**{call: answers.NVMLError_NotSupported("Not Supported")})
    others = set(answers.H100) - {call}
    assert (gpu.name == "GPU 0") == (call == "nvmlDeviceGetName")
    assert (gpu.capability == (9, 0)) == ("nvmlDeviceGetCudaComputeCapability" in others)
    assert (gpu.ecc is True) == ("nvmlDeviceGetEccMode" in others)
    assert (gpu.total_bytes == 80 << 30) == ("nvmlDeviceGetMemoryInfo" in others)


def test_a_card_of_which_nothing_is_told_is_still_listed() -> None:
    machine_gpu = _gpu(**{call: answers.NVMLError_NotSupported("Not Supported") for call in answers.H100})
    assert (machine_gpu.name, machine_gpu.total_bytes, machine_gpu.used_by_others_bytes) == ("GPU 0", None, None)


def test_an_old_driver_is_asked_by_the_older_names() -> None:
    gpu = _gpu(
        nvmlDeviceGetMemoryInfo=lambda version=None: Memory() if version is None else 1 / 0,
        nvmlDeviceGetCurrentClocksEventReasons=answers.NVMLError_FunctionNotFound("Function Not Found"),
        nvmlDeviceGetCurrentClocksThrottleReasons=0x40,
        nvmlDeviceGetEnforcedPowerLimit=answers.NVMLError_FunctionNotFound("Function Not Found"),
        nvmlDeviceGetPowerManagementLimit=300_000,
    )
    assert gpu.used_by_others_bytes == 3 << 30
    assert gpu.slowed_by == ("heat (hardware)",)
    assert gpu.power_limit_watts == 300.0


def test_memory_of_others_is_all_that_is_used_while_this_process_has_none_even_where_they_cannot_be_seen() -> None:
    """A container sees no other process, and the driver's own share is not another's."""
    assert _gpu().used_by_others_bytes == 2 << 30


def test_processes_on_a_card_are_named_once_and_never_this_one() -> None:
    card = FakeCard(
        {
            "nvmlDeviceGetComputeRunningProcesses": [Process(os.getpid(), 5 << 30), Process(77, 2 << 30)],
            "nvmlDeviceGetGraphicsRunningProcesses": [Process(77, 2 << 30), Process(88, None)],
        }
    )
    (gpu,) = Nvml(FakeNvml(card, names={77: "/usr/bin/python3"})).cards().gpus
    assert gpu.processes == (
        GpuProcess(pid=77, name="python3", used_bytes=2 << 30),
        GpuProcess(pid=88, name="", used_bytes=None),
    )


def test_the_slices_of_a_card_under_mig_are_told() -> None:
    parts = [FakeCard({"nvmlDeviceGetUUID": f"MIG-{n}", "nvmlDeviceGetMemoryInfo": Memory(total=(n + 1) << 30)}) for n in range(2)]
    gpu = _gpu(
        nvmlDeviceGetMigMode=[1, 1],
        nvmlDeviceGetMaxMigDeviceCount=7,
        nvmlDeviceGetMigDeviceHandleByIndex=lambda number: parts[number],
    )
    assert gpu.mig
    assert gpu.mig_slices == (MigSlice(uuid="MIG-0", total_bytes=1 << 30), MigSlice(uuid="MIG-1", total_bytes=2 << 30))


def _three() -> tuple[Gpu, ...]:
    cards = [FakeCard({"nvmlDeviceGetUUID": f"GPU-{letter * 8}-1"}) for letter in "abc"]
    cards[2].answers |= {
        "nvmlDeviceGetMigMode": [1, 1],
        "nvmlDeviceGetMaxMigDeviceCount": 1,
        "nvmlDeviceGetMigDeviceHandleByIndex": lambda number: FakeCard({"nvmlDeviceGetUUID": "MIG-77777777-x"}),
    }
    return Nvml(FakeNvml(*cards)).cards().gpus


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (None, (0, 1, 2)),
        ("", ()),
        ("-1", ()),
        ("1", (1,)),
        ("2,0", (2, 0)),
        (" 0 , 1 ", (0, 1)),
        ("0,7,1", (0,)),  # what follows an entry that names nothing is not seen
        ("0,0", ()),  # nor is anything where one is named twice
        ("GPU-bbbb", (1,)),
        ("GPU-cccccccc-1,GPU-a", (2, 0)),
        ("GPU-", ()),
        ("GPU-zz", ()),
        ("MIG-7777", (2,)),
        ("MIG-GPU-cccccccc-1/0/0", (2,)),
        ("NoDevFiles", ()),
    ],
)
def test_hidden_cards_are_those_that_cuda_would_not_see(value: str | None, expected: tuple[int, ...]) -> None:
    assert visible_indices(value, _three()) == expected


def test_a_machine_tells_which_card_is_hidden_and_that_none_is_left(tmp_path: Path) -> None:
    def probe(value: str) -> tuple[tuple[bool, ...], str | None]:
        nvml = Nvml(FakeNvml(FakeCard(), FakeCard({"nvmlDeviceGetUUID": "GPU-2"})))
        machine = probe_machine(tmp_path, nvml=nvml, environment={"CUDA_VISIBLE_DEVICES": value}, torch=CUDA_13)
        assert len(machine.usable_gpus) == sum(gpu.visible for gpu in machine.gpus)
        return tuple(gpu.visible for gpu in machine.gpus), machine.no_gpu_because

    assert probe("1") == ((False, True), None)
    turned = probe_machine(
        tmp_path, nvml=Nvml(FakeNvml(FakeCard(), FakeCard())), environment={"CUDA_VISIBLE_DEVICES": "1,0"}, torch=CUDA_13
    )
    assert [gpu.index for gpu in turned.usable_gpus] == [1, 0]  # the first is the one that CUDA uses
    shown, why = probe("")
    assert shown == (False, False)
    assert why is not None
    assert "hides every card" in why


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (answers.NVMLError_LibRmVersionMismatch("Driver/library version mismatch"), "Start the machine again"),
        (answers.NVMLError_NoPermission("Insufficient Permissions"), "may not use"),
        (answers.NVMLError_FunctionNotFound("Function Not Found"), "too old"),
        (ImportError("pynvml"), "nvidia-ml-py is not installed"),
    ],
)
def test_a_library_that_does_not_start_is_explained_by_what_helps(error: Exception, said: str) -> None:
    assert said in (Nvml(FakeNvml(broken=error)).missing or "")


def test_a_card_on_the_bus_without_a_driver_is_not_the_same_as_no_card(tmp_path: Path) -> None:
    broken = answers.NVMLError_LibraryNotFound("NVML Shared Library Not Found")
    assert Nvml(FakeNvml(broken=broken), bus=tmp_path).missing == "No NVIDIA driver was found on this machine."
    for name, vendor, kind in (("0000:00:1f.0", "0x8086", "0x030000"), ("0000:01:00.1", "0x10de", "0x040300")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "vendor").write_text(f"{vendor}\n")
        (tmp_path / name / "class").write_text(f"{kind}\n")
    assert Nvml(FakeNvml(broken=broken), bus=tmp_path).missing == "No NVIDIA driver was found on this machine."  # a card's sound is no card
    (tmp_path / "0000:01:00.1" / "class").write_text("0x030200\n")
    assert "--gpus all" in (Nvml(FakeNvml(broken=broken), bus=tmp_path).missing or "")


def test_no_card_behind_a_driver_is_told_as_that() -> None:
    cards = Nvml(FakeNvml(silent=("nvmlDeviceGetCount",))).cards()
    assert (cards.gpus, cards.missing, cards.cuda) == ((), "The driver sees no card.", "13.0")


@pytest.mark.parametrize(
    ("torch", "driver_cuda", "said"),
    [
        (CUDA_13, "12.4", "update to driver 580.65.06 or newer, or install a PyTorch built for CUDA 12"),
        (CUDA_13, "13.0", None),
        (TorchBuild(version="2.11", cuda="12.8"), "12.0", None),  # within a generation older drivers do
        (TorchBuild(version="2.11", cuda="12.8"), "13.0", None),
        (TorchBuild(version="2.13.0+cpu", cuda=None), "13.0", "built for the CPU only"),
        (None, "13.0", "PyTorch is not installed"),
        (CUDA_13, None, None),
    ],
)
def test_a_driver_that_is_too_old_for_pytorch_is_told_with_what_helps(torch: TorchBuild | None, driver_cuda: str, said: str | None) -> None:
    problem = software_problem(torch, driver="555.42", driver_cuda=driver_cuda, gpus=[_gpu()])
    assert problem is None if said is None else said in (problem or "")


def test_a_card_from_before_bf16_is_told_and_no_card_has_no_problem() -> None:
    old = _gpu(nvmlDeviceGetCudaComputeCapability=(7, 5), nvmlDeviceGetName="NVIDIA GeForce RTX 2080")
    assert "compute capability 7.5" in (software_problem(CUDA_13, driver="580", driver_cuda="13.0", gpus=[old]) or "")
    assert software_problem(CUDA_13, driver="580", driver_cuda="13.0", gpus=[old, _gpu()]) is None
    assert software_problem(None, driver=None, driver_cuda=None, gpus=[]) is None


@pytest.mark.parametrize(
    ("text", "cuda"),
    [("cuda: Optional[str] = None\n", None), ("cuda: Optional[str] = '12.8'\n", "12.8"), ("cuda = '13.0'\n", "13.0"), ("", None)],
)
def test_a_build_of_torch_is_read_from_its_files(tmp_path: Path, text: str, cuda: str | None) -> None:
    (tmp_path / "version.py").write_text(f"from typing import Optional\n__version__ = '2.13.0+x'\ndebug = False\n{text}")
    assert installed_torch(tmp_path) == TorchBuild(version="2.13.0+x", cuda=cuda)


def test_the_installed_torch_is_told_as_it_tells_itself() -> None:
    import torch

    build = installed_torch()
    assert build == TorchBuild(version=str(torch.__version__), cuda=torch.version.cuda)


def test_no_torch_is_told_as_none(tmp_path: Path) -> None:
    assert installed_torch(tmp_path) is None


def test_windows_linux_is_known_by_its_kernel() -> None:
    assert is_wsl("5.15.167.4-microsoft-standard-WSL2")
    assert not is_wsl("6.8.0-generic")


def test_a_machine_comes_back_from_json_as_it_was(tmp_path: Path) -> None:
    card = FakeCard({"nvmlDeviceGetComputeRunningProcesses": [Process(77, 2 << 30)]})
    machine = probe_machine(tmp_path, nvml=Nvml(FakeNvml(card)), torch=CUDA_13, measure_disk=False)
    written = json.loads(json.dumps(as_json(machine)))
    assert from_json(written) == machine
    assert from_json(written | {"of_a_newer_version": 1}) == machine


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"schema": 2}, "not a machine of version 1"),
        ({"cores": "many"}, "machine cores = 'many': whole number belongs here"),
        ({"cores": True}, "machine cores = True"),
        ({"gpus": {"index": 0}}, "machine gpus"),
        ({"gpus": [{"index": 0}]}, "machine gpus[0].name is missing"),
        ({"terminal": {"graphics": "paper"}}, "machine terminal.graphics = 'paper'"),
        ({"rates": {}}, "not a device's rates"),
    ],
)
def test_what_is_no_machine_is_refused_by_the_key_that_is_wrong(tmp_path: Path, change: dict[str, object], said: str) -> None:
    written = json.loads(json.dumps(as_json(probe_machine(tmp_path, nvml=Nvml(FakeNvml())))))
    with pytest.raises(ConfigError) as caught:
        from_json(written | change)
    assert said in str(caught.value)


def test_the_page_of_all_keys_is_as_the_code_says() -> None:
    page = Path(__file__).parents[2] / "docs" / "PROBE.md"
    assert page.read_text(encoding="utf-8") == markdown_page()
