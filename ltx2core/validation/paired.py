"""How sure a change of the held-out loss is: the same clips at the same noise, before and after, compared clip by clip.

Clips differ far more from each other than a LoRA changes any of them, so the spread of the losses says nothing about the change; the
spread of each clip's own difference does. The band is Student's interval of the mean difference, for 95 in 100: with the eight clips or
fewer of a usual run a bootstrap over clips would be too narrow. It holds for other clips of the same kind as these, not for other noise.
"""

from __future__ import annotations

import math
import statistics
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

# Student's t, two-sided 95 %, by degrees of freedom from 1 on.
_T: tuple[float, ...] = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160, 2.145, 2.131)
_T += (2.120, 2.110, 2.101, 2.093, 2.086, 2.080, 2.074, 2.069, 2.064, 2.060, 2.056, 2.052, 2.048, 2.045, 2.042)


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """A mean difference. band: half the width of its interval; None where a single clip gives none. clips: how many there are in both."""

    mean: float
    band: float | None
    clips: int


def paired_change(now: Mapping[str, float], base: Mapping[str, float]) -> Change | None:
    """By how much the clips that are in both have changed; None without any."""
    differences = [now[name] - base[name] for name in sorted(now.keys() & base.keys())]
    if not differences:
        return None
    count = len(differences)
    band = None if count < 2 else _quantile(count - 1) * statistics.stdev(differences) / math.sqrt(count)
    return Change(mean=statistics.fmean(differences), band=band, clips=count)


def _quantile(freedom: int) -> float:
    """Student's t for 95 %: from the table, beyond it from its expansion around the normal distribution's 1.960 (error below 0.001)."""
    if freedom <= len(_T):
        return _T[freedom - 1]
    z = 1.959964
    return z + (z**3 + z) / (4 * freedom) + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * freedom**2)
