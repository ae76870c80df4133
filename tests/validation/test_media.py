"""A sample as files: an mp4 with sound that plays, three pictures, and the same bytes for the same model."""

from __future__ import annotations

from typing import TYPE_CHECKING

import av
import pytest
import torch

from ltx2core.errors import Stopped
from ltx2core.models.checkpoint import open_checkpoint
from ltx2core.models.components import load_transformer
from ltx2core.models.nano import nano_checkpoint
from ltx2core.models.text import TextEmbedding
from ltx2core.training.adapter import AdapterSettings, add_adapter
from ltx2core.training.step import Model
from ltx2core.validation.media import SampleSettings, write_sample

if TYPE_CHECKING:
    from pathlib import Path

SETTINGS = SampleSettings(width=96, height=64, frames=9, fps=25.0, steps=2, guidance=3.0, seed=0, audio=True)


def _model(*, audio: bool = True) -> Model:
    transformer = load_transformer(open_checkpoint(nano_checkpoint()), dtype=torch.float32, audio=audio)
    return Model(transformer=transformer, device=torch.device("cpu"), dtype=torch.float32)


def _text(model: Model, seed: int) -> TextEmbedding:
    width = model.transformer.config.caption_channels
    draw = torch.Generator().manual_seed(seed)
    return TextEmbedding(torch.randn(128, width, generator=draw), torch.randn(128, width, generator=draw))


def _write(model: Model, folder: Path, *, audio: bool = True) -> Path:
    settings = SETTINGS if audio else SampleSettings(**{**_fields(SETTINGS), "audio": False})
    return write_sample(
        model, open_checkpoint(nano_checkpoint()), folder, text=_text(model, 1), negative=_text(model, 2), settings=settings
    )


def _fields(settings: SampleSettings) -> dict[str, object]:
    return {name: getattr(settings, name) for name in SampleSettings.__slots__}


@pytest.mark.parametrize("audio", [True, False])
def test_a_sample_plays_and_has_its_pictures(tmp_path: Path, audio: bool) -> None:
    path = _write(_model(audio=audio), tmp_path, audio=audio)
    with av.open(str(path)) as container:
        assert container.streams.video[0].codec_context.name == "h264"
        assert len(container.streams.audio) == (1 if audio else 0)
        frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    assert len(frames) == 9
    assert frames[0].shape == (64, 96, 3)
    assert {item.name for item in tmp_path.iterdir()} == {"sample.mp4", "first.png", "middle.png", "last.png", "sheet.png"}


def test_a_sample_is_the_same_twice_and_the_base_s_own_before_training(tmp_path: Path) -> None:
    model = _model()
    base = _write(model, tmp_path / "base")
    add_adapter(model.transformer, AdapterSettings(rank=4, alpha=4, dropout=0.5), audio=True, seed=0)
    model.transformer.train()
    again = _write(model, tmp_path / "again")  # the fresh adapter adds nothing, and dropout is off while sampling
    for name in ("first.png", "middle.png", "last.png"):
        assert (base.parent / name).read_bytes() == (again.parent / name).read_bytes()
    assert model.transformer.training


def test_a_sample_that_is_broken_off_writes_nothing(tmp_path: Path) -> None:
    model = _model()

    def stop(_done: int, _total: int) -> None:
        raise Stopped("enough")

    with pytest.raises(Stopped):
        write_sample(
            model,
            open_checkpoint(nano_checkpoint()),
            tmp_path / "sample",
            text=_text(model, 1),
            negative=_text(model, 2),
            settings=SETTINGS,
            on_step=stop,
        )
    assert not (tmp_path / "sample").exists()
    assert model.transformer.training
