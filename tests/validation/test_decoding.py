"""What is done when a decoder does not fit beside the model: in parts, then with the model away, then a line that says so."""

from __future__ import annotations

import contextlib
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
import torch
from nano_world import AUDIO_STEPS, GRID, World

from ltx2core.errors import DoesNotFit, RunError
from ltx2core.models import latents as coding
from ltx2core.models.components import load_video_vae
from ltx2core.models.latents import NO_LEVERS
from ltx2core.planning.clips import ClipShape
from ltx2core.planning.vae_sizes import decoder_bytes
from ltx2core.validation import decoding
from ltx2core.validation.decode_ways import DecodeWay
from ltx2core.validation.decoding import SampleDecoder
from ltx2core.validation.sampling import SampledLatents

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from diffusers import AutoencoderKLLTX2Video

    from ltx2core.models.vae_levers import VaeLevers
    from ltx2core.validation.media import Media

GIB = 2**30


class Card:
    """A card on which decoding video fits only under some conditions, and a model that can be put away from it."""

    def __init__(self, world: World, fits: Callable[[VaeLevers, bool], bool], monkeypatch: pytest.MonkeyPatch, *, ram: bool = True) -> None:
        self.away, self.tries, self.told, self.ram = False, 0, list[str](), ram
        real = coding.decode_video

        def decode_video(vae: AutoencoderKLLTX2Video, latents: torch.Tensor, *, levers: VaeLevers) -> torch.Tensor:
            self.tries += 1
            if not fits(levers, self.away):
                raise torch.OutOfMemoryError("not here")
            return real(vae, latents, levers=levers)

        monkeypatch.setattr("ltx2core.validation.media.decode_video", decode_video)
        self.decoder = SampleDecoder(
            checkpoint=world.checkpoint,
            device=torch.device("cpu"),
            dtype=torch.float32,
            levers=NO_LEVERS,
            lend=self._lend,
            tell=self.told.append,
        )

    @contextlib.contextmanager
    def _lend(self) -> Iterator[None]:
        if not self.ram:
            raise DoesNotFit("19.0 GiB would lie in RAM meanwhile, where 7.0 GiB are free.", fix="Free RAM.")
        self.away = True
        yield
        self.away = False

    def decode(self) -> Media:
        generator = torch.Generator().manual_seed(0)
        video = torch.randn(1, 32, *GRID, generator=generator)
        return self.decoder(SampledLatents(video=video, audio=torch.randn(1, 2, AUDIO_STEPS, 16, generator=generator)))


@pytest.fixture(scope="module")
def world() -> World:
    return World()


def test_what_fits_is_decoded_as_asked(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    card = Card(world, lambda levers, away: levers == NO_LEVERS and not away, monkeypatch)
    assert card.decode().frames is not None
    assert card.told == []


def test_what_does_not_fit_is_decoded_in_parts_and_so_is_every_later_sample(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = Card(world, lambda _levers, _away: True, monkeypatch).decode()
    card = Card(world, lambda levers, _away: levers.temporal_roll and levers.patch_conv, monkeypatch)
    parts = card.decode()
    assert card.tries == 2
    assert len(card.told) == 1
    assert "vae_enable_patch_conv and vae_enable_temporal_roll are on from now on" in card.told[0]
    assert whole.frames is not None
    assert parts.frames is not None
    assert abs(whole.frames.astype(int) - parts.frames.astype(int)).max() <= 1
    card.decode()
    assert card.tries == 3


def test_the_model_makes_room_before_tiles_are_seen(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    card = Card(world, lambda levers, away: away and not levers.tiling, monkeypatch)
    assert card.decode().sound is not None
    assert not card.away
    assert "the transformer's weights wait in RAM meanwhile" in card.told[-1]


def test_a_sample_that_fits_in_no_way_is_an_error_with_what_would_help(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    card = Card(world, lambda _levers, _away: False, monkeypatch)
    with pytest.raises(RunError, match="does not fit") as caught:
        card.decode()
    assert "validation_num_video_frames" in caught.value.fix


def test_a_model_that_ram_has_no_room_for_stays_and_tiles_are_decoded_beside_it(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    card = Card(world, lambda levers, away: away or levers.tiling, monkeypatch, ram=False)
    assert card.decode().frames is not None
    assert "vae_enable_tiling" in card.told[-1]
    assert "where 7.0 GiB are free" in card.told[-1]
    assert "wait in RAM meanwhile" not in card.told[-1]
    tries = card.tries
    card.decode()
    assert card.tries == tries + 1  # what has worked is what the next sample begins with


def test_a_sample_that_does_not_fit_beside_a_model_that_cannot_leave_says_how_much_ram_that_takes(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    card = Card(world, lambda _levers, away: away, monkeypatch, ram=False)
    with pytest.raises(RunError, match=r"even in tiles.*where 7\.0 GiB") as caught:
        card.decode()
    assert "Free RAM" in caught.value.fix


def test_tiles_that_did_not_fit_alone_are_not_tried_beside_the_model(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    card = Card(world, lambda _levers, _away: False, monkeypatch)
    with pytest.raises(RunError):
        card.decode()
    assert card.tries == 4


def test_a_decoder_whose_own_weights_have_no_room_makes_the_model_leave(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    card = Card(world, lambda _levers, _away: True, monkeypatch)
    real = load_video_vae

    def load(*given: Any, **named: Any) -> Any:
        if not card.away:
            raise DoesNotFit("The video VAE needs 1.0 GiB of memory, and GPU 0 has 0.2 GiB free.")
        return real(*given, **named)

    monkeypatch.setattr("ltx2core.validation.media.load_video_vae", load)
    assert card.decode().frames is not None
    assert "the transformer's weights wait in RAM meanwhile" in card.told[-1]


def test_without_a_model_there_a_sample_is_decoded_in_parts_then_in_tiles(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    card = Card(world, lambda levers, _away: levers.tiling, monkeypatch)
    card.decoder = replace(card.decoder, lend=None)
    assert card.decode().frames is not None
    assert card.tries == 3
    assert not any("transformer" in line for line in card.told)


def test_a_way_that_needs_more_than_is_free_is_not_tried(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """What it takes before it fails would be the most that a run has held."""
    card = Card(world, lambda _levers, _away: True, monkeypatch)
    monkeypatch.setattr(SampleDecoder, "_free_bytes", lambda _: 8 * GIB if card.away else GIB // 2)
    assert card.decode().frames is not None
    assert card.tries == 1
    assert "the transformer's weights wait in RAM meanwhile" in card.told[-1]
    monkeypatch.setattr(SampleDecoder, "_free_bytes", lambda _: 0)
    other = Card(world, lambda levers, _away: levers.tiling, monkeypatch)
    assert other.decode().frames is not None  # the last way is tried in any case


def test_what_drawing_has_left_is_given_back_before_a_sample_is_decoded(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """The allocator's pieces are too small for a decoder's tensors, and would be held beside them."""
    happened = []
    card = Card(world, lambda _levers, _away: True, monkeypatch)
    decode = decoding.decode
    monkeypatch.setattr(decoding, "free_memory", lambda _device: happened.append("freed"))
    monkeypatch.setattr(decoding, "decode", lambda *given, **named: happened.append("decoded") or decode(*given, **named))
    card.decode()
    assert happened == ["freed", "decoded"]


def test_parts_that_were_not_tried_come_before_tiles_where_the_model_cannot_leave(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    card = Card(world, lambda levers, _away: levers.temporal_roll and not levers.tiling, monkeypatch, ram=False)
    monkeypatch.setattr(SampleDecoder, "_free_bytes", lambda _: 0)
    assert card.decode().frames is not None  # the estimate was wrong
    assert "vae_enable_tiling" not in card.told[-1]


def test_the_need_of_a_sample_is_that_of_its_size(world: World) -> None:
    large = SampledLatents(video=torch.zeros(1, 128, 16, 22, 40), audio=None)
    clip = ClipShape(width=1280, height=704, frames=121)
    decoder = SampleDecoder(
        checkpoint=world.checkpoint, device=torch.device("cpu"), dtype=torch.float32, levers=NO_LEVERS, lend=None, tell=lambda _: None
    )
    needed = decoder_bytes("2.0", clip, NO_LEVERS)
    assert needed / GIB == pytest.approx(12.95 + 0.56, rel=0.02)  # given out, and idle in the allocator
    for free, fits in ((needed, True), (needed - 1, False)):
        decoder._free_bytes = lambda free=free: free  # type: ignore[method-assign]
        assert decoder._has_room(large, DecodeWay(NO_LEVERS)) == fits
