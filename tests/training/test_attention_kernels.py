"""Which attention kernel a batch is computed with: the one that is fastest for its shape, found out once and told."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import torch
from step_engine import CHOSEN, draw_batch, fast_nano, make_batch
from torch.nn.attention import SDPBackend

from ltx2core.models import attention_choice
from ltx2core.models.attention_choice import AttentionChoice, AttentionKernels
from ltx2core.planning.step_plan import StepPlan
from ltx2core.runs.events import Event, Notice
from ltx2core.training.engine import FastEngine
from ltx2core.training.fast_model import FastSettings
from ltx2core.training.flat_optimizer import FlatOptimizer
from ltx2core.training.optimizer import AdamSettings

if TYPE_CHECKING:
    import pytest

    from ltx2core.training.data import Batch

PLAN = StepPlan(storage="bf16", precision="dequant", streamed=0, slots=0, kept=5, inputs_to_host=False)
FLASH = AttentionChoice(SDPBackend.FLASH_ATTENTION, {"flash": 0.1, "cudnn": 0.2})
CUDNN = AttentionChoice(SDPBackend.CUDNN_ATTENTION, {"flash": 0.3, "cudnn": 0.2})


NO_ROOM = AttentionChoice(None, {})


class Run:
    """nano in an engine that began with cuDNN's kernel, and what its batches, one twice as long as the other, were computed with."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *, short: AttentionChoice, long: AttentionChoice) -> None:
        batch = make_batch()
        assert batch.video is not None
        batch_tokens = batch.video.shape[1]
        video = torch.cat([batch.video, batch.video], dim=1)
        grid = (batch.grid[0] * 2, *batch.grid[1:])
        self.short, self.long = replace(batch, bucket="short"), replace(batch, bucket="long", video=video, grid=grid)
        self.asked: list[int] = []
        self.used: list[SDPBackend | None] = []
        self.told: list[Event] = []

        def choose(*, tokens: int, **_others: object) -> AttentionChoice:
            self.asked.append(tokens)
            return short if tokens == batch_tokens else long

        monkeypatch.setattr(attention_choice, "choose_attention", choose)
        model, fast = fast_nano(FastSettings(compile=False, kept=5))
        monkeypatch.setattr(fast.blocks, "use_attention", self.used.append)
        self.engine = FastEngine(
            model,
            fast,
            FlatOptimizer(fast.adapter, AdamSettings()),
            PLAN,
            audio_weight=0.7,
            chosen=replace(CHOSEN, attention="cudnn"),
            emit=self.told.append,
            attention=AttentionKernels(heads=4, head_dim=32, dtype=torch.float32, device=torch.device("cuda")),
        )

    def steps(self, *batches: Batch) -> None:
        for batch in batches:
            self.engine.run(draw_batch(batch), part=0, parts=1)


def test_each_shape_of_batch_is_computed_with_its_own_kernel_which_is_measured_once_and_told(monkeypatch: pytest.MonkeyPatch) -> None:
    run = Run(monkeypatch, short=FLASH, long=CUDNN)
    run.steps(run.long, run.short, run.long, run.short)
    assert run.used == [SDPBackend.FLASH_ATTENTION, SDPBackend.CUDNN_ATTENTION, SDPBackend.FLASH_ATTENTION]  # the first had its own
    assert len(run.asked) == 2
    words = [event.text for event in run.told if isinstance(event, Notice)]
    assert len(words) == 2
    assert words[0].startswith("Self-attention of short")
    assert words[0].endswith(": flash (flash 0.1 ms, cudnn 0.2 ms).")


def test_a_card_without_room_to_measure_in_keeps_the_kernel_that_it_has(monkeypatch: pytest.MonkeyPatch) -> None:
    run = Run(monkeypatch, short=NO_ROOM, long=FLASH)
    run.steps(run.short, run.long, run.short, run.short)
    assert run.used == [SDPBackend.FLASH_ATTENTION]
    assert len(run.asked) == 2  # not tried again in each step


def test_memory_that_runs_out_while_kernels_are_measured_is_no_error_and_no_kernel_is_thought_slow(monkeypatch: pytest.MonkeyPatch) -> None:
    shape, kernels = (1, 8, 3, 2, 16), (SDPBackend.MATH, SDPBackend.FLASH_ATTENTION)
    cpu = torch.device("cpu")

    def full(*_args: object, **_options: object) -> float:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(attention_choice, "_milliseconds", lambda _packed, backend: 1.0 if backend is SDPBackend.MATH else full())
    assert attention_choice.measure_attention(shape, kernels, dtype=torch.float32, device=cpu) == NO_ROOM
    monkeypatch.setattr(attention_choice.torch, "randn", full)
    assert attention_choice.measure_attention(shape, kernels, dtype=torch.float32, device=cpu) == NO_ROOM


def test_a_kernel_that_is_not_there_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(_packed: object, backend: SDPBackend) -> float:
        if backend is SDPBackend.MATH:
            raise RuntimeError("No available kernel.")
        return 2.0

    monkeypatch.setattr(attention_choice, "_milliseconds", missing)
    kernels = (SDPBackend.MATH, SDPBackend.FLASH_ATTENTION)
    found = attention_choice.measure_attention((1, 8, 3, 2, 16), kernels, dtype=torch.float32, device=torch.device("cpu"))
    assert (found.backend, found.milliseconds) == (SDPBackend.FLASH_ATTENTION, {"flash": 2.0})
