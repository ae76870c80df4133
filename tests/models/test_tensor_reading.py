from __future__ import annotations

import io
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from ltx2core.errors import CheckpointError
from ltx2core.models import tensor_reading
from ltx2core.models.checkpoint import open_checkpoint
from ltx2core.models.names import COMPONENTS, to_diffusers
from ltx2core.models.safetensors_header import Entry, read_header
from ltx2core.models.tensor_reading import Direct, Staged, read_tensors

REFERENCE = Path(__file__).parent.parent / "data" / "reference"
TINY = REFERENCE / "ltx-2.0-tiny.safetensors"

FORMATS = [torch.float32, torch.bfloat16, torch.float16, torch.float64, torch.int8, torch.int16, torch.int32, torch.int64, torch.uint8]


@pytest.mark.parametrize("dtype", [*FORMATS, torch.bool, torch.float8_e4m3fn, torch.float8_e5m2])
def test_every_number_format_comes_back_to_the_bit(tmp_path: Path, dtype: torch.dtype) -> None:
    path, generator = tmp_path / "m.safetensors", torch.Generator().manual_seed(0)
    tensors = {
        name: torch.randint(0, 2, shape, generator=generator).to(dtype)
        for name, shape in (("matrix", (7, 5)), ("scalar", ()), ("nothing", (0, 3)), ("vector", (3,)))
    }
    save_file(tensors, path)
    found = dict(read_tensors(read_header(path)[1].items()))
    assert found.keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert found[name].dtype == dtype
        assert found[name].shape == tensor.shape
        assert torch.equal(found[name].float(), tensor.float())


@pytest.mark.parametrize("version", ["2.0", "2.3", "2.5"])
def test_a_checkpoint_s_tensors_are_those_that_safetensors_reads(version: str) -> None:
    path = REFERENCE / f"ltx-{version}-tiny.safetensors"
    checkpoint, expected = open_checkpoint(path), load_file(path)
    blocks = len(checkpoint.config["vae"]["encoder_blocks"])
    for component in COMPONENTS:
        names = {key: to_diffusers(key, component, num_encoder_blocks=blocks) for key in checkpoint.keys(component)}
        found = dict(checkpoint.tensors(component))
        assert set(found) == {name for name in names.values() if name}
        assert all(torch.equal(found[name], expected[key]) for key, name in names.items() if name)


def test_a_tensor_owns_its_memory_and_outlives_its_file(tmp_path: Path) -> None:
    path = tmp_path / "m.safetensors"
    save_file({"a": torch.arange(10.0), "b": torch.ones(1000)}, path)
    found = dict(read_tensors(read_header(path)[1].items()))
    path.write_bytes(bytes(path.stat().st_size))
    assert torch.equal(found["a"], torch.arange(10.0))
    assert found["a"].untyped_storage().nbytes() == 40
    found["a"].add_(1)  # not read-only, as mapped memory is


def test_only_what_is_asked_for_is_read_from_front_to_back(monkeypatch: pytest.MonkeyPatch) -> None:
    checkpoint, places = open_checkpoint(TINY), list[tuple[int, int]]()
    real = Direct.fill

    def fill(self: Direct, target: torch.Tensor, file: io.FileIO, start: int) -> None:
        places.append((start, start + target.numel()))
        real(self, target, file, start)

    monkeypatch.setattr(Direct, "fill", fill)
    dict(checkpoint.tensors("transformer", wanted=lambda name: "audio" not in name))
    keys = [key for key in checkpoint.keys("transformer") if "audio" not in (to_diffusers(key, "transformer") or "")]
    assert places == [(checkpoint.entries[key].start, checkpoint.entries[key].end) for key in keys]
    assert places == sorted(places)


@pytest.mark.parametrize("piece_bytes", [1, 7, 64, 4096])
def test_pieces_through_two_buffers_join_to_the_whole_tensor(tmp_path: Path, piece_bytes: int) -> None:
    path = tmp_path / "data"
    path.write_bytes(bytes(index % 251 for index in range(1000)))
    staged, direct = torch.zeros(900, dtype=torch.uint8), torch.zeros(900, dtype=torch.uint8)
    transfer = Staged(torch.device("cpu"), piece_bytes=piece_bytes)
    with io.FileIO(path) as file:
        Direct().fill(direct, file, 50)
        for _ in range(2):  # a second tensor goes on with the buffer whose turn it is
            staged.zero_()
            transfer.fill(staged, file, 50)
            assert torch.equal(staged, direct)
    assert bytes(direct.tolist()) == path.read_bytes()[50:950]


def test_a_buffer_is_filled_again_only_after_its_copy_was_waited_for(tmp_path: Path) -> None:
    class Copy:  # stands for a CUDA event: this machine has no GPU
        def __init__(self, name: str) -> None:
            self.name = name

        def synchronize(self) -> None:
            happened.append(f"wait {self.name}")

        def record(self, _: object) -> None:
            happened.append(f"sent {self.name}")

    path = tmp_path / "data"
    path.write_bytes(bytes(range(10)))
    happened: list[str] = []
    transfer = Staged(torch.device("cpu"), piece_bytes=4)
    transfer._sent = [Copy("a"), Copy("b")]  # type: ignore[list-item]
    target = torch.zeros(10, dtype=torch.uint8)
    with pytest.MonkeyPatch.context() as patch, io.FileIO(path) as file:
        patch.setattr(torch.cuda, "current_stream", lambda _: None)
        transfer.fill(target, file, 0)
    assert happened == ["wait a", "sent a", "wait b", "sent b", "wait a", "sent a"]
    assert target.tolist() == list(range(10))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_tensors_reach_a_gpu_to_the_bit() -> None:
    checkpoint = open_checkpoint(REFERENCE / "ltx-2.3-tiny.safetensors")
    expected = dict(checkpoint.tensors("transformer"))
    found = dict(checkpoint.tensors("transformer", device="cuda"))
    assert all(tensor.is_cuda and torch.equal(tensor.cpu(), expected[name]) for name, tensor in found.items())


def test_a_file_that_shrinks_while_it_is_read_is_told(tmp_path: Path) -> None:
    path = tmp_path / "m.safetensors"
    save_file({"a": torch.zeros(10), "b": torch.zeros(1000)}, path)
    entries = read_header(path)[1]
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(CheckpointError, match="became shorter"):
        dict(read_tensors(entries.items()))


def test_a_file_that_is_gone_and_a_format_from_the_future_are_told(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="cannot be read"):
        dict(read_tensors([("a", Entry(tmp_path / "gone", "F32", (1,), 0, 4))]))
    with pytest.raises(CheckpointError, match="F2_E1M0"):
        dict(read_tensors([("a", Entry(TINY, "F2_E1M0", (4,), 0, 1))]))


def test_a_disk_that_fails_says_where(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Failing(io.FileIO):
        def readinto(self, _: object) -> int:
            raise OSError(5, "Input/output error")

    path = tmp_path / "m.safetensors"
    save_file({"a": torch.zeros(10)}, path)
    monkeypatch.setattr(tensor_reading, "_open", Failing)
    with pytest.raises(CheckpointError, match=r"at byte \d+: Input/output error"):
        dict(read_tensors(read_header(path)[1].items()))
