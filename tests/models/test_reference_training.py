"""Predictions, losses and gradients of training, against those that Lightricks' own trainer made (reference_files.py, groups g and h)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch
from reference_files import F32, Reference, assert_close, each_case, each_version, predict, transformer_of

from ltx2core.models.components import load_transformer
from ltx2core.models.latents import pack_audio, pack_video
from ltx2core.models.names import to_official
from ltx2core.models.text import TextEmbedding
from ltx2core.training.adapter import AdapterSettings, add_adapter, load_adapter
from ltx2core.training.objective import velocity_loss

if TYPE_CHECKING:
    from diffusers import LTX2VideoTransformer3DModel
    from torch import Tensor, nn


def losses(reference: Reference, case: str, transformer: LTX2VideoTransformer3DModel) -> dict[str, Tensor]:
    """The loss [B] of each modality that is learned in a case, from its recorded inputs; its prediction is compared on the way."""
    given = reference.under(f"g.{case}.")
    text = TextEmbedding(reference.io["b.embeds.video"], reference.io["b.embeds.audio"])
    clean = {"video": pack_video(reference.io["g.latents.video"]), "audio": pack_audio(reference.io["g.latents.audio"])}
    found = {}
    for modality, answer in zip(("video", "audio"), predict(transformer, given, text, reference.grid), strict=True):
        if f"{modality}.loss" in given:
            assert answer is not None
            noise = given[f"noise.{modality}"]
            assert torch.equal(noise - clean[modality], given[f"{modality}.target"])
            found[modality] = velocity_loss(answer, clean[modality], noise, given[f"{modality}.loss_mask"])
    return found


def with_lora(reference: Reference) -> tuple[LTX2VideoTransformer3DModel, dict[str, nn.Parameter]]:
    """A fresh transformer with the official LoRA file on it, and the adapter's parameters."""
    lora = reference.lora
    rank = next(value.shape[0] for key, value in lora.items() if ".lora_A." in key)
    transformer = load_transformer(reference.checkpoint, dtype=F32)
    parameters = add_adapter(transformer, AdapterSettings(rank=rank, alpha=rank), audio=True, seed=0)
    keys = {name: to_official(name, "transformer").removeprefix("model.") for name in parameters}
    assert set(keys.values()) == set(lora)  # the default targets are the official ones
    load_adapter(parameters, {name: lora[key].float() for name, key in keys.items()})
    return transformer, parameters


@pytest.mark.parametrize(("reference", "case"), each_case("g"))
def test_a_training_sample_has_the_official_prediction_and_loss(reference: Reference, case: str) -> None:
    given = reference.under(f"g.{case}.")
    text = TextEmbedding(reference.io["b.embeds.video"], reference.io["b.embeds.audio"])
    for modality, answer in zip(("video", "audio"), predict(transformer_of(reference), given, text, reference.grid), strict=True):
        if f"{modality}.pred" in given:
            assert_close(answer, given[f"{modality}.pred"], 1e-4)
    found = losses(reference, case, transformer_of(reference))
    assert found
    for modality, loss in found.items():
        assert_close(loss, given[f"{modality}.loss"], 1e-4)
    assert_close(torch.stack(list(found.values())).sum(dim=0), given["loss"], 1e-4)


@each_version
def test_an_official_lora_changes_the_answer_as_it_does_officially(reference: Reference) -> None:
    transformer, _ = with_lora(reference)
    text = TextEmbedding(reference.io["a.context.video"], reference.io["a.context.audio"])
    with torch.no_grad():
        video, audio = predict(transformer, reference.under("a.t2v_shared."), text, reference.grid)
    assert_close(video, reference.io["h.applied.out.video"], 1e-4)
    assert_close(audio, reference.io["h.applied.out.audio"], 1e-4)


@pytest.mark.parametrize("recompute", [False, True])
@each_version
def test_gradients_of_an_official_lora_are_the_official_ones(reference: Reference, recompute: bool) -> None:
    transformer, parameters = with_lora(reference)
    transformer.train()
    if recompute:
        transformer.enable_gradient_checkpointing()
    total = torch.stack(list(losses(reference, "i2v", transformer).values())).sum(dim=0)
    assert_close(total, reference.io["g.lora.loss"], 1e-4)
    total.mean().backward()
    norm = torch.stack([parameter.grad.norm() for parameter in parameters.values() if parameter.grad is not None]).norm()
    assert_close(norm, reference.io["g.lora.grad_norm"], 1e-3)
    recorded = reference.under("g.lora.grad.")
    assert recorded
    for name, gradient in recorded.items():
        assert_close(parameters[name].grad, gradient, 1e-3)
