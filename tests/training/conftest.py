"""The engine's fixtures."""

from pathlib import Path

import pytest
from engine_fixtures import clips_folder, make_config, open_run, root, warm_cache
from rounded_place import Place

__all__ = ["clips_folder", "make_config", "open_run", "root", "warm_cache"]


@pytest.fixture
def place(tmp_path: Path) -> Place:
    """A checkpoint beside which rounded weights may be kept."""
    return Place(tmp_path)
