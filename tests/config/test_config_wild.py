"""Any JSON anywhere: nothing but ConfigError is ever raised, and what loads is saved and loads again."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from ltx2core.config.explain import DATASET_MODELS, explain_config
from ltx2core.config.load import load_config, load_config_dict, load_part, save_config
from ltx2core.config.train import TrainConfig
from ltx2core.config.wording import key_names
from ltx2core.errors import ConfigError
from ltx2core.runs.folder import RunFolder

CLIPS = str(Path(__file__).parent)
SCALARS = (
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.sampled_from(["512x768", "", "latest", "~x", "-1"])
)
JSON = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3), max_leaves=8
)
MODELS = {path: key_names(model) for path, model in DATASET_MODELS}


def keys(names: list[str], values: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    return st.dictionaries(st.sampled_from(names), values, max_size=4)


NUMBERS = st.integers(0, 100) | st.floats(0, 1) | st.booleans() | SCALARS
CONFIGS = keys(key_names(TrainConfig), NUMBERS | JSON) | JSON
ENTRIES = st.builds(
    lambda entry, video, audio, more: {"instance_data_dir": CLIPS, "video": video, "audio": audio, **entry, **more},
    keys(MODELS[""] + key_names(DATASET_MODELS[0][1]), NUMBERS | JSON),
    keys(MODELS["video."], NUMBERS) | JSON,
    st.none() | keys(MODELS["audio."], NUMBERS) | JSON,
    st.sampled_from([{}, {}, {"dataset_type": "text_embeds"}, *({"dataset_type": kind} for kind in ("image", "audio", "eval"))]),
)
# entries that are right but for what they have to do with each other
LISTS = st.lists(
    st.fixed_dictionaries(
        {
            "id": st.sampled_from("abcd"),
            "instance_data_dir": st.just(CLIPS),
            "dataset_type": st.sampled_from(["video", "video", "image", "audio", "eval", "conditioning"]),
        },
        optional={
            "s2v_datasets": st.lists(st.sampled_from("abcd"), max_size=2),
            "conditioning_data": st.sampled_from("abcd"),
            "conditioning_type": st.sampled_from(["mask", "reference_strict"]),
            "start_step": st.integers(0, 9),
            "end_step": st.integers(1, 9),
            "probability": st.sampled_from([0, 0.5, 1, 3]),
            "crop": st.booleans(),
            "crop_aspect": st.sampled_from(["square", "preserve", "closest", "random"]),
            "crop_aspect_buckets": st.lists(st.floats(0, 4), max_size=2),
            "maximum_image_size": st.integers(0, 2000),
            "target_downsample_size": st.integers(0, 2000),
            "caption_strategy": st.sampled_from(["textfile", "csv", "jsonl", "parquet", "instanceprompt"]),
            "instance_prompt": st.sampled_from(["sks", ""]),
            "audio": st.fixed_dictionaries({}, optional={"audio_only": st.booleans(), "auto_split": st.booleans()}),
            "video": st.fixed_dictionaries({}, optional={"segments": st.sampled_from(["first", "all", "random"]), "is_i2v": st.booleans()}),
        },
    ),
    min_size=1,
    max_size=4,
)


def told(error: ConfigError) -> None:
    """An error holds lines that a terminal can show."""
    assert error.problems
    assert str(error).encode()


def check(config: object, datasets: object) -> None:
    """Load; save what loads, and load that."""
    try:
        loaded = load_config_dict(config, base=Path(CLIPS), datasets=datasets if datasets is not None else [])
    except ConfigError as error:
        told(error)
        return
    assert len(explain_config(loaded)) >= len(loaded.datasets.videos)
    with tempfile.TemporaryDirectory() as root:
        folder = RunFolder(Path(root) / "runs" / "wild")
        save_config(folder, loaded)
        again = load_config(folder.config)
        assert again.datasets == loaded.datasets
        assert again.config == loaded.config.model_copy(update={"data_backend_config": folder.datasets.resolve()})


@settings(max_examples=250, deadline=None)
@given(config=CONFIGS, datasets=st.lists(ENTRIES | JSON, max_size=2) | JSON)
def test_no_value_raises_anything_but_a_config_error_and_what_loads_is_saved_and_loads_again(config: object, datasets: object) -> None:
    check(config, datasets)


@settings(max_examples=150, deadline=None)
@given(datasets=LISTS)
def test_entries_that_belong_together_are_told_or_saved_and_load_again(datasets: list[dict[str, object]]) -> None:
    check({}, datasets)


@settings(max_examples=150, deadline=None)
@given(config=keys(key_names(TrainConfig), st.integers(0, 4) | st.booleans() | st.none()), entry=keys(MODELS["video."], st.integers(1, 99)))
def test_likely_values_are_saved_and_load_again(config: dict[str, object], entry: dict[str, object]) -> None:
    datasets = [{"instance_data_dir": CLIPS, "video": entry}]
    check(config, datasets)


@settings(max_examples=150, deadline=None)
@given(
    text=st.binary(max_size=30)
    | st.text('[]{}",:\n 1.eEaNntrufls\\', max_size=30).map(str.encode)
    | JSON.map(lambda v: json.dumps(v).encode())
)
def test_no_file_raises_anything_but_a_config_error(text: bytes) -> None:
    with tempfile.TemporaryDirectory() as root:
        path = Path(root) / "config.json"
        path.write_bytes(text)
        for load in (load_config, load_part):
            try:
                load(path)
            except ConfigError as error:
                told(error)
