"""Reading the entries of a dataset list."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from pydantic import ValidationError

from ltx2core.config.adjust import adjust_dataset, not_built
from ltx2core.config.dataset_checks import cache_notice, notices_of, problems_of
from ltx2core.config.dataset_links import check_links, check_list
from ltx2core.config.datasets import DatasetList, TextEmbeds, VideoDataset
from ltx2core.config.filter_list import read_filter_list
from ltx2core.config.keys import Keys, facts_of
from ltx2core.config.paths import find
from ltx2core.config.reading import unusable
from ltx2core.config.wording import line, nearest, reword, shown
from ltx2core.runs.events import Notice

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

KINDS = ("video", "image", "audio", "eval", "conditioning", "text_embeds")

# kinds of entries that SimpleTuner knows and that are left out here, with what happens instead
LEFT_OUT = {
    "image_embeds": "the cache is made from the clips",
    "conditioning_image_embeds": "clips are learned from their captions",
    "caption": "captions come with the clips",
    "grounding": "clips are learned from their captions",
    "distillation_cache": "the LoRA is trained on the clips",
}
Model = TypeVar("Model", bound=Keys)


def read_entries(
    entries: object,
    *,
    file: str,
    bases: Sequence[Path],
    frame_rate: float,
    problems: list[str],
    notices: list[Notice],
    need_clips: bool = True,
    words: Mapping[str, str] | None = None,
) -> DatasetList:
    """The datasets of a list. What is wrong with any entry goes to `problems`, what was changed to `notices`.

    need_clips: False makes a notice of a folder that is not there. words: what placeholders such as {model_family} in paths stand for.
    """
    if isinstance(entries, dict):
        problems.append(f"{file} holds a group of keys: a dataset list is a list of entries; put it in [ ].")
        return DatasetList()
    if not isinstance(entries, list | tuple):
        problems.append(f"{file} holds {shown(entries)}: a dataset list is a list of entries; put them in [ ].")
        return DatasetList()
    if bad := unusable(entries, name=file):
        problems += bad
        return DatasetList()
    reading = _Reading(file, tuple(bases), frame_rate, problems, notices, need_clips, dict(words or {}))
    before = len(problems)
    found = [(f"[{index}]", model) for index, entry in enumerate(entries) if (model := reading.entry(entry, f"[{index}]")) is not None]
    notices += cache_notice(found, file=file)
    folders = [(where, entry) for where, entry in found if isinstance(entry, VideoDataset)]
    embeds = [(where, entry) for where, entry in found if isinstance(entry, TextEmbeds)]
    for where, texts in embeds[:1]:
        notices += not_built(texts, file=file, prefix=where)
    listed = reading.finished(folders, embeds[0][1] if embeds else TextEmbeds())
    check_links(listed, file=file, problems=problems, notices=notices)
    check_list(listed, embeds=len(embeds), file=file, any_wrong=len(problems) > before, problems=problems, notices=notices)
    return listed


@dataclass
class _Reading:
    """What reading an entry needs to know, and where it says what it finds."""

    file: str
    bases: tuple[Path, ...]
    frame_rate: float
    problems: list[str]
    notices: list[Notice]
    need_clips: bool
    words: dict[str, str]

    def entry(self, entry: object, where: str) -> VideoDataset | TextEmbeds | None:
        """One entry, its paths absolute; None when it is wrong, disabled or of a kind that is not used."""
        if not isinstance(entry, dict):
            self.problems.append(line(self.file, where, entry, "an entry is a group of keys in braces", "use { }"))
            return None
        if entry.get("disabled", entry.get("disable")) is True:
            return None
        kind = self._kind(entry, where)
        if kind == "text_embeds":
            texts = self._checked(TextEmbeds, entry, where)
            return None if texts is None or texts.disabled else self._with_filter(texts, where)
        dataset = self._checked(VideoDataset, entry, where) if kind else None
        return None if dataset is None or dataset.disabled else self._with_paths(dataset, where)

    def finished(self, folders: list[tuple[str, VideoDataset]], texts: TextEmbeds) -> DatasetList:
        """The list of all entries, each adjusted to what LTX-2 takes."""
        named = {name for _, dataset in folders for name in dataset.s2v_datasets}
        kept: dict[str, list[VideoDataset]] = {"videos": [], "evals": [], "sounds": [], "conditioning": []}
        for where, dataset in folders:
            if dataset.dataset_type == "conditioning":
                self._conditioning(dataset, where)
                kept["conditioning"].append(dataset)
                continue
            linked = dataset.dataset_type == "audio" and dataset.id in named
            self.notices += notices_of(dataset, file=self.file, where=where, linked=linked)
            adjusted, told = adjust_dataset(dataset, file=self.file, path=where, frame_rate=self.frame_rate)
            self.notices += told + not_built(adjusted, file=self.file, prefix=where)
            self.problems += [] if linked else problems_of(adjusted, file=self.file, where=where)
            if dataset.conditioning_type is not None:
                text = f"{self.file} {where}.conditioning_type = {dataset.conditioning_type}: it has no effect on clips that are learned."
                fix = 'Set dataset_type to "conditioning" if these are masks or references.'
                self.notices.append(Notice(code="no_effect", level="warning", text=text, fix=fix))
            kept["sounds" if linked else "evals" if dataset.dataset_type == "eval" else "videos"].append(adjusted)
        return DatasetList(text_embeds=texts, **{name: tuple(datasets) for name, datasets in kept.items()})

    def _kind(self, entry: dict[str, object], where: str) -> str:
        kind = entry.get("dataset_type", "video") or "video"
        if kind in KINDS:
            return str(kind)
        if isinstance(kind, str) and kind in LEFT_OUT:
            text = f"{self.file} {where}.dataset_type = {kind}: this entry is left out; {LEFT_OUT[kind]}."
            self.notices.append(Notice(code="dataset_left_out", level="warning", text=text))
            return ""
        match = nearest(str(kind), (*KINDS, *LEFT_OUT)) or "video"
        rule = f"it is one of {', '.join(KINDS)}"
        self.problems.append(line(self.file, f"{where}.dataset_type", kind, rule, f"use {match}"))
        return ""

    def _checked(self, model: type[Model], entry: dict[str, object], where: str) -> Model | None:
        try:
            return model.model_validate(_without_null(_our_names(model, entry)))
        except ValidationError as error:
            self.problems += reword(error, file=self.file, model=model, prefix=where)
            return None

    def _with_paths(self, dataset: VideoDataset, where: str) -> VideoDataset:
        """The dataset with the absolute paths of its folder and its captions' table."""
        text = self._filled(str(dataset.instance_data_dir), dataset.id)
        folder = find(text, self.bases)
        if folder is None:
            self._missing(where, "instance_data_dir", text, "folder", "the folder with your clips")
            folder = Path(text)
        elif not folder.is_dir():
            works = f"use {shown(str(folder.parent))}"
            self.problems.append(line(self.file, f"{where}.instance_data_dir", str(folder), "it is a file, not a folder", works))
        changes: dict[str, object] = {"instance_data_dir": folder}
        bases = (folder, *self.bases) if folder.is_absolute() else self.bases
        if dataset.csv_file is not None and dataset.caption_strategy == "csv":
            changes["csv_file"] = self._table(dataset.csv_file, dataset.id, bases, f"{where}.csv_file")
        table = dataset.parquet
        if table is not None and table.path is not None and dataset.caption_strategy in ("parquet", "jsonl"):
            changes["parquet"] = table.model_copy(update={"path": self._table(table.path, dataset.id, bases, f"{where}.parquet.path")})
        return dataset.model_copy(update=changes)

    def _table(self, path: Path, name: str, bases: tuple[Path, ...], where: str) -> Path:
        text = self._filled(str(path), name)
        found = find(text, bases)
        if found is None:
            self._missing(where.rpartition(".")[0], where.rpartition(".")[2], text, "file", "the table with your captions")
        return found or Path(text)

    def _with_filter(self, texts: TextEmbeds, where: str) -> TextEmbeds:
        """The entry with the lines of its caption filter in place of the file's name."""
        if not texts.caption_filter_list:
            return texts
        lines, wrong = read_filter_list(texts.caption_filter_list, bases=self.bases)
        self.problems += [f"{self.file} {where}.caption_filter_list: {text}" for text in wrong]
        return texts.model_copy(update={"caption_filter_list": lines})

    def _missing(self, where: str, name: str, text: str, kind: str, what: str) -> None:
        path = f"{where}.{name}"
        if self.need_clips:
            self.problems.append(line(self.file, path, text, f"there is no such {kind}", f"name {what}"))
            return
        said = f"{self.file} {path} = {shown(text)}: there is no such {kind} here, and training needs it."
        self.notices.append(Notice(code="no_clips_folder", level="warning", text=said, fix=f"Make it, or name {what}."))

    def _filled(self, text: str, name: str) -> str:
        """A path with its placeholders filled in; braces around other words stay."""
        return re.sub(r"\{(\w+)\}", lambda match: {**self.words, "id": name}.get(match[1], match[0]), text)

    def _conditioning(self, dataset: VideoDataset, where: str) -> None:
        """What is set on masks or references although their clips decide it."""
        own = {"id", "type", "dataset_type", "disabled", "instance_data_dir", "conditioning_type"}
        fields = type(dataset).model_fields
        others = sorted(name for name in dataset.model_fields_set - own if getattr(dataset, name) != fields[name].default)
        if others:
            text = f"{self.file} {where}: {', '.join(others)} has no effect on {dataset.id}: masks and references follow their clips."
            self.notices.append(Notice(code="no_effect", text=text))
        if dataset.conditioning_type is None:
            self.problems.append(f"{self.file} {where}.conditioning_type is missing: use mask or reference_strict.")


def _our_names(model: type[Keys], entry: dict[str, object]) -> dict[str, object]:
    """The entry with other names of keys replaced by ours; a key that is there under both stays twice, to be refused."""
    names = {alias: name for name, field in model.model_fields.items() for alias in facts_of(field).aliases}
    return {name if (name := names.get(key, key)) not in entry or name == key else key: value for key, value in entry.items()}


def _without_null(entry: dict[str, object]) -> dict[str, object]:
    """null is the same as leaving a key out."""
    return {key: _without_null(value) if isinstance(value, dict) else value for key, value in entry.items() if value is not None}
