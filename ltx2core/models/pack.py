"""2.5 as Lightricks publishes it: a pack of files, each with a part of the model, in the folders that ComfyUI uses.

    diffusion_models/ltx-2.5-22b-dev-transformer-bf16.safetensors      transformer and connectors
    text_encoders/gemma4-12b-with-proj-ltx-2.5-bf16.safetensors        Gemma4, and the projections before the connectors
    vae/ltx-2.5-video-vae-conv-bf16.safetensors                        video VAE (the one without -conv- decodes by diffusion)
    vae/ltx-2.5-audio-vae-bf16.safetensors                             audio VAE and vocoder

Each has its own header; together they are what a combined file holds.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from fnmatch import fnmatch
from typing import TYPE_CHECKING

from ltx2core.errors import CheckpointError
from ltx2core.models.names import component_of
from ltx2core.models.safetensors_header import Entry, read_header

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

TRANSFORMER = "ltx-2.5-22b-dev-transformer-bf16.safetensors"
_TRANSFORMER_PATTERN = "*ltx-2.5-*transformer*.safetensors"


@dataclass(frozen=True, slots=True)
class Part:
    """A file of the pack. patterns: its names, the best first. begins: how its keys do, as official files spell them."""

    published: str
    patterns: tuple[str, ...]
    begins: tuple[str, ...]
    prefix: str = ""  # for files that leave it out


PARTS = (
    Part(
        "text_encoders/gemma4-12b-with-proj-ltx-2.5-bf16.safetensors",
        ("gemma4-*-with-proj-ltx-2.5-bf16*.safetensors", "gemma4-*-with-proj-ltx-2.5*.safetensors"),
        ("text_embedding_projection.",),
    ),
    Part("vae/ltx-2.5-video-vae-conv-bf16.safetensors", ("ltx-2.5-video-vae-conv*.safetensors",), ("vae.",), "vae."),
    Part("vae/ltx-2.5-audio-vae-bf16.safetensors", ("ltx-2.5-audio-vae*.safetensors",), ("audio_vae.", "vocoder."), "audio_vae."),
)


def is_part_of_pack(keys: Mapping[str, Entry]) -> bool:
    """Whether a file holds the transformer and neither VAE: what 2.5 is published as."""
    components = {component_of(key) for key in keys}
    return "transformer" in components and not components & {"video_vae", "audio_vae", "vocoder"}


def transformer_in(names: Sequence[str]) -> str | None:
    """The transformer of a pack among file names: the bf16 one of the base model, else the only one there."""
    found = [name for name in names if fnmatch(_last(name), _TRANSFORMER_PATTERN)]
    return next((name for name in found if _last(name) == TRANSFORMER), found[0] if len(found) == 1 else None)


def parts_in(names: Sequence[str]) -> tuple[list[str], list[str]]:
    """The other parts of a pack among file names, and what is published in the place of those that are not there."""
    found, missing = [], []
    for part in PARTS:
        best = next((name for pattern in part.patterns for name in sorted(names) if fnmatch(_last(name), pattern)), None)
        if best is None:
            missing.append(part.published)
        else:
            found.append(best)
    return found, missing


def read_pack(transformer: Path) -> tuple[dict[str, str], dict[str, Entry]]:
    """Metadata and entries of the whole pack that a transformer file belongs to. Raises CheckpointError that names absent files."""
    root = pack_root(transformer)
    paths, missing = parts_in([path.relative_to(root).as_posix() for path in files_below(root)])
    if missing:
        raise CheckpointError(
            f"{transformer} is one part of LTX-2 2.5, and {', '.join(missing)} {'is' if len(missing) == 1 else 'are'} not in {root}.",
            fix=f"Download from https://huggingface.co/Lightricks/LTX-2.5 into {root}, with the same folders.",
        )
    metadata, entries = read_header(transformer)
    config = _config(metadata)
    for part, name in zip(PARTS, paths, strict=True):
        part_metadata, found = read_header(root / name)
        config = {**_config(part_metadata), **config}
        entries |= _official(found, part)
    if not any(key.startswith("vae.decoder.up_blocks.") for key in entries):
        raise CheckpointError(
            f"{root / paths[1]} is a video VAE that decodes by diffusion, which is not built.",
            fix="Use ltx-2.5-video-vae-conv-bf16.safetensors: it encodes the same.",
        )
    return {**metadata, **({"config": json.dumps(config)} if config else {})}, entries


def pack_root(transformer: Path) -> Path:
    """The folder that a pack's folders lie in; a transformer that lies beside its parts has them in its own."""
    return transformer.parent.parent if transformer.parent.name in ("diffusion_models", "unet") else transformer.parent


def files_below(root: Path) -> list[Path]:
    """The safetensors files in a folder and in those right below it."""
    return sorted([*root.glob("*.safetensors"), *root.glob("*/*.safetensors")])


def _official(entries: dict[str, Entry], part: Part) -> dict[str, Entry]:
    """The entries of a part under official keys; what is no part of LTX-2, such as Gemma4 itself, is left out."""
    if part.prefix and not any(key.startswith(part.prefix) for key in entries):
        entries = {key if key.startswith(part.begins) else part.prefix + key: entry for key, entry in entries.items()}
    return {key: entry for key, entry in entries.items() if key.startswith(part.begins)}


def _config(metadata: dict[str, str]) -> dict[str, object]:
    try:
        value = json.loads(metadata.get("config", "{}"))
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


def _last(name: str) -> str:
    return name.rpartition("/")[2]
