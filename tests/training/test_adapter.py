"""Where the LoRA sits, that nothing else learns, and that its first values follow from the seed."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch

from ltx2core.errors import ConfigError
from ltx2core.models.checkpoint import open_checkpoint
from ltx2core.models.components import load_transformer
from ltx2core.models.nano import nano_checkpoint
from ltx2core.models.text import TextEmbedding
from ltx2core.training.adapter import AdapterSettings, add_adapter, load_adapter, module_names, target_modules
from ltx2core.training.batches import generator_for
from ltx2core.training.data import Batch
from ltx2core.training.sigma import ShiftedLogitNormal
from ltx2core.training.step import Model, draw, losses_of

if TYPE_CHECKING:
    from ltx2core.training.objective import Losses

SMALL = AdapterSettings(rank=4, alpha=4)


def _transformer(*, audio: bool = True, dtype: torch.dtype = torch.float32):
    return load_transformer(open_checkpoint(nano_checkpoint()), dtype=dtype, audio=audio)


def _batch(model: Model, *, audio: bool) -> Batch:
    config = model.transformer.config
    draw = torch.Generator().manual_seed(3)
    text = TextEmbedding(
        torch.randn(1, 128, config.caption_channels, generator=draw), torch.randn(1, 128, config.caption_channels, generator=draw)
    )
    return Batch(
        video=torch.randn(1, 8, config.in_channels, generator=draw),
        audio=torch.randn(1, 9, config.audio_in_channels, generator=draw) if audio else None,
        audio_learned=torch.ones(1, 9, dtype=torch.bool) if audio else None,
        text=text,
        grid=(2, 2, 2),
        fps=torch.tensor([25.0]),
        bucket="64x64@9",
    )


def _losses(model: Model, batch: Batch, purpose: str) -> Losses:
    return losses_of(model, draw(batch, sampler=ShiftedLogitNormal(), generator=generator_for(0, purpose)), audio_weight=1.0)


def _backward(model: Model, *, audio: bool) -> torch.Tensor:
    losses = _losses(model, _batch(model, audio=audio), "test")
    losses.total.backward()
    return losses.total.detach()


def _model(*, audio: bool, dtype: torch.dtype = torch.float32) -> Model:
    return Model(transformer=_transformer(audio=audio, dtype=dtype), device=torch.device("cpu"), dtype=dtype)


def test_a_joint_run_trains_the_projections_of_all_six_attentions() -> None:
    model = _transformer()
    names = target_modules(model, audio=True)
    blocks = len(model.transformer_blocks)
    assert len(names) == blocks * 6 * 4
    assert all(name.endswith(("to_q", "to_k", "to_v", "to_out.0")) for name in names)


def test_a_video_only_run_trains_nothing_that_touches_audio() -> None:
    model = _transformer()  # with the audio modules in place: the choice must not depend on their absence
    names = target_modules(model, audio=False)
    assert len(names) == len(model.transformer_blocks) * 2 * 4
    assert not [name for name in names if "audio" in name]
    assert not [name for name in target_modules(model, audio=False, wanted=["to_k", "to_q"]) if "audio" in name]


def test_an_audio_only_run_trains_audio_s_own_attentions_and_nothing_that_touches_video() -> None:
    model = _transformer()
    kinds = {name.split(".")[2] for name in target_modules(model, audio=True, video=False)}
    assert kinds == {"audio_attn1", "audio_attn2"}
    assert all("audio_attn" in name for name in target_modules(model, audio=True, video=False, wanted=["to_k", "to_q"]))


def test_targets_of_sound_are_left_out_of_a_run_whose_model_was_built_without_it() -> None:
    names = target_modules(_transformer(audio=False), audio=False, wanted=["attn1.to_q", "audio_attn1.to_q"])
    assert {name.split(".", 2)[2] for name in names} == {"attn1.to_q"}


def test_a_target_that_matches_nothing_is_refused_with_names_that_work() -> None:
    with pytest.raises(ConfigError, match="to_everything") as caught:
        target_modules(_transformer(), audio=True, wanted=["attn1.to_q", "to_everything"])
    assert "attn1" in caught.value.fix
    with pytest.raises(ConfigError, match="no layer of video alone"):
        target_modules(_transformer(), audio=False, wanted=["audio_attn1.to_q"])


@pytest.mark.parametrize("audio", [True, False])
def test_only_adapters_have_gradients(audio: bool) -> None:
    model = _model(audio=audio)
    parameters = add_adapter(model.transformer, SMALL, audio=audio, seed=0)
    _backward(model, audio=audio)
    own = {id(parameter) for parameter in parameters.values()}
    others = [parameter for parameter in model.transformer.parameters() if id(parameter) not in own]
    assert not [parameter for parameter in others if parameter.requires_grad or parameter.grad is not None]
    assert all(parameter.requires_grad for parameter in parameters.values())
    # the last block's video-to-audio half cannot reach the video's output, everything else is reached
    assert sum(parameter.grad is not None for parameter in parameters.values()) > 0.8 * len(parameters)


def test_a_new_adapter_changes_nothing_and_follows_from_the_seed_alone() -> None:
    base, model, twin, other = (_model(audio=True) for _ in range(4))
    torch.manual_seed(1)
    first = add_adapter(model.transformer, SMALL, audio=True, seed=5)
    torch.manual_seed(2)
    second = add_adapter(twin.transformer, SMALL, audio=True, seed=5)
    third = add_adapter(other.transformer, SMALL, audio=True, seed=6)
    assert list(first) == list(second)
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert not all(torch.equal(first[name], third[name]) for name in first)
    with torch.no_grad():
        batch = _batch(model, audio=True)
        results = [_losses(each, batch, "x").total for each in (base, model)]
    assert torch.equal(results[0], results[1])


def test_adapters_are_float32_on_a_bf16_base_and_so_are_their_gradients() -> None:
    model = _model(audio=True, dtype=torch.bfloat16)
    parameters = add_adapter(model.transformer, SMALL, audio=True, seed=0)
    assert {parameter.dtype for parameter in parameters.values()} == {torch.float32}
    with model.autocast():
        loss = _backward(model, audio=True)
    assert torch.isfinite(loss)
    assert {parameter.grad.dtype for parameter in parameters.values() if parameter.grad is not None} == {torch.float32}


@pytest.mark.parametrize("audio", [True, False])
def test_recomputing_blocks_gives_the_same_gradients(audio: bool) -> None:
    gradients = []
    for recompute in (False, True):
        model = _model(audio=audio)
        parameters = add_adapter(model.transformer, SMALL, audio=audio, seed=0)
        model.transformer.train()
        if recompute:
            model.transformer.enable_gradient_checkpointing()
        _backward(model, audio=audio)
        gradients.append({name: parameter.grad for name, parameter in parameters.items() if parameter.grad is not None})
    assert gradients[0].keys() == gradients[1].keys()
    assert all(torch.equal(gradients[0][name], gradients[1][name]) for name in gradients[0])


def test_a_loaded_adapter_is_the_saved_one_and_a_foreign_one_is_refused() -> None:
    parameters = add_adapter(_transformer(), SMALL, audio=True, seed=0)
    saved = {name: torch.randn_like(parameter) for name, parameter in parameters.items()}
    load_adapter(parameters, saved)
    assert all(torch.equal(parameters[name], saved[name]) for name in saved)
    with pytest.raises(KeyError, match="names differ"):
        load_adapter(parameters, {"somewhere.else.lora_A.weight": torch.zeros(1)})
    assert len(module_names(parameters)) == len(parameters) // 2
