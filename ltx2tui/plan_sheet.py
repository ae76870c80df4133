"""What the Plan page plans: a draft, the levers that move it, and what is predicted and recommended for it. No widgets, no torch."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Protocol

from ltx2core.config.load import look_at
from ltx2core.planning.document import STARTER, STARTER_CLIPS
from ltx2core.planning.hardware import hardware_named
from ltx2core.planning.job import job_of
from ltx2core.planning.levers import NF4, PRECISIONS
from ltx2core.planning.predict import predict_job
from ltx2core.planning.recommend import recommend
from ltx2core.planning.remedies import remedy

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from pydantic import JsonValue

    from ltx2core.config.load import LoadedConfig
    from ltx2core.planning.hardware import Hardware
    from ltx2core.planning.job import Job, Version
    from ltx2core.planning.predict import Prediction
    from ltx2core.planning.recommend import Recommendation
    from ltx2tui.draft import Draft, Value

SIDES = (256, 320, 384, 448, 512, 576, 640, 704, 768, 896, 1088)
FRAMES = (1, 9, 17, 25, 33, 41, 49, 65, 81, 97, 121, 161, 193, 241, 297, 361, 481)
BATCHES = (1, 2, 3, 4, 6, 8)
RANKS = (4, 8, 16, 32, 64, 128, 256)
STREAMED = (8, 16, 24, 32, 40, 48)
RAM_GIB = (16, 32, 48, 64, 96, 128, 256, 512)
CARDS = ("RTX 4060", "RTX 3080 10GB", "RTX 4070", "RTX 4060 Ti 16GB", "RTX 4090", "RTX 5090", "A100 40GB", "L40S", "H100", "H200")
USUAL_CARD, USUAL_RAM_GIB = "RTX 4090", 64
GIB = 1 << 30
SAMPLE_FRAMES = 121  # of a sample that follows the clips

_PRECISION_WORDS = ("bf16", "int8", "int8, quick", "fp8, quick", "fp8 both ways", "nf4")  # of levers.PRECISIONS, then NF4
_SIDE = 32


@dataclass(frozen=True, slots=True)
class Option:
    """A place of a lever: its word, and what it sets in a draft."""

    word: str
    values: dict[str, Value]


@dataclass(frozen=True, slots=True)
class Lever:
    """A row of the page: a name, its places, and where it stands."""

    name: str
    title: str
    options: tuple[Option, ...]
    at: int

    @property
    def word(self) -> str:
        return self.options[self.at].word


@dataclass(frozen=True, slots=True, kw_only=True)
class Known:
    """What was looked up once: clips that there are, and the version of the model's file; None where it is not known."""

    clips: int | None = None
    version: Version | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Advice:
    """What takes longer than a lever may: recommendations, and what would make a plan fit that does not."""

    recommendations: tuple[Recommendation, ...]
    remedy: str = ""


class Predict(Protocol):
    """What `predicted` does."""

    def __call__(self, draft: Draft, hardware: Hardware, base: Path, known: Known) -> Prediction: ...


class Advise(Protocol):
    """What `advice_for` does."""

    def __call__(self, draft: Draft, hardware: Hardware, base: Path, known: Known, *, misfit: Job | None) -> Advice: ...


def start_of(draft: Draft) -> Draft:
    """The draft to plan from. One of nano, which needs no plan, becomes the usual run on LTX-2 with what else the user set."""
    if not draft.is_nano:
        return draft
    start = draft.having("pretrained_model_name_or_path", STARTER["pretrained_model_name_or_path"])
    entry = STARTER_CLIPS[0]
    usual = {**STARTER, "dataset.resolution": entry["resolution"], "dataset.video.num_frames": entry["video"]["num_frames"]}
    for path, value in usual.items():
        if path not in draft.set_values:
            start = start.having(path, value)
    return start


def loaded_of(draft: Draft, base: Path) -> LoadedConfig:
    """The draft as a config, whether its clips are there or not. Raises ConfigError with every problem."""
    values, datasets = draft.config()
    for entry in datasets:
        entry["instance_data_dir"] = entry["instance_data_dir"] or "clips"
    return look_at(values, base=base, datasets=datasets)


def job_for(draft: Draft, base: Path, known: Known) -> Job:
    """What the draft trains. Raises ConfigError, also for what is not predicted."""
    loaded = loaded_of(draft, base)
    return job_of(loaded.config, datasets=loaded.datasets, clips=known.clips, version=known.version)


def predicted(draft: Draft, hardware: Hardware, base: Path, known: Known) -> Prediction:
    """What the draft needs and takes: arithmetic, quick enough for every move of a lever. Raises ConfigError."""
    return predict_job(job_for(draft, base, known), hardware)


def advice_for(draft: Draft, hardware: Hardware, base: Path, known: Known, *, misfit: Job | None) -> Advice:
    """Three recommendations, and what makes a job fit that does not. Some tenths of a second. Raises ConfigError."""
    loaded = loaded_of(draft, base)
    found = recommend(loaded.config, hardware, datasets=loaded.datasets, clips=known.clips, version=known.version)
    return Advice(recommendations=found, remedy="" if misfit is None else remedy(misfit, hardware))


def advised(draft: Draft, one: Recommendation) -> Draft:
    """The draft with what is recommended."""
    for name, value in {**one.values, **{_path(name): value for name, value in one.of_datasets.items()}}.items():
        draft = draft.having(name, False if name == "dataset.audio.auto_split" else _plain(value))
    return draft


def changes_between(draft: Draft, other: Draft) -> dict[str, Value]:
    """What the other draft has another value for, by the keys of config.json and of the dataset list."""
    paths = dict.fromkeys([*draft.set_values, *other.set_values])
    return {path.removeprefix("dataset."): other.value(path) for path in paths if draft.value(path) != other.value(path)}


def levers_of(draft: Draft, hardware: Hardware) -> tuple[Lever, ...]:
    """The levers of a draft on a card, in the order of the page."""
    kinds = [one for one in zip((*PRECISIONS, NF4), _PRECISION_WORDS, strict=True) if hardware.fp8 or not one[0].needs_fp8]
    precision = [Option(words, {name: _plain(value) for name, value in kind.keys.items()}) for kind, words in kinds]
    twice = [
        Option("as memory allows", {"gradient_checkpointing": True, "recompute_all_blocks": False}),
        Option("every block", {"gradient_checkpointing": True, "recompute_all_blocks": True}),
        Option("none", {"gradient_checkpointing": False, "recompute_all_blocks": False}),
    ]
    travel = [Option("as memory needs", {"musubi_blocks_to_swap": 0})]
    travel += [Option(f"{number} of 48 blocks", {"musubi_blocks_to_swap": number}) for number in STREAMED]
    sound = [Option("without", {"dataset.audio.auto_split": False}), Option("with", {"dataset.audio.auto_split": True})]
    return (
        _lever(draft, "precision", "Weights", precision),
        _numbers(draft, "resolution", "Resolution", "dataset.resolution", SIDES),
        _numbers(draft, "frames", "Frames", "dataset.video.num_frames", FRAMES),
        _numbers(draft, "batch", "Batch", "train_batch_size", BATCHES),
        _lever(draft, "audio", "Sound", sound),
        _numbers(draft, "rank", "Rank", "lora_rank", RANKS),
        _lever(draft, "recompute", "Recomputed", twice),
        _lever(draft, "streamed", "Streamed", travel),
    )


def pulled(draft: Draft, lever: Lever, at: int) -> Draft:
    """The draft with a lever at another place. Samples follow the size and length of clips where they were as the clips are."""
    moved = draft
    for path, value in lever.options[at].values.items():
        moved = moved.having(path, value)
    if lever.name == "resolution" and _short_side(draft) == draft.value("dataset.resolution"):
        moved = moved.having("validation_resolution", _scaled(draft, lever.options[at].values["dataset.resolution"]))
    frames, of_samples = draft.value("dataset.video.num_frames"), draft.value("validation_num_video_frames")
    if lever.name == "frames" and isinstance(frames, int) and of_samples == min(frames, SAMPLE_FRAMES):
        now = lever.options[at].values["dataset.video.num_frames"]
        moved = moved.having("validation_num_video_frames", min(now, SAMPLE_FRAMES) if isinstance(now, int) else now)
    return moved


def named_cards(here: Hardware | None) -> tuple[Hardware, ...]:
    """Cards to choose from: the one that is here, then one of every usual size with 64 GiB of RAM."""
    return (*([here] if here is not None else []), *(hardware_named(name, ram_gib=USUAL_RAM_GIB) for name in CARDS))


def card_words(hardware: Hardware) -> str:
    """A card's name without the maker's words."""
    return hardware.card.removeprefix("NVIDIA ").removeprefix("GeForce ")


def with_ram(hardware: Hardware, gib: float) -> Hardware:
    """A machine that is only named, with so much RAM."""
    return replace(hardware, ram_bytes=hardware_named(USUAL_CARD, ram_gib=gib).ram_bytes)


def machine_levers(cards: tuple[Hardware, ...], at: int, *, here: Hardware | None) -> tuple[Lever, Lever]:
    """The card, and the RAM of its machine: which of the one that is here is what it has. Their places set nothing in a draft."""
    hardware = cards[at]
    card = Lever("card", "Card", tuple(Option(card_words(one), {}) for one in cards), at)
    found = {with_ram(hardware, gib).ram_bytes: f"{gib} GiB" for gib in RAM_GIB}
    if hardware is here or hardware.ram_bytes not in found:
        return card, Lever("ram", "RAM", (Option(f"{hardware.ram_bytes / GIB:.0f} GiB free", {}),), 0)
    return card, Lever("ram", "RAM", tuple(Option(word, {}) for word in found.values()), list(found).index(hardware.ram_bytes))


def _lever(draft: Draft, name: str, title: str, options: list[Option]) -> Lever:
    """A lever at the place whose values the draft has; one more place where none has them."""
    for at, option in enumerate(options):
        if all(_same(draft.value(path), value) for path, value in option.values.items()):
            return Lever(name, title, tuple(options), at)
    own = {path: draft.value(path) for path in options[0].values}
    word = ", ".join(str(value) for value in own.values())
    return Lever(name, title, (*options, Option(word, own)), len(options))


def _numbers(draft: Draft, name: str, title: str, path: str, places: Iterable[int]) -> Lever:
    now = draft.value(path)
    numbers = sorted({*places, *([now] if isinstance(now, int | float) else [])})
    options = tuple(Option(f"{number:g}", {path: number}) for number in numbers)
    at = next((index for index, number in enumerate(numbers) if number == now), 0)
    return Lever(name, title, options, at)


def _same(one: Value, other: Value) -> bool:
    return one == other or (not one and not other)  # a number of blocks that is not set is 0


def _short_side(draft: Draft) -> int | None:
    size = _size(draft)
    return None if size is None else min(size)


def _scaled(draft: Draft, side: Value) -> Value:
    """The samples' size, HEIGHTxWIDTH, with this shorter edge."""
    size = _size(draft)
    assert size is not None
    assert isinstance(side, int | float)
    height, width = (int(side) if edge == min(size) else max(_SIDE, round(edge * side / min(size) / _SIDE) * _SIDE) for edge in size)
    return f"{height}x{width}"


def _size(draft: Draft) -> tuple[int, int] | None:
    height, _, width = str(draft.value("validation_resolution")).partition("x")
    return (int(height), int(width or height)) if height.isdigit() and (width or height).isdigit() else None


def _path(name: str) -> str:
    """Where a draft keeps what is recommended for entries of the dataset list."""
    return "dataset.audio.auto_split" if name == "audio" else f"dataset.{name}"


def _plain(value: JsonValue) -> Value:
    """As a draft keeps it: a group of keys as the text that config.json may have in its place."""
    if isinstance(value, dict):
        return json.dumps(value)
    assert value is None or isinstance(value, str | int | float | bool)
    return value
