"""Keys of the noise levels (sigma) that training draws."""

from __future__ import annotations

from typing import Annotated, ClassVar

from pydantic import Field, JsonValue

from ltx2core.config.keys import Keys, Later, key, later

OTHER_SIGMAS = Later(name="drawing noise levels in another way", instead="the official shifted logit-normal distribution is used")
Level = Annotated[float, Field(gt=0, le=1000)]


class FlowKeys(Keys):
    """Which noise levels are trained."""

    group: ClassVar[str] = "Noise levels"

    flow_schedule_shift: float | None = key(
        None,
        "Fixed shift",
        "A fixed shift of the noise levels towards more noise. Empty or 0: the official rule, which shifts by the length of the clip.",
        ge=0,
        le=1000,
    )
    flow_schedule_auto_shift: bool = key(
        False, "Automatic shift", "Shift by the length of the clip. That already happens whenever flow_schedule_shift is empty or 0."
    )
    flow_shift_max_tokens: int | None = key(
        None,
        "Most tokens",
        "The official rule shifts by a clip's tokens without a limit, so that long clips train at almost pure noise; from this many on "
        "the shift grows no more. 4096 is where the official samples are drawn.",
        ge=1,
        le=10_000_000,
    )
    flow_sigmoid_scale: float = key(
        1.0,
        "Spread",
        "The width of the logit-normal that noise levels are drawn from: the standard deviation before the sigmoid.",
        gt=0,
        le=10,
    )
    flow_use_uniform_schedule: bool = key(
        False, "Uniform", "Draw all noise levels equally often, shifted by flow_schedule_shift where that is set."
    )
    flow_use_beta_schedule: bool = key(
        False, "Beta", "Draw noise levels from a beta distribution, shifted by flow_schedule_shift where that is set."
    )
    flow_beta_schedule_alpha: float = key(2.0, "Beta's alpha", "First shape number of that beta distribution.", gt=0, le=1000)
    flow_beta_schedule_beta: float = key(2.0, "Beta's beta", "Second shape number of that beta distribution.", gt=0, le=1000)
    flow_cubic_schedule_weights: JsonValue = later(None, OTHER_SIGMAS, "Cubic weights", "A distribution given by a curve.")
    flow_custom_timesteps: list[Level] | None = key(
        None, "Custom levels", "Train these noise levels and no others: 0 to 1, or above 1 as timesteps of 1000.", min_length=1
    )
    flow_timesteps_mode: str = later("fixed-list", OTHER_SIGMAS, "Custom order", "fixed-list: each level of that list equally often.")
    flux_fast_schedule: bool = later(False, OTHER_SIGMAS, "Fast schedule", "Few noise levels, mostly high ones.")
    mixflow_enabled: bool = later(False, OTHER_SIGMAS, "MixFlow", "Another distribution of noise levels.")
    mixflow_gamma: float = later(0.8, OTHER_SIGMAS, "MixFlow gamma", "The strength of MixFlow.")
