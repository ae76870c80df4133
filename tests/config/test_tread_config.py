"""tread_config: as keys, as a file that holds them, and what is said about routes that cannot be."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ltx2core.config.load import LoadedConfig, load_config, load_config_dict, save_config
from ltx2core.errors import ConfigError
from ltx2core.runs.folder import RunFolder

QUICKSTART = Path(__file__).parents[1] / "data" / "quickstart"
ROUTES = {"routes": [{"selection_ratio": 0.5, "start_layer_idx": 2, "end_layer_idx": -2}]}


@pytest.fixture(autouse=True)
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "clips").mkdir()
    monkeypatch.chdir(tmp_path)
    return tmp_path


def load(value: object, *, base: Path | None = None) -> LoadedConfig:
    return load_config_dict({"tread_config": value}, base=base or Path.cwd(), datasets=[{"instance_data_dir": "clips"}])


def problem(value: object) -> str:
    with pytest.raises(ConfigError) as caught:
        load(value)
    (said,) = caught.value.problems
    return said


def test_the_quickstart_s_routes_are_read_as_keys_as_a_file_and_as_text(project: Path) -> None:
    (project / "config").mkdir()
    (project / "config" / "bare.json").write_text(json.dumps(ROUTES))
    values = json.loads((QUICKSTART / "tread.json").read_text())["tread_config"]
    assert values == ROUTES
    bare = load("bare.json", base=project / "config")
    for loaded in (bare, load(values), load(str(QUICKSTART / "tread.json")), load(json.dumps(ROUTES))):
        assert loaded.config == bare.config
        assert loaded.notices == ()
    assert bare.config.tread_config is not None
    (route,) = bare.config.tread_config.routes
    assert (route.selection_ratio, route.start_layer_idx, route.end_layer_idx) == (0.5, 2, -2)


@pytest.mark.parametrize("value", [None, "", " ", {"routes": []}])
def test_nothing_and_no_routes_are_no_tread(value: object) -> None:
    found = load(value).config.tread_config
    assert found is None or found.routes == ()


def test_a_saved_run_holds_the_routes_and_needs_their_file_no_more(project: Path) -> None:
    (project / "tread.json").write_text(json.dumps({"tread_config": ROUTES}))
    loaded = load("tread.json")
    save_config(RunFolder(project / "run"), loaded)
    (project / "tread.json").unlink()
    assert load_config(project / "run" / "config.json").config.tread_config == loaded.config.tread_config


def one(**changes: object) -> dict[str, object]:
    return {"routes": [{**ROUTES["routes"][0], **changes}]}


def two(*spans: tuple[int, int]) -> dict[str, object]:
    return {"routes": [{"selection_ratio": 0.5, "start_layer_idx": start, "end_layer_idx": end} for start, end in spans]}


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (one(selection_ratio=1.5), "config tread_config.routes[0].selection_ratio = 1.5: it is less than 1; use 0.5."),
        (one(selection_ratio=-1), "config tread_config.routes[0].selection_ratio = -1: it is at least 0; use 0."),
        (one(selection_ratio=True), "config tread_config.routes[0].selection_ratio = true: it is a number; use 0.5."),
        (one(start_layer_idx=2.5), "config tread_config.routes[0].start_layer_idx = 2.5: it is a whole number; use 2."),
        (one(layers=3), "config tread_config.routes[0].layers = 3: there is no such key; remove it."),
        (one(start_layer=3), "config tread_config.routes[0].start_layer = 3: there is no such key; use start_layer_idx."),
        ({"routes": [{"selection_ratio": 0.5, "end_layer_idx": 2}]}, "config tread_config.routes[0].start_layer_idx is missing"),
        (two((5, 5)), "a route starts before it ends; use a start_layer_idx below 5."),
        (two((-2, -4)), "a route starts before it ends; use a start_layer_idx below -4."),
        (two((4, 9), (0, 4)), "routes do not overlap, and blocks 0 to 4 and 4 to 9 do; start the second at block 5 or later."),
        (two((-9, -4), (-5, -1)), "blocks -9 to -4 and -5 to -1 do; start the second at block -3 or later."),
        ({}, "config tread_config.routes is missing"),
        ({"routes": 5}, "config tread_config.routes = 5: it is a list"),
        ({"route": []}, "config tread_config.route"),
        (5, "config tread_config = 5: it is a group of keys in braces, or the file that holds one"),
        ("gone.json", 'config tread_config = "gone.json": there is no such file; name one that exists'),
        ('{"routes": [}', "config tread_config line 1, column 13"),
        ("clips", "is a folder"),
    ],
)
def test_routes_that_cannot_be_are_told_with_what_would_work(value: object, said: str) -> None:
    if value == {"route": []}:
        with pytest.raises(ConfigError, match="use routes"):
            load(value)
        return
    assert said in problem(value)


@pytest.mark.parametrize("spans", [((0, -1),), ((0, 5), (6, -1)), ((-3, -1), (0, 3)), ((0, 40), (-3, -1))])
def test_routes_whose_blocks_only_the_model_knows_are_left_to_it(spans: tuple[tuple[int, int], ...]) -> None:
    found = load(two(*spans)).config.tread_config
    assert found is not None
    assert len(found.routes) == len(spans)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[1]", "routes.json holds [1]: it is a group of keys in braces"),
        ('{"routes": [}', "routes.json line 1, column 13"),
        ("", "routes.json is empty"),
        ('{"tread_config": 3}', "routes.json holds"),
    ],
)
def test_what_is_wrong_with_the_file_is_told_under_its_name(text: str, said: str, project: Path) -> None:
    (project / "routes.json").write_text(text)
    assert said in problem("routes.json")


def test_a_key_that_the_file_holds_twice_is_told(project: Path) -> None:
    (project / "routes.json").write_text('{"routes": [], "routes": []}')
    assert [notice.code for notice in load("routes.json").notices] == ["key_twice"]
