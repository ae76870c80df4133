"""A clip in numbers, as the VAE gives it to the transformer. Loads nothing."""

from __future__ import annotations

from dataclasses import dataclass

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

    @property
    def megapixels(self) -> float:
        """Of all frames together, in millions."""
        return self.width * self.height * self.frames / 1e6

    def __str__(self) -> str:
        return f"{self.width}x{self.height}, {self.frames} frames"
