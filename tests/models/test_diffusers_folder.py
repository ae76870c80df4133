from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from ltx2core.errors import CheckpointError
from ltx2core.models import components
from ltx2core.models.checkpoint import Checkpoint, open_checkpoint
from ltx2core.models.names import COMPONENTS, Component
from ltx2core.models.sources import find_checkpoint

REFERENCE = Path(__file__).parent.parent / "data" / "reference"
LOADERS = {
    "transformer": components.load_transformer,
    "connectors": components.load_connectors,
    "vae": components.load_video_vae,
    "audio_vae": components.load_audio_vae,
    "vocoder": components.load_vocoder,
}
PARTS: dict[str, Component] = {
    "transformer": "transformer",
    "connectors": "connectors",
    "vae": "video_vae",
    "audio_vae": "audio_vae",
    "vocoder": "vocoder",
}


@pytest.fixture(scope="module", params=["2.0", "2.3", "2.5"])
def both(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Checkpoint, Path]:
    """A tiny checkpoint, and the same model as diffusers saves it, the transformer in shards."""
    whole = open_checkpoint(REFERENCE / f"ltx-{request.param}-tiny.safetensors")
    folder = tmp_path_factory.mktemp(f"diffusers-{request.param}")
    for name, load in LOADERS.items():
        load(whole, dtype=torch.bfloat16).save_pretrained(folder / name, **({"max_shard_size": "500KB"} if name == "transformer" else {}))
    return whole, folder


def test_a_folder_of_diffusers_is_what_the_combined_file_is(both: tuple[Checkpoint, Path]) -> None:
    whole, path = both
    assert len(list((path / "transformer").glob("*.safetensors"))) > 1
    folder = open_checkpoint(find_checkpoint(str(path), filename=None, base=path))
    assert folder.version == whole.version
    assert folder.path == path
    for component in COMPONENTS:
        # Statistics that no module holds, and nothing else, are in the combined file alone.
        assert all("per_channel_statistics" in key for key in set(whole.keys(component)) ^ set(folder.keys(component)))
        expected, found = dict(whole.tensors(component)), dict(folder.tensors(component))
        assert all(torch.equal(found[name].float(), expected[name].to(found[name].dtype).float()) for name in found)


@pytest.mark.parametrize("name", LOADERS)
def test_modules_from_a_folder_are_those_from_the_combined_file(both: tuple[Checkpoint, Path], name: str) -> None:
    whole, path = both
    expected, found = LOADERS[name](whole, dtype=torch.bfloat16), LOADERS[name](open_checkpoint(path), dtype=torch.bfloat16)
    assert type(found) is type(expected)
    changing = ("_name_or_path", "_class_name", "_diffusers_version")
    settings = [{key: value for key, value in model.config.items() if key not in changing} for model in (found, expected)]
    assert json.loads(json.dumps(settings[0])) == json.loads(json.dumps(settings[1]))
    state = expected.state_dict()
    assert found.state_dict().keys() == state.keys()
    assert all(torch.equal(tensor, state[key]) for key, tensor in found.state_dict().items())


def copied(both: tuple[Checkpoint, Path], tmp_path: Path) -> Path:
    return Path(shutil.copytree(both[1], tmp_path / "model"))


def test_an_absent_shard_is_named(both: tuple[Checkpoint, Path], tmp_path: Path) -> None:
    folder = copied(both, tmp_path)
    shard = sorted((folder / "transformer").glob("*.safetensors"))[1]
    shard.unlink()
    with pytest.raises(CheckpointError, match=f"transformer/{shard.name} is missing"):
        open_checkpoint(folder)


def test_tensors_that_an_index_lists_and_no_shard_holds_are_named(both: tuple[Checkpoint, Path], tmp_path: Path) -> None:
    folder = copied(both, tmp_path)
    shard = sorted((folder / "transformer").glob("*.safetensors"))[0]
    kept = dict(list(load_file(shard).items())[1:])
    save_file(kept, shard)
    with pytest.raises(CheckpointError, match="1 tensor is missing"):
        open_checkpoint(folder)


@pytest.mark.parametrize("text", [None, "not json", "[]", "{}", '{"_class_name": "WanTransformer3DModel", "num_layers": 30}'])
def test_a_config_that_is_none_of_ltx2_is_refused(both: tuple[Checkpoint, Path], tmp_path: Path, text: str | None) -> None:
    folder = copied(both, tmp_path)
    path = folder / "transformer" / "config.json"
    path.unlink()
    if text is not None:
        path.write_text(text)
    with pytest.raises(CheckpointError) as caught:
        open_checkpoint(folder)
    assert str(folder) in caught.value.text
    assert caught.value.fix


def test_a_part_without_weights_is_named(both: tuple[Checkpoint, Path], tmp_path: Path) -> None:
    folder = copied(both, tmp_path)
    for path in (folder / "vocoder").glob("*.safetensors"):
        path.unlink()
    with pytest.raises(CheckpointError, match="vocoder holds no weights"):
        open_checkpoint(folder)


def test_a_folder_saved_before_the_switches_of_later_versions_had_names_is_2_0(tmp_path: Path) -> None:
    whole = open_checkpoint(REFERENCE / "ltx-2.0-tiny.safetensors")
    later = {
        "upsample_type",
        "gated_attn",
        "audio_gated_attn",
        "cross_attn_mod",
        "audio_cross_attn_mod",
        "use_prompt_embeddings",
        "ff_bias",
    }
    later |= {"audio_ff_bias", "use_keyframes_abs_pos_embedding", "perturbed_attn", "video_gated_attn", "per_modality_projections"}
    for name, load in LOADERS.items():
        load(whole, dtype=torch.bfloat16).save_pretrained(tmp_path / name)
        path = tmp_path / name / "config.json"
        path.write_text(json.dumps({key: value for key, value in json.loads(path.read_text()).items() if key not in later}))
    folder = open_checkpoint(tmp_path)
    assert folder.version == "2.0.0"
    for load in LOADERS.values():
        state = load(whole, dtype=torch.bfloat16).state_dict()
        assert all(torch.equal(tensor, state[key]) for key, tensor in load(folder, dtype=torch.bfloat16).state_dict().items())
