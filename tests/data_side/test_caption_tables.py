"""Captions from tables, and what is done to captions before they are encoded."""

from __future__ import annotations

import builtins
import contextlib
import json
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ltx2core.config.datasets import TextEmbeds, VideoDataset
from ltx2core.data.caption_edits import CaptionEdit, Shuffle
from ltx2core.data.caption_tables import CaptionTable, TableColumns, find_table, read_table
from ltx2core.data.captions import CaptionRule
from ltx2core.data.clip import Clip
from ltx2core.data.dataset import bucket_rule
from ltx2core.errors import DatasetError


def table(path: Path, text: str, **columns: object) -> CaptionTable:
    path.write_text(text, encoding="utf-8")
    return read_table(path, folder=path.parent, columns=TableColumns(**columns))  # type: ignore[arg-type]


def test_a_csv_gives_each_file_its_caption_by_path_name_or_address(tmp_path: Path) -> None:
    rows = [
        "url,caption",
        'a.mp4,"one, with a comma"',
        "b/c.mp4,below",
        "./d.mp4,here",
        "https://example.org/x/e%20f.mp4?size=1,from an address",
        'g.mp4,"two\nlines"',
        "h,without its ending",
        "a.mp4,a second one",
    ]
    found = table(tmp_path / "captions.csv", "\n".join(rows))
    captions = {name: found.of(tmp_path / name) for name in ("a.mp4", "b/c.mp4", "d.mp4", "e f.mp4", "g.mp4", "h.mp4", "z.mp4")}
    assert captions == {
        "a.mp4": ("one, with a comma", "a second one"),
        "b/c.mp4": ("below",),
        "d.mp4": ("here",),
        "e f.mp4": ("from an address",),
        "g.mp4": ("two lines",),
        "h.mp4": ("without its ending",),
        "z.mp4": None,
    }
    assert found.unused([tmp_path / "a.mp4", tmp_path / "h.mp4"]) == ["b/c.mp4", "d.mp4", "e f.mp4", "g.mp4"]


@pytest.mark.parametrize(
    ("text", "columns"),
    [
        ("name;words\na.mp4;hello, you", {"name": "name", "caption": "words"}),
        ("file\ttext\na.mp4\thello, you", {}),
        ('\ufefffilename,prompt\r\na.mp4,"hello, you"\r\n', {}),
    ],
)
def test_other_separators_columns_and_line_ends_are_read(tmp_path: Path, text: str, columns: dict[str, str]) -> None:
    assert table(tmp_path / "a.csv", text, **columns).of(tmp_path / "a.mp4") == ("hello, you",)


def test_json_lines_have_lists_fallbacks_and_numbers_as_names(tmp_path: Path) -> None:
    rows = [
        {"id": 17, "caption": ["one", "two"], "tags": "unused"},
        {"id": "b", "caption": "", "tags": "a, b"},
        {"id": "c", "caption": None, "tags": None},
    ]
    text = "\n".join(json.dumps(row) for row in rows) + "\n\n"
    found = table(tmp_path / "a.jsonl", text, name="id", caption="caption", second="tags", endings=False)
    assert found.of(tmp_path / "17.mp4") == ("one", "two")
    assert found.of(tmp_path / "b.mp4") == ("a, b",)
    assert found.of(tmp_path / "c.mp4") == ()
    whole = table(tmp_path / "b.jsonl", '{"file_name": "b", "text": "x"}', endings=True)
    assert whole.of(tmp_path / "b.mp4") is None


def test_parquet_is_read_with_pyarrow(tmp_path: Path) -> None:
    pyarrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    columns = {"filename": ["a.mp4", "b.mp4"], "caption": [["one", "two"], []], "tags": ["x", "y"]}
    parquet.write_table(pyarrow.table(columns), tmp_path / "a.parquet")
    found = read_table(tmp_path / "a.parquet", folder=tmp_path, columns=TableColumns(second="tags"))
    assert (found.of(tmp_path / "a.mp4"), found.of(tmp_path / "b.mp4")) == (("one", "two"), ("y",))
    (tmp_path / "b.parquet").write_bytes(b"PAR1 and nothing else")
    with pytest.raises(DatasetError, match="no Parquet file"):
        read_table(tmp_path / "b.parquet", folder=tmp_path, columns=TableColumns())


def test_without_pyarrow_a_line_says_how_to_get_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def refuse(name: str, *rest: object, **more: object) -> object:
        if name.startswith("pyarrow"):
            raise ImportError(name)
        return real(name, *rest, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(builtins, "__import__", refuse)
    (tmp_path / "a.parquet").write_bytes(b"PAR1")
    with pytest.raises(DatasetError, match=r"pip install 'ltx2tui\[parquet\]'"):
        read_table(tmp_path / "a.parquet", folder=tmp_path, columns=TableColumns())


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("a.csv", "x,y\n1,2", "no column url or filename .* its columns are x, y"),
        ("a.csv", "file,words\na,b", "no column caption or text or prompt"),
        ("a.csv", "file,caption\n,b", "row 2 has no file"),
        ("a.jsonl", "{nothing", "line 1 is not JSON"),
        ("a.jsonl", "[1]", "line 1 is not an object"),
        ("a.csv", "", None),
    ],
)
def test_a_wrong_table_is_told_with_its_line(tmp_path: Path, name: str, text: str, said: str | None) -> None:
    if said is None:
        assert table(tmp_path / name, text).captions == {}
        return
    with pytest.raises(DatasetError, match=said):
        table(tmp_path / name, text)
    (tmp_path / "latin.csv").write_bytes(b"file,caption\na,caf\xe9")
    with pytest.raises(DatasetError, match="not UTF-8"):
        read_table(tmp_path / "latin.csv", folder=tmp_path, columns=TableColumns())
    with pytest.raises(DatasetError, match="holds no captions"):
        find_table("csv", None, folder=tmp_path)


@given(text=st.text(max_size=200), ending=st.sampled_from([".csv", ".jsonl"]))
def test_no_table_raises_anything_but_a_dataset_error(tmp_path_factory: pytest.TempPathFactory, text: str, ending: str) -> None:
    path = tmp_path_factory.getbasetemp() / f"wild{ending}"
    path.write_text(text, encoding="utf-8", errors="surrogatepass" if text.isprintable() else "replace")
    with contextlib.suppress(DatasetError):
        assert all(name for name in read_table(path, folder=path.parent, columns=TableColumns()).captions)


def test_a_filter_takes_out_replaces_and_is_read_from_a_file(tmp_path: Path) -> None:
    lines = ["arafed ", "this .* has a", "^the beginning", "s/cat/dog/", r"s/(\d+) px/\1 pixels/"]
    edits = tuple(CaptionEdit.parse(line) for line in lines)
    rule = CaptionRule(edits=edits, instance_prompts=("sks cat",), prepend_instance_prompt=True)
    captions = rule.captions(Path("a.mp4"), "the beginning arafed cat cat\nthis picture has a cat of 12 px")
    assert captions == ("sks cat dog cat", "sks cat dog of 12 pixels")
    nothing = CaptionRule(edits=(CaptionEdit.parse(".*"),))
    assert nothing.captions(Path("a.mp4"), "words") == ()
    problem = nothing.missing(Clip(path=Path("a.mp4"), caption="words"))
    assert "no caption left after caption_filter_list" in problem.text
    for wrong in ("(", r"s/a/\2/"):
        with pytest.raises(re.error):
            CaptionEdit.parse(wrong)


def test_shuffling_keeps_the_first_tags_and_is_the_same_each_time() -> None:
    caption = "dog, running, park, sunny day"
    shuffle = Shuffle(count=3, seed=42, fixed=1)
    variants = shuffle.variants(caption)
    assert variants == shuffle.variants(caption)
    assert variants[0] == caption
    assert len(set(variants)) == 4
    assert all(variant.startswith("dog, ") and sorted(variant.split(", ")) == sorted(caption.split(", ")) for variant in variants)
    assert variants != Shuffle(count=3, seed=43, fixed=1).variants(caption)
    assert caption not in Shuffle(count=3, keep_original=False).variants(caption)
    assert Shuffle(count=3, keep_original=False, fixed=3).variants(caption) == (caption,)  # nothing can move
    assert Shuffle(count=9).variants("a, b") == ("a, b", "b, a")
    assert Shuffle(split_on="space").variants("a b")[1] == "b a"
    assert Shuffle(split_on="period").variants("One here. Two there.")[1] == "Two there. One here"


@given(caption=st.text(max_size=60), count=st.integers(1, 5), fixed=st.integers(0, 3), original=st.booleans(), seed=st.integers(0, 9))
def test_any_caption_shuffles_to_variants_without_repeats(caption: str, count: int, fixed: int, original: bool, seed: int) -> None:
    variants = Shuffle(count=count, seed=seed, fixed=fixed, keep_original=original).variants(caption)
    assert variants
    assert len(variants) == len(set(variants)) <= count + 1


def test_the_settings_of_captions_reach_the_rule(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text('name,words\na.mp4,"red, green, blue"')
    dataset = VideoDataset.model_validate(
        {
            "instance_data_dir": tmp_path,
            "caption_strategy": "csv",
            "csv_file": tmp_path / "t.csv",
            "csv_url_column": "name",
            "csv_caption_column": "words",
            "caption_shuffle": {"enable": True, "count": 2, "position_start": 1},
            "instance_prompt": "sks",
            "prepend_instance_prompt": True,
        }
    )
    rule = bucket_rule(dataset, frame_rate=25, seed=5, texts=TextEmbeds(caption_filter_list=["green, "])).captions
    assert rule.captions(tmp_path / "a.mp4", None) == ("sks red, blue",)
    rule = bucket_rule(dataset, frame_rate=25, seed=5).captions
    assert rule.captions(tmp_path / "a.mp4", None) == ("sks red, green, blue", "sks red, blue, green")
    missing = rule.missing(Clip(path=tmp_path / "b.mp4"))
    assert (missing.code, missing.text) == ("missing_caption", "b.mp4 has no row in t.csv.")
