from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

from ltx2core.data.clip import PROBLEM_CODES

DOCS = Path(__file__).parents[2] / "docs"


@pytest.mark.slow
def test_every_check_says_of_its_example_what_the_page_says(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Numbers apart: how many pictures of a damaged file can be decoded is up to the decoder's version."""
    monkeypatch.syspath_prepend(str(DOCS))
    import make_checks

    made = make_checks.HEAD + make_checks.table(tmp_path)
    written = (DOCS / "CHECKS.md").read_text(encoding="utf-8")
    assert re.sub(r"\d+", "#", made) == re.sub(r"\d+", "#", written), "run: python docs/make_checks.py > docs/CHECKS.md"
    assert re.findall(r"^\| `(\w+)`", written, re.MULTILINE) == list(PROBLEM_CODES)
    sys.modules.pop("make_checks", None)
