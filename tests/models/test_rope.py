"""Rotary tables are computed once for each shape and rate, and are those that diffusers' modules compute."""

from __future__ import annotations

import copy
import gc
import weakref

import pytest
import torch
from diffusers.models.transformers.transformer_ltx2 import LTX2AudioVideoRotaryPosEmbed
from reference_files import F32, REFERENCES, transformer_of
from torch import Tensor

from ltx2core.models import rope
from ltx2core.models.components import load_transformer
from ltx2core.models.forward import predict_velocity
from ltx2core.models.rope import Positions, video_positions
from ltx2core.models.text import TextEmbedding

TINY = REFERENCES[0]
GRID = (2, 3, 2)


@pytest.fixture
def computed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The modality of every table that is computed from now on by transformers loaded from now on."""
    names: list[str] = []
    real = LTX2AudioVideoRotaryPosEmbed.forward

    def counted(module: LTX2AudioVideoRotaryPosEmbed, *args: object, **kwargs: object) -> object:
        names.append(module.modality)
        return real(module, *args, **kwargs)

    monkeypatch.setattr(LTX2AudioVideoRotaryPosEmbed, "forward", counted)
    return names


def forward(transformer: object, *, fps: list[float], audio: bool = True, grid: tuple[int, int, int] = GRID) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    batch, tokens = len(fps), grid[0] * grid[1] * grid[2]
    config = transformer.config  # type: ignore[attr-defined]
    level = torch.full((batch,), 0.5)
    wide = {"video": TINY.io["a.context.video"][:1], "audio": TINY.io["a.context.audio"][:1]}
    video, _ = predict_velocity(
        transformer,  # type: ignore[arg-type]
        video=torch.randn(1, tokens, config.in_channels, generator=generator).expand(batch, -1, -1),
        video_timesteps=level[:, None].expand(-1, tokens),
        video_sigma=level,
        audio=torch.randn(1, 5, config.audio_in_channels, generator=generator).expand(batch, -1, -1) if audio else None,
        audio_timesteps=level[:, None].expand(-1, 5),
        audio_sigma=level,
        text=TextEmbedding(**{name: value.expand(batch, -1, -1) for name, value in wide.items()}),
        grid=grid,
        fps=torch.tensor(fps),
    )
    return video


def test_a_second_forward_of_a_shape_and_rate_computes_no_table(computed: list[str]) -> None:
    transformer = load_transformer(TINY.checkpoint, dtype=F32)
    first = forward(transformer, fps=[24.0])
    assert sorted(computed) == ["audio", "audio", "video", "video"]
    assert torch.equal(forward(transformer, fps=[24.0]), first)
    forward(transformer, fps=[24.0, 24.0])
    assert len(computed) == 4
    forward(transformer, fps=[25.0])
    assert sorted(computed[4:]) == ["video", "video"]
    forward(transformer, fps=[24.0, 25.0])
    assert sorted(computed[6:]) == ["video", "video"]


def test_video_alone_computes_no_table_for_meeting_sound(computed: list[str]) -> None:
    forward(load_transformer(TINY.checkpoint, dtype=F32, audio=False), fps=[24.0], audio=False)
    assert sorted(computed) == ["audio", "video"]


def test_a_still_is_taken_at_24_frames_a_second_whatever_its_clip_had() -> None:
    transformer = transformer_of(TINY)
    assert torch.equal(forward(transformer, fps=[60.0], grid=(1, 3, 2)), forward(transformer, fps=[24.0], grid=(1, 3, 2)))
    assert not torch.equal(forward(transformer, fps=[60.0]), forward(transformer, fps=[24.0]))


@pytest.mark.parametrize("rates", [(24.0,), (30.0, 30.0), (24.0, 30.0, 24.0)])
def test_a_table_is_what_the_positions_of_each_sample_give(rates: tuple[float, ...]) -> None:
    transformer = transformer_of(TINY)
    for module, cut in ((transformer.rope, 3), (transformer.cross_attn_rope, 1)):
        expected = module(video_positions(transformer, GRID, torch.tensor(rates))[:, :cut], device="cpu")
        positions = Positions(GRID, rates)
        found = module(positions if cut == 3 else positions[:, 0:1, :], device="cpu")
        for one, other in zip(found, expected, strict=True):
            assert torch.equal(one, other)


def test_older_tables_go_when_they_take_too_much_memory(computed: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rope, "_KEPT_BYTES", 1)
    module = load_transformer(TINY.checkpoint, dtype=F32).rope
    for grid in (GRID, GRID, (1, 1, 1), GRID):
        module(Positions(grid, (24.0,)), device="cpu")
    assert len(computed) == 3


def test_tables_made_while_drawing_samples_can_be_trained_through() -> None:
    transformer = load_transformer(TINY.checkpoint, dtype=F32)
    with torch.inference_mode():
        forward(transformer, fps=[24.0])
    transformer.proj_in.requires_grad_(True)
    forward(transformer, fps=[24.0]).sum().backward()
    assert transformer.proj_in.weight.grad is not None


def test_a_transformer_that_nobody_holds_gives_its_memory_back_at_once() -> None:
    transformer = load_transformer(TINY.checkpoint, dtype=F32)
    forward(transformer, fps=[24.0])
    watched = [weakref.ref(transformer), weakref.ref(transformer.proj_in.weight), weakref.ref(transformer.rope)]
    gc.disable()
    try:
        del transformer
        assert [reference() for reference in watched] == [None, None, None]
    finally:
        gc.enable()


def test_a_copy_of_a_transformer_keeps_tables_of_its_own() -> None:
    transformer = load_transformer(TINY.checkpoint, dtype=F32)
    copied = copy.deepcopy(transformer)
    expected = forward(transformer, fps=[24.0])
    assert not copied.rope.kept
    assert torch.equal(forward(copied, fps=[24.0]), expected)
    assert copied.cross_attn_rope.sources[0] is copied.rope
