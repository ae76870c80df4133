"""What a clip is said to show: the caption file beside it, its name, a table, or one phrase for all. Names are SimpleTuner's."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from ltx2core.data.clip import Problem

if TYPE_CHECKING:
    from pathlib import Path

    from ltx2core.data.caption_edits import CaptionEdit, Shuffle
    from ltx2core.data.caption_tables import CaptionTable
    from ltx2core.data.clip import Clip

CaptionStrategy = Literal["textfile", "filename", "instanceprompt", "csv", "jsonl", "parquet"]

MAX_CAPTION_BYTES = 1 << 20  # more than this is not a caption
LONG_CAPTION = 4096  # characters; English takes about four a token, and the text encoder takes 1024 tokens


@dataclass(frozen=True, slots=True, kw_only=True)
class CaptionRule:
    """How a dataset's clips get their captions.

    textfile: the .txt of the same name; every line that is not empty is one variant, unless split_lines is off.
    filename: the name without its ending, underscores as spaces. instanceprompt: instance_prompts and nothing else.
    csv, jsonl, parquet: the rows of `table`.
    A clip's own captions are edited, then shuffled; instance prompts are put before what comes of that, so that they stay first.
    """

    strategy: CaptionStrategy = "textfile"
    instance_prompts: tuple[str, ...] = ()
    prepend_instance_prompt: bool = False  # each prompt before each caption, one space between
    only_instance_prompt: bool = False
    split_lines: bool = True
    table: CaptionTable | None = None
    edits: tuple[CaptionEdit, ...] = ()
    shuffle: Shuffle | None = None

    @property
    def needs_text_file(self) -> bool:
        return self.strategy == "textfile" and not self.only_instance_prompt

    def captions(self, path: Path, text: str | None) -> tuple[str, ...]:
        """The caption variants of the clip at `path`, whose caption file holds `text`; empty when there is none."""
        if self.only_instance_prompt or self.strategy == "instanceprompt":
            return self.instance_prompts
        own = [caption for raw in self._own(path, text) if (caption := self._edited(raw))]
        if self.shuffle is not None:
            own = [variant for caption in own for variant in self.shuffle.variants(caption)]
        if self.prepend_instance_prompt and self.instance_prompts:
            own = [f"{prompt} {caption}" for prompt in self.instance_prompts for caption in own]
        return tuple(dict.fromkeys(own)) if self.shuffle is not None or self.edits else tuple(own)

    def missing(self, clip: Clip) -> Problem:
        """What to say of a clip that has no caption."""
        name = clip.path.name
        if self.needs_text_file and not (clip.caption or "").strip():
            text, fix = f"{name} has no caption.", f"Write what it shows into {clip.path.stem}.txt."
            return Problem(code="missing_caption" if clip.caption is None else "empty_caption", level="error", text=text, fix=fix)
        if self.table is not None and not self.only_instance_prompt:
            if (rows := self.table.of(clip.path)) is None:
                text, fix = f"{name} has no row in {self.table.path.name}.", "Add one with its name and what it shows."
                return Problem(code="missing_caption", level="error", text=text, fix=fix)
            if not rows:
                text, fix = f"{name} has an empty caption in {self.table.path.name}.", "Write what it shows there."
                return Problem(code="empty_caption", level="error", text=text, fix=fix)
        if self.edits and any(self._own(clip.path, clip.caption)):
            text = f"{name} has no caption left after caption_filter_list."
            return Problem(code="empty_caption", level="error", text=text, fix="Write a longer caption, or take less out.")
        text = f"{name} has no caption: caption_strategy {self.strategy} gives it no text."
        return Problem(code="missing_caption", level="error", text=text, fix="Set instance_prompt, or use caption_strategy textfile.")

    def _own(self, path: Path, text: str | None) -> tuple[str, ...]:
        if self.strategy == "filename":
            return (_words(path.stem.replace("_", " ")),)
        if self.strategy in ("csv", "jsonl", "parquet"):
            return (self.table.of(path) if self.table is not None else None) or ()
        return self._variants(text or "")

    def _edited(self, caption: str) -> str:
        for edit in self.edits:
            caption = edit(caption)
        return caption

    def _variants(self, text: str) -> tuple[str, ...]:
        lines = [line.strip() for line in text.splitlines()]
        return tuple(lines) if self.split_lines else (" ".join(line for line in lines if line),)


def read_caption(clip: Path) -> tuple[str | None, tuple[Problem, ...]]:
    """The text of the clip's caption file, None without one, and what is wrong with it."""
    path = clip.with_suffix(".txt")
    try:
        with path.open("rb") as file:
            data = file.read(MAX_CAPTION_BYTES + 1)
    except FileNotFoundError:
        fix = f"Write what it shows into {path.name}, or set caption_strategy to filename or instanceprompt."
        return None, (Problem(code="missing_caption", level="error", text=f"{clip.name} has no caption file.", fix=fix),)
    except OSError as error:
        text = f"{path.name} cannot be opened: {error.strerror or error}."
        return None, (Problem(code="caption_unreadable", level="error", text=text, fix="Change its permissions."),)
    return _judge(path, data)


def _judge(path: Path, data: bytes) -> tuple[str | None, tuple[Problem, ...]]:
    text, encoding = _decode(data)
    if text is None or len(data) > MAX_CAPTION_BYTES:
        line = f"{path.name} is not a caption: it is {'longer than 1 MiB' if len(data) > MAX_CAPTION_BYTES else 'not text'}."
        fix = "Write one caption a line, as plain UTF-8 text."
        return None, (Problem(code="caption_unreadable", level="error", text=line, fix=fix),)
    problems: list[Problem] = []
    if encoding != "UTF-8":
        line = f"{path.name} is not UTF-8; it was read as {encoding}."
        problems.append(Problem(code="caption_not_utf8", level="warning", text=line, fix="Save it as UTF-8 if letters look wrong."))
    if not text.strip():
        fix = "Write what the clip shows into it."
        problems.append(Problem(code="empty_caption", level="error", text=f"{path.name} is empty.", fix=fix))
    longest = max((len(line) for line in text.splitlines()), default=0)
    if longest > LONG_CAPTION:
        line = f"{path.name} has a caption of {longest} characters; the text encoder takes 1024 tokens, about {LONG_CAPTION}."
        problems.append(Problem(code="caption_long", level="warning", text=line, fix="Shorten it: what is beyond is cut off."))
    return text.strip(), tuple(problems)


def _decode(data: bytes) -> tuple[str | None, str]:
    """The text and the encoding it was read in; None for bytes that are no text."""
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        return data.decode("utf-16", errors="replace"), "UTF-16"
    if b"\0" in data:
        return None, ""
    try:
        return data.removeprefix(b"\xef\xbb\xbf").decode(), "UTF-8"
    except UnicodeDecodeError:
        return data.decode("cp1252", errors="replace"), "Windows-1252"


def _words(text: str) -> str:
    return " ".join(text.split())
