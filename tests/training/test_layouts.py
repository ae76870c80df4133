"""What a layout keeps for the backward: nothing of it changes a bit, and each lever does what it says."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from step_engine import draw_batch, fast_nano, fast_step, make_batch, same
from torch import Tensor

from ltx2core.models import block_parts
from ltx2core.models.attention import Kernel, attend
from ltx2core.planning.step_plan import StepPlan
from ltx2core.training.fast_model import FastSettings, turn

EAGER = FastSettings(compile=False)
COUNT = 5  # nano's blocks


@pytest.fixture
def attended(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, ...]]:
    """The shape of each self-attention over pictures that is computed."""
    found: list[tuple[int, ...]] = []

    def counted(q: Tensor, k: Tensor, v: Tensor, kernel: Kernel) -> tuple[Tensor, Tensor]:
        found.append(tuple(q.shape))
        answer: tuple[Tensor, Tensor] = attend(q, k, v, kernel)
        return answer

    monkeypatch.setattr(block_parts, "attend", counted)
    return found


@pytest.mark.parametrize("attention", [0, 2, COUNT])
@pytest.mark.parametrize("settings", [EAGER, replace(EAGER, inputs_to_host=True), replace(EAGER, streamed=3, slots=1)])
def test_blocks_that_keep_self_attention_compute_it_once_and_learn_the_same(
    attended: list[tuple[int, ...]], settings: FastSettings, attention: int
) -> None:
    drawn = draw_batch(make_batch())
    expected = fast_step(*fast_nano(replace(EAGER, kept=COUNT)), drawn)
    attended.clear()
    loss, gradients = fast_step(*fast_nano(replace(settings, attention=attention)), drawn)
    assert len(attended) == 2 * COUNT - attention
    assert torch.equal(loss, expected[0])
    assert same(gradients, expected[1])


def test_a_block_that_keeps_all_computes_its_self_attention_once_whatever_the_others_keep(attended: list[tuple[int, ...]]) -> None:
    fast_step(*fast_nano(replace(EAGER, kept=2, attention=1)), draw_batch(make_batch()))
    assert len(attended) == 2 * COUNT - 2 - 1


def test_matrices_are_held_transposed_where_they_stay_and_go_when_a_plan_says_so() -> None:
    _, fast = fast_nano(replace(EAGER, storage="fp8", streamed=2, slots=1, turned=True))
    stay = [index for index in range(COUNT) if not fast.blocks.streamed(index)]
    for index, weights in enumerate(fast.blocks.weights):
        tensors = weights.tensors(weights.matrices)
        for name, place in fast.layout.matrices.items():
            turned = tensors[f"{name}_turned"]
            if index not in stay:
                assert turned is None, "the block before must not be taken for this one's"
                continue
            assert turned is not None
            assert turned.is_contiguous()
            assert torch.equal(turned.view(torch.uint8), place.view(weights.matrices).t().contiguous().view(torch.uint8))
    fast.apply(StepPlan(storage="fp8", precision="dequant", streamed=2, slots=1, kept=0, inputs_to_host=False))
    assert not any(weights.turned for weights in fast.blocks.weights)
    turn(fast)
    assert not any(weights.turned for weights in fast.blocks.weights)
