"""Who goes through the work from which end."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

from ltx2core.caching.sharing import in_turn

if TYPE_CHECKING:
    from pathlib import Path

HOLD = """
import sys
from pathlib import Path
from ltx2core.caching.sharing import in_turn
with in_turn(Path(sys.argv[1]), [1, 2, 3]) as jobs:
    print(*jobs, flush=True)
    sys.stdin.read()
"""


def test_a_second_process_begins_at_the_other_end_and_a_killed_one_holds_nothing(tmp_path: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", HOLD, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as first:
        assert first.stdout is not None
        assert first.stdout.readline() == "1 2 3\n"
        with in_turn(tmp_path, [1, 2, 3]) as jobs:
            assert jobs == [3, 2, 1]
        first.kill()
        first.wait()
        with in_turn(tmp_path, [1, 2, 3]) as jobs:
            assert jobs == [1, 2, 3]


def test_where_nothing_can_be_claimed_the_order_stays(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder")
    with in_turn(tmp_path / "file", [1, 2, 3]) as jobs:
        assert jobs == [1, 2, 3]
