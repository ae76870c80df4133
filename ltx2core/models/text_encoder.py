"""The language model that reads captions: Gemma3 for LTX-2 2.0 and 2.3, Gemma4 for 2.5. Without vision tower, without language head.

Built on the meta device, then filled tensor by tensor in the order of the files, cast or rounded to 8 bits while they are read. It
lies on the device as a whole, or its layers stay in host memory and travel one ahead (text_streaming.py): then the device holds two
layers, and the embedding table, 2 GB of which a caption needs 1,024 rows, never gets there.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from ltx2core.errors import CheckpointError
from ltx2core.models.int8 import Int8Linear, quantise_rows, use_int8
from ltx2core.models.safetensors_header import first_five
from ltx2core.models.tensor_reading import read_tensors
from ltx2core.models.text_files import TextFiles, open_text_files
from ltx2core.models.text_streaming import Streamer

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor

MAX_TOKENS = 1024
_REGISTERS = 128  # of a connector: the token count must be a multiple
_MODELS = {  # kind: (transformers' class, its config's class)
    "gemma3_text": ("Gemma3TextModel", "Gemma3TextConfig"),
    "gemma4_unified_text": ("Gemma4UnifiedTextModel", "Gemma4UnifiedTextConfig"),
}
_KINDS = {"gemma3": "gemma3_text", "gemma4_unified": "gemma4_unified_text"}  # models that also see: kind of the language model inside
_FLOATS = ("BF16", "F16", "F32")


@dataclass(frozen=True, slots=True)
class TextEncoder:
    """A tokenizer and the language model behind it. `max_tokens` is what every caption is padded to, on the left."""

    tokenizer: Any
    model: Any
    fingerprint: str
    max_tokens: int
    streamer: Streamer | None = None  # None: the model lies on its device as a whole

    @property
    def device(self) -> torch.device:
        """Where it computes, and where its states come out."""
        return self.streamer.device if self.streamer is not None else torch.device(self.model.device)


def load_text_encoder(
    path: Path, *, dtype: torch.dtype, device: torch.device | str = "cpu", streamed: bool = False, int8: bool = False
) -> TextEncoder:
    """The text encoder of a folder or a single file, frozen.

    streamed: keep the layers in host memory. int8: hold the layers' matrices in 8 bits, which halves them and changes what comes out
    a little. Raises CheckpointError when it cannot be used, with what to get instead.
    """
    files = open_text_files(path)
    model = empty_text_model(files, dtype=dtype, int8=int8)
    tokenizer = check_text_files(files, model)
    max_tokens = max(_REGISTERS, min(MAX_TOKENS, tokenizer.model_max_length) // _REGISTERS * _REGISTERS)
    device = torch.device(device)
    streamer = Streamer(model.layers, device) if streamed else None
    _fill(model, files, device, streamer)
    return TextEncoder(tokenizer, model.eval().requires_grad_(False), files.fingerprint(), max_tokens, streamer)


def check_text_files(files: TextFiles, empty: Any) -> Any:
    """The tokenizer, ready for captions. Raises CheckpointError unless the files hold one, and every tensor of the empty model."""
    files.check_whole()
    tokenizer = files.tokenizer()
    tokenizer.padding_side = "left"
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    if tokenizer.bos_token_id is None or tokenizer.pad_token_id is None:
        raise CheckpointError(
            f"{files.path}: its tokenizer names no beginning and no padding token.", fix="Use the tokenizer of the same model."
        )
    _check_tensors(files, {name: tensor.shape for name, tensor in empty.state_dict().items() if not _is_scale(empty, name)})
    return tokenizer


def empty_text_model(files: TextFiles, *, dtype: torch.dtype, int8: bool = False) -> Any:
    """The language model on the meta device, with the types its weights will have: for reading sizes, or to be filled."""
    model_class, config = _architecture(files)
    with torch.device("meta"):
        model = model_class(config).to(dtype)
        if int8:
            use_int8(model.layers)
    return model


def text_encoder_fingerprint(path: Path) -> str:
    """Changes when the text encoder or its tokenizer does: 16 hex digits."""
    return open_text_files(path).fingerprint()


def _architecture(files: TextFiles) -> tuple[Any, Any]:
    """transformers' class of the language model, and its config. Raises CheckpointError for other models."""
    import transformers
    from transformers.utils import logging

    logging.disable_progress_bar()  # it writes to the terminal that the app draws on
    kind = _KINDS.get(files.kind, files.kind)
    if kind not in _MODELS:
        raise CheckpointError(
            f"{files.path} holds a {files.kind!r} model, which is no text encoder of LTX-2.",
            fix="LTX-2 2.0 and 2.3 need google/gemma-3-12b-it; 2.5 needs the text encoder file that Lightricks publishes with it.",
        )
    names = _MODELS[kind]
    try:
        model_class, config_class = (getattr(transformers, name) for name in names)
    except (AttributeError, ImportError) as error:
        raise CheckpointError(
            f"{files.path} is a {kind} model; transformers {transformers.__version__} cannot build it.",
            fix='Install a newer one: pip install "transformers>=5.16,<6".',
        ) from error
    try:
        return model_class, config_class.from_dict(files.text_config)
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise CheckpointError(f"{files.path}: its config cannot be used: {error}", fix="Download its config.json again.") from error


def _fill(model: Any, files: TextFiles, device: torch.device, streamer: Streamer | None) -> None:
    """Read every tensor of the language model to where it belongs. One is held at a time beside those that stay."""
    expected = dict(model.state_dict())
    for name, tensor in read_tensors(files.tensors.items(), "cpu" if streamer else device):
        parts = {name: tensor}
        if isinstance(module := model.get_submodule(name.rpartition(".")[0]), Int8Linear) and name.endswith(".weight"):
            weight, scale = quantise_rows(tensor)
            parts = {name: weight, name.removesuffix("weight") + "scale": scale}
        for part, value in parts.items():
            layer = part.split(".", 2) if part.startswith("layers.") else None
            if streamer is not None and layer is not None:
                streamer.fill(int(layer[1]), layer[2], value)
            else:
                at = torch.device("cpu") if streamer is not None and module is model.embed_tokens else device
                _assign(model, part, value.to(at, expected[part].dtype))
    # What is computed, not saved, was built on the meta device: compute it.
    with torch.device("cpu" if streamer else device):
        model.embed_tokens.embed_scale = torch.tensor(model.embed_tokens.scalar_embed_scale)
    model.rotary_emb = type(model.rotary_emb)(model.config).to(device)


def _check_tensors(files: TextFiles, expected: dict[str, torch.Size]) -> None:
    """Raises CheckpointError unless the files hold the model's tensors, in the model's shapes, in a float format."""
    missing = [name for name in expected if name not in files.tensors]
    if missing:
        raise CheckpointError(f"{files.path} is not whole: {first_five(missing)}.", fix="Download what is missing, or all of it again.")
    for name, entry in files.tensors.items():
        if entry.dtype not in _FLOATS or (name not in expected and "scale" in name):
            raise CheckpointError(
                f"{files.path} holds a text encoder in fewer bits: {name} is {entry.dtype}.",
                fix='Use the bf16 files; with text_encoder_1_precision = "int8-torchao" they take half the memory.',
            )
        if name not in expected:
            raise CheckpointError(f"{files.path} does not fit its own config: {name} is no part of it.", fix="Download the folder again.")
        if tuple(expected[name]) != entry.shape:
            raise CheckpointError(
                f"{files.path} does not fit its own config: {name} is {list(entry.shape)}, not {list(expected[name])}.",
                fix="Download the folder again.",
            )


def _is_scale(model: nn.Module, name: str) -> bool:
    parent, _, leaf = name.rpartition(".")
    return leaf == "scale" and isinstance(model.get_submodule(parent), Int8Linear)


def _assign(model: nn.Module, name: str, tensor: Tensor) -> None:
    parent, _, leaf = name.rpartition(".")
    module = model.get_submodule(parent)
    if leaf in module._parameters:
        module._parameters[leaf] = nn.Parameter(tensor, requires_grad=False)
    else:
        module._buffers[leaf] = tensor
