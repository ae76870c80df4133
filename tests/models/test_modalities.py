"""What a loader reads: its own component, no tensor of a modality that is left out, and nothing that it does not know."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
import torch
from reference_files import F32, REFERENCES, Reference, each_version, read, transformer_of
from safetensors.torch import save_file

from ltx2core.errors import CheckpointError
from ltx2core.models import components
from ltx2core.models.checkpoint import Checkpoint, open_checkpoint
from ltx2core.models.forward import predict_velocity
from ltx2core.models.text import TextEmbedding

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

_VIDEO = ("attn1.", "attn2.", "ff.", "patchify_proj.", "proj_out.", "caption_projection.", "adaln_single.", "prompt_adaln_single.")


def rewritten(reference: Reference, path: Path, *, keep: Callable[[str], bool] = lambda _: True, add: str | None = None) -> Checkpoint:
    tensors = {key: value for key, value in read(reference.checkpoint.path).items() if keep(key)}
    if add:
        tensors[add] = torch.zeros(3)
    save_file(tensors, path, metadata={"config": json.dumps(reference.checkpoint.config), "model_version": reference.checkpoint.version})
    return open_checkpoint(path)


def belongs_to_one(key: str, *, modality: str) -> bool:
    """Whether a tensor of the transformer is one that only that modality, or its meeting with the other one, has a use for."""
    name = key.removeprefix("model.diffusion_model.")
    if name == key or "embeddings_connector" in name or "table" in name:
        return False
    if name.startswith("av_ca_") or "audio_to_video" in name or "video_to_audio" in name:
        return True
    if modality == "audio":
        return "audio" in name
    part = name.split(".", 2)[2] if name.startswith("transformer_blocks.") else name
    return part.startswith((*_VIDEO, "keyframes"))


@each_version
@pytest.mark.parametrize("left_out", ["video", "audio"])
def test_a_modality_that_is_left_out_is_not_needed_in_the_file(reference: Reference, left_out: str, tmp_path: Path) -> None:
    keep = {"video": left_out == "audio", "audio": left_out == "video"}
    checkpoint = rewritten(reference, tmp_path / "m.safetensors", keep=lambda key: not belongs_to_one(key, modality=left_out))
    found = components.load_transformer(checkpoint, dtype=F32, **keep)
    assert not any(parameter.is_meta for parameter in found.parameters())
    assert found.state_dict().keys() == transformer_of(reference, **keep).state_dict().keys()
    with pytest.raises(CheckpointError, match="lacks"):
        components.load_transformer(checkpoint, dtype=F32)


def test_something_must_be_loaded_and_what_is_given_must_be_there() -> None:
    reference = REFERENCES[0]
    with pytest.raises(ValueError, match="video, audio or both"):
        components.load_transformer(reference.checkpoint, dtype=F32, video=False, audio=False)
    given = reference.under("a.audio_only.")
    with pytest.raises(ValueError, match="without"):
        predict_velocity(
            transformer_of(reference, audio=False),
            audio=given["audio.latent"],
            audio_timesteps=given["audio.timesteps"],
            audio_sigma=given["audio.sigma"],
            text=TextEmbedding(reference.io["a.context.video"], reference.io["a.context.audio"]),
        )


@each_version
@pytest.mark.parametrize("component", ["transformer", "connectors", "video_vae", "audio_vae", "vocoder"])
def test_a_component_loads_whole_from_its_own_tensors_and_refuses_one_that_it_does_not_know(
    reference: Reference, component: str, tmp_path: Path
) -> None:
    load = getattr(components, f"load_{component}")
    model = load(reference.checkpoint, dtype=F32)
    assert not any(tensor.is_meta for tensor in (*model.parameters(), *model.buffers()))
    assert not any(parameter.requires_grad for parameter in model.parameters())
    prefix = {"transformer": "model.diffusion_model.", "connectors": "text_embedding_projection.", "video_vae": "vae."}
    unknown = f"{prefix.get(component, f'{component}.')}surprise.weight"
    with pytest.raises(CheckpointError, match=r"surprise\.weight is not part of it"):
        load(rewritten(reference, tmp_path / "m.safetensors", add=unknown), dtype=F32)


@each_version
@pytest.mark.parametrize("component", ["transformer", "video_vae", "audio_vae", "vocoder"])
def test_a_header_that_leaves_a_size_out_is_an_error_of_the_file(reference: Reference, component: str) -> None:
    config = {**reference.checkpoint.config, {"video_vae": "vae"}.get(component, component): {"bwe": {}}}
    poor = replace(reference.checkpoint, metadata={"config": json.dumps(config)})
    with pytest.raises(CheckpointError, match=f"does not say how the {component.replace('_', ' ')} is built \\(KeyError"):
        getattr(components, f"load_{component}")(poor, dtype=F32)
