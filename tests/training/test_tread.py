"""TREAD on nano: against the same thing said in another way (masks that hide the tokens that skip), in the engine and with PEFT."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from step_engine import (
    block_inputs,
    difference,
    fast_nano,
    fast_step,
    gradients_of,
    make_batch,
    random_block,
    reference_nano,
    reference_step,
    same,
)

from ltx2core.caching.passes import References
from ltx2core.errors import ConfigError
from ltx2core.training.captured_step import StepRunner, _key, _tensors, _with_tensors
from ltx2core.training.conditions import GivenPart
from ltx2core.training.fast_model import FastModel, FastSettings
from ltx2core.training.reference import Reference
from ltx2core.training.sigma import ShiftedLogitNormal
from ltx2core.training.step import Drawn, Model, draw, losses_at, losses_of
from ltx2core.training.tread import Route, Router, add_routes, draw_kept, keep_tokens, kept_count, put_back, resolve, take

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor, nn

    from ltx2core.training.data import Batch

GRID = (3, 2, 3)
ONE = (Route(ratio=0.5, start=1, end=3),)
TWO = (Route(ratio=0.3, start=0, end=1), Route(ratio=0.6, start=3, end=4))
FIRST_FRAME = (GivenPart(kind="first_frame", probability=1.0),)


def drawn_for(batch: Batch, routes: Sequence[Route], *, parts: Sequence[GivenPart] = (), seed: int = 4) -> Drawn:
    return draw(batch, sampler=ShiftedLogitNormal(), generator=torch.Generator().manual_seed(seed), parts=parts, routes=routes)


def usual(routes: Sequence[Route], *, audio: bool = True) -> tuple[Model, dict[str, nn.Parameter]]:
    model, parameters = reference_nano(audio=audio)
    return replace(model, router=add_routes(model.transformer, routes)), parameters


def engine(routes: Sequence[Route], fast: FastSettings | None = None, *, audio: bool = True) -> tuple[Model, FastModel]:
    model, found = fast_nano(fast, audio=audio)
    return replace(model, router=add_routes(model.transformer, routes)), found


def hide_tokens(model: Model, routes: Sequence[Route], kept: Sequence[Tensor]) -> None:
    """Say the same without taking anything out: in a route, nobody attends to tokens that skip, and each block gives them back as they
    were."""
    for route, stay in zip(routes, kept, strict=True):
        for index in range(route.start, route.end + 1):
            block = model.transformer.transformer_blocks[index]
            seen: dict[str, Tensor] = {}

            def before(_module: object, _args: object, kwargs: Any, stay: Tensor = stay, seen: dict[str, Tensor] = seen) -> Any:
                video, audio = kwargs["hidden_states"], kwargs["audio_hidden_states"]
                hidden = torch.ones(video.shape[:2], dtype=torch.bool).scatter(1, stay, False)
                bias = torch.zeros(hidden.shape).masked_fill(hidden, float("-inf"))[:, None]
                seen.update(video=video, hidden=hidden)
                masks = {
                    "self_attention_mask": bias.expand(-1, video.shape[1], -1),
                    "v2a_cross_attention_mask": bias.expand(-1, audio.shape[1], -1),
                }
                return (), kwargs | masks

            def after(_module: object, _args: object, outputs: Any, seen: dict[str, Tensor] = seen) -> Any:
                return torch.where(seen["hidden"][:, :, None], seen["video"], outputs[0]), outputs[1]

            block.register_forward_pre_hook(before, with_kwargs=True)
            block.register_forward_hook(after)


CASES: dict[str, tuple[dict[str, Any], Sequence[Route], Sequence[GivenPart]]] = {
    "joint": ({}, ONE, ()),
    "two samples": ({"count": 2}, ONE, ()),
    "first frame given": ({"count": 2}, ONE, FIRST_FRAME),
    "first frame given in one of two": ({"count": 2}, ONE, (GivenPart(kind="first_frame", probability=0.5),)),
    "two routes": ({"count": 2}, TWO, FIRST_FRAME),
    "video only": ({"count": 2, "audio": None}, ONE, FIRST_FRAME),
    "beside a reference": ({"reference": True}, TWO, ()),
}


def case(name: str) -> tuple[Drawn, Sequence[Route], bool]:
    options, routes, parts = CASES[name]
    options = dict(options)
    if options.pop("reference", False):
        tokens = torch.randn(1, 6, 32, generator=torch.Generator().manual_seed(9))
        options["reference"] = Reference(tokens=tokens, grid=(1, 2, 3), seen=References())
    batch = make_batch(grid=GRID, **options)
    return drawn_for(batch, routes, parts=parts), routes, batch.audio is not None


@pytest.mark.parametrize("name", CASES)
def test_tokens_that_stay_are_computed_as_if_the_others_were_hidden_and_the_others_come_back_as_they_were(name: str) -> None:
    drawn, routes, audio = case(name)
    plain, parameters = reference_nano(audio=audio)
    hide_tokens(plain, routes, drawn.kept)
    expected = reference_step(plain, parameters, replace(drawn, kept=()))
    found = reference_step(*usual(routes, audio=audio), drawn)
    torch.testing.assert_close(found[0], expected[0], rtol=2e-6, atol=0)
    assert difference(found[1], expected[1]) < 1e-4
    unrouted = reference_step(*reference_nano(audio=audio), replace(drawn, kept=()))
    assert abs(float(unrouted[0] - found[0])) > 1e-5 * float(found[0])  # it does make a difference


@pytest.mark.parametrize("name", CASES)
def test_the_engine_routes_as_the_reference_does(name: str) -> None:
    drawn, routes, audio = case(name)
    expected = reference_step(*usual(routes, audio=audio), drawn)
    found = fast_step(*engine(routes, audio=audio), drawn)
    torch.testing.assert_close(found[0], expected[0], rtol=1e-6, atol=0)
    assert difference(found[1], expected[1]) < 1e-5
    assert sum(float(value.norm()) > 0 for value in expected[1].values()) > 0.3 * len(expected[1])


@pytest.mark.parametrize(
    "fast",
    [
        FastSettings(compile=False, kept=5),
        FastSettings(compile=False, kept=2, inputs_to_host=True),
        FastSettings(compile=False, streamed=3, slots=2, kept=1),
    ],
    ids=["all kept", "inputs to host", "streamed"],
)
def test_routing_is_the_same_to_the_last_bit_however_blocks_are_held(fast: FastSettings) -> None:
    drawn, routes, _ = case("two routes")
    expected, found = (fast_step(*engine(routes, each), drawn) for each in (None, fast))
    assert torch.equal(found[0], expected[0])
    assert same(found[1], expected[1])


@pytest.mark.parametrize("path", ["engine", "reference"])
def test_a_ratio_of_0_is_no_route_to_the_last_bit(path: str) -> None:
    routes = tuple(replace(route, ratio=0.0) for route in TWO)
    drawn = drawn_for(make_batch(count=2, grid=GRID), routes, parts=FIRST_FRAME)
    assert [kept.shape[1] for kept in drawn.kept] == [18, 18]
    without = replace(drawn, kept=())
    if path == "engine":
        found, expected = fast_step(*engine(routes), drawn), fast_step(*fast_nano(), without)
    else:
        found, expected = reference_step(*usual(routes), drawn), reference_step(*reference_nano(), without)
    assert torch.equal(found[0], expected[0])
    assert same(found[1], expected[1])


def test_blocks_that_are_computed_again_in_the_backward_are_routed_again() -> None:
    drawn, routes, _ = case("two routes")
    model, parameters = usual(routes)
    expected = reference_step(model, parameters, drawn)
    model.transformer.train()
    model.transformer.enable_gradient_checkpointing()
    found = reference_step(model, parameters, drawn)
    assert torch.equal(found[0], expected[0])
    assert same(found[1], expected[1])


@pytest.mark.parametrize("path", ["engine", "reference"])
def test_only_the_forward_that_tokens_were_drawn_for_is_routed(path: str) -> None:
    drawn, routes, _ = case("first frame given")
    routed: Model = (engine if path == "engine" else usual)(routes)[0]
    plain: Model = (fast_nano if path == "engine" else reference_nano)()[0]

    def held_out(model: Model) -> Tensor:
        with torch.no_grad():
            return losses_at(model, drawn.batch, sigma=0.5, generator=torch.Generator().manual_seed(0), audio_weight=1.0).total

    assert torch.equal(held_out(routed), held_out(plain))
    losses_of(routed, drawn, audio_weight=1.0).total.backward()
    assert torch.equal(held_out(routed), held_out(plain))


def test_a_forward_that_breaks_off_leaves_no_route_behind() -> None:
    drawn, routes, _ = case("joint")
    model, _ = usual(routes)
    hook = model.transformer.transformer_blocks[2].register_forward_pre_hook(lambda *_: (_ for _ in ()).throw(MemoryError))
    with pytest.raises(MemoryError):
        losses_of(model, drawn, audio_weight=1.0)
    hook.remove()
    without = replace(drawn, kept=())
    assert model.router is not None
    assert model.router._under == ()
    assert torch.equal(losses_of(model, without, audio_weight=1.0).total, losses_of(reference_nano()[0], without, audio_weight=1.0).total)


def test_tokens_drawn_for_other_routes_than_the_model_s_are_refused() -> None:
    drawn, routes, _ = case("joint")
    with pytest.raises(ValueError, match="a model with routes"):
        losses_of(reference_nano()[0], drawn, audio_weight=1.0)
    with pytest.raises(ValueError, match="2 routes, got them for 1"):
        losses_of(usual(TWO)[0], drawn, audio_weight=1.0)
    with pytest.raises(ValueError, match="resolved"):
        add_routes(reference_nano()[0].transformer, [replace(routes[0], end=-2)])


@pytest.mark.parametrize("kind", ["2.0", "2.3", "interleaved"])
def test_a_block_of_every_kind_gets_what_belongs_to_the_tokens_that_stay(kind: str) -> None:
    block, inputs = random_block(kind), block_inputs(kind)
    tokens = inputs["hidden_states"].shape[1]
    stay = torch.tensor([[0, 2, 3, 7, 11], [1, 4, 5, 6, 10]])
    inputs["self_attention_mask"] = torch.randn(2, tokens, tokens, generator=torch.Generator().manual_seed(6))
    inputs["a2v_cross_attention_mask"] = torch.randn(2, tokens, 5, generator=torch.Generator().manual_seed(7))
    inputs["v2a_cross_attention_mask"] = torch.randn(2, 5, tokens, generator=torch.Generator().manual_seed(8))
    hidden = torch.ones(2, tokens, dtype=torch.bool).scatter(1, stay, False)
    bias = torch.zeros(2, 1, tokens).masked_fill(hidden[:, None], float("-inf"))
    masks = {name: inputs[name] + bias for name in ("self_attention_mask", "v2a_cross_attention_mask")}
    expected_video, expected_audio = block(**inputs | masks)
    router = Router([Route(ratio=0.6, start=0, end=1)])
    router.keep([stay])
    router.begin(called_again=False)
    context = dict(inputs)
    video, context = router.enter(0, context.pop("hidden_states"), context)
    found_video, found_audio = block(hidden_states=video, **context)
    torch.testing.assert_close(found_video, take(expected_video, stay), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(found_audio, expected_audio, rtol=1e-5, atol=1e-5)


def test_putting_back_gives_skipped_tokens_their_own_values_and_gradients_both_ways() -> None:
    whole = torch.randn(2, 6, 3, generator=torch.Generator().manual_seed(0)).requires_grad_()
    stay = torch.tensor([[0, 2, 5], [1, 2, 3]])
    rows = take(whole, stay)
    assert torch.equal(rows[1, 0], whole[1, 1])
    found = put_back(whole, stay, 3 * rows)
    skipped = torch.ones(2, 6, dtype=torch.bool).scatter(1, stay, False)
    assert torch.equal(found[skipped], whole[skipped])
    assert torch.equal(found[~skipped], 3 * whole[~skipped])
    (gradient,) = torch.autograd.grad(found.sum(), whole)
    assert torch.equal(gradient[skipped], torch.ones(6, 3))
    assert torch.equal(gradient[~skipped], torch.full((6, 3), 3.0))


def test_every_target_inside_and_outside_the_route_has_a_gradient() -> None:
    drawn, routes, _ = case("joint")
    _, gradients = fast_step(*engine(routes), drawn)
    for block in range(5):
        for name in ("attn1.to_q", "audio_attn1.to_q", "video_to_audio_attn.to_k"):
            found = [value for key, value in gradients.items() if f"blocks.{block}.{name}.lora_B" in key]
            assert len(found) == 1
            assert float(found[0].norm()) > 0, (block, name)


@settings(deadline=None, max_examples=100)
@given(tokens=st.integers(1, 60), ratio=st.floats(0, 0.99), share=st.floats(0, 1), seed=st.integers(0, 99))
def test_given_tokens_stay_and_leave_half_of_the_places(tokens: int, ratio: float, share: float, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    learned = torch.rand(3, tokens, generator=generator) >= share
    kept = keep_tokens(torch.rand(3, tokens, generator=generator), learned=learned, ratio=ratio)
    places = kept_count(tokens, ratio)
    assert kept.shape == (3, places)
    assert places >= 1
    assert bool((kept.diff(dim=1) > 0).all())  # each once, in the order of the clip
    for row, of_sample in zip(kept, learned, strict=True):
        given_tokens, to_learn = int((~of_sample).sum()), int(of_sample.sum())
        stay = int((~of_sample[row]).sum())
        assert stay == min(given_tokens, max(places // 2, places - to_learn))


def test_which_tokens_stay_is_by_chance_alike_for_all_and_of_its_own_for_each_sample() -> None:
    learned = torch.ones(2, 40, dtype=torch.bool)
    counts = torch.zeros(2, 40)
    for seed in range(400):
        (kept,) = draw_kept(
            [Route(ratio=0.25, start=0, end=1)], learned=learned, references=0, generator=torch.Generator().manual_seed(seed)
        )
        counts.scatter_add_(1, kept, torch.ones(kept.shape))
        assert not torch.equal(kept[0], kept[1])
    assert float((counts / 400 - 0.75).abs().max()) < 0.1  # 4.6 standard deviations


def test_the_draw_follows_from_the_generator_and_leaves_the_noise_as_it_was() -> None:
    batch = make_batch(count=2, grid=GRID)
    with_, again, without = drawn_for(batch, TWO), drawn_for(batch, TWO), drawn_for(batch, ())
    assert [kept.tolist() for kept in with_.kept] == [kept.tolist() for kept in again.kept]
    assert [kept.tolist() for kept in with_.kept] != [kept.tolist() for kept in drawn_for(batch, TWO, seed=5).kept]
    assert with_.video is not None
    assert with_.audio is not None
    assert without.video is not None
    assert without.audio is not None
    assert torch.equal(with_.video.noisy, without.video.noisy)
    assert torch.equal(with_.audio.noisy, without.audio.noisy)
    assert without.kept == ()


def test_what_a_captured_step_reads_holds_the_routes_and_shapes_tell_graphs_apart() -> None:
    batch = make_batch(count=2, grid=GRID)
    drawn = drawn_for(batch, TWO, parts=FIRST_FRAME)
    static = [tensor.clone() for tensor in _tensors(drawn)]
    copied = _with_tensors(drawn, static)
    assert all(one is other for one, other in zip(_tensors(copied), static, strict=True))
    torch._foreach_copy_(static, _tensors(drawn_for(batch, TWO, parts=FIRST_FRAME, seed=5)))
    assert torch.equal(copied.kept[1], drawn_for(batch, TWO, parts=FIRST_FRAME, seed=5).kept[1])
    assert _key(drawn) == _key(drawn_for(batch, TWO, parts=FIRST_FRAME, seed=5))
    assert _key(drawn) != _key(drawn_for(batch, ONE, parts=FIRST_FRAME))
    assert _key(drawn_for(batch, ())) != _key(drawn_for(batch, ONE))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("compiled", [False, True], ids=["eager blocks", "compiled blocks"])
def test_a_captured_step_reads_the_tokens_that_were_drawn_for_it_and_never_waits(compiled: bool) -> None:
    device = torch.device("cuda")
    model, fast = fast_nano(FastSettings(compile=compiled, kept=2), device=device)
    model = replace(model, router=add_routes(model.transformer, TWO))

    def compute(drawn: Drawn) -> Tensor:
        losses = losses_of(model, drawn, audio_weight=0.7)
        losses.total.backward()
        return losses.total.detach()[None]

    runner = StepRunner(compute, capture=True, before=fast.blocks.settle, join=fast.blocks.join, holds=fast.graph_memory)
    batch = make_batch(count=2, grid=GRID, device=device)
    for seed in range(6):  # twice as it is, then from the graph
        torch.cuda.set_sync_debug_mode("error" if seed > 2 else "default")
        try:
            value = runner.run(drawn_for(batch, TWO, parts=FIRST_FRAME, seed=seed))
        finally:
            torch.cuda.set_sync_debug_mode("default")
        expected = fast_step(*engine(TWO), drawn_for(make_batch(count=2, grid=GRID), TWO, parts=FIRST_FRAME, seed=seed))
        torch.testing.assert_close(value[0].cpu(), expected[0], rtol=1e-4, atol=0)
        gradients = {name: gradient.cpu() for name, gradient in gradients_of(fast).items()}
        assert difference(gradients, expected[1]) < 1e-3
    assert runner.captured == 1


def test_routes_need_more_shapes_than_the_compiler_takes_by_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its limit is 8; here 1, which a routed batch breaks, so that little is compiled."""
    compiler = torch.compile
    monkeypatch.setattr(torch, "compile", lambda block, **options: compiler(block, **(options | {"backend": "eager"})))
    monkeypatch.setattr(torch._dynamo.config, "recompile_limit", 1)
    torch._dynamo.reset()
    model, fast = fast_nano(FastSettings(compile=True, kept=5))
    model = replace(model, router=add_routes(model.transformer, ONE))
    drawn = drawn_for(make_batch(grid=GRID), ONE)
    torch.testing.assert_close(fast_step(model, fast, drawn)[0], fast_step(*engine(ONE), drawn)[0])
    torch._dynamo.reset()


@pytest.mark.parametrize(
    ("routes", "num_blocks", "spans"),
    [
        ([(2, -2)], 48, [(2, 46)]),
        ([(-3, -1), (0, 1)], 5, [(0, 1), (2, 4)]),
    ],
)
def test_indices_below_0_count_from_the_end(routes: list[tuple[int, int]], num_blocks: int, spans: list[tuple[int, int]]) -> None:
    found = resolve([Route(ratio=0.5, start=start, end=end) for start, end in routes], num_blocks)
    assert [(route.start, route.end) for route in found] == spans


@pytest.mark.parametrize(
    ("routes", "said"),
    [
        ([(2, 48)], r"routes\[0\]\.end_layer_idx = 48: this model's blocks are 0 to 47, or -48 to -1 from the end"),
        ([(-49, 3)], r"routes\[0\]\.start_layer_idx = -49"),
        ([(0, 1), (-1, 47)], r"routes\[1\] goes from block 47 to block 47: it starts before it ends"),
        ([(0, 10), (-38, -1)], "blocks 0 to 10 and 10 to 47 overlap; start the second route at block 11 or later"),
    ],
)
def test_routes_that_do_not_fit_the_model_are_told(routes: list[tuple[int, int]], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        resolve([Route(ratio=0.5, start=start, end=end) for start, end in routes], 48)
