from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from ltx2core.errors import CheckpointError
from ltx2core.models.checkpoint import open_checkpoint
from ltx2core.models.names import COMPONENTS
from ltx2core.models.pack import PARTS, TRANSFORMER
from ltx2core.models.released import released_config
from ltx2core.models.sources import choose, find_checkpoint

REFERENCE = Path(__file__).parent.parent / "data" / "reference"
TINY = REFERENCE / "ltx-2.0-tiny.safetensors"

MAIN = f"diffusion_models/{TRANSFORMER}"
PACK = [MAIN, *(part.published for part in PARTS)]
FOLDERS = ("transformer", "connectors", "vae", "audio_vae", "vocoder")


def test_a_combined_file_comes_before_the_folders_of_diffusers() -> None:
    folders = [f"{folder}/{name}" for folder in FOLDERS for name in ("config.json", "diffusion_pytorch_model.safetensors")]
    choice = choose([*folders, "ltx-2-19b-dev.safetensors", "ltx-2-19b-distilled.safetensors"], None)
    assert choice is not None
    assert choice.files == ("ltx-2-19b-dev.safetensors",)
    choice = choose(folders, None)
    assert choice is not None
    assert choice.main == ""
    assert set(choice.files) == set(folders)
    assert choose(folders[1:], None) is None  # without transformer/config.json


def test_variants_of_a_diffusers_folder_are_not_downloaded() -> None:
    names = [f"{folder}/{name}" for folder in FOLDERS for name in ("config.json", "diffusion_pytorch_model.safetensors")]
    choice = choose([*names, "transformer/diffusion_pytorch_model.fp16.safetensors", "text_encoder/model.safetensors"], None)
    assert choice is not None
    assert set(choice.files) == set(names)


def test_the_named_file_is_taken_from_a_folder_below_too() -> None:
    choice = choose(["old/a.safetensors", "checkpoints/mine.safetensors"], "mine.safetensors")
    assert choice is not None
    assert choice.main == "checkpoints/mine.safetensors"
    assert choose(["a/mine.safetensors", "b/mine.safetensors"], "mine.safetensors") is None  # which one?
    assert choose(["ltx-2-19b-dev.safetensors"], "mine.safetensors") is None


def test_of_a_pack_the_bf16_base_model_and_the_decoder_that_is_built_are_taken() -> None:
    others = [
        "diffusion_models/ltx-2.5-22b-distilled-transformer-bf16.safetensors",
        "diffusion_models/ltx-2.5-22b-dev-transformer-comfy-int8-convrot.safetensors",
        "text_encoders/gemma4-12b-with-proj-ltx-2.5-comfy-int8-convrot.safetensors",
        "vae/ltx-2.5-video-vae-bf16.safetensors",
        "loras/ltx-2.5-22b-distilled-lora-450-bf16.safetensors",
    ]
    choice = choose([*others, *PACK], None)
    assert choice is not None
    assert choice.main == MAIN
    assert set(choice.files) == set(PACK)
    assert not choice.absent
    choice = choose([*others, *PACK], "ltx-2.5-22b-distilled-transformer-bf16.safetensors")
    assert choice is not None
    assert choice.main == others[0]
    choice = choose([MAIN], None)
    assert choice is not None
    assert set(choice.absent) == set(PACK[1:])


def write_pack(
    root: Path, *, prefixed: bool = True, skip: str = "", video_vae: str = "vae/ltx-2.5-video-vae-conv-bf16.safetensors"
) -> Path:
    """The tiny 2.5 checkpoint as Lightricks publishes 2.5: each part with its own header, Gemma's tensors beside the projections."""
    config, tensors = open_checkpoint(REFERENCE / "ltx-2.5-tiny.safetensors").config, load_file(REFERENCE / "ltx-2.5-tiny.safetensors")
    files = {
        MAIN: (("model.diffusion_model.",), ("transformer", "scheduler")),
        PACK[1]: (("text_embedding_projection.",), ()),
        video_vae: (("vae.",), ("vae",)),
        PACK[3]: (("audio_vae.", "vocoder."), ("audio_vae", "vocoder")),
    }
    for name, (prefixes, sections) in files.items():
        if name == skip:
            continue
        part = {key: value for key, value in tensors.items() if key.startswith(prefixes)}
        if not prefixed:
            part = {key.removeprefix("vae.").removeprefix("audio_vae."): value for key, value in part.items()}
        if name == PACK[1]:
            part |= {"model.layers.0.self_attn.q_proj.weight": torch.zeros(2, 2), "vision_model.patch_dense.bias": torch.zeros(2)}
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        sections_told = {section: config[section] for section in sections}
        save_file(part, root / name, metadata={"model_version": "2.5.0", "config": json.dumps(sections_told)})
    return root


@pytest.mark.parametrize("prefixed", [True, False])
def test_a_pack_is_what_the_combined_file_is(tmp_path: Path, prefixed: bool) -> None:
    whole = open_checkpoint(REFERENCE / "ltx-2.5-tiny.safetensors")
    path = find_checkpoint(str(write_pack(tmp_path, prefixed=prefixed)), filename=None, base=tmp_path)
    pack = open_checkpoint(path)
    assert path == tmp_path / MAIN
    assert pack.version == whole.version
    assert pack.config == {section: value for section, value in whole.config.items() if section != "duration_head"}
    for component in COMPONENTS:
        expected, found = dict(whole.tensors(component)), dict(pack.tensors(component))
        assert found.keys() == expected.keys()
        assert all(torch.equal(found[name], expected[name]) for name in expected)


def test_parts_that_lie_beside_the_transformer_are_found(tmp_path: Path) -> None:
    write_pack(tmp_path / "apart")
    for path in (tmp_path / "apart").glob("*/*.safetensors"):
        path.rename(tmp_path / path.name)
    assert open_checkpoint(tmp_path / TRANSFORMER).has("vocoder")


def test_what_a_pack_lacks_is_named_with_the_place_for_it(tmp_path: Path) -> None:
    write_pack(tmp_path, skip=PACK[3])
    with pytest.raises(CheckpointError, match=r"vae/ltx-2\.5-audio-vae-bf16\.safetensors is not in") as caught:
        open_checkpoint(find_checkpoint(str(tmp_path), filename=None, base=tmp_path))
    assert "Lightricks/LTX-2.5" in caught.value.fix
    assert str(tmp_path) in caught.value.fix


def test_a_video_vae_that_decodes_by_diffusion_is_refused_with_the_file_to_take(tmp_path: Path) -> None:
    write_pack(tmp_path)
    path = tmp_path / PACK[2]
    tensors = {key.replace("decoder.up_blocks", "decoder.transformer_blocks"): value for key, value in load_file(path).items()}
    save_file(tensors, path, metadata={"config": "{}"})
    with pytest.raises(CheckpointError, match="decodes by diffusion"):
        open_checkpoint(tmp_path / MAIN)
    path.rename(path.with_name("ltx-2.5-video-vae-bf16.safetensors"))
    with pytest.raises(CheckpointError, match=r"ltx-2\.5-video-vae-conv-bf16\.safetensors is not in"):
        open_checkpoint(tmp_path / MAIN)


@pytest.mark.parametrize("version", ["2.0", "2.3", "2.5"])
def test_a_file_without_a_header_has_the_config_of_the_release(tmp_path: Path, version: str) -> None:
    path = tmp_path / "repacked.safetensors"
    save_file(load_file(REFERENCE / f"ltx-{version}-tiny.safetensors"), path)
    checkpoint = open_checkpoint(path)
    expected = released_config(f"{version}.0")
    expected["transformer"]["num_layers"] = 3
    assert checkpoint.version == f"{version}.0"
    assert checkpoint.config == expected


def test_a_checkpoint_of_another_model_is_named(tmp_path: Path) -> None:
    path, config = tmp_path / "m.safetensors", open_checkpoint(TINY).config
    other = {**config, "transformer": {**config["transformer"], "_class_name": "Transformer3DModel"}}
    save_file(load_file(TINY), path, metadata={"config": json.dumps(other)})
    with pytest.raises(CheckpointError, match="checkpoint of Transformer3DModel"):
        open_checkpoint(path)
    save_file({"model.layers.0.mlp.weight": torch.zeros(2)}, path)
    with pytest.raises(CheckpointError, match="holds no transformer, connectors, video vae, audio vae, vocoder"):
        open_checkpoint(path)
    for config_text in ("not json", "[]", "{}", '{"transformer": 3}'):
        save_file(load_file(TINY), path, metadata={"config": config_text})
        with pytest.raises(CheckpointError, match="no readable `config`"):
            open_checkpoint(path)


def test_transformer_blocks_that_the_header_promises_and_the_file_lacks_are_named(tmp_path: Path) -> None:
    path, config = tmp_path / "m.safetensors", open_checkpoint(TINY).config
    config["transformer"]["num_layers"] = 10
    save_file(load_file(TINY), path, metadata={"config": json.dumps(config)})
    with pytest.raises(CheckpointError, match=r"7 tensors are missing: .*blocks\.3, .*blocks\.7, …"):
        open_checkpoint(path)


def test_a_folder_without_a_checkpoint_says_what_it_holds(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"holds no ltx-2-19b-dev\.safetensors") as caught:
        find_checkpoint(str(tmp_path), filename=None, base=tmp_path)
    assert "Put the combined" in caught.value.fix
    (tmp_path / "mine.safetensors").write_bytes(TINY.read_bytes())
    with pytest.raises(CheckpointError) as caught:
        find_checkpoint(str(tmp_path), filename=None, base=tmp_path)
    assert "mine.safetensors" in caught.value.fix
    assert find_checkpoint(str(tmp_path), filename="mine.safetensors", base=tmp_path).name == "mine.safetensors"


@pytest.mark.parametrize("name", ["", "a/b/c", "models/ltx.safetensors", "no such/name", "/nowhere/at/all", "~nobody/x"])
def test_a_name_that_is_no_path_and_cannot_be_a_repository_asks_no_hub(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ltx2core.models.hub.fetch", lambda *_, **__: pytest.fail("asked"))
    with pytest.raises(CheckpointError):
        find_checkpoint(name, filename=None, base=tmp_path)
