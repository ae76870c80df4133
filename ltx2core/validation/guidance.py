"""How the predictions of a sampling step are combined: the prompt against the negative one, against weakened forms of the model.

    g = c + (guidance - 1) (c - u) + stg (c - p) + (modality - 1) (c - i)

c: with the prompt. u: with the negative prompt. p: some blocks' self-attention looks at nothing but its own token (spatio-temporal
guidance, arXiv 2411.18664). i: sound and picture do not see each other. Then, where `rescale` is above 0, the contrast of g is brought
back towards that of c (arXiv 2305.08891, section 3.4). The same as diffusers' LTX2Pipeline and the official one.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from ltx2core.training.fast_blocks import BlockAt

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from diffusers import LTX2VideoTransformer3DModel
    from torch import Tensor

Kind = Literal["given", "without", "perturbed", "isolated"]
_OFFICIAL_BLOCKS = 48  # that block 28 or 29 is one of


@dataclass(frozen=True, slots=True, kw_only=True)
class Guidance:
    """Scales of one sample. 1 (of stg: 0) turns one off, and saves its forward."""

    video: float
    audio: float
    stg: float = 0.0
    stg_blocks: tuple[int, ...] = ()  # empty: the official one of the model's version
    modality: float = 1.0
    rescale: float = 0.0

    @classmethod
    def plain(cls, scale: float) -> Guidance:
        """The same scale for picture and sound, and nothing else."""
        return cls(video=scale, audio=scale)

    def kinds(self, *, negative: bool, drawn: frozenset[str], both: bool) -> tuple[Kind, ...]:
        """The predictions that a step needs. drawn: modalities that are not given; both: whether they can see each other at all."""
        kinds: list[Kind] = ["given"]
        if negative and any(scale != 1 for name, scale in (("video", self.video), ("audio", self.audio)) if name in drawn):
            kinds.append("without")
        if self.stg:
            kinds.append("perturbed")
        if self.modality != 1 and both:
            kinds.append("isolated")
        return tuple(kinds)


def combine(clean: Mapping[Kind, Tensor], *, guidance: float, stg: float, modality: float, rescale: float) -> Tensor:
    """The guided prediction of one modality, float32. clean: what each pass takes the clean tokens [1, L, C] to be.

    Without `rescale` the same combination may be made of velocities, since the factors add up to 1.
    """
    factors: dict[Kind, float] = {"without": guidance - 1, "perturbed": stg, "isolated": modality - 1}
    given = clean["given"].float()
    found = given
    for kind, factor in factors.items():
        if kind in clean and factor:
            found = found + factor * (given - clean[kind].float())
    if rescale:
        found = found * (rescale * given.std() / found.std() + 1 - rescale)
    return found


def stg_blocks(transformer: LTX2VideoTransformer3DModel, wanted: Sequence[int] = ()) -> tuple[int, ...]:
    """The blocks that are perturbed: the wanted ones, or the official choice, 29 of 48 in LTX-2 2.0 and 28 in later ones.

    Of a model with fewer blocks, such as nano, the one at the same height. Raises ValueError for a block that the model has not.
    """
    count = len(transformer.transformer_blocks)
    if not wanted:
        official = 28 if transformer.config.perturbed_attn else 29  # diffusers marks 2.3 and later so
        return (min(official * count // _OFFICIAL_BLOCKS, count - 1),)
    if outside := [index for index in wanted if not 0 <= index < count]:
        raise ValueError(f"expected blocks 0 to {count - 1}, got {outside[0]}")
    return tuple(sorted(set(wanted)))


@contextlib.contextmanager
def perturbing(transformer: LTX2VideoTransformer3DModel, blocks: Sequence[int]) -> Iterator[None]:
    """Make these blocks able to skip their self-attention, inside; as they were afterwards.

    diffusers builds only the blocks of 2.3 and later for that. The step engine's attention can always; its one skeleton serves every
    block, and the transformer says which of them skips.
    """
    from diffusers.models.transformers.transformer_ltx2 import LTX2AudioVideoAttnProcessor, LTX2PerturbedAttnProcessor

    changed: list[tuple[Any, str, object]] = []

    def change(module: Any, name: str, value: object) -> None:
        changed.append((module, name, getattr(module, name)))
        setattr(module, name, value)

    for index in blocks:
        block: Any = transformer.transformer_blocks[index]
        if isinstance(block, BlockAt):
            block = block.skeleton
        if not block.perturbed_attn:
            change(block, "perturbed_attn", True)
        for attention in (getattr(block, "attn1", None), getattr(block, "audio_attn1", None)):
            if isinstance(getattr(attention, "processor", None), LTX2AudioVideoAttnProcessor):
                change(attention, "processor", LTX2PerturbedAttnProcessor())
    try:
        yield
    finally:
        for module, name, before in reversed(changed):
            setattr(module, name, before)
