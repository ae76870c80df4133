"""A finished run's LoRA on the Hugging Face hub, with a model card: only when push_to_hub asks for it. The token is the hub's own login."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from ltx2core.errors import ConfigError, RunError
from ltx2core.runs.files import write_text
from ltx2core.runs.secrets import redact

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from huggingface_hub import HfApi

    from ltx2core.runs.folder import RunFolder

_LEFT_OUT = ("format", "targets")


def check_login() -> None:
    """Raise ConfigError when nothing could be uploaded at the end: hours of training come before."""
    from huggingface_hub import get_token

    if os.environ.get("HF_HUB_OFFLINE", "").lower() in ("1", "true", "on", "yes"):
        raise ConfigError(["push_to_hub = true: HF_HUB_OFFLINE is set."], fix="Unset it, or set push_to_hub to false.")
    if not get_token():
        raise ConfigError(
            ["push_to_hub = true: there is no token of the Hugging Face hub on this machine."],
            fix="Run `hf auth login` or set HF_TOKEN, or set push_to_hub to false. A token never belongs in config.json.",
        )


def publish(folder: RunFolder, *, repository: str, private: bool, prompt: str) -> str:
    """Upload the run's LoRA files, a card and its newest sample; the repository's address. Raises RunError with what went wrong."""
    from huggingface_hub import HfApi

    from ltx2core.lora.read import read_keys

    card = folder.lora.parent / "README.md"
    newest = max(folder.samples.glob("step-*/*.mp4"), default=None)
    write_text(card, model_card(folder.name, read_keys(folder.lora).metadata, prompt=prompt, sample=newest is not None))
    files = {"README.md": card, **{path.name: path for path in sorted(folder.lora.parent.glob("*.safetensors"))}}
    if newest is not None:
        files["sample.mp4"] = newest
    try:
        return _upload(HfApi(), files, repository=repository, private=private)
    except Exception as error:  # the hub's library raises its own, requests' and the network's errors
        raise RunError(
            redact(f"The LoRA was not uploaded to {repository}: {type(error).__name__}: {error}."),
            fix=f"It is in {folder.lora.parent}; upload it with `hf upload`.",
        ) from error


def _upload(api: HfApi, files: Mapping[str, Path], *, repository: str, private: bool) -> str:
    address = api.create_repo(repository, private=private, exist_ok=True)
    for name, path in files.items():
        api.upload_file(path_or_fileobj=str(path), path_in_repo=name, repo_id=address.repo_id, commit_message=f"Upload {name}")
    return str(address)


def model_card(name: str, metadata: Mapping[str, str], *, prompt: str, sample: bool) -> str:
    """The repository's README.md: what the LoRA was trained on and how it is used."""
    base = metadata.get("base_model", "")
    trigger = metadata.get("trigger", "")
    lines = ["---", "base_model: Lightricks/LTX-2", "tags:", "- lora", "- ltx-2", "- text-to-video", "---", "", f"# {name}", ""]
    lines += [f"A LoRA for LTX-2, trained on {base or 'LTX-2'} with ltx2tui.", ""]
    if trigger:
        lines += [f"Put `{trigger}` into the prompt.", ""]
    if sample:
        lines += [f"`sample.mp4` was drawn for: {prompt}", ""]
    lines += ["| | |", "|---|---|"]
    lines += [f"| {key} | {value} |" for key, value in sorted(metadata.items()) if value and key not in _LEFT_OUT]
    return redact("\n".join([*lines, ""]))
