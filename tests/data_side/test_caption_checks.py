from __future__ import annotations

from pathlib import Path

import pytest

from ltx2core.config.train import TrainConfig
from ltx2core.data.caption_checks import judge_captions
from ltx2core.data.clip import Clip
from ltx2core.data.tokens import ESTIMATE, TokenCounter, estimate_tokens, find_counter


def codes(caption: str, *, fps: float = 25.0, rate: float = 25.0, counter: TokenCounter = ESTIMATE) -> list[str]:
    clip = Clip(path=Path("a.mp4"), width=64, height=64, frames=50, fps=fps, seconds=50 / fps)
    return [problem.code for problem in judge_captions(clip, (caption,), frame_rate=rate, counter=counter)[0]]


def test_a_caption_beyond_what_the_encoder_takes_is_named_with_its_length() -> None:
    assert codes("word " * 1023) == []
    assert codes("word " * 1024) == ["caption_long"]
    clip = Clip(path=Path("a.mp4"))
    (problem,), tokens = judge_captions(clip, ("word " * 2000,), frame_rate=25, counter=ESTIMATE)
    assert tokens == 2001
    assert problem.text == "a.mp4 has a caption of about 2,001 tokens; the text encoder takes 1,024."


def test_the_tokenizer_of_the_model_counts_where_it_is_at_hand() -> None:
    counter = find_counter(TrainConfig(pretrained_model_name_or_path="nano"), base=Path())
    assert counter.exact
    assert counter.limit == 128
    from transformers import AutoTokenizer

    from ltx2core.models.nano import nano_text_encoder

    text = "a red ball rolls from left to right, zyxwv"
    assert counter.count(text) == len(AutoTokenizer.from_pretrained(nano_text_encoder())(text)["input_ids"])
    assert codes("red " * 127, counter=counter) == []
    assert codes("red " * 128, counter=counter) == ["caption_long"]


def test_a_text_encoder_in_a_folder_is_used_and_a_damaged_one_is_not(tmp_path: Path) -> None:
    import shutil

    from ltx2core.models.nano import nano_text_encoder

    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(nano_text_encoder() / name, tmp_path / name)
    config = TrainConfig(pretrained_model_name_or_path="models/x.safetensors", pretrained_gemma_model_name_or_path=str(tmp_path))
    assert find_counter(config, base=tmp_path).exact
    (tmp_path / "tokenizer.json").write_text("{")
    assert find_counter(config, base=tmp_path) is ESTIMATE
    assert find_counter(None, base=tmp_path) is ESTIMATE


@pytest.mark.parametrize(
    ("text", "least"),
    [
        ("A red kite circles over a green valley, wind in the grass.", 14),  # 12 words, a comma, a full stop
        ("1024", 4),  # Gemma reads digit by digit
        ("赤い凧が谷を回る", 8),
        ("", 1),
        ("extraordinarily", 3),
    ],
)
def test_an_estimate_is_on_the_long_side(text: str, least: int) -> None:
    assert least <= estimate_tokens(text) <= 2 * least + 3


@pytest.mark.parametrize(
    ("caption", "fps", "rate", "said"),
    [
        ("a ball at 60 fps", 60.0, 25.0, True),
        ("a ball at 60fps, filmed", 60.0, 60.0, False),
        ("24 frames per second", 24.0, 23.976, False),
        ("24 frames per second", 24.0, 25.0, True),
        ("a 120-fps shot", 120.0, 25.0, True),
        ("a ball in slow motion", 120.0, 25.0, True),
        ("a ball in slow-mo", 50.0, 25.0, True),
        ("a ball in slow motion", 25.0, 25.0, False),
        ("a ball in slow motion", 47.0, 25.0, False),
        ("60 people", 25.0, 25.0, False),
        ("the year 2024", 25.0, 25.0, False),
    ],
)
def test_a_caption_that_names_another_speed_is_said(caption: str, fps: float, rate: float, said: bool) -> None:
    assert (codes(caption, fps=fps, rate=rate) == ["caption_rate_mismatch"]) == said
