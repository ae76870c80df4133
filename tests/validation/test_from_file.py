"""A sample with a LoRA file shows what the run itself showed; a LoRA of another model is refused by name."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import av
import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from ltx2core.errors import CheckpointError, DatasetError
from ltx2core.validation.from_file import GivenFiles, sample_with_lora
from ltx2core.validation.sample_model import apply_lora

if TYPE_CHECKING:
    from pathlib import Path

    from engine_fixtures import MakeConfig, OpenRun


def _picture(path: Path) -> np.ndarray:
    with av.open(str(path)) as image:
        return next(image.decode(video=0)).to_ndarray(format="rgb24").astype(np.int64)


def test_a_lora_file_shows_what_its_run_showed(make_config: MakeConfig, open_run: OpenRun, tmp_path: Path) -> None:
    loaded = make_config(
        max_train_steps=8, learning_rate=1e-2, validation_disable=False, validation_step_interval=8, lora_alpha=10.0, validation_seed=3
    )
    run = open_run(loaded)
    assert run.run() == "finished"
    prompt = loaded.config.validation_prompt or ""
    with_lora = sample_with_lora(loaded, prompt=prompt, lora=run.folder.lora, folder=tmp_path / "with")
    without = sample_with_lora(loaded, prompt=prompt, lora=None, folder=tmp_path / "without")
    before, after = (_picture(run.folder.samples / step / "middle.png") for step in ("step-000000", "step-000008"))
    moved = np.abs(after - before).mean()
    assert np.abs(_picture(without.parent / "middle.png") - before).max() <= 2  # the run read its prompt from the bf16 cache
    assert np.abs(_picture(with_lora.parent / "middle.png") - after).mean() < 0.1 * moved + 0.5  # the file is bf16


@pytest.mark.parametrize("keys", [{}, {"musubi_blocks_to_swap": 3}], ids=["resident", "blocks travel"])
def test_the_engine_draws_what_the_whole_model_draws(
    make_config: MakeConfig, open_run: OpenRun, tmp_path: Path, keys: dict[str, object]
) -> None:
    loaded = make_config(max_train_steps=4, learning_rate=1e-2, lora_alpha=10.0, validation_num_inference_steps=3)
    run = open_run(loaded)
    assert run.run() == "finished"
    told: list[str] = []
    whole, plain = (
        sample_with_lora(loaded, prompt="a red ball", lora=lora, folder=tmp_path / name)
        for name, lora in (("whole", run.folder.lora), ("plain", None))
    )
    config = loaded.config.model_copy(update={"step_engine": "fast", **keys})
    engine = sample_with_lora(
        replace(loaded, config=config), prompt="a red ball", lora=run.folder.lora, folder=tmp_path / "engine", tell=told.append
    )
    expected, found, without = (_picture(path.parent / "middle.png") for path in (whole, engine, plain))
    assert np.abs(expected - without).mean() > 1
    assert np.abs(expected - found).max() <= 2
    assert told == (["The transformer is held in bf16, 3 of 5 blocks pass through the card."] if keys else [])


def test_a_lora_of_another_model_is_refused(make_config: MakeConfig, tmp_path: Path) -> None:
    name = "diffusion_model.transformer_blocks.99.attn1.to_q"
    save_file({f"{name}.lora_A.weight": torch.zeros(4, 8), f"{name}.lora_B.weight": torch.zeros(8, 4)}, tmp_path / "a.safetensors")
    with pytest.raises(CheckpointError, match="is not for this model"):
        sample_with_lora(make_config(), prompt="x", lora=tmp_path / "a.safetensors", folder=tmp_path / "out")


def test_a_lora_without_its_second_matrix_is_refused(tmp_path: Path) -> None:
    save_file({"diffusion_model.patchify_proj.lora_A.weight": torch.zeros(4, 8)}, tmp_path / "a.safetensors")
    with pytest.raises(CheckpointError, match="lacks one of the two"):
        apply_lora(torch.nn.ModuleDict({"proj_in": torch.nn.Linear(8, 8)}), tmp_path / "a.safetensors")


def test_a_picture_is_the_first_frame_of_a_sample_from_it(make_config: MakeConfig, clips_folder: Path, tmp_path: Path) -> None:
    loaded = make_config(validation_num_inference_steps=2)
    given = clips_folder / "clip0.mp4"
    with_it = sample_with_lora(loaded, prompt="x", lora=None, folder=tmp_path / "with", given=GivenFiles(image=given))
    without = sample_with_lora(loaded, prompt="x", lora=None, folder=tmp_path / "without")
    wanted = _picture(given)
    near, far = (np.abs(_picture(path.parent / "first.png") - wanted).mean() for path in (with_it, without))
    assert near < 0.5 * far


def test_a_reference_of_a_sample_is_seen(make_config: MakeConfig, clips_folder: Path, tmp_path: Path) -> None:
    loaded = make_config(validation_num_inference_steps=2)
    seen = GivenFiles(reference=clips_folder / "clip1.mp4")
    with_it = sample_with_lora(loaded, prompt="x", lora=None, folder=tmp_path / "with", given=seen)
    without = sample_with_lora(loaded, prompt="x", lora=None, folder=tmp_path / "without")
    assert (with_it.parent / "middle.png").read_bytes() != (without.parent / "middle.png").read_bytes()


@pytest.mark.parametrize("given", ["image", "audio", "reference"])
def test_a_file_that_is_not_there_is_said_before_the_model_is_loaded(make_config: MakeConfig, tmp_path: Path, given: str) -> None:
    with pytest.raises(DatasetError, match="there is no such file"):
        sample_with_lora(
            make_config(pretrained_model_name_or_path="nano"),
            prompt="x",
            lora=None,
            folder=tmp_path,
            given=GivenFiles(**{given: tmp_path / "gone.mp4"}),
        )
