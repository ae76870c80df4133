"""What the cache makes of how captions are read: the same entries streamed or not, others in eight bits; and what a config asks for."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch

from ltx2core.caching.captions import encode_captions
from ltx2core.caching.passes import CachePass
from ltx2core.caching.store import Store
from ltx2core.config.train import TrainConfig
from ltx2core.models.checkpoint import open_checkpoint
from ltx2core.models.nano import nano_checkpoint, nano_text_encoder
from ltx2core.models.text import TextSettings
from ltx2core.planning.wishes import text_settings
from ltx2core.runs.events import Notice
from ltx2core.training.settings import find_text_encoder

if TYPE_CHECKING:
    from pathlib import Path

    from ltx2core.runs.events import Event

PROMPTS = ("a red square moves", "a blue circle rests")


def cache(root: Path, settings: TextSettings) -> tuple[dict[str, bytes], list[Event]]:
    """The bytes of each text's entry, by name, and what was told."""
    events: list[Event] = []
    store = Store(root)
    passes = CachePass(
        store=store,
        checkpoint=open_checkpoint(nano_checkpoint()),
        text_encoder=nano_text_encoder(),
        device=torch.device("cpu"),
        dtype=torch.float32,
        emit=events.append,
        text=settings,
    )
    names = passes.names([], audio=False, prompts=PROMPTS)
    encode_captions(passes, passes._name_texts({"", *PROMPTS}))
    return {name: store.path("text", name).read_bytes() for name in names}, events


def test_streamed_captions_are_the_same_entries_and_captions_in_eight_bits_are_others(tmp_path: Path) -> None:
    whole, events = cache(tmp_path / "whole", TextSettings())
    assert not [event for event in events if isinstance(event, Notice)]
    streamed, events = cache(tmp_path / "streamed", TextSettings(streamed=True))
    assert streamed == whole
    assert [event.code for event in events if isinstance(event, Notice)] == ["text_encoder"]
    rounded, _ = cache(tmp_path / "rounded", TextSettings(int8=True))
    assert len(rounded) == len(whole) == 3
    assert not rounded.keys() & whole.keys()


@pytest.mark.parametrize(
    ("keys", "expected"),
    [
        ({}, TextSettings()),
        ({"ramtorch_text_encoder": True}, TextSettings(streamed=True)),
        ({"group_offload_text_encoder": True}, TextSettings()),  # nothing without its switch
        ({"enable_group_offload": True, "group_offload_text_encoder": True}, TextSettings(streamed=True)),
        ({"text_encoder_1_precision": "int8-torchao"}, TextSettings(int8=True)),
        ({"text_encoder_1_precision": "nf4-bnb"}, TextSettings()),
    ],
)
def test_simpletuner_s_keys_place_the_text_encoder(keys: dict[str, object], expected: TextSettings) -> None:
    assert text_settings(TrainConfig.model_validate(keys)) == expected


def test_nano_brings_its_own_text_encoder(tmp_path: Path) -> None:
    config = TrainConfig(pretrained_model_name_or_path="nano")
    assert find_text_encoder(config, open_checkpoint(nano_checkpoint()), base=tmp_path) == nano_text_encoder()
