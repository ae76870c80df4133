"""What is wrong between the entries of a dataset list: links to masks, references and sound, names, kinds."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ltx2core.config.datasets import linked_names
from ltx2core.config.wording import nearest, shown
from ltx2core.runs.events import Notice

if TYPE_CHECKING:
    from ltx2core.config.datasets import DatasetList


def check_links(listed: DatasetList, *, file: str, problems: list[str], notices: list[Notice]) -> None:
    """What is wrong between datasets and the masks, references and sound that belong to them."""
    kinds = {dataset.id: dataset.conditioning_type for dataset in listed.conditioning}
    used: set[str] = set()
    for dataset in (*listed.videos, *listed.evals):
        names = linked_names(dataset)
        where = f"{file} dataset {dataset.id} conditioning_data"
        for name in names:
            if name not in kinds:
                match = nearest(name, kinds)
                works = f"use {match}" if match else 'add an entry with "dataset_type": "conditioning" and this id'
                problems.append(f"{where} = {shown(name)}: no conditioning dataset has this id; {works}.")
        found = [kinds[name] for name in names if name in kinds]
        if len(found) != len(set(found)):
            problems.append(f"{where} = {shown(names)}: a clip has one mask and one reference at most; name one dataset of each type.")
        used.update(names)
        _check_sounds(listed, dataset.id, dataset.s2v_datasets, file=file, problems=problems)
    for dataset in listed.conditioning:
        if dataset.id not in used:
            text = f"{file} the conditioning dataset {dataset.id} belongs to no dataset and is left out."
            notices.append(Notice(code="conditioning_unused", level="warning", text=text, fix="Name it in a dataset's conditioning_data."))


def check_list(listed: DatasetList, *, embeds: int, file: str, any_wrong: bool, problems: list[str], notices: list[Notice]) -> None:
    """What is wrong with the list as a whole: nothing to train on, names given twice, entries too many."""
    if not listed.videos and not any_wrong:
        problems.append(f'{file} lists no clips: add an entry such as {{"id": "clips", "instance_data_dir": "path/to/clips"}}.')
    names = [dataset.id for dataset in (*listed.videos, *listed.evals, *listed.sounds, *listed.conditioning)]
    problems += [
        f"{file} id = {shown(name)}: {names.count(name)} datasets have this name; give each its own."
        for name in dict.fromkeys(names)
        if names.count(name) > 1
    ]
    if embeds > 1:
        text = f"{file} lists {embeds} text_embeds entries: captions have one cache; the first entry counts."
        notices.append(Notice(code="text_embeds_extra", text=text, fix="Remove the others."))


def _check_sounds(listed: DatasetList, name: str, sounds: list[str], *, file: str, problems: list[str]) -> None:
    known = [dataset.id for dataset in listed.sounds]
    for sound in sounds:
        if sound not in known:
            match = nearest(sound, known)
            works = f"use {match}" if match else 'add an entry with "dataset_type": "audio" and this id'
            problems.append(f"{file} dataset {name} s2v_datasets = {shown(sound)}: no audio dataset has this id; {works}.")
