"""An LTX-2 checkpoint, opened: its version, its config, and its tensors by component under the names that diffusers' modules have.

One class for every way that the model is published: the combined file, 2.5's pack of files (pack.py) and the diffusers folder
(diffusers_folder.py) all come down to a header and a table of tensors. sources.py finds the files; components.py builds the modules.
"""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from ltx2core.errors import CheckpointError
from ltx2core.models.diffusers_folder import read_diffusers_folder
from ltx2core.models.fp8 import FP8, dequantise, describes_weights, refuse_unreadable_formats, scale_key
from ltx2core.models.names import COMPONENTS, Component, component_of, to_diffusers, version_by_keys
from ltx2core.models.pack import is_part_of_pack, read_pack
from ltx2core.models.released import released_config
from ltx2core.models.safetensors_header import Entry, first_five, read_header
from ltx2core.models.sources import DEFAULT_FILENAME, find_checkpoint

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    import torch

__all__ = ["DEFAULT_FILENAME", "Checkpoint", "find_checkpoint", "open_checkpoint", "read_header"]

_CLASS = "AVTransformer3DModel"  # what every LTX-2 header names as its transformer


@dataclass(frozen=True)
class Checkpoint:
    """An opened checkpoint: its header only. Tensors are read when a component is built.

    path: the combined file, the pack's transformer file, or the diffusers folder. entries: by official key, in the order of the files.
    """

    path: Path
    metadata: dict[str, str]
    entries: dict[str, Entry]

    @cached_property
    def config(self) -> dict[str, Any]:
        """What the header tells of the model: sections transformer, vae, audio_vae, vocoder, scheduler. That of Lightricks' own
        release when the file came without one."""
        if "config" not in self.metadata:
            config = released_config(self.version)
            config["transformer"]["num_layers"] = _number_of_blocks(self.entries)
            return config
        try:
            value = json.loads(self.metadata["config"])
            if value["transformer"].get("_class_name", _CLASS) != _CLASS:
                raise CheckpointError(
                    f"{self.path} is a checkpoint of {value['transformer']['_class_name']}, another model than LTX-2.",
                    fix=f"Use the published LTX-2 file, {DEFAULT_FILENAME}.",
                )
        except (KeyError, ValueError, TypeError, AttributeError, RecursionError) as error:
            raise CheckpointError(
                f"{self.path} has no readable `config` in its header, so it is not a combined LTX-2 checkpoint.",
                fix=f"Use the published file, {DEFAULT_FILENAME}.",
            ) from error
        assert isinstance(value, dict)
        return value

    @property
    def version(self) -> str:
        """The model version, like "2.3.0": what the header says, else what the tensors tell."""
        return self.metadata.get("model_version") or version_by_keys(self.entries)

    def keys(self, component: Component) -> list[str]:
        """The official keys of a component, in file order, without the scales of quantised weights."""
        return [key for key in self.entries if component_of(key) == component and not describes_weights(key)]

    def has(self, component: Component) -> bool:
        return any(component_of(key) == component for key in self.entries)

    def shape(self, key: str) -> tuple[int, ...]:
        """The shape of a tensor. Raises CheckpointError when the file does not hold it."""
        if key not in self.entries:
            raise CheckpointError(f"{self.path} does not hold the tensor {key}.", fix="Download the file again, or use another checkpoint.")
        return self.entries[key].shape

    def names(self, component: Component) -> dict[str, str]:
        """Official key -> diffusers name, of the tensors of a component that diffusers' module has, in file order."""
        blocks = len(self.config["vae"]["encoder_blocks"]) if component == "video_vae" else 0
        named = ((key, to_diffusers(key, component, num_encoder_blocks=blocks)) for key in self.keys(component))
        return {key: name for key, name in named if name is not None}

    def tensors(
        self, component: Component, *, wanted: Callable[[str], bool] = lambda _: True, device: torch.device | str = "cpu"
    ) -> Iterator[tuple[str, torch.Tensor]]:
        """(diffusers name, tensor) of a component, in file order, one at a time; a name that is not wanted is never read.

        A tensor owns its memory, on the device. fp8 weights come multiplied by their scales, in float32; others as the file holds them.
        """
        from ltx2core.models.tensor_reading import read_tensors

        names = {key: name for key, name in self.names(component).items() if wanted(name)}
        scale_of = {key: scale for key in names if (scale := scale_key(key, self.entries)) is not None}
        scales = dict(read_tensors(((scale, self.entries[scale]) for scale in scale_of.values()), device))
        for key, tensor in read_tensors(((key, self.entries[key]) for key in names), device):
            if self.entries[key].dtype in FP8:
                yield names[key], dequantise(tensor, scales[scale_of[key]] if key in scale_of else None)
            else:
                yield names[key], tensor

    def fingerprint(self, component: Component) -> str:
        """Changes when the component's weights or sizes do: 16 hex digits.

        Reading 43 GB to hash it would cost minutes, so this hashes every tensor's name, type and shape and the first 512 bytes of
        its data: training or converting a model touches every tensor.
        """
        digest = hashlib.sha256(json.dumps(self.config, sort_keys=True).encode())
        found = {key: entry for key, entry in self.entries.items() if component_of(key) == component}
        beginnings = _beginnings(found)
        for key in sorted(found):
            digest.update(f"{key} {found[key].dtype} {found[key].shape}".encode() + beginnings[key])
        return digest.hexdigest()[:16]


def open_checkpoint(path: Path) -> Checkpoint:
    """Read a checkpoint's header. Raises CheckpointError for one that is missing, cut short, incomplete, quantised in a way that cannot
    be trained on, or of another kind or version."""
    if path.is_dir():
        metadata, entries = read_diffusers_folder(path)
    else:
        metadata, entries = read_header(path)
        if is_part_of_pack(entries):
            metadata, entries = read_pack(path)
    checkpoint = Checkpoint(path=path, metadata=metadata, entries=entries)
    _refuse_other_models(checkpoint)
    refuse_unreadable_formats(path, {key: entry for key, entry in entries.items() if component_of(key) is not None})
    return checkpoint


def _refuse_other_models(checkpoint: Checkpoint) -> None:
    path, entries = checkpoint.path, checkpoint.entries
    use = f"Use the published combined file, {DEFAULT_FILENAME}."
    if any(".lora_" in key for key in entries):
        raise CheckpointError(f"{path} is a LoRA, not a combined LTX-2 checkpoint.", fix=use)
    missing = [component for component in COMPONENTS if not checkpoint.has(component)]
    if missing:
        raise CheckpointError(
            f"{path} holds no {', '.join(name.replace('_', ' ') for name in missing)}: it is not a combined LTX-2 checkpoint.", fix=use
        )
    if not checkpoint.version.startswith("2."):
        raise CheckpointError(
            f"{path} is LTX version {checkpoint.version}; this release trains LTX-2, versions 2.0 to 2.5.", fix=f"Use {DEFAULT_FILENAME}."
        )
    blocks = checkpoint.config["transformer"].get("num_layers", 0)  # reading it is also what refuses another model
    if not isinstance(blocks, int):
        raise CheckpointError(f"{path} says in its header that the transformer has {blocks!r} blocks.", fix=use)
    absent = [f"model.diffusion_model.transformer_blocks.{block}" for block in range(_number_of_blocks(entries), blocks)]
    if absent:
        raise CheckpointError(f"{path} lacks transformer blocks. {first_five(absent)}.", fix="Download it again and compare its checksum.")


def _number_of_blocks(keys: Mapping[str, Entry]) -> int:
    found = (re.match(r"model\.diffusion_model\.transformer_blocks\.(\d+)\.", key) for key in keys)
    return len({match[1] for match in found if match})


def _beginnings(entries: Mapping[str, Entry]) -> dict[str, bytes]:
    """The first 512 bytes of each tensor."""
    found = {}
    for path in {entry.path for entry in entries.values()}:
        with path.open("rb") as file:
            for key, entry in entries.items():
                if entry.path == path:
                    file.seek(entry.start)
                    found[key] = file.read(min(512, entry.end - entry.start))
    return found
