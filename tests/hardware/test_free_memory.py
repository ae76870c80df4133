"""What was freed goes back to the system, and to the card."""

from __future__ import annotations

import sys

import psutil
import pytest
import torch

from ltx2core.hardware.free_memory import free_memory, trim_heap

MIB = 1 << 20


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="of glibc")
def test_small_pieces_that_the_c_library_has_kept_go_back_to_the_system() -> None:
    process = psutil.Process()
    trim_heap()
    before = process.memory_info().rss
    pieces = [torch.ones(16 << 10, dtype=torch.uint8) for _ in range(16 << 10)]  # 256 MiB, too small to be mapped one by one
    last = torch.ones(16 << 10, dtype=torch.uint8)  # above them all, so that the heap cannot simply end earlier
    assert process.memory_info().rss > before + 200 * MIB
    pieces.clear()
    trim_heap()
    assert process.memory_info().rss < before + 60 * MIB
    assert last[0] == 1


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_page_locked_memory_goes_back_too() -> None:
    process = psutil.Process()
    torch.zeros(1, device="cuda")
    before = process.memory_info().rss
    pinned = torch.ones(256 * MIB, dtype=torch.uint8, pin_memory=True)
    del pinned
    free_memory(torch.device("cuda"))
    assert process.memory_info().rss < before + 60 * MIB
