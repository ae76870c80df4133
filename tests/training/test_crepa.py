"""CREPA against its formula in plain loops (float32, 1e-5), the step engine against PEFT (1e-3), its schedule, limit and state."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
import torch
from step_engine import difference, draw_batch, fast_nano, fast_step, gradients_of, make_batch, reference_nano, reference_step

from ltx2core.errors import ConfigError
from ltx2core.training.captured_step import _tensors, _with_tensors
from ltx2core.training.crepa import Crepa, CrepaSettings, WeightSchedule, check_blocks, similarity
from ltx2core.training.head_optimizer import WithHead, without_head
from ltx2core.training.optimizer import AdamSettings, AdapterOptimizer
from ltx2core.training.step import losses_at, losses_of
from ltx2core.training.tread import Route, add_routes, draw_kept

if TYPE_CHECKING:
    from torch import Tensor

    from ltx2core.training.step import Drawn, Model

FRAMES, PLACES, WIDTH = 4, 6, 8
CONSTANT = WeightSchedule(peak=0.5)
ENCODER = CrepaSettings(width=WIDTH, block=1, weight=CONSTANT)
BACKBONE = CrepaSettings(width=None, block=1, teacher=3, weight=CONSTANT)
TRUE = torch.tensor(True)


def _random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def _cosine(one: Tensor, other: Tensor) -> float:
    return float((one @ other) / (one.norm() * other.norm()))


@pytest.mark.parametrize(
    "changes",
    [{}, {"distance": 2, "tau": 2.0}, {"distance": 3, "cumulative": True}, {"mean_neighbours": True}, {"spatial": False}, {"distance": 9}],
)
def test_similarity_is_the_paper_s_formula(changes: dict[str, object]) -> None:
    settings = replace(ENCODER, **changes)
    student, teacher = _random(2, FRAMES * PLACES, WIDTH), _random(2, FRAMES * PLACES, WIDTH, seed=1)
    score, summed = similarity(student, teacher, settings, frames=FRAMES)
    distances = range(1, settings.distance + 1) if settings.cumulative else [settings.distance]
    for sample in range(2):
        p, y = (part[sample].view(FRAMES, PLACES, WIDTH) for part in (student, teacher))

        def s(f: int, g: int, p: Tensor = p, y: Tensor = y) -> float:
            if not settings.spatial:
                return _cosine(*(torch.nn.functional.normalize(part, dim=1).mean(dim=0) for part in (p[f], y[g])))
            return sum(_cosine(p[f, n], y[g, n]) for n in range(PLACES)) / PLACES

        total = 0.0
        for f in range(FRAMES):
            near = {g: math.exp(-d / settings.tau) for d in distances for g in (f - d, f + d) if 0 <= g < FRAMES}
            of_frame = s(f, f) + sum(weight * s(f, g) for g, weight in near.items())
            total += of_frame / (1 + sum(near.values())) if settings.mean_neighbours else of_frame
        assert float(score[sample]) == pytest.approx(total / FRAMES, abs=1e-5)
        assert float(summed[sample]) == pytest.approx(total, abs=1e-4)


def test_tokens_that_were_taken_out_have_no_score_and_the_others_have_theirs() -> None:
    student, teacher = _random(1, FRAMES * PLACES, WIDTH), _random(1, FRAMES * PLACES, WIDTH, seed=1)
    every = torch.arange(FRAMES * PLACES)[None]
    parts = every[:, ::2], every[:, 1::2]
    halves = [float(similarity(student[:, part[0]], teacher, ENCODER, frames=FRAMES, tokens=part)[0]) for part in parts]
    assert halves[0] != pytest.approx(halves[1], abs=1e-3)
    assert sum(halves) / 2 == pytest.approx(float(similarity(student, teacher, ENCODER, frames=FRAMES)[0]), abs=1e-6)


def test_the_weight_rises_falls_and_is_cut_off() -> None:
    schedule = WeightSchedule(peak=1.0, shape="linear", warmup=4, decay=10, end=0.2, cutoff=30)
    assert [schedule(step) for step in (0, 3, 4, 9, 14, 29, 30)] == pytest.approx([0.25, 1.0, 1.0, 0.6, 0.2, 0.2, 0.0])
    assert replace(schedule, shape="cosine")(9) == pytest.approx(0.6)
    assert replace(schedule, shape="polynomial", power=2.0)(9) == pytest.approx(0.2 + 0.8 * 0.25)
    assert replace(schedule, shape="constant")(29) == 1.0


def test_blocks_that_are_not_there_or_lack_tokens_are_refused_by_name() -> None:
    with pytest.raises(ConfigError, match="crepa_block_index = 8"):
        check_blocks(CrepaSettings(width=4), num_blocks=5, backbone=False)
    with pytest.raises(ConfigError, match="deeper than crepa_block_index, 3"):
        check_blocks(CrepaSettings(width=None, block=3, teacher=3), num_blocks=5, backbone=True)
    routes = (Route(ratio=0.5, start=1, end=3),)
    with pytest.raises(ConfigError, match="crepa_teacher_block_index = 2: tread_config"):
        check_blocks(CrepaSettings(width=None, block=1, teacher=2), num_blocks=5, backbone=True, routes=routes)
    with pytest.raises(ConfigError, match="crepa_spatial_align"):
        check_blocks(CrepaSettings(width=4, block=1, spatial=False), num_blocks=5, backbone=False, routes=routes)
    assert check_blocks(CrepaSettings(width=None, block=-4, teacher=3), num_blocks=5, backbone=True, routes=routes) == (1, 3)
    assert check_blocks(CrepaSettings(width=None, block=8), num_blocks=48, backbone=True) == (8, 31)


def _with_crepa(model: Model, settings: CrepaSettings, *, routes: tuple[Route, ...] = (), step: int = 0) -> Model:
    router = add_routes(model.transformer, routes) if routes else None
    crepa = Crepa(model.transformer, settings, routes=routes, seed=7, device=torch.device("cpu"), dtype=torch.float32)
    crepa.set_step(step)
    return replace(model, router=router, crepa=crepa)


def _drawn(settings: CrepaSettings, *, audio: int | None = 9, routes: tuple[Route, ...] = ()) -> Drawn:
    batch = make_batch(count=2, grid=(3, 2, 2), audio=audio)
    if settings.width is not None:
        batch = replace(batch, features=_random(2, 12, settings.width, seed=9))
    drawn = draw_batch(batch)
    assert drawn.video is not None
    generator = torch.Generator().manual_seed(1)
    return replace(drawn, kept=draw_kept(routes, learned=drawn.video.learned, references=0, generator=generator))


def _head(model: Model) -> dict[str, Tensor]:
    assert model.crepa is not None
    return {name: value.grad.clone() for name, value in model.crepa.named_parameters() if value.grad is not None}


ROUTES = (Route(ratio=0.5, start=1, end=2),)


@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("routes", [(), ROUTES])
@pytest.mark.parametrize("settings", [ENCODER, BACKBONE])
def test_both_engines_learn_the_same_from_alignment_and_something_else_than_without(
    settings: CrepaSettings, routes: tuple[Route, ...], checkpointing: bool
) -> None:
    drawn = _drawn(settings, routes=routes)
    usual, parameters = reference_nano()
    flat, fast = fast_nano()
    if checkpointing:
        usual.transformer.enable_gradient_checkpointing()
    usual.transformer.train()
    usual, flat = _with_crepa(usual, settings, routes=routes), _with_crepa(flat, settings, routes=routes)
    loss, expected = _step(usual, parameters, drawn)
    found_loss, found = _fast_step(flat, fast, drawn)
    torch.testing.assert_close(found_loss, loss, rtol=1e-4, atol=1e-5)
    assert difference(found, expected) < 1e-3
    assert difference(_head(flat), _head(usual)) < 1e-3
    plain, without = reference_step(replace(usual, crepa=None), parameters, drawn)
    assert abs(float(plain - loss)) > 1e-3
    assert difference(without, expected) > 0.01


def _step(model: Model, parameters: dict[str, torch.nn.Parameter], drawn: Drawn) -> tuple[Tensor, dict[str, Tensor]]:
    losses = losses_of(model, drawn, audio_weight=0.7)
    losses.learned.backward()
    zero = {name: torch.zeros_like(parameter) for name, parameter in parameters.items()}
    return losses.learned.detach(), zero | {name: value.grad for name, value in parameters.items() if value.grad is not None}


def _fast_step(model: Model, fast: object, drawn: Drawn) -> tuple[Tensor, dict[str, Tensor]]:
    losses = losses_of(model, drawn, audio_weight=0.7)
    losses.learned.backward()
    return losses.learned.detach(), gradients_of(fast)  # type: ignore[arg-type]


def test_a_weight_of_0_leaves_the_lora_s_gradients_as_they_were() -> None:
    drawn, settings = _drawn(ENCODER), replace(ENCODER, weight=WeightSchedule(peak=0.5, cutoff=5))
    flat, fast = fast_nano()
    _, without = fast_step(flat, fast, drawn)
    _, cut_off = _fast_step(_with_crepa(flat, settings, step=5), fast, drawn)
    assert difference(cut_off, without) == 0


def test_training_on_alignment_alone_raises_it() -> None:
    usual, parameters = reference_nano()
    model, drawn = _with_crepa(usual, ENCODER), _drawn(ENCODER)
    assert model.crepa is not None
    optimizer = WithHead(AdapterOptimizer(parameters, AdamSettings()), model.crepa)
    seen = []
    for _ in range(15):
        model.crepa.forget_gradients()
        losses = losses_of(model, drawn, audio_weight=1.0)
        assert losses.aside is not None
        assert losses.similarity is not None
        losses.aside.backward()
        seen.append(float(losses.similarity))
        optimizer.clip(1.0)
        optimizer.step(1e-3, finite=TRUE)
    assert seen[-1] > seen[0] + 0.1


def test_at_the_limit_alignment_ends_for_good_or_until_similarity_falls_again() -> None:
    usual, _ = reference_nano()
    for permanent in (True, False):
        settings = replace(ENCODER, threshold=0.5, average_decay=0.5, permanent=permanent)
        crepa = Crepa(usual.transformer, settings, seed=0, device=torch.device("cpu"), dtype=torch.float32)
        alive = []
        for mean in (0.4, 0.9, 0.9, float("nan"), 0.0, 0.0):
            crepa._follow(torch.tensor(mean))
            alive.append(float(crepa.alive))
        assert alive == ([1, 0, 0, 0, 0, 0] if permanent else [1, 0, 0, 0, 1, 1])  # averages 0.2, 0.55, 0.725, 0.725, 0.3625, ...
        assert float(crepa.average) == pytest.approx(0.18125)


def test_a_captured_step_reads_the_features_of_its_own_batch() -> None:
    drawn = _drawn(ENCODER, routes=ROUTES)
    other = _with_tensors(drawn, [tensor + 1 if tensor.is_floating_point() else tensor for tensor in _tensors(drawn)])
    assert drawn.batch.features is not None
    assert other.batch.features is not None
    assert torch.equal(other.batch.features, drawn.batch.features + 1)
    assert torch.equal(other.kept[0], drawn.kept[0])
    backbone = _drawn(BACKBONE, routes=ROUTES)
    assert torch.equal(_with_tensors(backbone, _tensors(backbone)).kept[0], backbone.kept[0])


def test_the_head_s_state_goes_on_bit_for_bit_and_is_left_out_by_a_run_without() -> None:
    runs = []
    for _ in range(2):
        usual, parameters = reference_nano()
        model = _with_crepa(usual, replace(ENCODER, threshold=0.9))
        assert model.crepa is not None
        runs.append((model, WithHead(AdapterOptimizer(parameters, AdamSettings()), model.crepa), parameters))

    def step(run: tuple[Model, WithHead, dict[str, torch.nn.Parameter]]) -> None:
        model, optimizer, parameters = run
        assert model.crepa is not None
        model.crepa.forget_gradients()
        _step(model, parameters, _drawn(ENCODER))
        optimizer.clip(1.0)
        optimizer.step(1e-3, finite=TRUE)

    first, second = runs
    for _ in range(2):
        step(first)
    with torch.no_grad():
        for name, value in first[2].items():
            second[2][name].copy_(value)
    state = {name: value.clone() for name, value in first[1].state().items()}
    second[1].load_state(state)
    for run in runs:
        step(run)
    again = second[1].state()
    assert all(torch.equal(value, again[name]) for name, value in first[1].state().items())
    assert any(name.startswith("crepa.") for name in state)
    AdapterOptimizer(first[2], AdamSettings()).load_state(without_head(state))


def test_a_step_that_is_not_finite_leaves_the_head_as_it_is() -> None:
    usual, parameters = reference_nano()
    model = _with_crepa(usual, ENCODER)
    assert model.crepa is not None
    optimizer = WithHead(AdapterOptimizer(parameters, AdamSettings()), model.crepa)
    _step(model, parameters, _drawn(ENCODER))
    before = model.crepa.linear.weight.detach().clone()
    assert model.crepa.linear.weight.grad is not None
    model.crepa.linear.weight.grad.fill_(float("nan"))
    norm = optimizer.clip(1.0)
    assert bool(norm.isnan())
    optimizer.step(1e-3, finite=torch.isfinite(norm))
    assert torch.equal(model.crepa.linear.weight, before)


def test_the_held_out_loss_is_not_aligned_and_the_same_with_and_without() -> None:
    usual, _ = reference_nano()
    drawn, found = _drawn(ENCODER), []
    for model in (usual, _with_crepa(usual, ENCODER)):
        with model.evaluating():
            found.append(losses_at(model, drawn.batch, sigma=0.5, generator=torch.Generator().manual_seed(0), audio_weight=1.0))
    assert torch.equal(found[0].total, found[1].total)
    assert found[1].aside is None
