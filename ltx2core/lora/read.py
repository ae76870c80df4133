"""Reading a LoRA file of any layout into one form: for each layer two matrices and a factor. Loads torch when it reads tensors."""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ltx2core.errors import CheckpointError
from ltx2core.lora.keys import Layout, is_lora_key, layout_of, parse_key
from ltx2core.models.safetensors_header import read_header

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    from torch import Tensor

    from ltx2core.lora.keys import Matrix

SHOWN = 5  # keys that a message names before it stops


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Pair:
    """What a LoRA adds to a layer's weight: scale * up @ down."""

    down: Tensor  # [rank, in]
    up: Tensor  # [out, rank]
    scale: float = 1.0  # alpha / rank, as the file tells it; 1 where it tells none

    @property
    def rank(self) -> int:
        return self.down.shape[0]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Lora:
    """A LoRA file: its layers under diffusers' names, as the file's own numbers."""

    path: Path
    layout: Layout
    pairs: dict[str, Pair]
    metadata: dict[str, str]

    @property
    def rank(self) -> int:
        """The widest layer's."""
        return max(pair.rank for pair in self.pairs.values())

    @property
    def fingerprint(self) -> str:
        """The file's name, and 16 digits of the SHA-256 of its bytes."""
        with self.path.open("rb") as file:
            return f"{self.path.name} sha256:{hashlib.file_digest(file, 'sha256').hexdigest()[:16]}"


def read_lora(path: Path) -> Lora:
    """The LoRA in a file. Raises CheckpointError when it is none, is for another architecture, or lacks part of a layer."""
    lora, problems = read_what_fits(path)
    if problems:
        raise CheckpointError(f"{path}: {problems[0]}", fix="Use a whole LoRA file that was trained for LTX-2.")
    return lora


def read_what_fits(path: Path) -> tuple[Lora, list[str]]:
    """The layers of a file that can be used, and a sentence for each way in which others cannot.

    Raises CheckpointError when the file is missing, unreadable or no LoRA at all.
    """
    from safetensors import safe_open

    header = read_keys(path)
    parsed = {key: parse_key(key) for key in header.shapes}
    problems = [problem] if (problem := foreign(header.shapes)) else []
    places: dict[str, dict[Matrix, Tensor]] = {}
    with safe_open(path, framework="pt") as file:
        for key, place in parsed.items():
            if place is None:
                continue
            layer, matrix = place
            if matrix in places.setdefault(layer, {}):
                problems.append(f"it holds {layer} twice, once as {key}.")
            places[layer][matrix] = file.get_tensor(key)
    alphas = _alphas_beside(path, header.metadata)
    pairs: dict[str, Pair] = {}
    for layer, found in places.items():
        pair = _pair(layer, found, alphas)
        if isinstance(pair, str):
            problems.append(pair)
        else:
            pairs[layer] = pair
    layout = layout_of(next((key for key, place in parsed.items() if place is not None), ""))
    return Lora(path=path, layout=layout, pairs=pairs, metadata=header.metadata), problems


@dataclass(frozen=True, slots=True, kw_only=True)
class LoraHeader:
    """What a file says before any tensor is read."""

    metadata: dict[str, str]
    shapes: dict[str, tuple[int, ...]]
    dtypes: dict[str, str]  # as safetensors names them: BF16


def read_keys(path: Path) -> LoraHeader:
    """Keys and metadata of a LoRA file. Raises CheckpointError when it is missing, unreadable or no LoRA at all. Loads no torch."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="np") as file:
            metadata = dict(file.metadata() or {})
            views = {key: file.get_slice(key) for key in file.keys()}  # noqa: SIM118 - not a mapping
            shapes = {key: tuple(view.get_shape()) for key, view in views.items()}
            dtypes = {key: str(view.get_dtype()) for key, view in views.items()}
    except FileNotFoundError as error:
        raise CheckpointError(
            f"{path} does not exist.", fix="Check the path; a run's file is runs/<name>/lora/<name>.safetensors."
        ) from error
    except (OSError, SafetensorError) as error:
        read_header(path)  # says what is wrong with it, where it can tell
        raise CheckpointError(f"{path} is not a readable safetensors file.", fix="Export it again from its run.") from error
    if not any(is_lora_key(key) for key in shapes):
        raise CheckpointError(f"{path} holds no LoRA: no key ends with .lora_A.weight.", fix="Give a LoRA file, not a model.")
    return LoraHeader(metadata=metadata, shapes=shapes, dtypes=dtypes)


def foreign(keys: Iterable[str]) -> str | None:
    """A sentence that names the first keys that are no LoRA of LTX-2; None when there are none."""
    strange = [key for key in keys if parse_key(key) is None]
    if not strange:
        return None
    first = ", ".join(strange[:SHOWN]) + (f" and {len(strange) - SHOWN} more" if len(strange) > SHOWN else "")
    if any(word in key for key in strange for word in (".dora_scale", "lora_magnitude_vector", ".hada_", ".lokr_")):
        return f"it is a DoRA or LyCORIS file, not a plain LoRA: {first}."
    return f"it is for another architecture: LTX-2 has no layer for {first}."


def _pair(layer: str, found: Mapping[Matrix, Tensor], alphas: _Alphas) -> Pair | str:
    """A layer's two matrices, or a sentence on why they cannot be used."""
    down, up = found.get("down"), found.get("up")
    if down is None or up is None:
        return f"it lacks one of the two matrices of {layer}."
    if down.ndim != 2 or up.ndim != 2 or down.shape[0] != up.shape[1] or not down.shape[0]:
        return f"{layer} has matrices of {[*down.shape]} and {[*up.shape]}, which do not belong together."
    rank = down.shape[0]
    if (alpha := found.get("alpha")) is not None:
        if alpha.numel() != 1 or not math.isfinite(float(alpha)):
            return f"the alpha of {layer} is not a number."
        return Pair(down=down, up=up, scale=float(alpha) / rank)
    return Pair(down=down, up=up, scale=alphas.scale(layer, rank))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Alphas:
    """What PEFT's settings say of alpha, where a file comes with them."""

    settings: dict[str, Any]

    def scale(self, layer: str, rank: int) -> float:
        alpha = self.settings.get("lora_alpha")
        pattern = self.settings.get("alpha_pattern")
        if isinstance(pattern, dict):  # names, their endings, or regular expressions with a leading ^
            alpha = next((value for name, value in pattern.items() if f".{layer}".endswith(f".{name.lstrip('^')}")), alpha)
        if not isinstance(alpha, int | float) or not math.isfinite(alpha):
            return 1.0
        return alpha / math.sqrt(rank) if self.settings.get("use_rslora") else alpha / rank


def _alphas_beside(path: Path, metadata: Mapping[str, str]) -> _Alphas:
    """PEFT's settings from the header, where diffusers writes them, or from the file beside, where PEFT does."""
    text = metadata.get("lora_adapter_metadata")
    if text is None:
        beside = path.with_name("adapter_config.json")
        text = beside.read_text(encoding="utf-8") if path.name == "adapter_model.safetensors" and beside.is_file() else "{}"
    try:
        settings = json.loads(text)
    except ValueError as error:
        raise CheckpointError(f"{path} comes with LoRA settings that are no JSON.", fix="Save it again with its own program.") from error
    if not isinstance(settings, dict):
        return _Alphas(settings={})
    return _Alphas(settings={name.removeprefix("transformer."): value for name, value in settings.items()})
