"""Where compiled kernels are kept: shared by runs, the user's choice before ours, and never without bound."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from ltx2core.training import compile_cache
from ltx2core.training.compile_cache import UNUSED_SECONDS, cache_home, kept_kernels

NAMES = ("TORCHINDUCTOR_CACHE_DIR", "TRITON_CACHE_DIR", "TORCHINDUCTOR_FX_GRAPH_CACHE")


@pytest.fixture(autouse=True)
def _nothing_set(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in NAMES:
        monkeypatch.delenv(name, raising=False)


def test_the_compiler_is_given_a_folder_of_the_users_cache_for_this_torch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_home() == tmp_path / "ltx2tui" / "compiled"
    with kept_kernels() as folder:
        assert folder is not None
        assert folder.parent == cache_home()
        assert os.environ["TORCHINDUCTOR_CACHE_DIR"] == str(folder)
        assert Path(os.environ["TRITON_CACHE_DIR"]).parent == folder
        assert os.environ["TORCHINDUCTOR_FX_GRAPH_CACHE"] == "1"
    assert not [name for name in NAMES if name in os.environ]
    (folder / "kernel").write_text("x")
    with kept_kernels() as again:
        assert again == folder
        assert (again / "kernel").exists()


def test_what_the_user_has_set_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRITON_CACHE_DIR", "elsewhere")
    with kept_kernels(tmp_path):
        assert os.environ["TRITON_CACHE_DIR"] == "elsewhere"
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", "mine")
    with kept_kernels(tmp_path / "other") as folder:
        assert folder is None
        assert os.environ["TORCHINDUCTOR_CACHE_DIR"] == "mine"
    assert not (tmp_path / "other").exists()


def test_a_folder_that_cannot_be_made_leaves_the_compiler_its_own(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with kept_kernels(tmp_path / "file") as folder:
        assert folder is None
        assert "TORCHINDUCTOR_CACHE_DIR" not in os.environ


def test_a_version_that_was_not_used_for_a_month_goes(tmp_path: Path) -> None:
    for name, age in (("torch-1.0", UNUSED_SECONDS + 60), ("torch-1.1", UNUSED_SECONDS - 60)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "in-use.lock").touch()
        os.utime(tmp_path / name / "in-use.lock", (time.time() - age,) * 2)
    with kept_kernels(tmp_path):
        assert not (tmp_path / "torch-1.0").exists()
        assert (tmp_path / "torch-1.1").exists()
    assert not list(tmp_path.glob(".*"))


def test_a_folder_that_has_grown_too_large_begins_anew_unless_another_run_uses_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compile_cache, "MOST_BYTES", 10)
    with kept_kernels(tmp_path) as folder:
        assert folder is not None
        (folder / "kernel").write_text("more than ten bytes")
        for name in NAMES:
            os.environ.pop(name, None)
        with kept_kernels(tmp_path):
            assert (folder / "kernel").exists()
    with kept_kernels(tmp_path):
        assert not (folder / "kernel").exists()


def test_inductor_looks_where_it_is_told_to() -> None:
    """In a fresh interpreter, where the folder is set before torch is there; and no torch is loaded to set it."""
    code = (
        "import sys\n"
        "from pathlib import Path\n"
        "from ltx2core.training.compile_cache import kept_kernels\n"
        "assert 'torch' not in sys.modules\n"
        "with kept_kernels() as folder:\n"
        "    from torch._inductor.runtime.cache_dir_utils import cache_dir, triton_cache_dir\n"
        "    assert Path(cache_dir()) == folder and Path(triton_cache_dir(0)).is_relative_to(folder)\n"
        "    import torch._inductor.config as config\n"
        "    assert config.fx_graph_cache\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
