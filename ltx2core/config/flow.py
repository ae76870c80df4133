"""Keys of the noise levels (sigma) that training draws."""

from __future__ import annotations

from typing import ClassVar

from pydantic import JsonValue

from ltx2core.config.keys import Keys, Later, key, later

OTHER_SIGMAS = Later(name="drawing noise levels in another way", instead="the official shifted logit-normal distribution is used")


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
    flow_sigmoid_scale: float = later(1.0, OTHER_SIGMAS, "Spread", "The width of the distribution of noise levels.")
    flow_use_uniform_schedule: bool = later(False, OTHER_SIGMAS, "Uniform", "Draw all noise levels equally often.")
    flow_use_beta_schedule: bool = later(False, OTHER_SIGMAS, "Beta", "Draw noise levels from a beta distribution.")
    flow_beta_schedule_alpha: float = later(2.0, OTHER_SIGMAS, "Beta's alpha", "First shape number of the beta distribution.")
    flow_beta_schedule_beta: float = later(2.0, OTHER_SIGMAS, "Beta's beta", "Second shape number of the beta distribution.")
    flow_cubic_schedule_weights: JsonValue = later(None, OTHER_SIGMAS, "Cubic weights", "A distribution given by a curve.")
    flow_custom_timesteps: JsonValue = later(None, OTHER_SIGMAS, "Custom levels", "A list of noise levels to use.")
    flow_timesteps_mode: str = later("fixed-list", OTHER_SIGMAS, "Custom order", "The order in which that list is used.")
    flux_fast_schedule: bool = later(False, OTHER_SIGMAS, "Fast schedule", "Few noise levels, mostly high ones.")
    mixflow_enabled: bool = later(False, OTHER_SIGMAS, "MixFlow", "Another distribution of noise levels.")
    mixflow_gamma: float = later(0.8, OTHER_SIGMAS, "MixFlow gamma", "The strength of MixFlow.")
