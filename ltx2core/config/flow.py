"""Keys of the noise levels (sigma) that training draws."""

from __future__ import annotations

import json
from typing import Annotated, ClassVar, Literal

from pydantic import Field, field_validator
from pydantic_core import PydanticCustomError

from ltx2core.config.keys import Keys, key

Weight = Annotated[float, Field(ge=0, le=1_000_000)]
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
    flow_cubic_schedule_weights: list[Weight] | None = key(
        None,
        "Curve",
        "Draw noise levels as often as a curve is high: its heights at evenly spaced levels from 0 to 1, joined smoothly, such as "
        "[0, 1, 3, 1]. Shifted by flow_schedule_shift where that is set.",
        max_length=1000,
    )
    flow_custom_timesteps: list[Level] | None = key(
        None, "Custom levels", "Train these noise levels and no others: 0 to 1, or above 1 as timesteps of 1000.", min_length=1
    )
    flow_timesteps_mode: Literal["fixed-list", "round-robin"] = key(
        "fixed-list",
        "Custom order",
        "fixed-list: a level of that list drawn for each sample, all equally often. round-robin: one after the other, a sample each.",
    )
    flux_fast_schedule: bool = key(False, "Fast schedule", "Train the levels 1 (seven times in ten), 0.75, 0.5 and 0.25 and no others.")
    mixflow_enabled: bool = key(
        False,
        "MixFlow",
        "Train low noise levels more often, and show more noise than the model is told, as it meets when it samples: against errors that "
        "add up over sampling. Shifted by flow_schedule_shift where that is set.",
    )
    mixflow_gamma: float = key(
        0.8, "MixFlow gamma", "How much more noise MixFlow shows, up to this share of the way to pure noise. 0: none.", ge=0, le=1
    )

    @field_validator("flow_cubic_schedule_weights", "flow_custom_timesteps", mode="before")
    @classmethod
    def _numbers_as_text(cls, value: object) -> object:
        """A list of numbers may be written as text: with brackets, or with commas alone."""
        if not isinstance(value, str):
            return value
        try:
            return json.loads(value if value.lstrip().startswith("[") else f"[{value}]") or None
        except ValueError:
            return value

    @field_validator("flow_cubic_schedule_weights")
    @classmethod
    def _not_flat_at_0(cls, value: list[float] | None) -> list[float] | None:
        if value and not any(value):
            raise PydanticCustomError("no_curve", "a curve is above 0 somewhere")
        return value or None
