"""Modulation for the noise levels of a sample instead of for every token, in diffusers' whole transformer (nano, float32)."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from step_engine import nano
from torch import Tensor

from ltx2core.models.components import load_transformer
from ltx2core.models.levels import pick_levels, use_levels


def test_each_token_gets_the_row_of_its_level_in_its_own_sample() -> None:
    modulation = torch.arange(12.0).view(2, 2, 3)
    level = torch.tensor([[0, 1, 0], [1, 1, 0]])
    found = pick_levels(modulation, level)
    assert found.shape == (2, 3, 3)
    assert torch.equal(found[0, 1], modulation[0, 1])
    assert torch.equal(found[1], modulation[1][[1, 1, 0]])


def call(timestep: Tensor, audio_timestep: Tensor, *, isolate: bool) -> dict[str, Any]:
    """What nano's blocks and output layer are given by a transformer that embeds levels, and by one that embeds tokens."""
    sigma, audio_sigma = torch.tensor([0.7, 0.4]), torch.tensor([0.2, 0.9])
    seen: dict[str, Any] = {}
    for name in ("tokens", "levels"):
        transformer = load_transformer(nano(), dtype=torch.float32)
        levels = use_levels(transformer) if name == "levels" else None
        transformer.transformer_blocks = torch.nn.ModuleList([Spy(seen, name)])
        with torch.no_grad():
            seen[f"{name} answer"] = transformer(
                hidden_states=torch.ones(2, 6, 32),
                audio_hidden_states=torch.ones(2, 4, 32),
                encoder_hidden_states=torch.ones(2, 8, 64),
                audio_encoder_hidden_states=torch.ones(2, 8, 64),
                timestep=1000 * timestep * sigma[:, None],
                audio_timestep=1000 * audio_timestep * audio_sigma[:, None],
                sigma=1000 * sigma,
                audio_sigma=1000 * audio_sigma,
                isolate_modalities=isolate,
                use_cross_timestep=True,
                num_frames=1,
                height=2,
                width=3,
                fps=25.0,
                audio_num_frames=4,
                return_dict=False,
            )
        seen[f"{name} found"] = levels
    return seen


class Spy(torch.nn.Module):
    """A block that passes its inputs on, and tells what it was given."""

    def __init__(self, seen: dict[str, Any], name: str) -> None:
        super().__init__()
        self._seen, self._name = seen, name

    def forward(self, hidden_states: Tensor, audio_hidden_states: Tensor, **context: Any) -> tuple[Tensor, Tensor]:
        self._seen[self._name] = context
        return hidden_states, audio_hidden_states


GIVEN = torch.tensor([[0.0, 0, 1, 1, 1, 1], [1, 1, 1, 0, 1, 0]])
GIVEN_SOUND = torch.tensor([[1.0, 1, 1, 0], [1, 1, 1, 1]])


@pytest.mark.parametrize("isolate", [False, True])
@pytest.mark.parametrize("sound", [GIVEN_SOUND, torch.ones(2, 1)], ids=["given sound", "sound at one level"])
@pytest.mark.parametrize("video", [GIVEN, torch.ones(2, 1)], ids=["given video", "video at one level"])
def test_picked_levels_are_what_each_token_would_have_been_given(video: Tensor, sound: Tensor, isolate: bool) -> None:
    seen = call(video, sound, isolate=isolate)
    levels = seen["levels found"]
    names = {"temb": levels.video, "temb_audio": levels.audio}
    if not isolate:  # alone, a modality has no use for these
        names |= {"temb_ca_scale_shift": levels.video, "temb_ca_audio_scale_shift": levels.audio}
    for name, level in names.items():
        given = seen["levels"][name]
        assert given.shape[1] == (1 if level is None else 2)
        picked = given if level is None else pick_levels(given, level)
        torch.testing.assert_close(picked, seen["tokens"][name], rtol=0, atol=1e-6)
    for name in ("temb_ca_gate", "temb_ca_audio_gate"):
        assert torch.equal(seen["levels"][name], seen["tokens"][name])
    for found, expected in zip(seen["levels answer"], seen["tokens answer"], strict=True):
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-6)


def test_the_next_forward_knows_nothing_of_the_levels_of_the_one_before() -> None:
    seen = call(torch.ones(2, 1), torch.ones(2, 1), isolate=False)
    assert seen["levels found"].video is None
    assert seen["levels found"].audio is None
