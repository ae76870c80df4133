"""From one layout of LoRA files to another, with the same effect. Loads torch."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ltx2core.lora.read import read_lora
from ltx2core.lora.write import write_lora

if TYPE_CHECKING:
    from pathlib import Path

    import torch

    from ltx2core.lora.write import Written

# Settings of the source that say how its own numbers were to be scaled; the new file's are scaled already.
_STALE = ("format", "lora_adapter_metadata", "ss_network_alpha", "ss_network_dim")


def convert_lora(source: Path, out: Path, *, layout: Written, dtype: torch.dtype | None = None) -> int:
    """Write the LoRA in `source` to `out` in another layout; how many layers it has. dtype: None keeps the source's.

    Raises CheckpointError when the source is no LoRA of LTX-2, StorageError when the file cannot be written.
    """
    lora = read_lora(source)
    own = next(iter(lora.pairs.values())).down.dtype
    metadata = {name: value for name, value in lora.metadata.items() if name not in _STALE}
    metadata["converted_from"] = f"{source.name} ({lora.layout})"
    write_lora(out, lora.pairs, layout=layout, dtype=dtype or own, metadata=metadata)
    return len(lora.pairs)
