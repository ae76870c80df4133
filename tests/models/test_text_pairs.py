"""Text encoder and connectors together: the official conventions of tokens and masks, the cache entry, and pairs that do not fit."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import torch
from safetensors import safe_open
from tiny_text import save_gemma3, save_gemma4_pack

from ltx2core.errors import CheckpointError
from ltx2core.models.checkpoint import Checkpoint, open_checkpoint
from ltx2core.models.components import load_connectors
from ltx2core.models.nano import nano_checkpoint, nano_text_encoder
from ltx2core.models.text import TextSettings, load_text_models, tokenize
from ltx2core.models.text_streaming import stream_module

if TYPE_CHECKING:
    from torch import Tensor

FOLDER = Path(os.environ.get("LTX2_REFERENCE_DIR", Path(__file__).parent.parent / "data" / "reference"))
VERSIONS = [path.name.split("-")[1] for path in sorted(FOLDER.glob("ltx-2.*-tiny.safetensors"))]
CPU, F32 = torch.device("cpu"), torch.float32


def reference(version: str) -> tuple[Checkpoint, dict[str, Tensor]]:
    with safe_open(FOLDER / f"ltx-{version}-tiny.io.safetensors", framework="pt") as file:
        recorded = {key: file.get_tensor(key) for key in file.keys() if key.startswith("b.")}  # noqa: SIM118 - not a dict
    return open_checkpoint(FOLDER / f"ltx-{version}-tiny.safetensors"), recorded


def save_encoder(folder: Path, version: str) -> Path:
    """A text encoder of the width and depth that the reference checkpoint's connectors read."""
    if version == "2.5":
        save_gemma4_pack(folder / "gemma4.safetensors")
        return folder / "gemma4.safetensors"
    save_gemma3(folder)
    return folder


@pytest.mark.parametrize("version", VERSIONS)
def test_our_masks_are_padded_as_those_of_the_official_code(tmp_path: Path, version: str) -> None:
    checkpoint, recorded = reference(version)
    models = load_text_models(checkpoint, save_encoder(tmp_path, version), settings=TextSettings(), dtype=F32, device=CPU)
    official = recorded["b.attention_mask"]
    ours = tokenize(["a red square", "blue"], models.encoder)["attention_mask"]
    assert ours.dtype == official.dtype
    for mask in (official, ours):
        assert set(mask.unique().tolist()) <= {0, 1}
        assert (mask.diff(dim=1) >= 0).all()  # padding on the left, if any
        assert mask[:, -1].all()
        assert mask.shape[1] % 128 == 0


@pytest.mark.parametrize("streamed", [False, True])
@pytest.mark.parametrize("version", VERSIONS)
def test_official_states_become_the_official_embeddings_streamed_or_not(version: str, streamed: bool) -> None:
    checkpoint, recorded = reference(version)
    connectors = load_connectors(checkpoint, dtype=F32)
    if streamed:
        stream_module(connectors, CPU)
    with torch.no_grad():
        video, audio, _ = connectors(recorded["b.hidden_states"], recorded["b.attention_mask"])
    for found, expected in ((video, recorded["b.embeds.video"]), (audio, recorded["b.embeds.audio"])):
        assert float((found - expected).abs().max() / expected.abs().max()) <= 1e-5


@pytest.mark.parametrize("version", VERSIONS)
def test_a_text_encoder_of_its_own_version_gives_embeddings_that_differ_by_caption(tmp_path: Path, version: str) -> None:
    checkpoint, recorded = reference(version)
    models = load_text_models(checkpoint, save_encoder(tmp_path, version), settings=TextSettings(), dtype=F32, device=CPU)
    first, second, again = models.embed(["a red square", "a blue circle", "a red square"])
    assert first.video.shape == (models.encoder.max_tokens, recorded["b.embeds.video"].shape[2])
    assert first.audio.shape == (models.encoder.max_tokens, recorded["b.embeds.audio"].shape[2])
    assert torch.isfinite(first.video).all()
    assert torch.equal(first.video, again.video)
    assert not torch.equal(first.video, second.video)


def test_a_text_encoder_of_another_width_is_refused_with_both_and_the_one_to_get() -> None:
    checkpoint, _ = reference("2.0")
    with pytest.raises(CheckpointError, match=r"gives 4 states of 64, 256 numbers a token; the connectors read 96") as caught:
        load_text_models(checkpoint, nano_text_encoder(), settings=TextSettings(), dtype=F32, device=CPU)
    assert str(nano_text_encoder()) in caught.value.text
    assert "ltx-2.0-tiny.safetensors" in caught.value.text
    assert "google/gemma-3-12b-it" in caught.value.fix


@pytest.mark.parametrize(("version", "told"), [(None, "is another one"), ("gemma4-12b-it", "is gemma4-12b-it")])
def test_a_gemma4_that_is_not_lightricks_own_is_refused(tmp_path: Path, version: str | None, told: str) -> None:
    save_gemma4_pack(tmp_path / "gemma4.safetensors", version=version)
    found = open_checkpoint(nano_checkpoint())
    shapes = {key: entry for key, entry in found.entries.items() if "aggregate_embed" not in key}
    wanted = json.dumps({"ltx_version": "2.5.0", "gemma_version": "gemma4-12b-ltx-v1"})
    checkpoint = Checkpoint(found.path, {**found.metadata, "model_version": "2.5.0", "gemma_source_checkpoint": wanted}, shapes)
    with pytest.raises(CheckpointError, match=f"trained with the text encoder gemma4-12b-ltx-v1; .* {told}") as caught:
        load_text_models(checkpoint, tmp_path / "gemma4.safetensors", settings=TextSettings(), dtype=F32, device=CPU)
    assert "text_encoders/gemma4-12b-with-proj-ltx-2.5-bf16.safetensors" in caught.value.fix
