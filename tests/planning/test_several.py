"""Plans for several GPUs: what one update costs, what is shared, and what is recommended."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from ltx2core.config.load import look_at
from ltx2core.errors import ConfigError
from ltx2core.planning.hardware import Hardware, hardware_named
from ltx2core.planning.predict import Prediction, predict
from ltx2core.planning.recommend import recommend
from ltx2core.planning.several import EXCHANGE_BYTES, exchange_rate, exchange_seconds
from ltx2tui.cli import main

if TYPE_CHECKING:
    from ltx2core.config.train import TrainConfig

CLIPS = [{"id": "clips", "instance_data_dir": "clips", "resolution": 512, "video": {"num_frames": 49}, "audio": {}}]
H100 = hardware_named("H100", ram_gib=512, cards=8)
FOUR = hardware_named("4090", ram_gib=256, cards=4)


def config(**keys: Any) -> TrainConfig:
    values = {"pretrained_model_name_or_path": "Lightricks/LTX-2", "validation_resolution": "512x768", "validation_num_video_frames": 49}
    return look_at({**values, "max_train_steps": 400, **keys}, base=Path(), datasets=CLIPS).config


def on(hardware: Hardware, **keys: Any) -> Prediction:
    return predict(config(**keys), hardware, clips=40)


def test_an_update_of_several_takes_its_batches_and_the_exchange_and_learns_from_more_clips() -> None:
    one, eight = on(H100), on(H100, num_processes=8)
    numbers = 217_055_232  # of a LoRA of rank 32 on all attentions, to a per mille or so
    exchange = exchange_seconds(numbers, 8, H100)
    assert exchange == pytest.approx(2 * 7 / 8 * 4 * numbers / 150e9)
    assert eight.step_seconds - one.step_seconds == pytest.approx(exchange, rel=0.6)  # the rank is the config's own
    assert eight.clips_a_second > 7.5 * one.clips_a_second
    assert one.epoch_seconds == pytest.approx(40 * one.step_seconds)
    assert eight.epoch_seconds == pytest.approx(5 * eight.step_seconds)
    train = [found.phase("train") for found in (one, eight)]
    assert train[1].vram_bytes - train[0].vram_bytes == EXCHANGE_BYTES  # type: ignore[union-attr]
    assert "8 GPUs learn from 8 clips an update" in eight.because[0]


def test_blocks_that_wait_in_ram_are_counted_once_and_each_process_for_itself() -> None:
    one, four = (on(FOUR, num_processes=number).phase("train") for number in (1, 4))
    assert one is not None
    assert four is not None
    assert four.ram["process"] == 4 * one.ram["process"]
    block = one.ram["blocks that travel"] / on(FOUR).plan.streamed  # type: ignore[union-attr]
    assert four.ram["blocks that travel"] == pytest.approx(block * on(FOUR, num_processes=4).plan.streamed, rel=1e-6)  # type: ignore[union-attr]
    text = on(FOUR, num_processes=4).phase("text")
    assert text is not None
    assert "waiting ranks" in text.ram


def test_cards_that_read_from_one_memory_and_exchange_over_it_slow_each_other() -> None:
    """Four cards share what two channels of RAM give; cards with NVLink exchange past it."""
    assert on(FOUR, num_processes=4).step_seconds > on(FOUR).step_seconds
    assert exchange_rate(FOUR, 8) < exchange_rate(FOUR, 4) == exchange_rate(FOUR, 2) < 10e9
    assert exchange_rate(H100, 8) == exchange_rate(replace(H100, card="NVIDIA H100 80GB HBM3"), 2) == 150e9
    assert exchange_rate(replace(H100, card="NVIDIA H100 PCIe"), 2) < 20e9


def test_epochs_end_after_fewer_updates_and_more_processes_than_cards_do_not_fit() -> None:
    values = {"pretrained_model_name_or_path": "Lightricks/LTX-2", "num_train_epochs": 3, "num_processes": 4}
    loaded = look_at(values, base=Path(), datasets=CLIPS)
    assert predict(loaded.config, FOUR, datasets=loaded.datasets, clips=6).job.steps == 5, "18 batches by fours"
    found = on(hardware_named("H100", cards=2), num_processes=4)
    assert found.misfit == "num_processes = 4 needs as many GPUs, and there are 2. Set num_processes to 2: then it fits."


def test_what_is_recommended_uses_every_card_for_the_same_update_where_it_can_be_shared() -> None:
    best = recommend(config(gradient_accumulation_steps=8), H100, clips=40)[0]
    assert best.values["num_processes"] == 8
    assert best.prediction.job.clips_an_update == 8
    assert any("the same update of 8 clips as before" in why for why in best.why)
    best = recommend(config(), FOUR, clips=40)[0]
    assert best.prediction.job.clips_an_update == 4
    assert any("4 in an update instead of 1: 25% of the steps show as many clips, at 2 times" in why for why in best.why)
    (lone, *_) = recommend(config(num_processes=4), replace(FOUR, cards=1), clips=40)
    assert lone.values["num_processes"] == 1
    assert lone.values["gradient_accumulation_steps"] * lone.values.get("train_batch_size", 1) == 4  # type: ignore[operator]
    unknown = recommend(config(num_processes=2), replace(FOUR, cards=None), clips=40)[0]
    assert "num_processes" not in unknown.values, "how many there are is not known: as many as are asked for"


def test_a_plan_for_several_cards_says_what_they_do_together(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", "--config", "8x80gb-style", "--card", "H100", "--gpus", "8", "--ram-gib", "512"]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "1 at a time on each of 8 GPUs: 3.2 clips a second." in said, said[:300]
    with pytest.raises(ConfigError, match="1 to 64 GPUs"):
        hardware_named("H100", cards=65)
