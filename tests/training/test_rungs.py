"""Running out of memory: which rung a batch is done on, what of it other shapes and later runs have, and that no bit changes."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
import torch
from step_engine import CHOSEN, draw_batch, fast_nano, gradients_of, make_batch, same

from ltx2core.errors import RunError
from ltx2core.planning.step_plan import StepPlan
from ltx2core.runs.events import EngineChosen, Event, Notice
from ltx2core.training.engine import FastEngine, TryAgain
from ltx2core.training.fast_model import FastSettings
from ltx2core.training.flat_optimizer import FlatOptimizer
from ltx2core.training.optimizer import AdamSettings
from ltx2core.training.rungs import Rung, Rungs

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor

    from ltx2core.training.step import Drawn

START = StepPlan(storage="bf16", precision="dequant", streamed=0, slots=0, kept=5, inputs_to_host=False)
GIB = 2**30


class SmallCard:
    """nano in the engine, on a card whose memory runs out at each forward and backward that keeps more blocks than `most` says."""

    def __init__(
        self, *, most: dict[str, int], path: Path | None = None, free_bytes: int = 10 * GIB, name: str = "card", plan: StepPlan = START
    ) -> None:
        model, self.fast = fast_nano(FastSettings(compile=False, kept=5))
        self.told: list[Notice] = []
        self.chosen: list[EngineChosen] = []
        self.tries: list[str] = []
        self.most = most
        optimizer = FlatOptimizer(self.fast.adapter, AdamSettings())
        rungs = None if path is None else Rungs(path, name=name, free_bytes=free_bytes)
        self.engine = FastEngine(model, self.fast, optimizer, plan, audio_weight=0.7, chosen=CHOSEN, emit=self._tell, rungs=rungs)
        compute = self.engine._compute

        def limited(drawn: Drawn) -> Tensor:
            values = compute(drawn)
            self.tries.append(drawn.batch.bucket)
            if self.weight > self.most.get(drawn.batch.bucket, 99):
                raise torch.OutOfMemoryError("CUDA out of memory")
            return values

        self.engine._runner._compute = limited

    @property
    def weight(self) -> int:
        """What lies on the card: blocks, slots, and what is kept, as numbers."""
        blocks = self.fast.blocks
        inputs = 0 if "host" in blocks.keep else 1
        ring = 0 if blocks.ring is None else len(blocks.ring._slots) - blocks.ring.streamed
        return 5 + ring + blocks.keep.count("all") + inputs

    def _tell(self, event: Event) -> None:
        if isinstance(event, EngineChosen):
            self.chosen.append(event)
            return
        assert isinstance(event, Notice)
        self.told.append(event)

    def step(self, bucket: str, *, part: int = 0, parts: int = 1) -> dict[str, Tensor]:
        drawn = draw_batch(replace(make_batch(seed=len(bucket)), bucket=bucket))
        self.engine.run(drawn, part=part, parts=parts)
        return gradients_of(self.fast)

    def codes(self) -> list[str]:
        return [notice.code for notice in self.told]


@pytest.mark.parametrize("most", [1, 3, 5, 7, 10])
def test_a_batch_goes_down_until_it_fits_and_has_the_gradients_that_it_would_have_had(most: int) -> None:
    expected = SmallCard(most={}).step("a")
    card = SmallCard(most={"a": most})
    assert same(card.step("a"), expected)
    assert card.weight <= most
    rungs = len(card.told)
    assert card.codes() == ["memory_rung"] * rungs
    assert same(card.step("a"), expected)
    assert len(card.tries) == rungs + 2, "the second step begins where the first ended"


def test_a_batch_that_fits_nowhere_is_refused_by_name() -> None:
    with pytest.raises(RunError, match="A batch of a does not fit on the GPU, even with one block on it at a time"):
        SmallCard(most={"a": 0}).step("a")


def test_other_shapes_keep_what_fits_for_them_and_share_what_travels() -> None:
    card = SmallCard(most={"large": 7})
    card.step("small")
    card.step("large")
    assert card.engine.plan_of("large").kept < 2
    card.step("small")
    assert card.fast.blocks.keep.count("all") == 5
    card.most["large"] = 3
    card.step("large")
    assert card.engine.plan_of("large").streamed == card.engine.plan_of("small").streamed > 0
    card.step("small")
    assert card.fast.blocks.keep.count("host") == 0


def test_memory_that_runs_out_in_a_later_part_of_an_update_begins_the_update_again_on_the_lower_rung() -> None:
    expected = SmallCard(most={}).step("a", parts=2)
    card = SmallCard(most={"a": 8})
    card.most = {}
    card.step("a", parts=2)
    card.most = {"a": 8}
    with pytest.raises(TryAgain):
        card.step("a", part=1, parts=2)
    assert same(card.step("a", parts=2), expected)


def test_the_next_run_begins_where_the_last_got_to_and_says_how_to_have_it_forgotten(tmp_path: Path) -> None:
    path = tmp_path / "cache" / "memory.json"
    first = SmallCard(most={"a": 4}, path=path)
    expected = first.step("a")
    first.step("b")
    rung = first.engine.plan_of("a")
    second = SmallCard(most={"a": 4}, path=path)
    assert same(second.step("a"), expected)
    second.step("a")
    assert second.tries == ["a", "a"], "nothing was tried in vain"
    assert replace(second.engine.plan_of("a"), because=()) == replace(rung, because=())
    (notice,) = second.told
    assert notice.code == "memory_rung_known"
    assert "did not fit on this GPU in an earlier run" in notice.text
    assert str(path) in notice.fix
    path.unlink()
    assert len(third := SmallCard(most={}, path=path).step("a")) == len(expected)
    assert same(third, expected)


def test_a_bucket_that_fitted_is_not_slowed_by_one_that_did_not(tmp_path: Path) -> None:
    path = tmp_path / "memory.json"
    SmallCard(most={"a": 4}, path=path).step("a")
    other = SmallCard(most={}, path=path)
    other.step("b")
    assert other.fast.blocks.ring is None
    assert not other.told


@pytest.mark.parametrize("change", [{"name": "another card"}, {"free_bytes": 11 * GIB}])
def test_another_card_or_more_free_memory_tries_the_faster_way_again(change: dict[str, object], tmp_path: Path) -> None:
    path = tmp_path / "memory.json"
    SmallCard(most={"a": 4}, path=path).step("a")
    other = SmallCard(most={}, path=path, **change)  # type: ignore[arg-type]
    other.step("a")
    assert not other.told
    assert other.fast.blocks.keep.count("all") == 5


def test_less_free_memory_still_begins_with_what_was_learned(tmp_path: Path) -> None:
    path = tmp_path / "memory.json"
    SmallCard(most={"a": 4}, path=path).step("a")
    other = SmallCard(most={"a": 4}, path=path, free_bytes=9 * GIB)
    other.step("a")
    assert other.codes() == ["memory_rung_known"]


def test_what_did_not_work_is_not_remembered(tmp_path: Path) -> None:
    with pytest.raises(RunError):
        SmallCard(most={"a": 0}, path=tmp_path / "memory.json").step("a")
    assert not (tmp_path / "memory.json").exists()


@pytest.mark.parametrize(
    "text", ["", "{", "[]", '{"card": 3}', '{"card": {"a": 1}}', '{"card": {"a": {"free_bytes": 1, "rung": {"kept": "x"}}}}']
)
def test_a_file_that_holds_something_else_is_as_none_and_written_anew(text: str, tmp_path: Path) -> None:
    path = tmp_path / "memory.json"
    path.write_text(text)
    rungs = Rungs(path, name="card", free_bytes=GIB)
    assert rungs.of("a") is None
    rungs.remember("a", replace(START, kept=2))
    assert rungs.of("a") == Rung(streamed=0, slots=0, kept=2, inputs_to_host=False)
    assert set(json.loads(path.read_text())) == {"card"}


def test_a_folder_that_cannot_be_written_costs_the_memory_not_the_run(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    card = SmallCard(most={"a": 8}, path=tmp_path / "file" / "memory.json")
    card.step("a")
    assert card.codes()[-1] == "memory_rung_unwritten"
    card.step("a")
    assert card.codes().count("memory_rung_unwritten") == 1


def test_steps_are_not_captured_any_more_once_memory_could_not_be_locked(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a card that is not there: what the engine would do is asked of its runner."""
    card = SmallCard(most={})
    card.engine._runner.capture = True
    monkeypatch.setattr(type(card.engine), "_capturable", property(lambda _: card.fast.blocks.capturable))
    card.engine._watch_capture()
    assert card.engine._runner.capture
    card.fast.blocks.host.refused = 2
    for _ in range(2):
        card.engine._watch_capture()
    assert not card.engine._runner.capture
    assert card.codes() == ["not_captured"]


def test_where_weights_lie_is_the_same_for_all_shapes_and_no_graph_outlives_a_change_of_it(tmp_path: Path) -> None:
    """Matrices that lay transposed on the card are freed: a graph of another shape would still read them."""
    path, turned = tmp_path / "memory.json", replace(START, turned=True)
    SmallCard(most={"a": 10}, path=path, plan=turned).step("a")
    card = SmallCard(most={"a": 10}, path=path, plan=turned)
    card.step("b")
    assert card.engine.plan_of("b").turned
    forgotten: list[bool] = []
    card.engine._runner.forget = lambda: forgotten.append(True)  # type: ignore[method-assign]
    card.step("a")
    assert forgotten
    assert card.codes() == ["memory_rung_known"]
    assert not card.engine.plan_of("b").turned
    forgotten.clear()
    card.step("b")
    card.step("a")
    assert not forgotten, "what a block keeps changes from shape to shape, weights do not"
