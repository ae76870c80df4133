"""diffusers' LTX-2 block made ready for the step engine: projections that read one input become one product, LoRAs sit inside them, and
the block holds no weights of its own.

One such block, a skeleton, serves all 48: its buffers are pointed at one block's weights after another, wherever those lie. The maths
between the projections is diffusers' own; only its attention processor, which is meant to be replaced, is ours.
"""

from __future__ import annotations

import copy
from contextlib import nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from diffusers.models.transformers.transformer_ltx2 import LTX2Attention, apply_interleaved_rotary_emb
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from ltx2core.models.lora_linear import LEAVES, GroupedLinear

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from ltx2core.lora.shape import LayerShape
    from ltx2core.models.quantised import EightBit

Table = tuple[Tensor, Tensor]


@dataclass(frozen=True, slots=True)
class Group:
    """A GroupedLinear of the skeleton. members: diffusers' names of its layers, in the order of their rows; rows: of one of them.

    shape: of the members' LoRAs, None where a skeleton has one scale for all and whoever makes the adapter knows its rank.
    """

    name: str
    members: tuple[str, ...]
    rows: int
    columns: int
    bias: bool
    lora: bool
    shape: LayerShape | None = None


@dataclass(frozen=True, slots=True)
class Skeleton:
    """A block without weights. groups: its projections. plain: shapes of its other tensors, by diffusers' names (norms, tables, gates)."""

    block: nn.Module
    groups: tuple[Group, ...]
    plain: dict[str, torch.Size]
    places: dict[str, tuple[nn.Module, str]]  # of every tensor: the module and the buffer that holds it

    def point(self, tensors: Mapping[str, Tensor | None]) -> None:
        """Make the block use these tensors, by the names of `places`. Nothing is copied."""
        for name, tensor in tensors.items():
            module, leaf = self.places[name]
            module._buffers[leaf] = tensor

    def use_attention(self, backend: SDPBackend | None) -> None:
        """Compute self-attention over pictures with this kernel; None leaves the choice to PyTorch."""
        attention = getattr(self.block, "attn1", None)
        if isinstance(attention, LTX2Attention):
            attention.processor.backend = backend


def build_skeleton(
    block: nn.Module,
    *,
    targets: Collection[str],
    scale: float = 1.0,
    precision: EightBit = "dequant",
    shapes: Mapping[str, LayerShape] | None = None,
) -> Skeleton:
    """The skeleton of a block of diffusers' model. targets: its layers that get a LoRA, named as in the block (`attn1.to_q`).

    scale: alpha / rank. precision: of products with 8-bit weights. shapes: of each target's LoRA, where they have one of their own; then
    scale is not used. Layers of which some get a LoRA and some do not, or LoRAs of other shapes, stay apart.
    """
    shapes = shapes or {}
    block = copy.deepcopy(block).to("meta")
    groups: list[Group] = []

    def group(name: str, members: tuple[str, ...]) -> None:
        linear = block.get_submodule(members[0])
        assert isinstance(linear, nn.Linear)
        parent, _, leaf = name.rpartition(".")
        shape = shapes.get(members[0])
        own_scale = scale if shape is None else shape.scale
        setattr(block.get_submodule(parent), leaf, GroupedLinear(scale=own_scale, precision=precision))
        groups.append(Group(name, members, linear.out_features, linear.in_features, linear.bias is not None, members[0] in targets, shape))

    for name, attention in list(block.named_modules()):
        if isinstance(attention, LTX2Attention):
            attention.set_processor(FusedAttention())
            _group_attention(block, name, attention, {target: shapes.get(target) for target in targets}, group)
    for name, module in list(block.named_modules()):
        if isinstance(module, nn.Linear) and (name in targets or not name.endswith("to_gate_logits")):  # a gate is a few rows
            group(name, (name,))
    places: dict[str, tuple[nn.Module, str]] = {}
    plain: dict[str, torch.Size] = {}
    for name, module in block.named_modules():
        if isinstance(module, GroupedLinear):
            places |= {f"{name}.{leaf}": (module, leaf) for leaf in LEAVES}
            continue
        for leaf, tensor in [*module._parameters.items(), *module._buffers.items()]:
            if tensor is not None:
                path = f"{name}.{leaf}" if name else leaf
                module._parameters.pop(leaf, None)
                module._buffers[leaf] = tensor.detach()
                plain[path], places[path] = tensor.shape, (module, leaf)
    return Skeleton(block.eval(), tuple(groups), plain, places)


def _group_attention(
    block: nn.Module, name: str, attention: LTX2Attention, targets: Mapping[str, LayerShape | None], group: object
) -> None:
    """Put the projections of an attention that read one input together: all three of self-attention, keys and values of the others."""
    own = name.rpartition(".")[2] in ("attn1", "audio_attn1")
    projections = ("to_q", "to_k", "to_v") if own else ("to_k", "to_v")
    members = tuple(f"{name}.{projection}" for projection in projections)
    linears = [block.get_submodule(member) for member in members]
    alike = len({(linear.in_features, linear.out_features) for linear in linears}) == 1
    if not alike or len({(member in targets, targets.get(member)) for member in members}) > 1:
        return
    assert callable(group)
    group(f"{name}.{'to_qkv' if own else 'to_kv'}", members)
    for projection in projections:
        delattr(attention, projection)


class FusedAttention:
    """LTX-2's attention on grouped projections: RMS norm over all heads of q and k, rotary positions, gates, a skip for guidance (STG).

    The same as diffusers' LTX2AudioVideoAttnProcessor and LTX2PerturbedAttnProcessor (tests/models/test_fused_block.py).
    """

    _attention_backend = None
    _parallel_config = None

    def __init__(self) -> None:
        self.backend: SDPBackend | None = None

    def __call__(
        self,
        attn: LTX2Attention,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        attention_mask: Tensor | None = None,
        query_rotary_emb: Table | None = None,
        key_rotary_emb: Table | None = None,
        perturbation_mask: Tensor | None = None,
        all_perturbed: bool | None = None,
    ) -> Tensor:
        """hidden_states [B, T, C], encoder_hidden_states [B, S, D] or None for self-attention: [B, T, C]."""
        query, key, value = self.prepare(attn, hidden_states, encoder_hidden_states, query_rotary_emb, key_rotary_emb)
        answer = value
        if not all_perturbed:
            answer = self.attend(attn, query, key, value, attention_mask)
            if perturbation_mask is not None:
                answer = value.lerp(answer, perturbation_mask)
        return self.finish(attn, hidden_states, answer)

    def prepare(
        self, attn: LTX2Attention, hidden: Tensor, context: Tensor | None, query_table: Table | None, key_table: Table | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Query [B, T, C], key and value [B, S, C], normed and turned. context: None for self-attention; key_table: None for the same."""
        if hasattr(attn, "to_qkv"):
            query, key, value = attn.to_qkv(hidden).chunk(3, dim=-1)
            query = rotate(attn, attn.norm_q(query), query_table)
            return query, rotate(attn, attn.norm_k(key), query_table if key_table is None else key_table), value
        key, value = self.keys(attn, hidden if context is None else context, query_table if key_table is None else key_table)
        return self.query(attn, hidden, query_table), key, value

    @staticmethod
    def query(attn: LTX2Attention, hidden: Tensor, table: Table | None) -> Tensor:
        """[B, T, C], normed and turned; not for self-attention whose projections are grouped."""
        return rotate(attn, attn.norm_q(attn.to_q(hidden)), table)

    @staticmethod
    def keys(attn: LTX2Attention, context: Tensor, table: Table | None) -> tuple[Tensor, Tensor]:
        """Key, normed and turned, and value, [B, S, C]."""
        if hasattr(attn, "to_kv"):
            key, value = attn.to_kv(context).chunk(2, dim=-1)
        else:
            key, value = attn.to_k(context), attn.to_v(context)
        return rotate(attn, attn.norm_k(key), table), value

    @staticmethod
    def finish(attn: LTX2Attention, hidden: Tensor, answer: Tensor) -> Tensor:
        """What the attention adds to the stream [B, T, C]: gated by `hidden`, which it was asked with, where the version has gates."""
        if attn.to_gate_logits is not None:
            gates = 2.0 * attn.to_gate_logits(hidden).sigmoid()  # [B, T, H]
            answer = (answer.view(*gates.shape, -1) * gates.unsqueeze(-1)).flatten(2, 3)
        projected: Tensor = attn.to_out[0](answer)
        return projected

    def attend(self, attn: LTX2Attention, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None) -> Tensor:
        """What each token of query [B, T, C] finds in key and value [B, S, C]: [B, T, C]."""
        query, key, value = (part.view(*part.shape[:2], attn.heads, -1).transpose(1, 2) for part in (query, key, value))
        if mask is not None:
            batch, length = query.shape[0], key.shape[2]
            mask = attn.prepare_attention_mask(mask, length, batch).view(batch, attn.heads, -1, length)
        with nullcontext() if self.backend is None else sdpa_kernel(self.backend):
            answer = nn.functional.scaled_dot_product_attention(query, key, value, attn_mask=mask)
        return answer.transpose(1, 2).flatten(2, 3)


def rotate(attn: LTX2Attention, x: Tensor, table: Table | None) -> Tensor:
    """x [B, T, C] turned by its positions; as it is without a table."""
    if table is None:
        return x
    if attn.rope_type != "split":
        turned: Tensor = apply_interleaved_rotary_emb(x, table)
        return turned
    return _rotate_split(x, *table)


def _rotate_split(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """diffusers' apply_split_rotary_emb, bit for bit, without writing in place: a compiler may then compute it again in a backward, where
    what was written in place has to be kept. x: [B, T, H 2R], each head's first half paired with its second; cos, sin: [B, H, T, R]."""
    if not (torch.compiler.is_compiling() or torch.is_grad_enabled()):
        return _rotate_halves(x, cos, sin)
    batch, heads, length, half = cos.shape
    pairs = x.view(batch, -1, heads, 2, half).transpose(1, 2).float()  # [B, H, T, 2, R]
    first, second = pairs[..., :1, :], pairs[..., 1:, :]
    cos, sin = cos.unsqueeze(-2), sin.unsqueeze(-2)
    is_first = torch.arange(2, device=x.device)[:, None] == 0
    turned = pairs * cos + torch.where(is_first, -sin, sin) * torch.where(is_first, second, first)
    return turned.transpose(1, 2).reshape(batch, length, -1).to(x.dtype)


def _rotate_halves(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """The same for forwards without the compiler, which keep every intermediate for a while: half of them at a time. Tables in float32, as
    all are, give the same bits."""
    batch, heads, length, half = cos.shape
    pairs = x.view(batch, length, heads, 2, half)
    turned = torch.empty_like(x, memory_format=torch.contiguous_format).view_as(pairs)
    cos, sin = cos.transpose(1, 2), sin.transpose(1, 2)
    first, second = pairs[..., 0, :], pairs[..., 1, :]
    turned[..., 0, :] = first * cos - second * sin
    turned[..., 1, :] = second * cos + first * sin
    return turned.flatten(2)
