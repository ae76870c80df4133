"""The released sizes, and the script that writes a checkpoint of them."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from collections import namedtuple
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch
from diffusers import AutoencoderKLLTX2Audio, AutoencoderKLLTX2Video, LTX2VideoTransformer3DModel
from diffusers.pipelines.ltx2.connectors import LTX2TextConnectors
from diffusers.pipelines.ltx2.vocoder import LTX2Vocoder, LTX2VocoderWithBWE
from safetensors.torch import load_file

from ltx2core.errors import DoesNotFit
from ltx2core.models import components, header, room
from ltx2core.models.checkpoint import open_checkpoint
from ltx2core.models.released import released_config

if TYPE_CHECKING:
    from types import ModuleType

TINY = Path(__file__).parent.parent / "data" / "reference" / "ltx-2.0-tiny.safetensors"
SCRIPT = Path(__file__).parent.parent / "benchmarks" / "write_true_size.py"


@pytest.fixture(scope="module")
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("write_true_size", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["write_true_size"] = module  # its dataclasses look for their module there
    spec.loader.exec_module(module)
    return module


def parameters(cls: type[Any], arguments: dict[str, Any]) -> int:
    with torch.device("meta"):
        return sum(parameter.numel() for parameter in cls(**arguments).parameters())


# As published, and as counted in the released files: transformer, connectors, video VAE, audio VAE, vocoder.
@pytest.mark.parametrize(
    ("version", "counts"),
    [
        ("2.0.0", (18_876_174_592, 1_431_475_200, 1_222_479_601, 53_248_146, 55_592_802)),
        ("2.3.0", (18_988_838_144, 3_172_227_584, 726_105_969, 53_248_146, 128_537_448)),
        ("2.5.0", (18_987_859_200, 3_172_227_584, 726_105_969, 53_248_146, 128_537_448)),
    ],
)
def test_the_released_configs_have_the_released_parameter_counts(version: str, counts: tuple[int, ...]) -> None:
    config = released_config(version)
    vocoder = (
        (LTX2VocoderWithBWE, header.extending_vocoder_arguments(config))
        if header.extends_bandwidth(config)
        else (LTX2Vocoder, header.vocoder_arguments(config))
    )
    arguments = header.transformer_arguments(config)
    one, two = (parameters(LTX2VideoTransformer3DModel, {**arguments, "num_layers": layers}) for layers in (1, 2))
    found = (
        one + (arguments["num_layers"] - 1) * (two - one),  # building all 48 takes 4 s
        parameters(LTX2TextConnectors, header.connector_arguments(config, num_states=49)),
        parameters(AutoencoderKLLTX2Video, header.video_vae_arguments(config)),
        parameters(AutoencoderKLLTX2Audio, header.audio_vae_arguments(config)),
        parameters(*vocoder),
    )
    assert found == counts


def test_the_script_plans_what_an_official_file_holds(script: ModuleType) -> None:
    tiny = open_checkpoint(TINY)
    planned = script.plan(tiny.config, num_states=4)
    formats = {torch.float32: "F32", torch.bfloat16: "BF16"}
    assert {item.key: (item.shape, formats[item.dtype]) for item in planned} == {
        key: (entry.shape, entry.dtype) for key, entry in tiny.entries.items()
    }
    assert [item.key for item in planned] == list(tiny.entries)


def test_a_written_checkpoint_loads_and_computes_finite_numbers(script: ModuleType, tmp_path: Path) -> None:
    path, config = tmp_path / "random.safetensors", open_checkpoint(TINY).config
    script.write(path, script.plan(config, num_states=4), script.checkpoint_metadata(config))
    assert [item.name for item in tmp_path.iterdir()] == ["random.safetensors"]
    assert load_file(path).keys() == open_checkpoint(path).entries.keys()
    vae = components.load_video_vae(open_checkpoint(path), dtype=torch.float32)
    latents = vae.encode(torch.randn(1, 3, 9, 64, 64, generator=torch.Generator().manual_seed(0))).latent_dist.mode()
    assert torch.isfinite(vae.decode(latents).sample).all()
    norm = next(tensor for key, tensor in load_file(path).items() if key.endswith("attn1.q_norm.weight"))
    assert (norm == 1).all()


def test_the_written_file_is_43_gb(script: ModuleType) -> None:
    size = sum(item.num_bytes for item in script.plan(released_config("2.0.0")))
    assert 43.2e9 < size < 43.4e9


def test_a_disk_without_room_is_told_before_anything_is_written(
    script: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(script, "disk_usage", lambda _: usage(10**10, 9 * 10**9, 10**9))
    config = open_checkpoint(TINY).config
    with pytest.raises(SystemExit, match=r"needs 0\.0 GB, and .* has 1\.0 GB free"):
        script.write(tmp_path / "m.safetensors", script.plan(config, num_states=4), script.checkpoint_metadata(config))
    assert not list(tmp_path.iterdir())


def test_a_model_that_does_not_fit_in_memory_is_told_with_both_amounts(monkeypatch: pytest.MonkeyPatch) -> None:
    checkpoint = open_checkpoint(TINY)
    monkeypatch.setattr(room, "available_memory", lambda: 2**20)
    monkeypatch.setattr(type(checkpoint), "tensors", lambda *_, **__: pytest.fail("read"))
    with pytest.raises(DoesNotFit, match=r"transformer of ltx-2\.0-tiny\.safetensors needs 0\.0 GiB of memory, .* has 0\.0 GiB free"):
        components.load_transformer(checkpoint, dtype=torch.float32)


def test_the_config_is_a_copy_to_change_freely() -> None:
    released_config("2.0.0")["transformer"]["num_layers"] = 1
    assert released_config("2.0.0")["transformer"]["num_layers"] == 48
    assert json.loads(json.dumps(released_config("2.3.0"))) is not None


MEASURE = """
import json, sys, torch
from pathlib import Path
from ltx2core.models import components
from ltx2core.models.checkpoint import open_checkpoint

def memory(name):  # of this process, in MB
    return next(int(line.split()[1]) for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(name)) / 1e3

checkpoint = open_checkpoint(Path(sys.argv[1]))
list(checkpoint.tensors("vocoder"))  # loads the libraries
before = memory("VmRSS")
model = components.load_transformer(checkpoint, dtype=torch.bfloat16)
kept = sum(tensor.nbytes for tensor in model.state_dict().values()) / 1e6
print(json.dumps({"kept": kept, "held": memory("VmHWM") - before}))
"""


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs Linux to measure memory")
def test_a_load_never_holds_a_block_more_than_what_it_keeps(script: ModuleType, tmp_path: Path) -> None:
    """On two blocks of the true size and what is around them, 2.2 GB, in a sparse file: it takes no disk."""
    path = tmp_path / "true-size.safetensors"
    config = released_config("2.0.0")
    config["transformer"]["num_layers"] = 2
    script.write(path, script.plan(config), script.checkpoint_metadata(config), holes=lambda _: True)
    output = subprocess.run([sys.executable, "-c", MEASURE, str(path)], check=True, capture_output=True, text=True).stdout
    measured, block = json.loads(output), 772  # MB
    assert measured["kept"] > 2000
    assert measured["held"] < measured["kept"] + block
    assert measured["held"] < measured["kept"] + 300  # in truth two of the largest tensors, 134 MB each
