"""A clip in numbers, as the VAE gives it to the transformer. Loads no torch."""

from __future__ import annotations

from dataclasses import dataclass

from ltx2core.data.clip import reference_size

SOUND_TOKENS_A_SECOND = 25
SPATIAL, TEMPORAL = 32, 8  # pixels of a latent's side, frames of a latent


@dataclass(frozen=True, slots=True, kw_only=True)
class ClipShape:
    """A clip as it is encoded."""

    width: int
    height: int
    frames: int
    fps: float = 25.0

    @property
    def tokens(self) -> int:
        return (self.width // SPATIAL) * (self.height // SPATIAL) * ((self.frames - 1) // TEMPORAL + 1)

    @property
    def sound_tokens(self) -> int:
        return max(1, round(SOUND_TOKENS_A_SECOND * self.frames / self.fps))

    def as_reference(self, *, smaller: int, slower: int) -> ClipShape:
        """The size that its reference is seen at: so many times less on each side, of every so many frames."""
        width, height, frames = reference_size(self.width, self.height, self.frames, smaller=smaller, slower=slower)
        return ClipShape(width=width, height=height, frames=frames, fps=self.fps / slower)

    @property
    def megapixels(self) -> float:
        """Of all frames together, in millions."""
        return self.width * self.height * self.frames / 1e6

    def __str__(self) -> str:
        return f"{self.width}x{self.height}, {self.frames} frames"
