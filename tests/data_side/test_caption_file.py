from __future__ import annotations

import codecs
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from ltx2core.data.caption_file import open_caption, save_caption
from ltx2core.errors import DatasetError, StorageError

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (b"a cat", b"a dog"),
        (b"a cat\n", b"a dog\n"),
        (b"a cat\r\nor two\r\n", b"a dog\r\nor two\r\n"),
        (codecs.BOM_UTF8 + "a cat, café".encode(), codecs.BOM_UTF8 + "a dog, café".encode()),
        (codecs.BOM_UTF16_LE + "a cat\r\n".encode("utf-16-le"), codecs.BOM_UTF16_LE + "a dog\r\n".encode("utf-16-le")),
        (codecs.BOM_UTF16_BE + "a cat".encode("utf-16-be"), codecs.BOM_UTF16_BE + "a dog".encode("utf-16-be")),
        ("a cat, café".encode("cp1252"), "a dog, café".encode("cp1252")),
    ],
)
def test_saving_changes_the_words_and_nothing_else(tmp_path: Path, before: bytes, after: bytes) -> None:
    (tmp_path / "a.txt").write_bytes(before)
    file = open_caption(tmp_path / "a.mp4")
    assert "\r" not in file.text
    assert not save_caption(file, file.text.replace("cat", "dog"))
    assert (tmp_path / "a.txt").read_bytes() == after


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    text=st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=60),
    tail=st.sampled_from(["", "\n", "\r\n", "\n\n"]),
)
@example(text="0\n", tail="\n")
def test_saving_what_was_read_leaves_every_byte(tmp_path: Path, text: str, tail: str) -> None:
    data = (text + tail).encode()
    (tmp_path / "a.txt").write_bytes(data)
    file = open_caption(tmp_path / "a.mp4")
    save_caption(file, file.text)
    assert (tmp_path / "a.txt").read_bytes() == data


def test_blank_lines_at_the_end_stay_where_words_change(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(b"a cat\n\n")
    file = open_caption(tmp_path / "a.mp4")
    save_caption(file, file.text.replace("cat", "dog"))
    assert (tmp_path / "a.txt").read_bytes() == b"a dog\n\n"


def test_bytes_that_are_no_characters_stay_where_nothing_was_changed(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(b"caf\xe9 \x81")
    file = open_caption(tmp_path / "a.mp4")
    save_caption(file, file.text)
    assert (tmp_path / "a.txt").read_bytes() == b"caf\xe9 \x81"


def test_a_missing_caption_is_written_as_utf8_with_a_newline(tmp_path: Path) -> None:
    file = open_caption(tmp_path / "a.mp4")
    assert file.text == ""
    save_caption(file, "a café")
    assert (tmp_path / "a.txt").read_bytes() == "a café\n".encode()


def test_words_that_the_encoding_has_not_make_it_utf8_and_say_so(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes("café".encode("cp1252"))
    assert save_caption(open_caption(tmp_path / "a.mp4"), "café 凧")
    assert (tmp_path / "a.txt").read_text(encoding="utf-8") == "café 凧"


def test_a_change_by_another_program_is_never_written_over(tmp_path: Path) -> None:
    file = open_caption(tmp_path / "a.mp4")
    (tmp_path / "a.txt").write_text("written meanwhile")
    with pytest.raises(StorageError, match="changed by another program"):
        save_caption(file, "mine")
    assert (tmp_path / "a.txt").read_text() == "written meanwhile"


def test_permissions_stay(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("a")
    (tmp_path / "a.txt").chmod(0o640)
    save_caption(open_caption(tmp_path / "a.mp4"), "b")
    assert (tmp_path / "a.txt").stat().st_mode & 0o777 == 0o640


def test_what_is_no_text_is_not_opened(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(b"\x00\x01" * 100)
    with pytest.raises(DatasetError, match="not a caption"):
        open_caption(tmp_path / "a.mp4")
