"""Which steps share a graph, when one is captured, and that its inputs are the batch's. Capturing itself is in test_engine_on_gpu.py."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch
from step_engine import CPU, draw_batch, fast_nano, gradients_of, make_batch, same
from torch import Tensor

from ltx2core.caching.passes import References
from ltx2core.training.captured_step import StepRunner, _Captured, _key, _tensors, _with_tensors
from ltx2core.training.conditions import GivenPart
from ltx2core.training.reference import Reference
from ltx2core.training.step import Drawn, losses_of

if TYPE_CHECKING:
    from collections.abc import Hashable

FIRST_FRAME = GivenPart(kind="first_frame", probability=1.0)


def test_batches_of_one_shape_share_a_graph_whatever_their_values() -> None:
    assert _key(draw_batch(make_batch(seed=1), seed=1)) == _key(draw_batch(make_batch(seed=2), seed=2))
    given = [_key(draw_batch(make_batch(seed=seed), seed=seed, parts=[FIRST_FRAME])) for seed in (1, 2)]
    assert given[0] == given[1]


def test_what_changes_the_kernels_or_the_rotary_tables_gets_a_graph_of_its_own() -> None:
    drawn = {
        "plain": draw_batch(make_batch()),
        "another grid with as many tokens": draw_batch(make_batch(grid=(3, 2, 2))),
        "another rate": draw_batch(make_batch(fps=24.0)),
        "two samples": draw_batch(make_batch(count=2)),
        "more sound": draw_batch(make_batch(audio=10)),
        "no sound": draw_batch(make_batch(audio=None)),
        "sound alone": draw_batch(make_batch(video=False)),
        "a given frame": draw_batch(make_batch(), parts=[FIRST_FRAME]),
    }
    keys = {name: _key(each) for name, each in drawn.items()}
    assert None not in keys.values()
    assert len(set(keys.values())) == len(keys)


def test_a_batch_with_references_is_never_captured() -> None:
    """Their positions are computed in every call."""
    reference = Reference(tokens=torch.randn(1, 8, 32), grid=(2, 2, 2), seen=References(smaller=1, slower=1))
    assert _key(draw_batch(make_batch(reference=reference))) is None


@pytest.mark.parametrize(("video", "audio"), [(True, 9), (True, None), (False, 9)])
def test_a_batch_on_other_tensors_is_the_same_batch_with_those(video: bool, audio: int | None) -> None:
    drawn, other = (draw_batch(make_batch(video=video, audio=audio, seed=seed), seed=seed) for seed in (1, 2))
    assert all(one is two for one, two in zip(_tensors(_with_tensors(drawn, _tensors(drawn))), _tensors(drawn), strict=True))
    refilled = _with_tensors(drawn, _tensors(other))
    assert all(one is two for one, two in zip(_tensors(refilled), _tensors(other), strict=True))
    assert _key(refilled) == _key(drawn)
    model, _ = fast_nano()
    with torch.no_grad():
        assert torch.equal(losses_of(model, refilled, audio_weight=1.0).total, losses_of(model, other, audio_weight=1.0).total)


def test_on_a_cpu_every_step_runs_as_it_is() -> None:
    model, fast = fast_nano()

    def compute(drawn: Drawn) -> Tensor:
        losses = losses_of(model, drawn, audio_weight=0.7)
        losses.total.backward()
        return losses.total.detach()[None]

    runner = StepRunner(compute, capture=False)
    for seed in (1, 2, 1):
        drawn = draw_batch(make_batch(seed=seed))
        value, gradients = runner.run(drawn), gradients_of(fast)
        assert torch.equal(value, compute(drawn))
        assert same(gradients, gradients_of(fast))
    assert runner.captured == 0
    assert model.device == CPU


class Recorder(StepRunner):
    """A runner on a card that is not there: says what it would do."""

    def __init__(self) -> None:
        super().__init__(self._note, capture=True, crowded=lambda graphs: self.told.append(graphs))
        self.did: list[str] = []
        self.told: list[int] = []

    def _note(self, drawn: Drawn) -> Tensor:
        self.did.append("run")
        return torch.zeros(1)

    def _record(self, drawn: Drawn) -> _Captured:
        self.did.append("capture")
        self.captured += 1
        return _Captured(graph=None, inputs=[], values=torch.zeros(1), alive=None)  # type: ignore[arg-type]

    def _replay(self, key: Hashable, drawn: Drawn) -> Tensor:
        self.did.append("replay")
        return torch.zeros(1)

    def after(self, drawn: Drawn, variant: Hashable = None) -> list[str]:
        self.did.clear()
        self.run(drawn, variant)
        return list(self.did)


def test_a_shape_is_captured_right_after_its_second_run_and_replayed_from_then_on() -> None:
    runner, one, other = Recorder(), draw_batch(make_batch()), draw_batch(make_batch(audio=None))
    assert runner.after(one) == ["run"]
    assert runner.after(other) == ["run"]
    assert runner.after(one) == ["run", "capture"]
    assert runner.after(one) == ["replay"]
    assert runner.after(other) == ["run", "capture"]
    assert runner.after(one) == ["replay"]


def test_a_step_that_adds_to_gradients_does_not_replay_one_that_replaces_them() -> None:
    runner, drawn = Recorder(), draw_batch(make_batch())
    for _ in range(2):
        runner.run(drawn, variant=(False, 2))
    assert runner.after(drawn, (False, 2)) == ["replay"]
    assert runner.after(drawn, (True, 2)) == ["run"]


def test_after_everything_was_forgotten_a_shape_is_run_again_before_it_is_captured() -> None:
    runner, drawn = Recorder(), draw_batch(make_batch())
    for _ in range(3):
        runner.run(drawn)
    runner.forget()
    assert runner.after(drawn) == ["run"]
    assert runner.after(drawn) == ["run", "capture"]


def shapes_of(count: int) -> list[Drawn]:
    return [draw_batch(make_batch(audio=length)) for length in range(3, 3 + count)]


def test_more_shapes_than_graphs_are_not_captured_for_ever_and_told_once() -> None:
    """Ten shapes in turn, and drawn by chance: six captures, as many as there are graphs."""
    for order in (list(range(10)) * 40, torch.randint(10, (2000,), generator=torch.Generator().manual_seed(0)).tolist()):
        runner, shapes = Recorder(), shapes_of(10)
        for number in order:
            runner.run(shapes[number])
        assert runner.captured == 6
        assert runner.told == [6]


def test_a_shape_that_comes_far_more_often_takes_the_place_of_the_rarest() -> None:
    runner, shapes = Recorder(), shapes_of(7)
    for drawn in shapes[:6]:
        for _ in range(2):
            runner.run(drawn)
    runner.run(shapes[0])
    for _ in range(40):
        runner.run(shapes[6])
    assert runner.captured == 7
    assert runner.after(shapes[6]) == ["replay"]
    assert runner.after(shapes[0]) == ["replay"]
    assert runner.after(shapes[1]) == ["run"]


def test_shapes_of_a_dataset_that_has_ended_give_way_to_those_that_come_now() -> None:
    runner, shapes = Recorder(), shapes_of(12)
    for _ in range(500):
        for drawn in shapes[:6]:
            runner.run(drawn)
    for _ in range(300):
        for drawn in shapes[6:]:
            runner.run(drawn)
    assert [runner.after(drawn) for drawn in shapes[6:]] == [["replay"]] * 6
    assert runner.captured == 12
