"""HDR pictures brought to BT.709, as a display of 100 % would show them: numbers in, numbers out.

Diffuse white, 203 cd/m2 (ITU-R BT.2408), becomes white less a little; what is below 80 % of it keeps its light exactly, highlights up to
1000 cd/m2 are rolled off into the rest, and what is brighter is white. Sources: SMPTE ST 2084 (PQ), ITU-R BT.2100 (HLG and its
OOTF at 1000 cd/m2), BT.2087 (primaries).
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

PQ, HLG = 16, 18  # AVCOL_TRC_SMPTE2084, AVCOL_TRC_ARIB_STD_B67
WHITE, PEAK = 203.0, 1000.0  # cd/m2
_KNEE = 0.8
_TO_709 = np.array([[1.6605, -0.5876, -0.0728], [-0.1246, 1.1329, -0.0083], [-0.0182, -0.1006, 1.1187]], dtype=np.float32)
_LUMINANCE_2020 = np.array([0.2627, 0.6780, 0.0593], dtype=np.float32)


def tone_map(picture: NDArray[np.uint16], transfer: int) -> NDArray[np.uint8]:
    """uint8 [H, W, 3], BT.709, full range, of uint16 [H, W, 3] in BT.2020 primaries with PQ or HLG, full range."""
    light = _lights(transfer)[picture]  # 1 is diffuse white
    if transfer == HLG:  # the scene's light to the display's: brighter where the scene is bright
        scene = np.maximum(light @ _LUMINANCE_2020, 1e-6)[..., None]
        light = light * scene**0.2 * np.float32(PEAK / WHITE)
    light = np.maximum(light @ _TO_709.T, 0.0)
    brightest = np.maximum(light.max(axis=-1, keepdims=True), 1e-6)
    light = light * (roll_off(brightest) / brightest)  # by the brightest colour, so that hues stay
    coded: NDArray[np.uint8] = np.rint(_encode(np.clip(light, 0.0, 1.0)) * 255).astype(np.uint8)
    return coded


def roll_off(light: NDArray[np.float32]) -> NDArray[np.float32]:
    """Light with 1 for diffuse white, to 0..1: the same below the knee, then bent, reaching 1 at the peak."""
    share = np.clip((light - _KNEE) / (PEAK / WHITE - _KNEE), 0.0, 1.0)
    steep = (PEAK / WHITE - _KNEE) / (1 - _KNEE)  # so that the curve leaves the knee in its own direction
    bent: NDArray[np.float32] = np.where(light <= _KNEE, light, _KNEE + (1 - _KNEE) * steep * share / (1 + (steep - 1) * share))
    return bent


@cache
def _lights(transfer: int) -> NDArray[np.float32]:
    """The light of each of 65,536 code values: of PQ in units of diffuse white, of HLG the scene's, 0 to 1."""
    code = np.arange(65536) / 65535
    if transfer == PQ:
        m1, m2, c1, c2, c3 = 2610 / 16384, 2523 / 32, 3424 / 4096, 2413 / 128, 2392 / 128
        power = code ** (1 / m2)
        return (10000 / WHITE * (np.maximum(power - c1, 0) / (c2 - c3 * power)) ** (1 / m1)).astype(np.float32)
    a, b, c = 0.17883277, 0.28466892, 0.55991073
    return np.where(code <= 0.5, code**2 / 3, (np.exp((code - c) / a) + b) / 12).astype(np.float32)


def _encode(light: NDArray[np.float32]) -> NDArray[np.float32]:
    """BT.709's code value, 0 to 1, of the light that a display of gamma 2.4 shows (BT.1886)."""
    coded: NDArray[np.float32] = light ** np.float32(1 / 2.4)
    return coded
