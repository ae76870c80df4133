"""The most memory that a computation's tensors take, and that drawing a sample takes little of it."""

from __future__ import annotations

import torch

from ltx2core.planning.measure_sizes import drawing_peak, one_block
from ltx2core.planning.model_sizes import BUSY_TOKENS, released_sizes
from ltx2core.planning.peak_memory import PeakMemory

SMALL = {"num_attention_heads": 4, "attention_head_dim": 64, "cross_attention_dim": 256}
SMALL |= {"audio_num_attention_heads": 2, "audio_attention_head_dim": 32, "audio_cross_attention_dim": 64}


def test_what_is_dropped_counts_no_more_and_views_count_once() -> None:
    with PeakMemory() as memory:
        for _ in range(3):
            tensor = torch.zeros(1000) + 1
            del tensor
        assert memory.peak == 2 * 4000
        kept = torch.zeros(3000)
        views = kept[:10], kept.view(30, 100)
        assert memory.peak == 3 * 4000
        del kept, views
        torch.ones(1000)
    assert memory.peak == 3 * 4000


def test_a_second_prediction_takes_little_in_turn_and_a_first_frame_no_modulation_for_every_token() -> None:
    width = 4 * 64
    fast = one_block("2.3.0", joint=True, rank=2, **SMALL)

    def each(*, predictions: int, given: bool = False, in_turn: bool = False) -> float:
        """Bytes for each token, in widths of the picture's stream in bf16."""
        low, high = (
            drawing_peak(fast, (frames, 8, 16), 8, 16, joint=True, predictions=predictions, given=given, in_turn=in_turn)
            for frames in (4, 8)
        )
        return (high - low) / (4 * 8 * 16) / (2 * width)

    alone, together, in_turn = each(predictions=1), each(predictions=2), each(predictions=2, in_turn=True)
    assert alone < 17  # 19 by the whole block at once
    assert together > 1.7 * alone
    assert in_turn < 1.25 * alone
    assert each(predictions=1, given=True) - alone < 6  # of nine rows of modulation, and four for the sound


def test_released_sizes_say_what_drawing_takes() -> None:
    drawing = released_sizes("2.3", joint=True).drawing
    counts = {"video": 14080, "audio": 126, "text": 1024, "given": False}
    together = drawing.together.bytes(**counts)
    in_turn = drawing.drawn(predictions=2, tokens=14080).bytes(**counts)
    assert in_turn < 0.7 * together
    assert drawing.drawn(predictions=2, tokens=BUSY_TOKENS - 1) == drawing.together
    assert drawing.drawn(predictions=1, tokens=14080) == drawing.alone
    assert 12 < drawing.alone.video / (2 * 4096) < 20
