"""What is streamed from host memory equals what lies on the device as a whole, and no copy overtakes the work that still reads its slot."""

from __future__ import annotations

import gc
from typing import TYPE_CHECKING, Any

import pytest
import torch
from tiny_text import CAPTIONS, save_gemma3, save_gemma4_pack
from torch import nn

from ltx2core.models.checkpoint import open_checkpoint
from ltx2core.models.components import load_connectors
from ltx2core.models.nano import nano_checkpoint, nano_text_encoder
from ltx2core.models.text import TextEncoder, TextSettings, encoder_states, load_text_encoder, load_text_models, tokenize
from ltx2core.models.text_streaming import Streamer, stream_module

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor

CPU = torch.device("cpu")
BF16, F32 = torch.bfloat16, torch.float32


def states_of(encoder: TextEncoder) -> Tensor:
    tokens = tokenize(CAPTIONS, encoder)
    with torch.no_grad():
        return encoder_states(encoder, tokens["input_ids"], tokens["attention_mask"])


@pytest.mark.parametrize("int8", [False, True])
@pytest.mark.parametrize("dtype", [BF16, F32])
@pytest.mark.parametrize("save", [save_gemma3, lambda folder: save_gemma4_pack(folder / "gemma4.safetensors")])
def test_streamed_layers_give_the_states_of_the_whole_model_to_the_last_bit(
    tmp_path: Path, save: Any, dtype: torch.dtype, int8: bool
) -> None:
    save(tmp_path)
    path = next(iter(tmp_path.glob("gemma4*")), tmp_path)
    whole = load_text_encoder(path, dtype=dtype, int8=int8)
    streamed = load_text_encoder(path, dtype=dtype, streamed=True, int8=int8)
    assert streamed.streamer is not None
    expected = states_of(whole)
    assert torch.equal(states_of(streamed), expected)
    assert torch.equal(states_of(streamed), expected)  # slots were given back and are taken again


def test_no_layer_is_on_the_device_between_captions(tmp_path: Path) -> None:
    save_gemma3(tmp_path)
    encoder = load_text_encoder(tmp_path, dtype=BF16, streamed=True)
    assert encoder.streamer is not None
    states_of(encoder)
    assert all(tensor.is_meta for tensor in encoder.model.layers.state_dict().values())
    assert not any(tensor.is_meta for name, tensor in encoder.model.state_dict().items() if not name.startswith("layers."))
    assert encoder.streamer._slots == [None, None]
    weights = sum(tensor.numel() * 2 for tensor in encoder.model.layers.state_dict().values())
    assert weights <= encoder.streamer.host_bytes <= weights + 3 * 13 * 256  # rounded up a tensor


def test_streamed_connectors_give_what_the_whole_ones_give() -> None:
    checkpoint = open_checkpoint(nano_checkpoint())
    whole, streamed = load_connectors(checkpoint, dtype=F32), load_connectors(checkpoint, dtype=F32)
    streamer = stream_module(streamed, CPU)
    encoder = load_text_encoder(nano_text_encoder(), dtype=F32)
    tokens = tokenize(CAPTIONS, encoder)
    with torch.no_grad():
        states = encoder_states(encoder, tokens["input_ids"], tokens["attention_mask"])
        for found, expected in zip(streamed(states, tokens["attention_mask"]), whole(states, tokens["attention_mask"]), strict=True):
            assert torch.equal(found, expected)
    streamer.release()
    assert streamer.slot_bytes >= whole.text_proj_in.weight.numel() * 4
    assert streamed.text_proj_in.weight.is_meta
    assert not streamed.video_connector.learnable_registers.is_meta


def test_captions_are_embedded_the_same_streamed_or_not() -> None:
    checkpoint = open_checkpoint(nano_checkpoint())
    whole = load_text_models(checkpoint, nano_text_encoder(), settings=TextSettings(), dtype=F32, device=CPU)
    streamed = load_text_models(checkpoint, nano_text_encoder(), settings=TextSettings(streamed=True), dtype=F32, device=CPU)
    assert streamed.placement.streamed
    for caption in CAPTIONS:
        (expected,), (found,) = whole.embed([caption]), streamed.embed([caption])
        assert torch.equal(found.video, expected.video)
        assert torch.equal(found.audio, expected.audio)
    assert len(streamed.embed(CAPTIONS)) == 3


class Gpu:
    """A hand-written device: copies happen as late as their waiters allow, work that was queued still reads its slot until then.

    `moment` counts what the computing stream has done; a mark is such a moment. A copy runs when its arrival is waited for.
    """

    def __init__(self) -> None:
        self.moment = 0
        self.waiting: dict[int, tuple[Tensor, Tensor, int]] = {}
        self.copies = 0
        self.most_waiting = 0
        self.readers: dict[int, int] = {}  # slot's memory -> until which moment work reads it

    def copy(self, target: Tensor, source: Tensor, after: object) -> object:
        assert isinstance(after, int)
        assert after >= self.readers.get(target.data_ptr(), 0), "a copy may overtake work that reads the slot"
        self.copies += 1
        self.waiting[self.copies] = (target, source, after)
        self.most_waiting = max(self.most_waiting, len(self.waiting))
        target.fill_(255)  # what was there is gone as soon as the copy may begin
        return self.copies

    def wait(self, arrived: object) -> None:
        assert isinstance(arrived, int)
        for number in [number for number in self.waiting if number <= arrived]:  # a stream copies in order
            target, source, _ = self.waiting.pop(number)
            target.copy_(source)
            self.moment += 1
            self.readers[target.data_ptr()] = self.moment + 1

    def mark(self) -> object:
        self.moment += 1
        return self.moment

    def finish(self) -> None:
        self.wait(self.copies)


def chain(count: int) -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(*(nn.Linear(8, 8, bias=index % 2 == 0) for index in range(count)))


@pytest.mark.parametrize("slots", [1, 2, 3])
def test_a_copy_waits_for_the_work_that_reads_its_slot_and_travels_one_unit_ahead(slots: int) -> None:
    whole, streamed, gpu = chain(7), chain(7), Gpu()
    streamer = Streamer(list(streamed), CPU, slots=slots, lane=gpu)
    streamer.adopt()
    hidden = torch.randn(2, 8)
    for _ in range(2):
        assert torch.equal(streamed(hidden), whole(hidden))
        streamer.release()
        gpu.readers.clear()
    assert gpu.copies == 2 * 7
    assert gpu.most_waiting == 1  # what computes has arrived, the next one is on its way


def test_a_unit_that_fails_leaves_a_streamer_that_works() -> None:
    whole, streamed = chain(5), chain(5)
    streamer = Streamer(list(streamed), CPU)
    streamer.adopt()
    with pytest.raises(RuntimeError):
        streamed(torch.randn(2, 9))
    streamer.release()
    hidden = torch.randn(2, 8)
    assert torch.equal(streamed(hidden), whole(hidden))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_on_a_gpu_streaming_takes_two_layers_and_gives_the_states_of_the_whole_model(tmp_path: Path) -> None:
    save_gemma3(tmp_path)
    device = torch.device("cuda")
    expected = states_of(load_text_encoder(tmp_path, dtype=BF16, device=device))
    gc.collect()
    torch.cuda.empty_cache()
    before = torch.cuda.memory_allocated()
    encoder = load_text_encoder(tmp_path, dtype=BF16, device=device, streamed=True)
    assert encoder.streamer is not None
    assert encoder.streamer.page_locked
    assert torch.cuda.memory_allocated() - before < 64 * 1024  # the final norm and rotary tables
    for _ in range(3):
        assert torch.equal(states_of(encoder), expected)
