"""How a wrong velocity is punished: the shape of the error's penalty, and how much a noise level counts. Used in training alone: the
held-out loss stays the plain mean of squares, so that its curve can be compared between runs.

With x(sigma) = (1 - sigma) x0 + sigma noise, and e the error of an element of the velocity:

    l2         e^2
    huber      2 c (sqrt(e^2 + c^2) - c)     about e^2 where |e| is far below c, 2 c |e| far above (pseudo-Huber)
    smooth_l1  2 (sqrt(e^2 + c^2) - c)       the same divided by c: its slope is at most 2 whatever c is

c may follow the noise level (scheduled pseudo-Huber, arXiv 2403.16728), `width` being its value at pure noise:

    constant     c = width
    exponential  c = width^sigma                          1 at a clean clip
    snr          c = (1 - width) (1 - sigma)^2 + width    1 at a clean clip

Min-SNR (arXiv 2303.09556) weighs the error of the clean clip by min(SNR, gamma). Here SNR = ((1 - sigma) / sigma)^2, and an error e of the
velocity is one of sigma e of the clean clip, so the weight of a velocity's error is min(SNR, gamma) sigma^2 = min((1 - sigma)^2,
gamma sigma^2): small at both ends, and 0 at pure noise.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from torch import Tensor

Shape = Literal["l2", "huber", "smooth_l1"]
WidthSchedule = Literal["constant", "exponential", "snr"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Penalty:
    """A shape, its width c at pure noise and how that follows sigma, and gamma of min-SNR, None for all levels alike."""

    shape: Shape = "l2"
    width: float = 0.1
    schedule: WidthSchedule = "snr"
    snr_gamma: float | None = None

    def of(self, error: Tensor, sigma: Tensor) -> Tensor:
        """The penalty of each element, float32 [B, L, C]. error: float32 [B, L, C]; sigma: [B], of the sample."""
        if self.shape == "l2":
            return error.square()
        c = self._width(sigma.float()).view(-1, 1, 1)
        bent = 2 * ((error.square() + c.square()).sqrt() - c)
        return bent * c if self.shape == "huber" else bent

    def weigh(self, losses: Tensor, sigma: Tensor) -> Tensor:
        """Losses of samples [B], each times the weight of its sigma [B]."""
        if self.snr_gamma is None:
            return losses
        return losses * snr_weight(sigma.float(), self.snr_gamma)

    def _width(self, sigma: Tensor) -> Tensor:
        if self.schedule == "constant":
            return sigma.new_full(sigma.shape, self.width)
        if self.schedule == "exponential":
            return self.width**sigma
        return (1 - self.width) * (1 - sigma).square() + self.width


SQUARES = Penalty()


def snr_weight(sigma: Tensor, gamma: float) -> Tensor:
    """min((1 - sigma)^2, gamma sigma^2): [B]."""
    return (1 - sigma).square().minimum(gamma * sigma.square())
