"""Loading config.json and its dataset list into one LoadedConfig, telling all problems at once, and saving it with a run."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pydantic import BaseModel, ValidationError

from ltx2core.config.adjust import adjust_config, has_distilled_weights, not_built
from ltx2core.config.dataset_checks import offset_notices
from ltx2core.config.datasets import DatasetList
from ltx2core.config.entries import read_entries
from ltx2core.config.keys import facts_of
from ltx2core.config.method_checks import lycoris_problems, method_problems
from ltx2core.config.paths import find, from_here, looks_like_file
from ltx2core.config.prompts import read_library
from ltx2core.config.reading import read_settings, unusable
from ltx2core.config.train import TrainConfig
from ltx2core.config.tread import TREAD_KEY, tread_group
from ltx2core.config.wording import key_names, line, nearest, reword, shown
from ltx2core.errors import ConfigError
from ltx2core.runs.events import Notice
from ltx2core.runs.files import write_json
from ltx2core.runs.secrets import HIDDEN, is_secret, redact

if TYPE_CHECKING:
    from pathlib import Path

    from ltx2core.runs.folder import RunFolder

LIST_KEY = "data_backend_config"


@dataclass(frozen=True)
class LoadedConfig:
    """Settings that can be trained with: every value checked, every path absolute where it exists."""

    config: TrainConfig
    datasets: DatasetList
    notices: tuple[Notice, ...]  # what was changed, and what is not built yet
    path: Path | None  # the file it came from
    base: Path  # where relative paths were looked for, after the current folder


@dataclass
class _Findings:
    """What is found on the way; a problem does not stop the search for the next."""

    problems: list[str]
    notices: list[Notice]
    need_files: bool = True

    def no_file(self, problem: str) -> None:
        """A file that is not there: a problem where it is needed."""
        if self.need_files:
            self.problems.append(problem)
        else:
            self.notices.append(Notice(code="no_file_here", level="warning", text=problem))


def load_config(path: Path) -> LoadedConfig:
    """The settings in a config.json and in the dataset list that it names. Raises ConfigError with every problem."""
    notes: list[str] = []
    values = read_settings(path, notes=notes)
    return _load(values, base=path.absolute().parent, path=path, datasets=None, part=False, notes=notes)


def load_config_dict(values: object, *, base: Path, datasets: object = None) -> LoadedConfig:
    """The same from values that were not read from a file; `datasets` is a dataset list, else the file that `values` names is read."""
    return _load(values, base=base.absolute(), path=None, datasets=datasets, part=False, notes=[])


def look_at(values: object, *, base: Path, datasets: object = None, file: str = "config") -> LoadedConfig:
    """Values to be looked at, perhaps on another machine: a whole config or a few keys of one. No file that they name need be there.

    file: what errors call the place that they come from.
    """
    part = datasets is None and isinstance(values, dict) and not any(str(name).lstrip("-") == LIST_KEY for name in values)
    return _load(
        values, base=base.absolute(), path=None, datasets=datasets, part=part, notes=[], need_clips=False, need_files=False, file=file
    )


def load_part(path: Path) -> LoadedConfig:
    """A file to be looked at, not trained with: a whole config, a few keys of one, or a dataset list. Raises ConfigError.

    A folder of clips that is not there yet gives a notice: an example is right before the clips are.
    """
    notes: list[str] = []
    values = read_settings(path, notes=notes)
    base = path.absolute().parent
    if isinstance(values, list):
        found = _Findings([], [])
        listed = read_entries(
            values, file=path.name, bases=(base,), frame_rate=25.0, problems=found.problems, notices=found.notices, need_clips=False
        )
        _stop_if(found.problems)
        return LoadedConfig(config=TrainConfig(), datasets=listed, notices=(*_twice(notes), *found.notices), path=path, base=base)
    part = isinstance(values, dict) and not any(name.lstrip("-") == LIST_KEY for name in values)
    return _load(values, base=base, path=path, datasets=None, part=part, notes=notes, need_clips=False)


def save_config(folder: RunFolder, loaded: LoadedConfig) -> None:
    """Write config.json and datasets.json of a run. They load again as an equal config from any current folder."""
    config = json.loads(redact(json.dumps(_written(loaded.config)))) | {LIST_KEY: str(folder.datasets.absolute())}
    write_json(folder.datasets, [_written(entry) for entry in loaded.datasets.entries])
    write_json(folder.config, config)


def _load(
    values: object,
    *,
    base: Path,
    path: Path | None,
    datasets: object,
    part: bool,
    notes: list[str],
    need_clips: bool = True,
    need_files: bool = True,
    file: str = "config",
) -> LoadedConfig:
    """need_clips: folders of clips must be there. need_files: so must the model and the dataset list. file: its name where path is None."""
    file = path.name if path is not None else file
    found = _Findings([], _twice(notes), need_files)
    if not isinstance(values, dict):
        hint = "this is a dataset list; name it with data_backend_config in a config.json" if isinstance(values, list) else "use { }"
        raise ConfigError([f"{file} holds {shown(values)}: a config is a group of keys in braces; {hint}."])
    _stop_if(unusable(values, name=file))
    known, written = _known_keys(values, file, found.problems)
    _read_tread(known, file=file, base=base, found=found)
    config = _checked(known, file, written, found)
    _lengths(known, written, file, found.problems)
    found.problems += method_problems(config, file=file)
    given = {name for name in known if name in TrainConfig.model_fields}
    config = _with_paths(config, given=given, base=base, file=file, found=found)
    if config.ltx2_validation_schedule == "distilled" and not (has_distilled_weights(config) or config.sample_adapters):
        rule = "these 8 steps only work with distilled weights, and neither the model nor a LoRA of samples is said to be distilled"
        works = 'name a distilled LoRA in validation_adapter_path, a distilled model, or use "full"'
        found.problems.append(line(file, "ltx2_validation_schedule", "distilled", rule, works))
    config, told = adjust_config(config, file=file)
    found.notices += told
    found.notices += not_built(config, file=file, written=written)
    config, listed = _datasets(config, datasets, base=base, file=file, part=part, need_clips=need_clips, found=found)
    found.notices += offset_notices(listed, config, file=file)
    if not part:
        _check_sample_dataset(config, listed, file=file, problems=found.problems)
    if listed.evals and "eval_split" not in given and config.eval_split:
        config = config.model_copy(update={"eval_split": 0.0})  # said by the dataset that stands for it
    _stop_if(found.problems)
    return LoadedConfig(config=config, datasets=listed, notices=tuple(found.notices), path=path, base=base)


def _stop_if(problems: list[str]) -> None:
    if problems:
        raise ConfigError(list(dict.fromkeys(problems)))


def _twice(notes: list[str]) -> list[Notice]:
    return [Notice(code="key_twice", level="warning", text=note, fix="Remove one of them.") for note in notes]


def _known_keys(values: dict[str, object], file: str, problems: list[str]) -> tuple[dict[str, object], dict[str, str]]:
    """Values under our names, and our names as the file writes them. null is the same as leaving a key out."""
    names = {alias: name for name, field in TrainConfig.model_fields.items() for alias in (name, *facts_of(field).aliases)}
    known: dict[str, object] = {}
    written: dict[str, str] = {}
    for raw, value in values.items():
        bare = raw.removeprefix("--").replace("-", "_")
        name = names.get(bare)
        if name is None:
            match = nearest(bare, key_names(TrainConfig))
            shown_value = HIDDEN if is_secret(raw) else value
            works = (
                "a token comes from the environment or a login; remove it" if is_secret(raw) else f"use {match}" if match else "remove it"
            )
            problems.append(line(file, raw, shown_value, "there is no such key", works))
        elif name in known and known[name] != value and value is not None:
            other = written[name]
            problems.append(f"{file} {other} = {shown(known[name])} and {raw} = {shown(value)} are the same key; remove one of them.")
        elif value is not None:
            known[name], written[name] = value, raw
    return known, written


def _read_tread(known: dict[str, object], *, file: str, base: Path, found: _Findings) -> None:
    """Put the group of keys in the place of a file that is named for it; nothing where that does not work."""
    if TREAD_KEY not in known:
        return
    notes: list[str] = []
    group = tread_group(known.pop(TREAD_KEY), file=file, base=base, problems=found.problems, notes=notes)
    found.notices += _twice(notes)
    if group is not None:
        known[TREAD_KEY] = group


def _checked(known: dict[str, object], file: str, written: dict[str, str], found: _Findings) -> TrainConfig:
    """The config of all values that are right; a line for each that is not."""
    try:
        return TrainConfig.model_validate(known)
    except ValidationError as error:
        found.problems += reword(error, file=file, model=TrainConfig, written=written)
        bad = {details["loc"][0] for details in error.errors(include_url=False)}
        return TrainConfig.model_validate({name: value for name, value in known.items() if name not in bad})


def _lengths(known: dict[str, object], written: dict[str, str], file: str, problems: list[str]) -> None:
    """max_train_steps and num_train_epochs exclude each other; the default of the first gives way to the second."""
    steps, epochs = known.get("max_train_steps"), known.get("num_train_epochs")
    if steps and epochs:
        both = f"{written['max_train_steps']} = {shown(steps)} and {written['num_train_epochs']} = {shown(epochs)}"
        problems.append(f"{file} {both}: only one of them can say how long to train; set num_train_epochs to 0.")
    elif steps == 0 and not epochs:
        problems.append(f"{file} {written['max_train_steps']} = 0: without num_train_epochs nothing would be trained; use 2000.")


def _with_paths(config: TrainConfig, *, given: set[str], base: Path, file: str, found: _Findings) -> TrainConfig:
    """The config with paths made absolute, and epochs in place of the default number of steps."""
    changes: dict[str, object] = {}
    if config.num_train_epochs and "max_train_steps" not in given:
        changes["max_train_steps"] = 0
    for name in ("pretrained_model_name_or_path", "pretrained_gemma_model_name_or_path"):
        text = getattr(config, name)
        if text is None or text == "nano":
            continue
        place = find(text, (base,))
        if place is not None:
            changes[name] = str(place)
        elif looks_like_file(text):
            found.no_file(line(file, name, text, "there is no such file or folder", "name one that exists"))
    if config.init_lora:
        place = find(config.init_lora, (base,))
        changes["init_lora"] = config.init_lora if place is None else str(place)
        if place is None:  # no problem: a run that has begun needs it no more
            text = f"{file} init_lora = {shown(config.init_lora)}: there is no such file; a new run cannot start."
            found.notices.append(Notice(code="no_init_lora", level="warning", text=text, fix="Name one that exists, or remove the key."))
    if config.lycoris_config:
        place = find(config.lycoris_config, (base,))
        changes["lycoris_config"] = config.lycoris_config if place is None else str(place)
        if config.lora_type == "lycoris":
            found.problems += lycoris_problems(place, config.lycoris_config, file=file)
    changes |= _sample_files(config, base=base, file=file, found=found)
    if config.output_dir is not None:
        changes["output_dir"] = from_here(config.output_dir)
    return config.model_copy(update=changes)


def _sample_files(config: TrainConfig, *, base: Path, file: str, found: _Findings) -> dict[str, object]:
    """Absolute paths of what samples are made with; a problem for each that is not there or cannot be read."""
    changes: dict[str, object] = {}
    if config.user_prompt_library is not None:
        place = find(str(config.user_prompt_library), (base,))
        if place is None:
            rule = "there is no such file"
            found.problems.append(line(file, "user_prompt_library", str(config.user_prompt_library), rule, "name one that exists"))
        else:
            notes: list[str] = []
            read_library(place, file=file, key="user_prompt_library", problems=found.problems, notes=notes)
            found.notices += _twice(notes)
            changes["user_prompt_library"] = place
    if config.ltx2_validation_pipeline_mode == "spatial-upscale":
        name = "ltx2_validation_spatial_upsampler_model"
        place = find(config.ltx2_validation_spatial_upsampler_model, (base,))
        if place is not None:
            changes[name] = str(place)
        elif looks_like_file(config.ltx2_validation_spatial_upsampler_model):
            rule = "there is no such file or folder"
            found.problems.append(line(file, name, config.ltx2_validation_spatial_upsampler_model, rule, "name one that exists"))
        if config.validation_audio_only:
            rule = "sound alone is not upsampled"
            found.problems.append(line(file, "ltx2_validation_pipeline_mode", "spatial-upscale", rule, "use trained-stage"))
    references = []
    for index, reference in enumerate(config.validation_ltx2_video_conditioning):
        place = find(str(reference.path), (base,))
        if place is None:
            key = f"validation_ltx2_video_conditioning[{index}].path"
            found.problems.append(line(file, key, str(reference.path), "there is no such file", "name a clip or picture that exists"))
        references.append(reference if place is None else reference.model_copy(update={"path": place}))
    if references:
        changes["validation_ltx2_video_conditioning"] = tuple(references)
    return changes


def _check_sample_dataset(config: TrainConfig, listed: DatasetList, *, file: str, problems: list[str]) -> None:
    """The dataset that samples start from is one of the list's, and of clips, pictures or sound."""
    wanted = config.eval_dataset_id
    if wanted is None or not config.validation_using_datasets:
        return
    names = [dataset.id for dataset in (*listed.videos, *listed.evals)]
    if wanted not in names:
        match = nearest(wanted, names) or (names[0] if names else None)
        works = f"use {match}" if match else "leave the key out"
        problems.append(line(file, "eval_dataset_id", wanted, "no dataset of clips, pictures or sound has this id", works))


def _datasets(
    config: TrainConfig, datasets: object, *, base: Path, file: str, part: bool, need_clips: bool, found: _Findings
) -> tuple[TrainConfig, DatasetList]:
    """The dataset list, from values or from the file that the config names; the config with that file's absolute path."""
    bases: tuple[Path, ...] = (base,)
    list_file = "datasets"
    if datasets is None:
        if config.data_backend_config is None:
            if not part:
                found.problems.append(
                    f'{file} data_backend_config is missing: it names the dataset list; add "{LIST_KEY}": "datasets.json".'
                )
            return config, DatasetList()
        text = str(config.data_backend_config)
        path = find(text, (base,))
        if path is None and (path := find(config.data_backend_config.name, (base,))) is not None:
            said = f"{file} {LIST_KEY} = {shown(text)}: there is no such file; the one beside {file} is used."
            found.notices.append(Notice(code="dataset_list_beside", text=said, fix=f"Write {shown(path.name)}."))
        if path is None:
            found.no_file(line(file, LIST_KEY, text, "there is no such file", "name the JSON file that lists your datasets"))
            return config, DatasetList()
        notes: list[str] = []
        try:
            datasets = read_settings(path, notes=notes)
        except ConfigError as error:
            found.problems += error.problems
            return config, DatasetList()
        found.notices += _twice(notes)
        config = config.model_copy(update={LIST_KEY: path})
        bases, list_file = (base, path.parent), path.name
    listed = read_entries(
        datasets,
        file=list_file,
        bases=bases,
        frame_rate=config.frame_rate,
        problems=found.problems,
        notices=found.notices,
        need_clips=need_clips,
        words={name: str(getattr(config, name)) for name in ("model_family", "model_flavour", "model_type")},
    )
    return config, listed


def _written(model: BaseModel) -> dict[str, object]:
    """What is saved: every key that is built, so that new defaults do not change an old run, and others where they are set."""
    kept: dict[str, object] = {}
    dumped = model.model_dump(mode="json")
    for name, field in type(model).model_fields.items():
        value = getattr(model, name)
        if isinstance(value, BaseModel):
            kept[name] = _written(value)
        elif value is not None and (facts_of(field).later is None or value != field.default):
            kept[name] = dumped[name]
    return kept
