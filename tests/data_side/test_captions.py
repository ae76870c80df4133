from __future__ import annotations

from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from ltx2core.data.captions import CaptionRule, _judge

CLIP = Path("clips/a_red__ball.mp4")


def test_every_line_is_a_caption_unless_that_is_switched_off() -> None:
    text = "a ball rolls \n\n  a red ball, rolling\n"
    assert CaptionRule().captions(CLIP, text) == ("a ball rolls", "a red ball, rolling")
    assert CaptionRule(split_lines=False).captions(CLIP, text) == ("a ball rolls a red ball, rolling",)


def test_a_file_name_becomes_a_caption() -> None:
    assert CaptionRule(strategy="filename").captions(CLIP, "ignored") == ("a red ball",)


def test_the_instance_prompt_replaces_or_leads() -> None:
    prompts = ("sks", "ohwx")
    assert CaptionRule(strategy="instanceprompt", instance_prompts=prompts).captions(CLIP, None) == prompts
    assert CaptionRule(only_instance_prompt=True, instance_prompts=("sks",)).captions(CLIP, "a ball") == ("sks",)
    led = CaptionRule(prepend_instance_prompt=True, instance_prompts=prompts).captions(CLIP, "a ball")
    assert led == ("sks a ball", "ohwx a ball")
    assert CaptionRule(instance_prompts=prompts).captions(CLIP, "a ball") == ("a ball",)


def test_no_text_gives_no_caption() -> None:
    assert CaptionRule().captions(CLIP, None) == ()
    assert CaptionRule().captions(CLIP, " \n ") == ()
    assert CaptionRule(split_lines=False).captions(CLIP, " \n ") == ()
    assert CaptionRule(strategy="instanceprompt").captions(CLIP, "a ball") == ()
    assert CaptionRule(strategy="filename").captions(Path("___.mp4"), None) == ()


@given(data=st.binary(max_size=400))
def test_any_bytes_give_captions_or_a_reason(data: bytes) -> None:
    text, problems = _judge(Path("a.txt"), data)
    captions = CaptionRule().captions(CLIP, text)
    assert captions or any(problem.level == "error" for problem in problems)
    assert all(caption == caption.strip() and caption for caption in captions)
