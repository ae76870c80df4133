"""What steps cost on a card, captured ones too, where blocks travel: pytest -m gpu tests/training/test_step_meter_on_gpu.py"""

from __future__ import annotations

import pytest
import torch
from step_engine import CHOSEN, draw_batch, fast_nano, make_batch

from ltx2core.hardware.matmul_rate import matmul_rate
from ltx2core.planning.step_plan import StepPlan
from ltx2core.training.engine import FastEngine
from ltx2core.training.fast_model import FastSettings
from ltx2core.training.flat_optimizer import FlatOptimizer
from ltx2core.training.optimizer import AdamSettings
from ltx2core.training.step_meter import StepClock

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")]
GPU = torch.device("cuda")


def engine_of(*, streamed: int, slots: int) -> FastEngine:
    model, fast = fast_nano(FastSettings(compile=False, streamed=streamed, slots=slots), device=GPU)
    plan = StepPlan(storage="bf16", precision="dequant", streamed=streamed, slots=slots, kept=0, inputs_to_host=False)
    optimizer = FlatOptimizer(fast.adapter, AdamSettings())
    return FastEngine(model, fast, optimizer, plan, audio_weight=1.0, chosen=CHOSEN, emit=lambda _: None)


def test_what_travels_in_a_replayed_step_is_timed_at_every_replay_without_waiting() -> None:
    engine = engine_of(streamed=4, slots=2)
    ring = engine._fast.blocks.ring
    assert ring is not None
    found = []
    for seed in range(6):
        engine.run(draw_batch(make_batch(seed=seed, device=GPU), seed=seed), part=0, parts=1)
        torch.cuda.synchronize()
        torch.cuda.set_sync_debug_mode("error")
        try:
            found.append(engine.traffic())
        finally:
            torch.cuda.set_sync_debug_mode("default")
    assert found[0] is not None  # as it is
    assert found[1] is None  # captured, after it ran as it is: which of the two the events tell of is not known
    for traffic in found[2:]:
        assert traffic is not None
        assert traffic.copied_bytes == ring.loads_per_step() * ring.slot_of(0).nbytes
        assert 0 < traffic.copying_seconds < 1
        assert 0 <= traffic.stalled_seconds < 1
    assert len({traffic.copying_seconds for traffic in found[2:] if traffic is not None}) > 1  # not one replay's numbers again and again


def test_where_all_blocks_stay_nothing_is_waited_for() -> None:
    engine = engine_of(streamed=0, slots=1)
    for seed in range(3):
        engine.run(draw_batch(make_batch(seed=seed, device=GPU), seed=seed), part=0, parts=1)
    traffic = engine.traffic()
    assert traffic is not None
    assert (traffic.stalled_seconds, traffic.copied_bytes, traffic.rate) == (0.0, 0, None)


def test_a_clock_tells_the_cards_time_and_nothing_before_the_card_is_done() -> None:
    rate = matmul_rate(GPU, torch.float32)
    size = 4096
    a = torch.randn(size, size, device=GPU)
    clock = StepClock(GPU)
    with clock.running():
        for _ in range(200):
            a @ a
    assert clock.seconds() is None
    torch.cuda.synchronize()
    seconds = clock.seconds()
    assert seconds is not None
    assert seconds == pytest.approx(200 * 2 * size**3 / rate, rel=0.5)
