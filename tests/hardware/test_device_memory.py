"""Which systems lend a card RAM, what cap follows from that and from a limit, and that plans keep within it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch

from ltx2core.hardware.device_memory import CONTEXT_BYTES, GIB, choose_cap, free_device_memory, limit_device, spilling_driver

if TYPE_CHECKING:
    from pathlib import Path

ON_GPU = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")]
WSL = "Linux version 5.15.153.1-microsoft-standard-WSL2 (root@941d701f84f1) (gcc (GCC) 11.2.0) #1 SMP"


@pytest.mark.parametrize(
    ("system", "version", "found"),
    [
        ("win32", None, "Windows"),
        ("linux", WSL, "WSL"),
        ("linux", "Linux version 4.4.0-19041-Microsoft (Microsoft@Microsoft.com)", "WSL"),
        ("linux", "Linux version 6.8.0-45-generic (buildd@lcy02-amd64-115)", None),
        ("linux", None, None),
        ("darwin", None, None),
    ],
)
def test_windows_and_linux_on_it_lend_a_card_ram(system: str, version: str | None, found: str | None, tmp_path: Path) -> None:
    path = tmp_path / "version"
    if version is not None:
        path.write_text(version)
    assert spilling_driver(system=system, version=path) == found


def test_without_a_limit_on_linux_there_is_no_cap() -> None:
    assert choose_cap(limit_gib=None, total_bytes=80 * GIB, free_bytes=70 * GIB, spills=None) is None
    assert choose_cap(limit_gib=80.0, total_bytes=80 * GIB, free_bytes=70 * GIB, spills=None) is None


def test_a_limit_counts_what_cuda_itself_takes() -> None:
    cap = choose_cap(limit_gib=16, total_bytes=80 * GIB, free_bytes=70 * GIB, spills=None)
    assert cap is not None
    assert cap.held_bytes == 16 * GIB - CONTEXT_BYTES
    assert "at most 16 GiB of GPU memory, as gpu_memory_limit_gib says" in cap.because


def test_a_limit_counts_what_cards_exchange_by() -> None:
    cap = choose_cap(limit_gib=16, total_bytes=80 * GIB, free_bytes=70 * GIB, spills=None, beside_bytes=GIB)
    assert cap is not None
    assert cap.held_bytes == 15 * GIB - CONTEXT_BYTES


def test_where_the_driver_lends_ram_the_cap_is_below_what_is_free_and_the_smaller_of_both_holds() -> None:
    cap = choose_cap(limit_gib=None, total_bytes=24 * GIB, free_bytes=22 * GIB, spills="WSL")
    assert cap is not None
    assert cap.held_bytes < 22 * GIB
    assert "WSL would lend it RAM" in cap.because
    for limit, smaller in ((8.0, True), (23.9, False)):
        both = choose_cap(limit_gib=limit, total_bytes=24 * GIB, free_bytes=22 * GIB, spills="WSL")
        assert both is not None
        assert (both.held_bytes < cap.held_bytes) == smaller


def test_on_a_cpu_a_limit_is_told_to_have_no_effect() -> None:
    assert limit_device(torch.device("cpu"), None, spills="WSL") is None
    assert "no effect: there is no GPU" in (limit_device(torch.device("cpu"), 8, spills=None) or "")


class Card:
    """A card of 24 GiB, 22 of them free, of which PyTorch holds 3 and uses 1."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.fraction = 1.0
        for name, found in {
            "mem_get_info": lambda _: (19 * GIB, 24 * GIB),
            "memory_reserved": lambda _: 3 * GIB,
            "memory_allocated": lambda _: GIB,
            "set_per_process_memory_fraction": self._set,
            "get_per_process_memory_fraction": self._get,
            "current_device": lambda: 0,
        }.items():
            monkeypatch.setattr(torch.cuda, name, found)

    def _set(self, fraction: float, device: torch.device) -> None:
        assert device.index is not None  # as PyTorch has it: "cuda" without a number is refused here
        self.fraction = fraction

    def _get(self, device: torch.device) -> float:
        assert device.index is not None
        return self.fraction


def test_what_is_free_is_what_the_cap_leaves_and_a_run_without_a_limit_lifts_it(monkeypatch: pytest.MonkeyPatch) -> None:
    card, device = Card(monkeypatch), torch.device("cuda")
    assert free_device_memory(device) == 21 * GIB
    assert limit_device(device, 8.0, spills=None)
    assert card.fraction == pytest.approx((8 * GIB - CONTEXT_BYTES) / (24 * GIB))
    assert free_device_memory(device) == pytest.approx(7 * GIB - CONTEXT_BYTES, abs=2)
    assert limit_device(device, None, spills=None) is None
    assert card.fraction == 1.0
    assert "has no effect: the GPU has 24.0 GiB" in (limit_device(device, 48.0, spills=None) or "")
    assert "Windows would lend" in (limit_device(device, 48.0, spills="Windows") or "")
    assert free_device_memory(device) < 21 * GIB


@pytest.mark.parametrize("gib", [pytest.param(2.0, marks=ON_GPU)])
def test_what_goes_beyond_a_limit_is_an_error_on_a_card(gib: float) -> None:
    device = torch.device("cuda")
    try:
        assert limit_device(device, gib, spills=None)
        assert free_device_memory(device) < gib * GIB
        with pytest.raises(torch.OutOfMemoryError):
            torch.empty(int(gib * GIB), dtype=torch.uint8, device=device)
    finally:
        limit_device(device, None, spills=None)
