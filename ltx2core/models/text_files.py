"""What a text encoder is on disk: a folder as transformers writes it, or LTX-2.5's single file that holds everything.

Owns the config, which tensors belong to the language model, and the tokenizer. text_encoder.py builds the model from it,
text_source.py finds it. Of the folder of a model that also sees, only the language model's tensors are ever read.

The single file (`text_encoders/gemma4-12b-with-proj-ltx-2.5-bf16.safetensors`) has the config in its header as `gemma_config`, and
tokenizer.json and its settings as tensors of bytes: `tokenizer_json`, `hf_asset__tokenizer_config.json`.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ltx2core.errors import CheckpointError
from ltx2core.models.safetensors_header import Entry, read_header

if TYPE_CHECKING:
    from pathlib import Path

SET_PATH = "Set pretrained_gemma_model_name_or_path to the folder of the text encoder."
_TOKENIZER_FILES = ("tokenizer.json", "tokenizer.model", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json")
_PREFIXES = ("language_model.model.", "model.language_model.", "language_model.", "model.")  # by version of the file; none is another
_PARTS = ("embed_tokens.", "layers.", "norm.")  # of the language model, once the prefix is off
_SPECIAL = ("bos_token", "eos_token", "pad_token", "unk_token")


@dataclass(frozen=True, slots=True)
class TextFiles:
    """A text encoder on disk. Nothing but headers is read until it is asked for."""

    path: Path
    config: dict[str, Any]  # as transformers writes it, with `text_config` inside when the model also sees
    tensors: dict[str, Entry]  # of the language model alone, under the text model's own names, in file order
    assets: dict[str, Entry]  # of a single file: tokenizer.json and its settings, by file name
    tokenizer_folder: Path | None

    @property
    def kind(self) -> str:
        """What transformers calls the language model: gemma3_text, gemma4_unified_text."""
        return str(self.text_config.get("model_type", self.config.get("model_type")))

    @property
    def text_config(self) -> dict[str, Any]:
        part = self.config.get("text_config")
        return part if isinstance(part, dict) else self.config

    @property
    def version(self) -> str | None:
        """The name that Lightricks gave a text encoder of its own, like "gemma4-12b-ltx-v1"."""
        name = self.config.get("gemma_version")
        return name if isinstance(name, str) else None

    def tokenizer(self) -> Any:
        """The tokenizer, as a transformers object. Raises CheckpointError when it is missing or damaged."""
        from transformers import AutoTokenizer

        if self.assets:
            return self._packed_tokenizer()
        if self.tokenizer_folder is None:
            raise CheckpointError(
                f"{self.path} holds no tokenizer.json.",
                fix="Put tokenizer.json and tokenizer_config.json of the same model into that folder.",
            )
        _json(self.tokenizer_folder / "tokenizer.json")
        try:
            return AutoTokenizer.from_pretrained(self.tokenizer_folder, local_files_only=True)
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise CheckpointError(
                f"{self.tokenizer_folder} holds no tokenizer that can be used: {_first_line(error)}",
                fix="Download its tokenizer files again.",
            ) from error

    def _packed_tokenizer(self) -> Any:
        from tokenizers import Tokenizer
        from transformers import PreTrainedTokenizerFast

        if "tokenizer.json" not in self.assets:
            raise CheckpointError(
                f"{self.path} holds no tokenizer_json.", fix="Use Lightricks' own text encoder file of LTX-2.5, which does."
            )
        text = {name: self._bytes(entry).decode("utf-8", "replace") for name, entry in self.assets.items() if name in _TOKENIZER_FILES}
        try:
            json.loads(text["tokenizer.json"])
            settings = json.loads(text.get("tokenizer_config.json", "{}"))
        except ValueError as error:
            raise CheckpointError(f"{self.path} holds a damaged tokenizer.", fix="Download it again.") from error
        special = {name: _token(settings[name]) for name in _SPECIAL if settings.get(name)}
        return PreTrainedTokenizerFast(tokenizer_object=Tokenizer.from_str(text["tokenizer.json"]), **special)

    def _bytes(self, entry: Entry) -> bytes:
        with self.path.open("rb") as file:
            file.seek(entry.start)
            return file.read(entry.end - entry.start)

    def fingerprint(self) -> str:
        """Changes when the text encoder or its tokenizer does: 16 hex digits. Reads config, tokenizer and a part of every tensor."""
        digest = hashlib.sha256(json.dumps(self.config, sort_keys=True).encode())
        for path in self._files():
            if path.name in _TOKENIZER_FILES:
                digest.update(path.name.encode() + path.read_bytes())
                continue
            parts = {key: (entry, 512) for key, entry in self.tensors.items() if entry.path == path}
            parts |= {key: (entry, entry.end - entry.start) for key, entry in self.assets.items()}
            with path.open("rb") as file:
                for key, (entry, most) in parts.items():
                    file.seek(entry.start)
                    digest.update(f"{key} {entry.shape}".encode() + file.read(min(most, entry.end - entry.start)))
        return digest.hexdigest()[:16]

    def _files(self) -> list[Path]:
        """The files of weights and tokenizer, in the order in which they are digested."""
        if not self.path.is_dir():
            return [self.path]
        files = [path for path in sorted(self.path.glob("*")) if path.name in _TOKENIZER_FILES or path.suffix == ".safetensors"]
        if self.tokenizer_folder in (None, self.path):
            return files
        return files + [path for path in sorted(self.tokenizer_folder.glob("*")) if path.name in _TOKENIZER_FILES]

    def check_whole(self) -> None:
        """Raises CheckpointError when files of weights that belong to the folder are missing."""
        if not self.path.is_dir():
            return
        present = {path.name for path in self.path.glob("*.safetensors")}
        missing = sorted(_indexed(self.path) - present)
        if missing:
            more = f" and {len(missing) - 3} more" if len(missing) > 3 else ""
            raise CheckpointError(f"{self.path} lacks {', '.join(missing[:3])}{more}.", fix="Download what is missing into it.")
        if not present:
            raise CheckpointError(f"{self.path} holds no .safetensors file.", fix="Download the weights of the text encoder into it.")


def open_text_files(path: Path) -> TextFiles:
    """Look at a folder or a single file. Raises CheckpointError when it holds no text encoder, or only a part of one."""
    if path.is_file():
        return _open_single(path)
    config = _config(path)
    tensors: dict[str, Entry] = {}
    indexed = _indexed(path)  # where there is an index, other files are other variants
    for shard in sorted(file for file in path.glob("*.safetensors") if not indexed or file.name in indexed):
        tensors |= _language_model(read_header(shard)[1])
    places = (path, path / "tokenizer", path.parent / "tokenizer")
    tokenizer = next((place for place in places if (place / "tokenizer.json").is_file()), None)
    return TextFiles(path, config, tensors, {}, tokenizer)


def _open_single(path: Path) -> TextFiles:
    metadata, entries = read_header(path)
    try:
        config = json.loads(metadata["gemma_config"])
    except (KeyError, ValueError) as error:
        raise CheckpointError(
            f"{path} is no text encoder in one file: its header has no `gemma_config`.",
            fix="Use Lightricks' own text encoder file of LTX-2.5, or the folder of a Gemma model.",
        ) from error
    assets = {key.removeprefix("hf_asset__"): entry for key, entry in entries.items() if key.startswith("hf_asset__")}
    if "tokenizer_json" in entries:
        assets["tokenizer.json"] = entries["tokenizer_json"]
    return TextFiles(path, config, _language_model(entries), assets, None)


def _language_model(entries: dict[str, Entry]) -> dict[str, Entry]:
    """The entries that the language model needs, under its own names: no vision tower, no head."""
    found = {}
    for key, entry in entries.items():
        name = key
        for prefix in _PREFIXES:
            if key.startswith(prefix):
                name = key.removeprefix(prefix)
                break
        if name.startswith(_PARTS):
            found[name] = entry
    return found


def _indexed(folder: Path) -> set[str]:
    """The files of weights that an index names; none without one."""
    index = folder / "model.safetensors.index.json"
    names = _json(index).get("weight_map") if index.is_file() else None
    return {name for name in names.values() if isinstance(name, str)} if isinstance(names, dict) else set()


def _config(folder: Path) -> dict[str, Any]:
    path = folder / "config.json"
    if not path.is_file():
        raise CheckpointError(f"{folder} holds no text encoder (no config.json).", fix=SET_PATH)
    return _json(path)


def _json(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path} cannot be read as JSON, so there is no text encoder.", fix="Download it again.") from error
    if not isinstance(value, dict):
        raise CheckpointError(f"{path} holds no settings, so there is no text encoder.", fix="Download it again.")
    return value


def _token(value: Any) -> str:
    """A special token, which tokenizer_config.json spells as text or as {"content": text}."""
    return str(value["content"] if isinstance(value, dict) else value)


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
