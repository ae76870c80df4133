"""Copies to and from the device, and the time it computes."""

from __future__ import annotations

import time

import pytest
import torch

from ltx2core.caching.link import open_link, to_host

ON_GPU = pytest.param("cuda", marks=[pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")])


@pytest.mark.parametrize("device", ["cpu", ON_GPU])
def test_arrays_go_in_as_a_batch_and_come_out_one_by_one(device: str) -> None:
    link = open_link(torch.device(device))
    found = []
    for number in range(5):  # more than may be in flight
        arrays = [torch.full((3, 4), number, dtype=torch.uint8), torch.full((3, 4), number + 100, dtype=torch.uint8)]
        pinned = [array.pin_memory() for array in arrays] if link.pinned else arrays

        def encode(given: torch.Tensor) -> list[dict[str, torch.Tensor]]:
            assert given.shape == (2, 3, 4)
            assert given.device.type == device
            return [{"latents": given[index].float() * 2, "learned": torch.ones(2, dtype=torch.bool)} for index in range(2)]

        found.append(link.run(pinned, encode))
    for number, (entries, landing) in enumerate(found):
        landing.wait()
        assert [float(entry["latents"][0, 0]) for entry in entries] == [2 * number, 2 * (number + 100)]
        assert all(tensor.device.type == "cpu" for entry in entries for tensor in entry.values())


@pytest.mark.parametrize("device", ["cpu", ON_GPU])
def test_only_the_time_that_the_device_computes_counts_as_busy(device: str) -> None:
    link = open_link(torch.device(device))
    matrix = torch.ones(1, 200, 200)
    begin = time.perf_counter()
    for _ in range(3):
        link.run([matrix], lambda given: [{"x": (given @ given)[0]}])
        time.sleep(0.05)
    busy, wall = link.busy_seconds(), time.perf_counter() - begin
    assert 0 < busy < wall - 0.1


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_what_is_on_its_way_is_there_after_the_wait() -> None:
    device = torch.device("cuda")
    tensor = torch.ones(1000, 1000, device=device)
    for _ in range(20):
        tensor = tensor @ tensor / 1000
    landed, landing = to_host({"x": tensor}, device)
    landing.wait()
    assert torch.equal(landed["x"], tensor.cpu())
