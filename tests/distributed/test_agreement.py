"""What ranks make of an update together, with optimizers of every kind, and that drift is an error."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
import torch
from rank_threads import in_ranks
from step_engine import CHOSEN, SETTINGS, draw_batch, fast_nano, make_batch, reference_nano

from ltx2core.errors import RunError
from ltx2core.planning.step_plan import StepPlan
from ltx2core.training.agreement import Level, UpdateLosses, agree, bits_of, check_same, same_start
from ltx2core.training.engine import FastEngine, ReferenceEngine
from ltx2core.training.flat_optimizer import FlatOptimizer
from ltx2core.training.optimizer import AdamSettings, AdapterOptimizer
from ltx2core.training.rules import RuleOptimizer, RuleSettings

if TYPE_CHECKING:
    from torch import Tensor

    from ltx2core.distributed.ranks import Together
    from ltx2core.training.optimizer import Optimizer

PLAN = StepPlan(storage="bf16", precision="dequant", streamed=0, slots=0, kept=5, inputs_to_host=False)
MUON = RuleSettings(rule="muon")


def losses(total: float, *, audio: float | None, samples: int) -> UpdateLosses:
    sigma = torch.full((samples,), 0.1 * samples)
    levels = (Level(modality="video", sigma=sigma, losses=sigma + total),)
    return UpdateLosses(
        total=torch.tensor(total),
        video=torch.tensor(total),
        audio=None if audio is None else torch.tensor(audio),
        similarity=None,
        samples=samples,
        levels=levels,
        counts={"video": 1, "audio": int(audio is not None), "similarity": 0},
    )


@pytest.mark.parametrize("kind", ["adamw", "muon", "flat adamw", "flat muon"])
def test_ranks_that_reached_different_layers_move_alike_and_as_one_process_with_both_batches(kind: str) -> None:
    """Rank 0 has a batch without sound."""

    def batches() -> list[object]:
        return [draw_batch(make_batch(audio=None)), draw_batch(make_batch(seed=7))]

    def trained(parts: list[object], ranks: Together | None) -> dict[str, Tensor]:
        optimizer: Optimizer
        if kind.startswith("flat"):
            model, fast = fast_nano()
            parameters = fast.adapter.parameters
            optimizer = (
                FlatOptimizer(fast.adapter, AdamSettings()) if kind == "flat adamw" else RuleOptimizer(parameters, MUON, flat=fast.adapter)
            )
            engine = FastEngine(model, fast, optimizer, PLAN, audio_weight=1.0, chosen=CHOSEN, emit=lambda _: None)
        else:
            model, parameters = reference_nano(SETTINGS)
            optimizer = AdapterOptimizer(parameters, AdamSettings()) if kind == "adamw" else RuleOptimizer(parameters, MUON)
            engine = ReferenceEngine(model, audio_weight=1.0)
        found = [engine.run(part, part=index, parts=len(parts)) for index, part in enumerate(parts)]
        if ranks is not None:
            agree(ranks, UpdateLosses.of(found, levels=(), samples=1), optimizer, step=0)
        norm = optimizer.clip(1.0)
        optimizer.step(1e-3, finite=torch.isfinite(norm))
        if ranks is not None:
            check_same(ranks, parameters.values(), step=1)
        return {name: parameter.detach() for name, parameter in parameters.items()}

    expected = trained(batches(), None)
    for found in in_ranks(2, lambda ranks: trained([batches()[ranks.rank]], ranks)):
        assert all(torch.allclose(found[name], value, atol=2e-6) for name, value in expected.items())


def test_losses_are_the_mean_over_the_batches_that_have_them_and_every_sample_is_told() -> None:
    def act(ranks: Together) -> UpdateLosses:
        own = losses(1.0, audio=None, samples=1) if ranks.rank == 0 else losses(4.0, audio=6.0, samples=3)
        weight = torch.nn.Parameter(torch.zeros(2))
        weight.grad = torch.full((2,), float(ranks.rank))
        optimizer = AdapterOptimizer({"transformer_blocks.0.attn1.to_q.lora_A.weight": weight}, AdamSettings())
        found = agree(ranks, own, optimizer, step=3)
        assert weight.grad.tolist() == [0.5, 0.5]
        return found

    for found in in_ranks(2, act):
        assert (float(found.total), float(found.video), float(found.audio), found.similarity) == (2.5, 2.5, 6.0, None)  # type: ignore[arg-type]
        assert found.samples == 4
        assert [(level.modality, len(level.sigma)) for level in found.levels] == [("video", 1), ("video", 3)]
        assert found.levels[1].sigma.tolist() == pytest.approx([0.3] * 3)
        assert found.levels[1].losses.tolist() == pytest.approx([4.3] * 3)


def test_a_loss_that_is_not_finite_on_one_rank_is_none_on_all() -> None:
    def act(ranks: Together) -> float:
        own = losses(1.0, audio=None, samples=1)
        own = own if ranks.rank else replace(own, total=torch.tensor(float("nan")))
        return float(
            agree(ranks, own, AdapterOptimizer({"attn1.lora_A.weight": torch.nn.Parameter(torch.zeros(1))}, AdamSettings()), step=0).total
        )

    assert all(found != found for found in in_ranks(2, act))


def test_weights_that_differ_in_one_bit_are_an_error_that_names_the_rank() -> None:
    def act(ranks: Together) -> str:
        weights = [torch.ones(5), torch.ones(2, 2)]
        check_same(ranks, weights, step=50)
        if ranks.rank == 1:
            weights[1][0, 1] = torch.nextafter(torch.tensor(1.0), torch.tensor(2.0))
        with pytest.raises(RunError) as found:
            check_same(ranks, weights, step=100)
        return found.value.text

    assert set(in_ranks(2, act)) == {"After step 100 rank 1 of 2 has other weights than rank 0: they have drifted apart."}
    assert bits_of([torch.tensor([1.0])]) != bits_of([torch.tensor([-1.0])])


def test_ranks_that_have_other_gradients_are_an_error_and_no_wrong_sum() -> None:
    names = [f"transformer_blocks.{block}.attn1.to_q.lora_A.weight" for block in range(2)]

    def act(ranks: Together) -> str:
        parameters = {name: torch.nn.Parameter(torch.zeros(2)) for name in names[: 1 + ranks.rank]}
        for parameter in parameters.values():
            parameter.grad = torch.ones(2)
        with pytest.raises(RunError) as found:
            agree(ranks, losses(1.0, audio=None, samples=1), AdapterOptimizer(parameters, AdamSettings()), step=3)
        return found.value.text

    expected = "In step 4 rank 1 of 2 has 2 gradients of 4 numbers, rank 0 has 1 gradients of 2 numbers."
    assert set(in_ranks(2, act)) == {expected}


def test_a_layer_that_only_one_rank_has_reached_is_everyone_s_although_all_heard_the_same_modalities() -> None:
    names = [f"transformer_blocks.{block}.attn1.to_q.lora_A.weight" for block in range(2)]

    def act(ranks: Together) -> list[list[float]]:
        parameters = {name: torch.nn.Parameter(torch.zeros(2)) for name in names}
        for name in names[: 1 + ranks.rank]:
            parameters[name].grad = torch.full((2,), 1.0 + ranks.rank)
        optimizer = AdapterOptimizer(parameters, AdamSettings())
        agree(ranks, losses(1.0, audio=None, samples=1), optimizer, step=0)
        return [gradient.tolist() for gradient in optimizer.gradients()]

    assert in_ranks(2, act) == [[[1.5, 1.5], [1.0, 1.0]]] * 2


def test_ranks_begin_with_the_first_one_s_weights_and_on_the_same_clips() -> None:
    def act(ranks: Together) -> tuple[list[float], str]:
        weights = torch.full((3,), float(ranks.rank))
        same_start(ranks, [weights], course="five clips")
        with pytest.raises(RunError) as found:
            same_start(ranks, [weights], course=f"{5 + ranks.rank} clips")
        return weights.tolist(), found.value.text

    for weights, text in in_ranks(2, act):
        assert weights == [0.0, 0.0, 0.0]
        assert text == "Rank 1 of 2 has found other clips, or other steps, than rank 0."
