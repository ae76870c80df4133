"""What the step engine's tests share: small random blocks of every version, nano with PEFT and nano in the engine, and one step of each."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import torch
from diffusers.models.transformers.transformer_ltx2 import LTX2VideoTransformerBlock
from torch import Tensor, nn

from ltx2core.models.checkpoint import Checkpoint, open_checkpoint
from ltx2core.models.components import load_transformer
from ltx2core.models.fused_block import Skeleton, build_skeleton
from ltx2core.models.nano import nano_checkpoint
from ltx2core.models.text import TextEmbedding
from ltx2core.offload.layout import BlockWeights, make_layout
from ltx2core.runs.events import EngineChosen
from ltx2core.training.adapter import AdapterSettings, add_adapter, load_adapter
from ltx2core.training.data import Batch
from ltx2core.training.fast_model import FastModel, FastSettings, load_fast
from ltx2core.training.sigma import ShiftedLogitNormal
from ltx2core.training.step import Drawn, Model, draw, losses_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ltx2core.models.quantised import EightBit, Storage
    from ltx2core.training.conditions import GivenPart
    from ltx2core.training.reference import Reference

CPU, F32 = torch.device("cpu"), torch.float32
ATTENTIONS = ("attn1", "attn2", "audio_attn1", "audio_attn2", "audio_to_video_attn", "video_to_audio_attn")
PROJECTIONS = ("to_q", "to_k", "to_v", "to_out.0")
ALL_ATTENTIONS = tuple(f"{attention}.{projection}" for attention in ATTENTIONS for projection in PROJECTIONS)
FEED_FORWARD = ("ff.net.0.proj", "ff.net.2", "audio_ff.net.0.proj", "audio_ff.net.2")

WIDTH, HEADS, AUDIO_WIDTH = 64, 4, 32
_FROM_2_3: dict[str, Any] = {
    **dict.fromkeys(("video_gated_attn", "audio_gated_attn", "video_cross_attn_adaln", "audio_cross_attn_adaln", "perturbed_attn"), True),
    **dict.fromkeys(("ff_bias", "audio_ff_bias"), False),
}
KINDS: dict[str, dict[str, Any]] = {"2.0": {}, "2.3": _FROM_2_3, "interleaved": {"rope_type": "interleaved"}}


def random_block(kind: str = "2.0", *, seed: int = 0, width: int = WIDTH, audio_width: int = AUDIO_WIDTH) -> LTX2VideoTransformerBlock:
    """A small block of diffusers with random weights; none of its norms, tables and gates is what a fresh one has."""
    block = LTX2VideoTransformerBlock(
        dim=width,
        num_attention_heads=HEADS,
        attention_head_dim=width // HEADS,
        cross_attention_dim=width,
        audio_dim=audio_width,
        audio_num_attention_heads=HEADS,
        audio_attention_head_dim=audio_width // HEADS,
        audio_cross_attention_dim=audio_width,
        qk_norm="rms_norm_across_heads",
        **{"rope_type": "split", **KINDS[kind]},
    )
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in block.named_parameters():
        value = torch.randn(parameter.shape, generator=generator)
        parameter.data = 1 + 0.1 * value if "norm" in name else value * (parameter.shape[-1] ** -0.5 if parameter.ndim == 2 else 0.1)
    return block.eval().requires_grad_(False)


def block_inputs(kind: str = "2.0", *, tokens: int = 12, audio_tokens: int = 5, batch: int = 2, seed: int = 1) -> dict[str, Any]:
    """Everything that a block is called with, modulation for each token."""
    generator = torch.Generator().manual_seed(seed)

    def random(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator)

    def table(length: int, width: int) -> tuple[Tensor, Tensor]:
        shape = (batch, length, width) if kind == "interleaved" else (batch, HEADS, length, width // HEADS // 2)
        angle = random(*shape)
        return angle.cos(), angle.sin()

    numbers = 9 if kind == "2.3" else 6
    found: dict[str, Any] = {
        "hidden_states": random(batch, tokens, WIDTH),
        "audio_hidden_states": random(batch, audio_tokens, AUDIO_WIDTH),
        "encoder_hidden_states": random(batch, 7, WIDTH),
        "audio_encoder_hidden_states": random(batch, 7, AUDIO_WIDTH),
        "temb": random(batch, tokens, numbers * WIDTH),
        "temb_audio": random(batch, audio_tokens, numbers * AUDIO_WIDTH),
        "temb_ca_scale_shift": random(batch, tokens, 4 * WIDTH),
        "temb_ca_audio_scale_shift": random(batch, audio_tokens, 4 * AUDIO_WIDTH),
        "temb_ca_gate": random(batch, 1, WIDTH),
        "temb_ca_audio_gate": random(batch, 1, AUDIO_WIDTH),
        "video_rotary_emb": table(tokens, WIDTH),
        "audio_rotary_emb": table(audio_tokens, AUDIO_WIDTH),
        "ca_video_rotary_emb": table(tokens, AUDIO_WIDTH),
        "ca_audio_rotary_emb": table(audio_tokens, AUDIO_WIDTH),
    }
    if kind == "2.3":
        found |= {"temb_prompt": random(batch, 1, 2 * WIDTH), "temb_prompt_audio": random(batch, 1, 2 * AUDIO_WIDTH)}
    return found


@dataclass(frozen=True)
class Fused:
    """A skeleton that points at a block's weights and a LoRA: `lora` by diffusers' names, A [r, K] and B [N, r]."""

    skeleton: Skeleton
    weights: BlockWeights
    leaves: dict[str, Tensor]
    lora: dict[str, tuple[Tensor, Tensor]]
    scale: float

    def gradients(self) -> dict[str, tuple[Tensor, Tensor]]:
        """Of the LoRA, by diffusers' names, after a backward."""
        found = {}
        for group in self.skeleton.groups:
            for index, member in enumerate(group.members) if group.lora else ():
                a, b = self.leaves[f"{group.name}.lora_a"].grad, self.leaves[f"{group.name}.lora_b"].grad
                assert a is not None
                assert b is not None
                found[member] = a.view(len(group.members), -1, group.columns)[index], b[index]
        return found


def fuse(
    block: nn.Module,
    *,
    targets: Sequence[str],
    rank: int = 4,
    scale: float = 0.5,
    storage: Storage = "bf16",
    precision: EightBit = "dequant",
    dtype: torch.dtype = F32,
    device: torch.device = CPU,
    seed: int = 2,
) -> Fused:
    """The block's skeleton with the block's weights, and a random LoRA on `targets`."""
    skeleton = build_skeleton(block, targets=targets, scale=scale, precision=precision)
    layout = make_layout(skeleton, storage=storage, dtype=dtype)
    weights = BlockWeights(layout, device=device, matrices_on=torch.empty(layout.matrix_bytes, dtype=torch.uint8, device=device))
    for name, tensor in block.state_dict().items():
        weights.put(name, tensor.to(dtype))
    generator = torch.Generator().manual_seed(seed)
    leaves: dict[str, Tensor] = {}
    lora: dict[str, tuple[Tensor, Tensor]] = {}
    for group in skeleton.groups:
        if not group.lora:
            continue
        count = len(group.members)
        a = (torch.randn(count * rank, group.columns, generator=generator) * group.columns**-0.5).to(device, dtype)
        b = torch.randn(count, group.rows, rank, generator=generator).to(device, dtype)
        leaves |= {f"{group.name}.lora_a": a.requires_grad_(), f"{group.name}.lora_b": b.requires_grad_()}
        lora |= {member: (a.detach()[index * rank : (index + 1) * rank], b.detach()[index]) for index, member in enumerate(group.members)}
    assert lora.keys() == set(targets), "a target got no LoRA"
    skeleton.point(weights.tensors(weights.matrices) | leaves)
    return Fused(skeleton, weights, leaves, lora, scale)


@lru_cache
def nano() -> Checkpoint:
    return open_checkpoint(nano_checkpoint())


SETTINGS = AdapterSettings(rank=4, alpha=8.0)
CHOSEN = EngineChosen(
    engine="fast",
    attention="PyTorch's choice",
    products="float32",
    compiled=False,
    captured=False,
    num_blocks=5,
    streamed=0,
    recomputed=0,
    matmul_tflops=1.0,
)


@lru_cache
def adapter_values(settings: AdapterSettings = SETTINGS, *, video: bool = True, audio: bool = True) -> dict[str, Tensor]:
    """Values of an adapter on nano that has learned something: B is not 0, so A has gradients too."""
    transformer = load_transformer(nano(), dtype=F32, video=video, audio=audio)
    parameters = add_adapter(transformer, settings, video=video, audio=audio, seed=0)
    generator = torch.Generator().manual_seed(5)
    return {
        name: parameter.detach() if ".lora_A." in name else 0.1 * torch.randn(parameter.shape, generator=generator)
        for name, parameter in parameters.items()
    }


def reference_nano(
    settings: AdapterSettings = SETTINGS, *, video: bool = True, audio: bool = True
) -> tuple[Model, dict[str, nn.Parameter]]:
    """nano as diffusers and PEFT compute it, in float32, with `adapter_values`."""
    transformer = load_transformer(nano(), dtype=F32, video=video, audio=audio)
    parameters = add_adapter(transformer, settings, video=video, audio=audio, seed=0)
    load_adapter(parameters, adapter_values(settings, video=video, audio=audio))
    return Model(transformer=transformer, device=CPU, dtype=F32), parameters


def fast_nano(
    fast: FastSettings | None = None,
    settings: AdapterSettings = SETTINGS,
    *,
    video: bool = True,
    audio: bool = True,
    dtype: torch.dtype = F32,
    device: torch.device = CPU,
) -> tuple[Model, FastModel]:
    """nano in the engine, with `adapter_values`. Not compiled, unless the settings say so."""
    chosen = fast or FastSettings(compile=False)
    model = load_fast(nano(), settings=chosen, adapter=settings, video=video, audio=audio, seed=0, dtype=dtype, device=device)
    load_adapter(model.adapter.parameters, adapter_values(settings, video=video, audio=audio))
    model.adapter.refresh()
    return Model(transformer=model.transformer, device=device, dtype=dtype, mixed=False), model


def make_batch(
    *,
    count: int = 1,
    grid: tuple[int, int, int] = (2, 2, 3),
    video: bool = True,
    audio: int | None = 9,
    seed: int = 3,
    fps: float = 25.0,
    reference: Reference | None = None,
    device: torch.device = CPU,
) -> Batch:
    """A batch for nano. audio: how many latents of sound it has, None for none; the last of them is padding."""
    generator = torch.Generator().manual_seed(seed)

    def random(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator).to(device)

    learned = torch.ones(count, audio or 0, dtype=torch.bool)
    learned[:, -1:] = False
    return Batch(
        video=random(count, grid[0] * grid[1] * grid[2], 32) if video else None,
        audio=None if audio is None else random(count, audio, 32),
        audio_learned=None if audio is None else learned.to(device),
        text=TextEmbedding(random(count, 16, 64), random(count, 16, 64)),
        grid=grid if video else (1, 1, 1),
        fps=torch.full((count,), fps),
        bucket="",
        reference=reference,
    )


def draw_batch(batch: Batch, *, parts: Sequence[GivenPart] = (), seed: int = 4) -> Drawn:
    return draw(batch, sampler=ShiftedLogitNormal(), generator=torch.Generator().manual_seed(seed), parts=parts)


def reference_step(model: Model, parameters: dict[str, nn.Parameter], drawn: Drawn) -> tuple[Tensor, dict[str, Tensor]]:
    """The loss and the adapter's gradients, 0 where there are none."""
    for parameter in parameters.values():
        parameter.grad = None
    losses = losses_of(model, drawn, audio_weight=0.7)
    losses.total.backward()
    zero = {name: torch.zeros_like(parameter) for name, parameter in parameters.items()}
    return losses.total.detach(), zero | {name: value.grad for name, value in parameters.items() if value.grad is not None}


def fast_step(model: Model, fast: FastModel, drawn: Drawn) -> tuple[Tensor, dict[str, Tensor]]:
    """The loss and copies of the adapter's gradients."""
    losses = losses_of(model, drawn, audio_weight=0.7)
    losses.total.backward()
    return losses.total.detach(), gradients_of(fast)


def gradients_of(fast: FastModel) -> dict[str, Tensor]:
    """Copies of the adapter's gradients by its parameters' names."""
    return {name: fast.adapter.gradient_of(name).clone() for name in fast.adapter.parameters}


def difference(found: dict[str, Tensor], expected: dict[str, Tensor]) -> float:
    """The largest relative difference of any gradient that is not 0 everywhere; infinite where one is 0 and the other is not."""
    assert found.keys() == expected.keys()
    worst = 0.0
    for name, value in expected.items():
        norm = float(value.norm())
        apart = float((found[name] - value).norm())
        worst = max(worst, apart / norm if norm else (float("inf") if apart else 0.0))
    return worst


def same(found: dict[str, Tensor], expected: dict[str, Tensor]) -> bool:
    """Whether all are equal to the last bit."""
    return found.keys() == expected.keys() and all(torch.equal(found[name], expected[name]) for name in expected)
