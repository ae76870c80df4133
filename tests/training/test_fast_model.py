"""The engine on nano in float32: against PEFT (1e-5), and every way of holding weights and activations against the others, bit for bit."""

from __future__ import annotations

import gc
import weakref
from dataclasses import replace
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import pytest
import torch
from step_engine import (
    CPU,
    F32,
    FEED_FORWARD,
    PROJECTIONS,
    SETTINGS,
    difference,
    draw_batch,
    fast_nano,
    fast_step,
    gradients_of,
    make_batch,
    nano,
    reference_nano,
    reference_step,
    same,
)
from torch._subclasses.fake_tensor import FakeTensor
from torch._subclasses.functional_tensor import FunctionalTensor

from ltx2core.caching.passes import References
from ltx2core.errors import CheckpointError
from ltx2core.models import lora_linear
from ltx2core.models.block_parts import BlockInParts, Computed
from ltx2core.models.quantised import snr_db
from ltx2core.offload.layout import state_of
from ltx2core.training.adapter import AdapterSettings
from ltx2core.training.conditions import GivenPart
from ltx2core.training.fast_model import FastModel, FastSettings, fill, load_fast
from ltx2core.training.flat_optimizer import FlatOptimizer
from ltx2core.training.optimizer import AdamSettings, AdapterOptimizer
from ltx2core.training.reference import Reference
from ltx2core.training.step import Drawn, losses_of

if TYPE_CHECKING:
    from torch import Tensor

    from ltx2core.models.quantised import EightBit, Storage
    from ltx2core.offload.masters import Waiting

EAGER = FastSettings(compile=False)
ROUNDED: tuple[Storage, ...] = ("int8", "fp8", "nf4")
TARGETS = ("attn1.to_q", "audio_attn2.to_k", "audio_to_video_attn.to_out.0", "ff.net.2", "audio_ff.net.0.proj")
POLICIES = {
    "all kept": replace(EAGER, kept=5),
    "some kept": replace(EAGER, kept=2),
    "inputs to host": replace(EAGER, inputs_to_host=True),
    "two streamed, one slot": replace(EAGER, streamed=2, slots=1),
    "three streamed, two slots, the rest kept": replace(EAGER, streamed=3, slots=2, kept=5),
    "all streamed, one slot": replace(EAGER, streamed=5, slots=1),
    "all streamed, two slots": replace(EAGER, streamed=5, slots=2),
    "all streamed, three slots, inputs to host": replace(EAGER, streamed=5, slots=3, inputs_to_host=True),
    "all streamed, a slot for each": replace(EAGER, streamed=5, slots=5),
    "three streamed through staging buffers": replace(EAGER, streamed=3, slots=2, waiting="memory"),
    "all streamed through staging buffers, one slot": replace(EAGER, streamed=5, slots=1, kept=5, waiting="memory"),
}


def compare(drawn: Drawn, settings: AdapterSettings = SETTINGS, *, video: bool = True, audio: bool = True, tolerance: float = 1e-5) -> None:
    """The loss and every gradient of the adapter, in the engine and with PEFT."""
    expected = reference_step(*reference_nano(settings, video=video, audio=audio), drawn)
    found = fast_step(*fast_nano(settings=settings, video=video, audio=audio), drawn)
    torch.testing.assert_close(found[0], expected[0], rtol=tolerance, atol=0)
    assert difference(found[1], expected[1]) < tolerance
    assert sum(float(value.norm()) > 0 for value in expected[1].values()) > 0.25 * len(expected[1])


@pytest.mark.parametrize(
    ("settings", "audio"),
    [
        (SETTINGS, True),
        (SETTINGS, False),
        (AdapterSettings(rank=4, alpha=1.0), True),
        (AdapterSettings(rank=3, alpha=3.0, targets=TARGETS), True),
        (AdapterSettings(rank=3, alpha=3.0, targets=TARGETS), False),
    ],
    ids=["joint", "video only", "alpha below rank", "some layers", "some layers of video only"],
)
def test_loss_and_gradients_are_those_of_peft(settings: AdapterSettings, audio: bool) -> None:
    compare(draw_batch(make_batch(audio=9 if audio else None)), settings, audio=audio)


@pytest.mark.parametrize("settings", [SETTINGS, AdapterSettings(rank=3, alpha=3.0, targets=("audio_attn1.to_q", "audio_ff.net.2"))])
def test_sound_alone_is_trained_as_with_peft(settings: AdapterSettings) -> None:
    """Without any module of pictures, a given beginning included."""
    batch = make_batch(count=2, video=False)
    compare(draw_batch(batch), settings, video=False)
    compare(draw_batch(batch, parts=[OF_SOUND]), settings, video=False)


def test_sound_alone_streams_with_the_bits_of_resident_blocks() -> None:
    drawn = draw_batch(make_batch(video=False))
    expected = fast_step(*fast_nano(video=False), drawn)
    model, fast = fast_nano(replace(EAGER, streamed=4, slots=2), video=False)
    assert fast.layout.matrix_bytes < 0.4 * fast_nano()[1].layout.matrix_bytes
    for _ in range(2):
        loss, gradients = fast_step(model, fast, drawn)
        assert torch.equal(loss, expected[0])
        assert same(gradients, expected[1])


def test_samples_of_a_batch_have_their_own_noise_levels() -> None:
    drawn = draw_batch(make_batch(count=2))
    assert drawn.video.sigma[0] != drawn.video.sigma[1]
    compare(drawn)


@pytest.mark.parametrize("missing", ["audio", "video"])
def test_a_batch_of_one_modality_in_a_joint_run_teaches_the_other_nothing(missing: str) -> None:
    drawn = draw_batch(make_batch(audio=None) if missing == "audio" else make_batch(video=False))
    compare(drawn)
    model, fast = fast_nano()
    fast_step(model, fast, draw_batch(make_batch()))
    assert all(float(segment.gradient.norm()) > 0 for segment in fast.adapter.segments)
    fast_step(model, fast, drawn)
    taught = {segment.modality for segment in fast.adapter.segments if float(segment.gradient.norm()) > 0}
    assert taught == {"video", "audio"} - {missing}


FIRST_FRAME = GivenPart(kind="first_frame", probability=1.0)
OFTEN = GivenPart(kind="prefix", probability=0.5, length=1)
OF_SOUND = GivenPart(kind="prefix", probability=1.0, length=3, modality="audio")


@pytest.mark.parametrize("tokens", [(2, 2, 3), (3, 3, 3)], ids=["even", "odd"])
@pytest.mark.parametrize("sound", [9, 8, None])
def test_a_given_first_frame_is_as_with_a_modulation_for_each_token(tokens: tuple[int, int, int], sound: int | None) -> None:
    drawn = draw_batch(make_batch(count=2, grid=tokens, audio=sound), parts=[FIRST_FRAME])
    assert drawn.video.timesteps.shape == (2, tokens[0] * tokens[1] * tokens[2])
    compare(drawn)


def test_a_given_first_frame_in_a_run_without_sound_is_too() -> None:
    compare(draw_batch(make_batch(count=2, audio=None), parts=[FIRST_FRAME]), audio=False)


def test_given_sound_and_samples_of_which_one_has_a_given_part_are_too() -> None:
    drawn = draw_batch(make_batch(count=4), parts=[OFTEN, OF_SOUND])
    given = (drawn.video.timesteps == 0).any(dim=1)
    assert given.any()
    assert not given.all()
    compare(drawn)


def test_reference_tokens_are_as_in_the_reference_path() -> None:
    tokens = torch.randn(2, 8, 32, generator=torch.Generator().manual_seed(8))
    reference = Reference(tokens=tokens, grid=(2, 2, 2), seen=References(smaller=2, slower=1))
    compare(draw_batch(make_batch(count=2, reference=reference)))


@pytest.fixture(scope="module")
def drawn() -> Drawn:
    return draw_batch(make_batch(count=2), parts=[OFTEN])


@pytest.fixture(scope="module")
def resident(drawn: Drawn) -> tuple[Tensor, dict[str, Tensor]]:
    return fast_step(*fast_nano(), drawn)


@pytest.mark.parametrize("settings", POLICIES.values(), ids=POLICIES)
def test_every_way_of_holding_the_model_gives_the_same_bits(
    settings: FastSettings, drawn: Drawn, resident: tuple[Tensor, dict[str, Tensor]]
) -> None:
    model, fast = fast_nano(settings)
    for _ in range(2):  # the second begins with what the first left behind
        loss, gradients = fast_step(model, fast, drawn)
        assert torch.equal(loss, resident[0])
        assert same(gradients, resident[1])


def test_kept_blocks_are_computed_once_and_the_others_twice(drawn: Drawn) -> None:
    model, fast = fast_nano(replace(EAGER, streamed=2, slots=1, kept=2))
    fast_step(model, fast, drawn)
    assert fast.blocks.runs == 2 * 1 + 3 * 2


@pytest.mark.parametrize(("streamed", "slots"), [(2, 1), (2, 2), (3, 2), (5, 1), (5, 2), (5, 3), (5, 9)])
def test_a_step_loads_each_streamed_block_twice_but_for_those_that_a_slot_still_holds(streamed: int, slots: int, drawn: Drawn) -> None:
    model, fast = fast_nano(replace(EAGER, streamed=streamed, slots=slots))
    ring = fast.blocks.ring
    assert ring is not None
    expected = 2 * (streamed - min(slots, streamed))
    assert ring.loads_per_step() == expected
    for _ in range(3):
        before = ring.loads
        fast_step(model, fast, drawn)
        assert ring.loads - before == expected


def test_forwards_without_gradients_in_between_change_nothing_for_the_next_step(
    drawn: Drawn, resident: tuple[Tensor, dict[str, Tensor]]
) -> None:
    model, fast = fast_nano(replace(EAGER, streamed=4, slots=2))
    ring = fast.blocks.ring
    assert ring is not None
    for context in (torch.no_grad, torch.inference_mode):
        fast_step(model, fast, drawn)
        with context():
            before = ring.loads
            losses = [losses_of(model, drawn, audio_weight=0.7).total for _ in range(2)]
            assert ring.loads - before == 2 * 4, "a sweep forwards loads each block once, and ends where the next one begins"
        assert torch.equal(losses[0], resident[0])
        assert torch.equal(losses[1], resident[0])
        before = ring.loads
        loss, gradients = fast_step(model, fast, drawn)
        assert ring.loads - before == ring.loads_per_step()
        assert torch.equal(loss, resident[0])
        assert same(gradients, resident[1])


def test_a_model_that_is_first_used_for_sampling_trains_afterwards(drawn: Drawn, resident: tuple[Tensor, dict[str, Tensor]]) -> None:
    model, fast = fast_nano(replace(EAGER, streamed=3, slots=1, kept=1))
    with torch.inference_mode():
        losses_of(model, drawn, audio_weight=0.7)
    assert same(fast_step(model, fast, drawn)[1], resident[1])


@pytest.mark.parametrize("waiting", ["locked", "memory"])
@pytest.mark.parametrize("slots", [1, 2])
def test_a_model_that_was_put_away_holds_on_to_none_of_the_memory_it_had(
    slots: int, waiting: Waiting, drawn: Drawn, resident: tuple[Tensor, dict[str, Tensor]]
) -> None:
    model, fast = fast_nano(replace(EAGER, streamed=2, slots=slots, kept=1, waiting=waiting))
    fast_step(model, fast, drawn)
    ring = fast.blocks.ring
    assert ring is not None
    assert fast.resident_bytes == 3 * fast.layout.matrix_bytes
    before = [weakref.ref(ring.slot_of(index).untyped_storage()) for index in range(slots)]
    with fast.put_away():
        assert ring.slot_bytes == 0
        assert not any(slot() for slot in before), "something still holds the slots' memory"
        for index, weights in enumerate(fast.blocks.weights):
            if not fast.blocks.streamed(index):
                lent, weights.matrices = weights.matrices, weights.matrices.clone()
                lent.zero_()  # someone else uses it
    assert same(fast_step(model, fast, drawn)[1], resident[1])


class BrokenOffError(Exception):
    """What a test throws in the middle of a sweep."""


@pytest.mark.parametrize("where", [2, 5, 6, 7, 9])
@pytest.mark.parametrize(
    "settings", [replace(EAGER, streamed=4, slots=2, inputs_to_host=True), replace(EAGER, streamed=5, slots=1, kept=3)]
)
def test_a_step_that_is_broken_off_leaves_the_next_one_as_it_should_be(
    where: int, settings: FastSettings, drawn: Drawn, resident: tuple[Tensor, dict[str, Tensor]], monkeypatch: pytest.MonkeyPatch
) -> None:
    model, fast = fast_nano(settings)
    fast_step(model, fast, draw_batch(make_batch(count=2, seed=77)))  # leaves other values in every buffer
    fast.blocks.runs = 0
    inner = BlockInParts.__call__

    def call(*arguments: Any, **others: Any) -> Computed:
        if fast.blocks.runs == where:
            raise BrokenOffError
        return inner(*arguments, **others)

    monkeypatch.setattr(BlockInParts, "__call__", call)
    with pytest.raises(BrokenOffError):
        fast_step(model, fast, draw_batch(make_batch(count=2, seed=78)))
    monkeypatch.undo()
    for _ in range(2):
        loss, gradients = fast_step(model, fast, drawn)
        assert torch.equal(loss, resident[0])
        assert same(gradients, resident[1])


def test_gradients_of_several_batches_add_up_to_those_of_one(drawn: Drawn) -> None:
    """Two batches of one sample, each with half the loss, and the same two samples at once (float32, 1e-5)."""
    model, fast = fast_nano()
    whole = fast_step(model, fast, drawn)[1]
    fast.adapter.forget_gradients()
    for number in range(2):
        fast.adapter.accumulate = number > 0
        (losses_of(model, sample_of(drawn, number), audio_weight=0.7).total / 2).backward()
    assert difference(gradients_of(fast), whole) < 1e-5


def test_adding_up_batches_takes_no_second_copy_of_the_gradients(drawn: Drawn) -> None:
    """Whatever is held after one batch of an update is all that is held after three."""
    model, fast = fast_nano()
    held = []
    for number in range(3):
        fast.adapter.accumulate = number > 0
        losses_of(model, drawn, audio_weight=0.7).total.backward()
        assert all(leaf.grad is None for index in range(5) for leaf in fast.adapter.leaves(index).values())
        gc.collect()
        tensors = [each for each in gc.get_objects() if isinstance(each, torch.Tensor) and _has_memory(each)]
        held.append(
            sum({each.untyped_storage().data_ptr(): each.untyped_storage().nbytes() for each in tensors if not each.is_meta}.values())
        )
    gradients = sum(segment.gradient.nbytes for segment in fast.adapter.segments)
    assert max(held) - held[0] < 0.01 * gradients  # a few constants that a first backward leaves


def _has_memory(tensor: torch.Tensor) -> bool:
    """Not a stand-in that the compiler has left behind in a test before."""
    stands_in = isinstance(tensor, FakeTensor | FunctionalTensor) or torch._is_functional_tensor(tensor)
    return not stands_in and tensor.layout == torch.strided


def sample_of(drawn: Drawn, number: int) -> Drawn:
    from ltx2core.models.text import TextEmbedding
    from ltx2core.training.objective import Noised

    def part(noised: Noised) -> Noised:
        return Noised(**{name: getattr(noised, name)[number : number + 1] for name in Noised.__slots__})

    assert drawn.audio is not None
    text = TextEmbedding(drawn.batch.text.video[number : number + 1], drawn.batch.text.audio[number : number + 1])
    return Drawn(
        batch=replace(drawn.batch, text=text, fps=drawn.batch.fps[number : number + 1]), video=part(drawn.video), audio=part(drawn.audio)
    )


def test_a_model_made_of_rounded_weights_answers_almost_the_same(drawn: Drawn) -> None:
    for storage, tolerance in (("int8", 0.02), ("fp8", 0.06), ("nf4", 0.2)):
        model, _ = fast_nano(replace(EAGER, storage=storage, streamed=3))  # type: ignore[arg-type]
        exact = fast_nano()[0]
        with torch.no_grad():
            found, expected = (losses_of(each, drawn, audio_weight=0.7).total for each in (model, exact))
        assert abs(float(found / expected) - 1) < tolerance
        assert not torch.equal(found, expected)


@pytest.mark.parametrize("storage", ROUNDED)
def test_widened_weights_are_as_those_weights_in_bf16_through_all_blocks_and_every_kind_of_layer(storage: Storage, drawn: Drawn) -> None:
    """The loss and the gradients of every A and B of five blocks to the last bit, on attentions and feed-forwards of both streams."""
    bf16, everywhere = torch.bfloat16, EVERYWHERE
    drawn = in_bf16(drawn)
    model, rounded = fast_nano(replace(EAGER, storage=storage, streamed=2), everywhere, dtype=bf16)
    other, exact = fast_nano(EAGER, everywhere, dtype=bf16)
    for index, weights in enumerate(rounded.blocks.weights):
        for name, tensor in state_of(rounded.layout, weights).items():
            exact.blocks.weights[index].put(name, tensor)
    found, expected = fast_step(model, rounded, drawn), fast_step(other, exact, drawn)
    assert torch.equal(found[0], expected[0])
    assert same(found[1], expected[1])
    kinds = {name.split(".", 2)[2] for name in found[1]}
    assert len(kinds) == 2 * 28
    assert all(float(value.norm()) > 0 for value in found[1].values())


EVERYWHERE = AdapterSettings(rank=4, alpha=8.0, targets=(*PROJECTIONS, *FEED_FORWARD))


def gradients_of_products(precision: EightBit) -> dict[str, Tensor]:
    """Of every A and B of five blocks on int8 weights. 48 tokens of pictures, 24 of sound, 16 of text, two samples."""
    model, fast = fast_nano(replace(EAGER, storage="int8", precision=precision), EVERYWHERE)
    return fast_step(model, fast, draw_batch(make_batch(count=2, grid=(3, 4, 4), audio=24)))[1]


def test_products_in_8_bits_give_every_kind_of_layer_of_stacked_blocks_its_gradient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Against the same weights widened: above 20 dB for each A and B, the first of five blocks too. A linear that lets no gradient through
    to what is below it, as a published one does, is found by that."""
    exact, found = gradients_of_products("dequant"), gradients_of_products("w8a8")
    assert len({name.split(".", 2)[2] for name in exact}) == 2 * 28
    assert not same(found, exact)
    assert min(snr_db(value, found[name]) for name, value in exact.items()) > 20
    real = lora_linear.matmul_input_gradient

    def broken(grad: Tensor, *given: Any, precision: str) -> Tensor:
        answer = real(grad, *given, precision=precision)
        return answer if precision == "dequant" else torch.zeros_like(answer)

    monkeypatch.setattr(lora_linear, "matmul_input_gradient", broken)
    lost = gradients_of_products("w8a8")
    assert min(snr_db(value, lost[name]) for name, value in exact.items()) < 5


def in_bf16(drawn: Drawn) -> Drawn:
    from ltx2core.models.text import TextEmbedding

    text = drawn.batch.text
    return replace(drawn, batch=replace(drawn.batch, text=TextEmbedding(text.video.bfloat16(), text.audio.bfloat16())))


@pytest.mark.parametrize("storage", ROUNDED)
def test_rounded_weights_that_travel_give_the_same_bits_as_those_that_stay(storage: Storage, drawn: Drawn) -> None:
    steps = [fast_step(*fast_nano(replace(EAGER, storage=storage, streamed=streamed, slots=2)), drawn) for streamed in (0, 4)]
    assert torch.equal(steps[0][0], steps[1][0])
    assert same(steps[0][1], steps[1][1])


def test_training_ends_at_the_held_out_loss_of_the_reference_path() -> None:
    """Twenty steps in float32 from one seed, some without sound, some with a given frame: to 1e-4.

    tests/benchmarks/fast_against_reference.py does 200 steps of five seeds, in bf16 and 8 bits too.
    """
    model, parameters = reference_nano()
    usual = AdapterOptimizer(parameters, AdamSettings())
    fast_model, fast = fast_nano(replace(EAGER, streamed=3, slots=1, kept=1))
    flat = FlatOptimizer(fast.adapter, AdamSettings())
    held_out = draw_batch(make_batch(count=4, seed=1000), seed=1000)
    with torch.no_grad():
        before = float(losses_of(model, held_out, audio_weight=0.7).total)
    for step in range(20):
        sound = step % 3 > 0
        drawn = draw_batch(make_batch(seed=step % 4, audio=9 if sound else None), seed=step, parts=[OFTEN])
        flat.reached = frozenset({"video", "audio", "both"} if sound else {"video"})
        for optimizer, each in ((usual, model), (flat, fast_model)):
            losses_of(each, drawn, audio_weight=0.7).total.backward()
            optimizer.step(1e-3, finite=torch.isfinite(optimizer.clip(1.0)))
    with torch.no_grad():
        expected, found = (float(losses_of(each, held_out, audio_weight=0.7).total) for each in (model, fast_model))
    assert expected < before - 0.2
    assert found == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("count", [1, 5, 48])
def test_streamed_blocks_lie_evenly_between_those_that_stay(count: int) -> None:
    for streamed in range(count + 2):
        found = FastSettings(streamed=streamed).streamed_blocks(count)
        assert len(set(found)) == min(streamed, count)
        assert all(0 <= index < count for index in found)
        gaps = [after - before for before, after in pairwise(found)]
        assert not gaps or max(gaps) - min(gaps) <= 1


@pytest.mark.parametrize("kept", [0, 1, 3, 24, 30, 48])
@pytest.mark.parametrize("streamed", [0, 20, 24, 48])
def test_as_many_resident_blocks_keep_all_as_the_settings_say_and_no_streamed_one(streamed: int, kept: int) -> None:
    settings = FastSettings(streamed=streamed, kept=kept)
    policy = settings.policy(48)
    assert policy.count("all") == min(kept, 48 - streamed)
    assert not any(policy[index] == "all" for index in settings.streamed_blocks(48))


def test_a_target_in_some_blocks_only_is_refused() -> None:
    one = AdapterSettings(rank=4, targets=("transformer_blocks.1.attn1.to_q",))
    with pytest.raises(ValueError, match=r"transformer_blocks\.0\.attn1\.to_q is no target, unlike that of other blocks"):
        fast_nano_of(one)


def test_what_the_engine_has_not_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match="proj_out lies outside the blocks"):
        fast_nano_of(AdapterSettings(rank=4, targets=("attn1.to_q", "proj_out")))
    with pytest.raises(ValueError, match="dropout"):
        fast_nano_of(AdapterSettings(rank=4, dropout=0.1))


def fast_nano_of(settings: AdapterSettings) -> FastModel:
    return load_fast(nano(), settings=EAGER, adapter=settings, audio=True, seed=0, dtype=F32, device=CPU)


def test_a_tensor_that_is_missing_or_of_another_shape_is_named() -> None:
    model = fast_nano()[1]
    name = "transformer_blocks.2.attn1.to_q.weight"
    tensors = [(name, torch.zeros(3, 3))]
    with pytest.raises(CheckpointError, match=r"block 2: attn1\.to_q\.weight is \[3, 3\], not \[160, 160\]"):
        fill(model, tensors)
    with pytest.raises(CheckpointError, match=r"tensors of blocks are missing, like transformer_blocks\.0"):
        fill(model, [(name, torch.zeros(160, 160))])
