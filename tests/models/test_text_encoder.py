"""The language model is loaded from every layout that people have, computes what transformers computes, and refuses what is not it."""

from __future__ import annotations

import json
import shutil
import weakref
from typing import TYPE_CHECKING, Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_text import (
    CAPTIONS,
    read_by_transformers,
    save_gemma3,
    save_gemma3_that_sees,
    save_gemma3_that_writes,
    save_gemma4_pack,
    save_tokenizer,
)

from ltx2core.errors import CheckpointError
from ltx2core.models import text_encoder
from ltx2core.models.int8 import quantise_rows
from ltx2core.models.text import TextEncoder, encoder_states, load_text_encoder, text_encoder_fingerprint, tokenize
from ltx2core.models.text_files import open_text_files

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from torch import Tensor

BF16, F32 = torch.bfloat16, torch.float32


def states_of(encoder: TextEncoder) -> tuple[dict[str, Tensor], Tensor]:
    tokens = tokenize(CAPTIONS, encoder)
    with torch.no_grad():
        return tokens, encoder_states(encoder, tokens["input_ids"], tokens["attention_mask"])


def states_by_transformers(model: Any, tokens: dict[str, Tensor]) -> Tensor:
    """What the official code stacks: every hidden state of the model without its head."""
    with torch.no_grad():
        output = model(**tokens, output_hidden_states=True, use_cache=False)
    return torch.stack(output.hidden_states, dim=-1)


@pytest.mark.parametrize("dtype", [BF16, F32])
@pytest.mark.parametrize("save", [save_gemma3, save_gemma3_that_sees, save_gemma3_that_writes])
def test_the_states_are_those_of_transformers_to_the_last_bit(tmp_path: Path, save: Callable[[Path], Any], dtype: torch.dtype) -> None:
    model_class = save(tmp_path)
    tokens, found = states_of(load_text_encoder(tmp_path, dtype=dtype))
    expected = states_by_transformers(read_by_transformers(model_class, tmp_path, dtype), tokens)
    assert found.shape == (3, 128, 24, 4)
    assert found.dtype == dtype
    assert torch.equal(found, expected)


def test_the_old_names_of_tensors_are_read_as_well(tmp_path: Path) -> None:
    model = read_by_transformers(save_gemma3(tmp_path), tmp_path, BF16)
    file = tmp_path / "model.safetensors"
    save_file({f"language_model.model.{name}": tensor for name, tensor in load_file(file).items()}, file)
    tokens, found = states_of(load_text_encoder(tmp_path, dtype=BF16))
    assert torch.equal(found, states_by_transformers(model, tokens))


def test_no_tensor_of_a_vision_tower_or_a_head_is_read(tmp_path: Path) -> None:
    model = read_by_transformers(save_gemma3_that_sees(tmp_path), tmp_path, BF16)
    assert set(open_text_files(tmp_path).tensors) == set(model.language_model.state_dict())
    assert len(list(tmp_path.glob("*.safetensors"))) > 1


def test_where_an_index_names_the_files_another_variant_beside_them_is_not_read(tmp_path: Path) -> None:
    save_gemma3_that_sees(tmp_path)
    save_file({"model.language_model.norm.weight": torch.full((24,), 7.0)}, tmp_path / "model.zz-variant.safetensors")
    encoder = load_text_encoder(tmp_path, dtype=F32)
    assert not (encoder.model.norm.weight == 7).any()


def test_the_single_file_of_gemma4_gives_its_states_and_its_tokenizer(tmp_path: Path) -> None:
    model = save_gemma4_pack(tmp_path / "text_encoders" / "gemma4.safetensors")
    encoder = load_text_encoder(tmp_path / "text_encoders" / "gemma4.safetensors", dtype=BF16)
    assert encoder.max_tokens == 1024
    tokens, found = states_of(encoder)
    assert (
        tokens["input_ids"].gather(1, tokens["attention_mask"].argmax(1, keepdim=True)) == 2
    ).all()  # begins although its tokenizer does not
    assert torch.equal(found, states_by_transformers(model, tokens))


def test_captions_are_stripped_padded_on_the_left_and_begun_once(tmp_path: Path) -> None:
    save_gemma3(tmp_path)
    encoder = load_text_encoder(tmp_path, dtype=BF16)
    tokens = tokenize(["a red square", "  a red square\n", "", "a red square " * 100], encoder)
    ids, mask = tokens["input_ids"], tokens["attention_mask"]
    assert ids.shape == mask.shape == (4, 128)
    assert torch.equal(ids[0], ids[1])
    assert mask.sum(1).tolist() == [4, 4, 1, 128]
    assert (mask.diff(dim=1) >= 0).all()  # padding comes first
    assert (ids[mask == 0] == encoder.tokenizer.pad_token_id).all()
    assert ids[0, -4] == ids[2, -1] == ids[3, 0] == encoder.tokenizer.bos_token_id
    assert (ids == encoder.tokenizer.bos_token_id).sum(1).tolist() == [1, 1, 1, 1]


def test_a_tokenizer_without_a_limit_of_its_own_pads_to_1024_tokens(tmp_path: Path) -> None:
    save_gemma3(tmp_path)
    settings = json.loads((tmp_path / "tokenizer_config.json").read_text())
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({**settings, "model_max_length": 10**30}))
    assert tokenize(["a"], load_text_encoder(tmp_path, dtype=BF16))["input_ids"].shape == (1, 1024)


def test_a_tokenizer_beside_the_folder_is_found_and_is_a_part_of_the_fingerprint(tmp_path: Path) -> None:
    folder = tmp_path / "text_encoder"
    save_gemma3(folder)
    before = text_encoder_fingerprint(folder)
    (tmp_path / "tokenizer").mkdir()
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.move(folder / name, tmp_path / "tokenizer" / name)
    assert load_text_encoder(folder, dtype=BF16).max_tokens == 128
    moved = text_encoder_fingerprint(folder)
    (tmp_path / "tokenizer" / "tokenizer_config.json").write_text("{}")
    assert len({before, moved, text_encoder_fingerprint(folder)}) == 3 - (before == moved)


def test_a_changed_weight_changes_the_fingerprint_of_a_single_file(tmp_path: Path) -> None:
    path = tmp_path / "gemma4.safetensors"
    save_gemma4_pack(path)
    before = text_encoder_fingerprint(path)
    data = bytearray(path.read_bytes())
    entry = open_text_files(path).tensors["layers.1.mlp.up_proj.weight"]
    data[entry.start] ^= 1
    path.write_bytes(bytes(data))
    assert text_encoder_fingerprint(path) != before


def test_eight_bits_halve_the_layers_and_change_the_states_by_three_hundredths_at_most(tmp_path: Path) -> None:
    save_gemma3(tmp_path)
    exact, rounded = load_text_encoder(tmp_path, dtype=F32), load_text_encoder(tmp_path, dtype=F32, int8=True)
    sizes = [sum(tensor.numel() * tensor.element_size() for tensor in item.model.layers.state_dict().values()) for item in (exact, rounded)]
    assert sizes[1] < 0.4 * sizes[0]  # a quarter of float32, but for scales, which weigh much in so narrow a model
    tokens, expected = states_of(exact)
    _, found = states_of(rounded)
    valid = tokens["attention_mask"].bool()
    errors = [
        float((found[valid][..., state] - expected[valid][..., state]).norm() / expected[valid][..., state].norm()) for state in range(4)
    ]
    assert errors[0] == 0  # the embedding is not rounded
    assert 0 < max(errors) < 0.03, errors  # 0.025: each of 21 matrices is off by 0.5 %


def test_a_rounded_weight_is_off_by_half_a_step_of_its_row_at_most() -> None:
    weight = torch.randn(64, 256, generator=torch.Generator().manual_seed(3)) * torch.logspace(-6, 3, 64)[:, None]
    weight[5] = 0
    rounded, scale = quantise_rows(weight.to(BF16))
    assert rounded.dtype == torch.int8
    assert ((rounded * scale[:, None] - weight.to(BF16).float()).abs() <= scale[:, None] * 0.5001).all()
    assert not rounded[5].any()
    assert rounded.abs().amax(dim=1)[torch.arange(64) != 5].eq(127).all()


@pytest.mark.parametrize("streamed", [False, True])
def test_one_tensor_is_held_at_a_time_while_reading(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, streamed: bool) -> None:
    save_gemma3_that_sees(tmp_path)
    read, alive, most = text_encoder.read_tensors, [], []

    def watched(*arguments: Any) -> Iterator[tuple[str, Tensor]]:
        for name, tensor in read(*arguments):
            alive.append(weakref.ref(tensor))
            most.append(sum(item() is not None for item in alive))
            yield name, tensor
            del tensor

    monkeypatch.setattr(text_encoder, "read_tensors", watched)
    load_text_encoder(tmp_path, dtype=F32, streamed=streamed)
    assert len(most) > 30
    assert max(most) <= 2  # the one that is read, and the one that the loop has not let go of yet


@pytest.mark.parametrize(
    ("damage", "told"),
    [
        (lambda folder: next(folder.glob("model-00002*")).unlink(), "lacks model-00002"),
        (lambda folder: (folder / "tokenizer.json").unlink(), "holds no tokenizer.json"),
        (lambda folder: (folder / "tokenizer.json").write_text('{"version": '), "tokenizer.json cannot be read"),
        (lambda folder: (folder / "tokenizer.json").write_text("{}"), "no tokenizer that can be used"),
        (lambda folder: (folder / "config.json").write_text("{"), "no text encoder"),
        (lambda folder: [path.unlink() for path in folder.glob("*.safetensors*")], "holds no .safetensors"),
    ],
)
def test_a_folder_that_is_not_whole_is_refused_in_words(tmp_path: Path, damage: Callable[[Path], object], told: str) -> None:
    save_gemma3_that_sees(tmp_path)
    damage(tmp_path)
    with pytest.raises(CheckpointError, match=told):
        load_text_encoder(tmp_path, dtype=BF16)


def test_tensors_that_are_missing_are_named(tmp_path: Path) -> None:
    save_gemma3(tmp_path)
    file = tmp_path / "model.safetensors"
    tensors = load_file(file)
    save_file({name: tensor for name, tensor in tensors.items() if not name.startswith("layers.1.mlp.")}, file)
    with pytest.raises(CheckpointError, match=r"3 tensors are missing: layers\.1\.mlp"):
        load_text_encoder(tmp_path, dtype=BF16)
    save_file(tensors | {"norm.weight": torch.zeros(25)}, file)
    with pytest.raises(CheckpointError, match=r"norm\.weight is \[25\], not \[24\]"):
        load_text_encoder(tmp_path, dtype=BF16)


def test_weights_in_fewer_bits_are_refused_with_what_to_do_instead(tmp_path: Path) -> None:
    save_gemma3(tmp_path)
    file = tmp_path / "model.safetensors"
    tensors = load_file(file)
    save_file(tensors | {"layers.0.mlp.up_proj.weight": tensors["layers.0.mlp.up_proj.weight"].to(torch.float8_e4m3fn)}, file)
    with pytest.raises(CheckpointError, match=r"fewer bits: layers\.0\.mlp\.up_proj\.weight is F8_E4M3") as caught:
        load_text_encoder(tmp_path, dtype=BF16)
    assert "text_encoder_1_precision" in caught.value.fix


def test_a_model_that_this_transformers_cannot_build_names_the_version_that_can(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save_gemma4_pack(tmp_path / "gemma4.safetensors")
    monkeypatch.setitem(text_encoder._MODELS, "gemma4_unified_text", ("Gemma9TextModel", "Gemma9TextConfig"))
    with pytest.raises(CheckpointError, match=r"transformers \d+\.\d+\S* cannot build it") as caught:
        load_text_encoder(tmp_path / "gemma4.safetensors", dtype=BF16)
    assert "transformers>=5.16" in caught.value.fix


def test_a_file_that_is_no_text_encoder_is_refused(tmp_path: Path) -> None:
    save_file({"weight": torch.zeros(2)}, tmp_path / "other.safetensors")
    with pytest.raises(CheckpointError, match="no text encoder in one file"):
        load_text_encoder(tmp_path / "other.safetensors", dtype=BF16)
    save_tokenizer(tmp_path)
    (tmp_path / "config.json").write_text('{"model_type": "gemma4_text"}')
    with pytest.raises(CheckpointError, match="'gemma4_text'") as caught:
        load_text_encoder(tmp_path, dtype=BF16)
    assert "google/gemma-3-12b-it" in caught.value.fix
