"""Keys of a dataset's entry about captions: tables that hold them, and shuffling of their parts."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar, Literal

from ltx2core.config.keys import Keys, key


class CaptionTableKeys(Keys):
    """A table with a row for each file: Parquet, or JSON lines."""

    group: ClassVar[str] = "parquet"

    path: Path | None = key(
        None, "Table", "The .parquet or .jsonl file. Empty: metadata.parquet or metadata.jsonl in the dataset's folder."
    )
    filename_column: str | None = key(
        None, "Column of names", "The column that says which file a row belongs to. Empty: filename, file_name, file, path or id."
    )
    caption_column: str | None = key(
        None, "Column of captions", "The column with the caption, or with a list of them. Empty: caption, text or prompt."
    )
    fallback_caption_column: str | None = key(None, "Second column", "The column that is read where the first one is empty.")
    identifier_includes_extension: bool | None = key(
        None,
        "Names with endings",
        "true: names in the table end as the files do (a.mp4). false: they are without ending (a). Empty: either.",
    )
    width_column: str | None = key(None, "Column of widths", "Not needed: sizes are read from the files, which cannot be wrong about them.")
    height_column: str | None = key(None, "Column of heights", "Not needed: sizes are read from the files.")


class CaptionShuffle(Keys):
    """Variants of captions that are lists of tags."""

    group: ClassVar[str] = "caption_shuffle"

    enable: bool = key(False, "Shuffle", "Train captions with their tags in other orders too.")
    count: int = key(1, "Variants", "Shuffled variants of each caption; one is drawn at each visit.", ge=1, le=100)
    seed: int | None = key(None, "Shuffle seed", "What the orders are drawn from. Empty: the config's seed.", ge=0, le=2**63 - 1)
    split_on: Literal["comma", "space", "period"] = key("comma", "Tags end at", "What separates the tags.")
    position_start: int = key(0, "Tags that stay", "So many tags at the beginning keep their places.", ge=0, le=1000)
    include_original: bool = key(True, "Keep the original", "Train the caption as it is written as well.")
