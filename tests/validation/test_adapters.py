"""Further LoRAs while sampling: what they add is what merging them into the weights would, and afterwards nothing is left of them."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import torch
from engine_fixtures import events_of
from fake_hub import FakeHub
from nano_world import world
from safetensors.torch import save_file
from step_engine import fast_nano, nano, reference_nano

from ltx2core.errors import CheckpointError
from ltx2core.lora.read import Lora, Pair
from ltx2core.models.components import load_transformer
from ltx2core.models.named_file import find_named_file
from ltx2core.runs.events import SampleReady
from ltx2core.training.adapter import AdapterSettings
from ltx2core.training.fast_model import FastSettings
from ltx2core.validation.adapters import Extra, with_adapters

if TYPE_CHECKING:
    from engine_fixtures import MakeConfig, OpenRun
    from torch import Tensor

    from ltx2core.validation.sampling import SampledLatents

F32 = torch.float32
TARGETS = ("attn1.to_q", "attn1.to_k", "attn1.to_v", "attn2.to_out.0", "ff.net.2", "audio_to_video_attn.to_v")


def lora(*layers: str, seed: int = 0, rank: int = 3, scale: float = 1.0) -> Lora:
    """Random matrices, large enough to be seen, for layers of nano."""
    draw = torch.Generator().manual_seed(seed)
    shapes = {name: tuple(tensor.shape) for name, tensor in load_transformer(nano(), dtype=F32).state_dict().items()}
    pairs = {}
    for layer in layers:
        rows, columns = shapes[f"{layer}.weight"]
        down, up = (torch.randn(size, generator=draw) * 0.15 for size in ((rank, columns), (rows, rank)))
        pairs[layer] = Pair(down=down, up=up, scale=scale)
    return Lora(path=Path("x.safetensors"), layout="official", pairs=pairs, metadata={})


def in_blocks(*names: str) -> list[str]:
    return [f"transformer_blocks.{index}.{name}" for index in range(5) for name in names]


def merged(extras: list[Extra]) -> torch.nn.Module:
    """The reference model with its own adapter, and these LoRAs in its weights."""
    transformer = reference_nano()[0].transformer
    with torch.no_grad():
        for extra in extras:
            for layer, pair in extra.lora.pairs.items():
                module = transformer.get_submodule(layer)
                weight: Tensor = getattr(module, "base_layer", module).weight
                weight += extra.strength * pair.scale * (pair.up @ pair.down)
    return transformer


def draw(transformer: torch.nn.Module, extras: list[Extra] | None = None) -> SampledLatents:
    with with_adapters(transformer, extras or []):  # type: ignore[arg-type]
        return world().draw(steps=2, transformer=transformer)


def same(found: SampledLatents, expected: SampledLatents) -> None:
    torch.testing.assert_close(found.video, expected.video, rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(found.audio, expected.audio, rtol=1e-3, atol=1e-4)


EXTRAS = [
    Extra(lora=lora(*in_blocks(*TARGETS), "proj_in", scale=0.5)),
    Extra(lora=lora("transformer_blocks.3.attn1.to_k", *in_blocks("ff.net.0.proj"), seed=1, rank=2), strength=-0.7),
]


@pytest.fixture(scope="module")
def expected() -> SampledLatents:
    return draw(merged(EXTRAS))


def test_on_diffusers_layers_they_are_what_merged_weights_are(expected: SampledLatents) -> None:
    same(draw(reference_nano()[0].transformer, EXTRAS), expected)


@pytest.mark.parametrize("streamed", [0, 4])
def test_on_the_step_engine_s_layers_they_are_what_merged_weights_are(expected: SampledLatents, streamed: int) -> None:
    same(draw(fast_nano(FastSettings(compile=False, streamed=streamed))[1].transformer, EXTRAS), expected)


@pytest.mark.parametrize("engine", ["reference", "fast"])
def test_afterwards_the_model_is_as_before(engine: str) -> None:
    settings = AdapterSettings(rank=4, alpha=8.0, targets=("attn1.to_q",))  # so that most layers have no LoRA of their own
    transformer = fast_nano(settings=settings)[1].transformer if engine == "fast" else reference_nano(settings)[0].transformer
    before = draw(transformer)
    during = draw(transformer, EXTRAS)
    after = draw(transformer)
    assert torch.equal(before.video, after.video)
    assert not torch.allclose(before.video, during.video, atol=1e-2)


def test_half_the_strength_is_between_and_none_is_nothing() -> None:
    transformer = fast_nano()[1].transformer
    whole, half, none = (draw(transformer, [replace(EXTRAS[0], strength=strength)]).video for strength in (1.0, 0.5, 0.0))
    plain = draw(transformer).video
    torch.testing.assert_close(none, plain, rtol=1e-4, atol=1e-5)
    assert 0 < (half - plain).abs().mean() < (whole - plain).abs().mean()


def write_lora(path: Path, *layers: str, seed: int = 0) -> Path:
    tensors = {}
    for layer, pair in lora(*layers, seed=seed).pairs.items():
        name = layer.replace("proj_in", "patchify_proj")
        tensors |= {f"diffusion_model.{name}.lora_A.weight": pair.down, f"diffusion_model.{name}.lora_B.weight": pair.up}
    save_file(tensors, path)
    return path


def test_a_run_draws_every_sample_with_and_without_further_loras(make_config: MakeConfig, open_run: OpenRun, tmp_path: Path) -> None:
    camera = write_lora(tmp_path / "camera.safetensors", *in_blocks("attn1.to_q", "attn1.to_k"))
    style = write_lora(tmp_path / "style.safetensors", *in_blocks("ff.net.2"), seed=1)
    loaded = make_config(
        max_train_steps=1,
        validation_disable=False,
        validation_step_interval=1,
        validation_adapter_path=str(camera),
        validation_adapter_mode="comparison",
        validation_adapter_config=[{"label": "Both", "adapters": [{"path": str(camera)}, {"path": str(style), "strength": 0.5}]}],
    )
    session = open_run(loaded, "beside")
    assert session.run() == "finished", session.failure
    samples = [event for event in events_of(session) if isinstance(event, SampleReady) and event.step == 0]
    assert [event.name for event in samples] == ["without", "camera", "both"]
    pictures = [(session.folder.path / event.path).with_name("middle.png").read_bytes() for event in samples]
    assert len(set(pictures)) == 3


def test_a_lora_of_another_version_is_refused_before_anything_is_cached(make_config: MakeConfig, open_run: OpenRun, tmp_path: Path) -> None:
    name = "diffusion_model.transformer_blocks.47.attn1.to_q"
    save_file({f"{name}.lora_A.weight": torch.zeros(4, 8), f"{name}.lora_B.weight": torch.zeros(8, 4)}, tmp_path / "big.safetensors")
    session = open_run(make_config(validation_disable=False, validation_adapter_path=str(tmp_path / "big.safetensors")), "misfit")
    assert session.run() == "failed"
    assert session.failure is not None
    assert "is not for this model" in session.failure.text
    assert not any(getattr(event, "phase", "") == "cache_video" for event in events_of(session))


def test_a_name_that_is_neither_a_file_nor_one_of_the_hub_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="is no file here") as caught:
        find_named_file("nowhere.safetensors", base=tmp_path, key="validation_adapter_path")
    assert "owner/repository:file" in caught.value.fix


def test_a_lora_of_the_hub_is_downloaded_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = write_lora(tmp_path / "camera.safetensors", *in_blocks("attn1.to_q"))
    script = (
        "import sys; from pathlib import Path; from ltx2core.models.named_file import find_named_file\n"
        "print(find_named_file('me/cameras:left/camera.safetensors', base=Path('.'), key='k', tell=lambda text: print(text)))"
    )
    with FakeHub({"me/cameras": {"main": {"left/camera.safetensors": file.read_bytes()}}}) as hub:
        environment = {key: value for key, value in os.environ.items() if not key.startswith("HF_")}
        environment |= {"HF_HOME": str(tmp_path / "home"), "HF_ENDPOINT": hub.url}
        first, second = (
            subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=True) for _ in range(2)
        )
    assert "Downloads left/camera.safetensors" in first.stdout
    assert len(second.stdout.splitlines()) == 1  # the path alone
    assert Path(second.stdout.strip()).read_bytes() == file.read_bytes()
