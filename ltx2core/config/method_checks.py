"""Keys of losses, optimizers and adapters that have no effect beside others, or would do harm: what is changed, and what is said."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ltx2core.config.optimizers import rule_of
from ltx2core.runs.events import Notice

if TYPE_CHECKING:
    from collections.abc import Iterable

    from ltx2core.config.train import TrainConfig


def adjust_methods(config: TrainConfig, changes: dict[str, object], notices: list[Notice], *, file: str) -> None:
    """Add to `changes` and `notices`."""
    if config.loss_type == "l2" and (unread := changed(config, ("huber_schedule", "huber_c"))):
        text = f"{file} {', '.join(unread)}: no effect, since loss_type is l2."
        notices.append(Notice(code="no_effect", level="warning", text=text, fix='Set loss_type to "huber" or "smooth_l1".'))
    if rule_of(config.optimizer) == "prodigy":
        _prodigy(config, changes, notices, file)
    if rule_of(config.optimizer) == "schedule-free":
        _schedule_free(config, notices, file)


def changed(config: TrainConfig, names: Iterable[str]) -> list[str]:
    """Those of the keys that are set, and to something else than what holds without them."""
    fields = type(config).model_fields
    return [name for name in names if getattr(config, name) and getattr(config, name) != fields[name].default]


def _prodigy(config: TrainConfig, changes: dict[str, object], notices: list[Notice], file: str) -> None:
    if "learning_rate" not in config.model_fields_set:
        changes["learning_rate"] = 1.0
        text = f"{file} optimizer = prodigy: it finds the learning rate itself, and learning_rate, which multiplies it, is 1.0."
        notices.append(Notice(code="prodigy_rate", text=text))
    elif config.learning_rate < 0.1:
        text = f"{file} learning_rate = {config.learning_rate:g}: Prodigy finds the rate itself and would use so small a part of it."
        notices.append(Notice(code="prodigy_rate", level="warning", text=text, fix="Use 1.0."))
    own_rates = [name for name in ("audio_learning_rate", "learning_rate_pattern") if getattr(config, name) not in (None, {})]
    if own_rates:
        changes |= {"audio_learning_rate": None, "learning_rate_pattern": {}}
        text = f"{file} {', '.join(own_rates)}: no effect, since Prodigy has one rate for all layers."
        notices.append(Notice(code="no_effect", level="warning", text=text, fix="Use another optimizer, or remove them."))


def _schedule_free(config: TrainConfig, notices: list[Notice], file: str) -> None:
    if config.lr_scheduler not in ("constant", "constant_with_warmup"):
        text = (
            f"{file} lr_scheduler = {config.lr_scheduler}: {config.optimizer} averages instead of a schedule; the two together learn less."
        )
        notices.append(Notice(code="two_schedules", level="warning", text=text, fix="Use constant_with_warmup."))
    if config.use_ema:
        text = f"{file} use_ema: {config.optimizer} is an average itself, and the second file will be an average of where it trains."
        notices.append(Notice(code="two_averages", level="warning", text=text, fix="Leave use_ema out."))
