"""Where tokens are in time and space, and the rotary tables made of it, computed once for each shape and frame rate.

diffusers' model computes four tables in every forward from the positions that it is given. `Positions` stands for them by what they
follow from, so that a table is known again without reading anything back from the device.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from collections.abc import Callable

    from diffusers import LTX2VideoTransformer3DModel

_KEPT_BYTES = 128 * 1024 * 1024
Table = tuple[Tensor, Tensor]


@dataclass(frozen=True, slots=True)
class Positions:
    """Positions of the tokens of a batch: the model takes it where it takes their tensor.

    grid: latent frames, rows and columns of video, or (steps,) of sound. rates: of each sample, frames a second; of sound, which is in
    seconds anyway, 1. alone: the other modality is not there. in_time: seconds only, which is what video and sound meet by.
    """

    grid: tuple[int, int, int] | tuple[int]
    rates: tuple[float, ...]
    alone: bool = False
    in_time: bool = False

    def __getitem__(self, _cut: object) -> Positions | None:
        """The time axis, which the model cuts out with `coords[:, 0:1, :]`; None where there is nothing to meet."""
        return None if self.alone else replace(self, in_time=True)

    def distinct(self) -> Positions:
        """What decides the table: one sample where all have one rate, whether alone or not."""
        rates = self.rates[:1] if len(set(self.rates)) == 1 else self.rates
        return Positions(self.grid, rates, in_time=self.in_time)

    def tensor(self, transformer: LTX2VideoTransformer3DModel, device: torch.device) -> Tensor:
        """The positions themselves, as `video_positions` and `audio_positions` give them."""
        if len(self.grid) == 3:
            found = video_positions(transformer, self.grid, torch.tensor(self.rates, device=device))
        else:
            found = audio_positions(transformer, *self.grid, device=device).expand(len(self.rates), -1, -1, -1)
        return found[:, :1] if self.in_time else found


def video_positions(transformer: LTX2VideoTransformer3DModel, grid: tuple[int, int, int], fps: Tensor) -> Tensor:
    """[B, 3, L, 2]: start and end of every token: time in seconds by its own sample's fps [B], height and width in pixels."""
    frames, height, width = grid
    positions: Tensor = transformer.rope.prepare_video_coords(fps.shape[0], frames, height, width, fps.device, fps=1.0)
    positions = positions.float().clone()  # the clone: diffusers hands out an expanded view
    positions[:, 0] /= fps.float()[:, None, None]
    return positions


def audio_positions(transformer: LTX2VideoTransformer3DModel, steps: int, *, device: torch.device | str = "cpu") -> Tensor:
    """[1, 1, La, 2]: start and end of every audio token in seconds."""
    positions: Tensor = transformer.audio_rope.prepare_audio_coords(1, steps, device)
    return positions


def keep_tables(transformer: LTX2VideoTransformer3DModel) -> None:
    """Make the transformer's rope modules take `Positions`, and keep what they answer to them. Tensors go through as before."""
    for rope in (transformer.rope, transformer.audio_rope, transformer.cross_attn_rope, transformer.cross_attn_audio_rope):
        rope.forward = _KeptTables(rope.forward, transformer)


class _KeptTables:
    """A rope module's forward that knows a table again.

    The newest table is needed until the end of the step anyway; older ones stay as long as all together are within 128 MiB (a table of
    the 19B takes 16 KiB a video token).
    """

    def __init__(self, compute: Callable[..., Table], transformer: LTX2VideoTransformer3DModel) -> None:
        self._compute = compute
        self._transformer = transformer
        self._kept: OrderedDict[tuple[Positions, torch.device], Table] = OrderedDict()

    def __call__(self, coords: Tensor | Positions | None, device: torch.device | str | None = None) -> Table | None:
        if coords is None:
            return None
        if isinstance(coords, Tensor):
            return self._compute(coords, device=device)
        key = coords.distinct(), torch.device(device or "cpu")
        if key not in self._kept:
            # Not as an inference tensor, which a later step could not train through.
            with torch.inference_mode(False), torch.no_grad():
                self._kept[key] = self._compute(key[0].tensor(self._transformer, key[1]), device=key[1])
            while len(self._kept) > 1 and sum(part.nbytes for table in self._kept.values() for part in table) > _KEPT_BYTES:
                self._kept.popitem(last=False)
        self._kept.move_to_end(key)
        cos, sin = self._kept[key]
        if len(key[0].rates) == len(coords.rates):
            return cos, sin
        return cos.expand(len(coords.rates), *cos.shape[1:]), sin.expand(len(coords.rates), *sin.shape[1:])
