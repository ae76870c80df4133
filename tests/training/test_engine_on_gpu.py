"""The engine on a card: capture, streams, waiting, compiling. nano only: pytest -m gpu tests/training/test_engine_on_gpu.py"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
import torch
from step_engine import difference, draw_batch, fast_nano, gradients_of, make_batch
from torch import Tensor

from ltx2core.offload.host_memory import PinnedMemory, register
from ltx2core.offload.staging import Staging
from ltx2core.planning.step_plan import StepPlan
from ltx2core.training.captured_step import StepRunner
from ltx2core.training.conditions import GivenPart
from ltx2core.training.fast_model import FastSettings
from ltx2core.training.flat_optimizer import FlatOptimizer
from ltx2core.training.optimizer import AdamSettings
from ltx2core.training.step import Drawn, losses_of

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from ltx2core.offload.masters import Waiting

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")]
GPU = torch.device("cuda")
EAGER = FastSettings(compile=False)
HOLDINGS = {
    "resident": EAGER,
    "kept": replace(EAGER, kept=5),
    "streamed": replace(EAGER, streamed=4, slots=2),
    "all streamed, one slot, inputs to host": replace(EAGER, streamed=5, slots=1, inputs_to_host=True),
    "streamed between kept ones": replace(EAGER, streamed=2, slots=1, kept=3),
}
FIRST_FRAME = GivenPart(kind="first_frame", probability=1.0)
CLOSE = 1e-4  # float32, relative: kernels on a card add in no fixed order


class Steps:
    """A model with its runner, as a run has them."""

    def __init__(self, settings: FastSettings, *, capture: bool, dtype: torch.dtype = torch.float32) -> None:
        self.model, self.fast = fast_nano(settings, device=GPU, dtype=dtype)
        self.optimizer = FlatOptimizer(self.fast.adapter, AdamSettings())
        self.broken = False
        blocks = self.fast.blocks
        self.runner = StepRunner(
            self.compute,
            capture=capture,
            before=blocks.settle,
            join=blocks.join,
            holds=self.fast.graph_memory,
        )

    def compute(self, drawn: Drawn) -> Tensor:
        losses = losses_of(self.model, drawn, audio_weight=0.7)
        if self.broken:
            raise RuntimeError("broken off")
        losses.total.backward()
        return losses.total.detach()[None]

    def gradients(self, drawn: Drawn, variant: object = None) -> dict[str, Tensor]:
        self.runner.run(drawn, variant)  # type: ignore[arg-type]
        return gradients_of(self.fast)


def drawn_of(seed: int, *, audio: int | None = 9, grid: tuple[int, int, int] = (2, 2, 3), given: bool = False) -> Drawn:
    batch = make_batch(seed=seed, audio=audio, grid=grid, device=GPU)
    return draw_batch(batch, seed=seed, parts=[FIRST_FRAME] if given else [])


@pytest.fixture
def waiting_is_an_error() -> Iterator[None]:
    yield
    torch.cuda.set_sync_debug_mode("default")


@pytest.mark.parametrize("given", [False, True], ids=["plain", "first frame"])
@pytest.mark.parametrize("settings", HOLDINGS.values(), ids=HOLDINGS)
def test_a_captured_step_is_the_eager_one_of_resident_blocks(settings: FastSettings, given: bool) -> None:
    captured, eager = Steps(settings, capture=True), Steps(EAGER, capture=False)
    for seed in range(5):  # twice as it is, then from the graph
        drawn = drawn_of(seed, given=given)
        assert difference(captured.gradients(drawn), eager.gradients(drawn)) < CLOSE
    assert captured.runner.captured == 1


@pytest.mark.parametrize("settings", HOLDINGS.values(), ids=HOLDINGS)
def test_graphs_of_several_shapes_and_eager_forwards_in_between_do_not_disturb_each_other(settings: FastSettings) -> None:
    """The larger batch comes last: host memory that it has replaced is still that of the smaller one's graph."""
    captured, eager = Steps(settings, capture=True), Steps(EAGER, capture=False)
    shapes = [{}, {"audio": None}, {"grid": (3, 3, 4)}]
    for turn in range(5):
        for number, shape in enumerate(shapes):
            drawn = drawn_of(10 * turn + number, **shape)  # type: ignore[arg-type]
            assert difference(captured.gradients(drawn), eager.gradients(drawn)) < CLOSE
            with torch.no_grad():
                losses = [losses_of(each.model, drawn, audio_weight=1.0).total for each in (captured, eager)]
            torch.testing.assert_close(*losses, rtol=1e-4, atol=0)
    assert captured.runner.captured == len(shapes)


def test_a_step_that_adds_gradients_has_a_graph_of_its_own() -> None:
    captured, eager = Steps(EAGER, capture=True), Steps(EAGER, capture=False)
    for turn in range(4):
        found: list[dict[str, Tensor]] = []
        for steps in (captured, eager):
            for part in range(2):
                steps.fast.adapter.accumulate = part > 0
                steps.runner.run(drawn_of(2 * turn + part), part > 0)
            found.append(gradients_of(steps.fast))
        assert difference(*found) < CLOSE
    assert captured.runner.captured == 2


@pytest.mark.parametrize("settings", [HOLDINGS["streamed"], HOLDINGS["all streamed, one slot, inputs to host"]])
def test_a_capture_that_breaks_off_leaves_the_next_step_as_it_should_be(settings: FastSettings) -> None:
    captured, eager = Steps(settings, capture=True), Steps(EAGER, capture=False)
    captured.gradients(drawn_of(0))
    record = captured.runner._record

    def breaking(drawn: Drawn) -> object:
        captured.broken = True
        try:
            return record(drawn)
        finally:
            captured.broken = False

    captured.runner._record = breaking  # type: ignore[method-assign, assignment]
    with pytest.raises(RuntimeError, match="broken off"):
        captured.gradients(drawn_of(1))
    captured.runner._record = record  # type: ignore[method-assign]
    captured.runner.forget()
    for seed in range(4):
        drawn = drawn_of(seed)
        assert difference(captured.gradients(drawn), eager.gradients(drawn)) < CLOSE


@pytest.mark.usefixtures("waiting_is_an_error")
@pytest.mark.parametrize("capture", [True, False])
@pytest.mark.parametrize("settings", HOLDINGS.values(), ids=HOLDINGS)
def test_the_host_never_waits_inside_a_step(settings: FastSettings, capture: bool) -> None:
    steps = Steps(settings, capture=capture)
    batches = [make_batch(seed=seed, device=GPU) for seed in range(6)]  # copied from ordinary memory: that waits
    for seed, batch in enumerate(batches):
        torch.cuda.set_sync_debug_mode("error" if seed > 2 else "default")
        drawn = draw_batch(batch, seed=seed, parts=[FIRST_FRAME])
        values = steps.runner.run(drawn)
        norm = steps.optimizer.clip(1.0)
        steps.optimizer.step(1e-3, finite=torch.isfinite(norm) & torch.isfinite(values).all())
    torch.cuda.set_sync_debug_mode("default")


def test_loads_are_as_many_in_a_graph_as_counted() -> None:
    """A capture's loads are counted as it is made; replays add none, for the host has no part in them."""
    steps = Steps(HOLDINGS["streamed"], capture=True)
    ring = steps.fast.blocks.ring
    assert ring is not None
    steps.gradients(drawn_of(0))
    before = ring.loads
    steps.gradients(drawn_of(1))  # once as it is, once as a graph
    assert ring.loads - before == 2 * ring.loads_per_step()
    steps.gradients(drawn_of(2))
    assert ring.loads - before == 2 * ring.loads_per_step()


def test_training_from_graphs_ends_where_eager_training_does() -> None:
    """Twenty steps with the optimizer, in float32."""
    captured, eager = Steps(HOLDINGS["streamed"], capture=True), Steps(EAGER, capture=False)
    for seed in range(20):
        for steps in (captured, eager):
            steps.runner.run(drawn_of(seed % 3))
            norm = steps.optimizer.clip(1.0)
            steps.optimizer.step(1e-3, finite=torch.isfinite(norm))
    found, expected = (steps.compute(drawn_of(99)) for steps in (captured, eager))
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=0)


def test_a_rung_down_between_captured_steps_changes_nothing_but_memory() -> None:
    captured, eager = Steps(replace(EAGER, kept=5), capture=True), Steps(EAGER, capture=False)
    for streamed in (0, 2, 5):
        captured.runner.forget()
        captured.fast.blocks.settle()
        captured.fast.apply(StepPlan(storage="bf16", precision="dequant", streamed=streamed, slots=1, kept=0, inputs_to_host=streamed == 5))
        for seed in range(4):
            drawn = drawn_of(seed)
            assert difference(captured.gradients(drawn), eager.gradients(drawn)) < CLOSE


def test_a_model_that_is_put_away_frees_the_card_and_trains_on() -> None:
    captured, eager = Steps(replace(EAGER, streamed=2, slots=1, kept=2), capture=True), Steps(EAGER, capture=False)
    for _ in range(2):
        for seed in range(4):
            drawn = drawn_of(seed)
            assert difference(captured.gradients(drawn), eager.gradients(drawn)) < CLOSE
        captured.runner.forget()
        captured.fast.blocks.settle()
        held, resident, ring = torch.cuda.memory_allocated(), captured.fast.resident_bytes, captured.fast.blocks.ring
        assert ring is not None
        leaves = resident + ring.slot_bytes
        with captured.fast.put_away():
            assert held - torch.cuda.memory_allocated() >= leaves > resident > 0


def test_page_locked_memory_is_registered_as_it_is_and_copied_from_beside_compute() -> None:
    memory = PinnedMemory(3 * 2**20 + 4096)
    assert memory.registered
    memory.tensor.fill_(7)
    assert memory.tensor.is_pinned()
    assert int(memory.tensor.to(GPU, non_blocking=True).sum()) == 7 * memory.tensor.numel()
    memory.close()
    assert not memory.registered


def test_inputs_of_blocks_wait_in_locked_memory_of_their_own_size() -> None:
    steps = Steps(HOLDINGS["all streamed, one slot, inputs to host"], capture=False)
    steps.gradients(drawn_of(0))
    buffers = steps.fast.blocks.host.buffers()
    assert len(buffers) == 5
    assert all(buffer.registered and buffer.tensor.is_pinned() for buffer in buffers)


@pytest.mark.parametrize("waiting", ["memory", "disk"])
@pytest.mark.parametrize(("streamed", "slots"), [(4, 2), (5, 1)])
def test_blocks_that_come_through_staging_buffers_are_the_resident_ones(
    waiting: Waiting, streamed: int, slots: int, tmp_path: Path
) -> None:
    """Uncaptured: the host has a part in their copies."""
    settings = replace(EAGER, streamed=streamed, slots=slots, waiting=waiting, disk=tmp_path if waiting == "disk" else None)
    staged, eager = Steps(settings, capture=False), Steps(EAGER, capture=False)
    assert not staged.fast.blocks.capturable
    for seed in range(4):
        drawn = drawn_of(seed)
        assert difference(staged.gradients(drawn), eager.gradients(drawn)) < CLOSE
        with torch.no_grad():
            losses = [losses_of(each.model, drawn, audio_weight=1.0).total for each in (staged, eager)]
        torch.testing.assert_close(*losses, rtol=1e-4, atol=0)
    staged.fast.close()


def test_pieces_from_several_threads_are_put_together_in_the_slot() -> None:
    expected = torch.arange(100_000, dtype=torch.int32).view(torch.uint8)
    master, slot = PinnedMemory(400_000, register=False), torch.zeros(400_000, dtype=torch.uint8, device=GPU)
    master.tensor.copy_(expected)
    staging = Staging(device=GPU, piece_bytes=1024, pieces=3)
    for _ in range(3):
        slot.zero_()
        event = staging.send(master, slot, after=[torch.cuda.current_stream().record_event()]).result()
        assert event is not None
        torch.cuda.current_stream().wait_event(event)
        assert torch.equal(slot.cpu(), expected)
    staging.close()


def test_memory_that_is_not_locked_leaves_no_error_behind() -> None:
    memory = PinnedMemory(4096)
    assert register(memory.tensor) != 0, "it is locked already"
    assert float(torch.ones(3, device=GPU).sum()) == 3.0
    memory.close()


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_nothing_is_compiled_again_after_the_first_steps(dtype: torch.dtype) -> None:
    """Blocks in place, in slots and kept share one compiled block; forwards without gradients are not compiled."""
    torch._dynamo.reset()
    settings = FastSettings(streamed=2, slots=1, kept=2)
    steps, eager = Steps(settings, capture=False, dtype=dtype), Steps(EAGER, capture=False, dtype=dtype)
    for seed in range(2):
        steps.gradients(drawn_of(seed))
    with torch._dynamo.config.patch(error_on_recompile=True):
        for seed in range(2, 5):
            drawn = drawn_of(seed)
            found = steps.gradients(drawn)
            with torch.no_grad():
                losses_of(steps.model, drawn, audio_weight=1.0)
    assert difference(found, eager.gradients(drawn)) < (1e-3 if dtype == torch.float32 else 0.5)


@pytest.mark.slow
def test_a_compiled_and_captured_step_is_as_near_to_float32_as_an_eager_one_in_bf16() -> None:
    """The whole adapter's gradient: its error against float32 is at most 1.1 times that of eager bf16."""
    exact, usual = Steps(EAGER, capture=False), Steps(EAGER, capture=False, dtype=torch.bfloat16)
    fast = Steps(FastSettings(streamed=2, slots=1, kept=2), capture=True, dtype=torch.bfloat16)

    def whole(gradients: dict[str, Tensor]) -> Tensor:
        return torch.cat([value.flatten() for value in gradients.values()])

    for seed in range(3):
        drawn = drawn_of(seed)
        true, plain, ours = (whole(steps.gradients(drawn)) for steps in (exact, usual, fast))
    assert fast.runner.captured == 1
    assert float((ours - true).norm()) <= 1.1 * float((plain - true).norm())
