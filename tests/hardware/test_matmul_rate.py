"""A device's rate of products is measured once, kept, and believable."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
import torch

from ltx2core.hardware import matmul_rate as module
from ltx2core.hardware.matmul_rate import matmul_rate, rates_file

if TYPE_CHECKING:
    from pathlib import Path

CPU = torch.device("cpu")


def test_a_rate_is_measured_once_and_kept_for_the_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "rates.json"
    module._measured.cache_clear()
    rate = matmul_rate(CPU, torch.float32, path=path)
    assert 1e8 < rate < 1e15
    assert list(json.loads(path.read_text()).values()) == [rate]
    monkeypatch.setattr(module, "_measured", lambda *_: pytest.fail("measured again"))
    assert matmul_rate(CPU, torch.float32, path=path) == rate
    threads = torch.get_num_threads()
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads + 1)
    with pytest.raises(pytest.fail.Exception):  # another machine, in effect
        matmul_rate(CPU, torch.float32, path=path)


@pytest.mark.parametrize("text", ["", "[1, 2]", '{"a": "b"}', '{"a": -1}', "\x00"])
def test_a_file_that_is_none_of_ours_is_measured_over(text: str, tmp_path: Path) -> None:
    path = tmp_path / "rates.json"
    path.write_text(text)
    rate = matmul_rate(CPU, torch.float32, path=path)
    assert rate in json.loads(path.read_text()).values()


def test_a_home_that_cannot_be_written_still_gives_a_rate(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert matmul_rate(CPU, torch.float32, path=tmp_path / "file" / "rates.json") > 0


def test_rates_lie_in_the_users_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert rates_file() == tmp_path / "ltx2tui" / "matmul_rates.json"
