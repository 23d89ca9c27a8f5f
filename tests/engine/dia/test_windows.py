"""The plan of windows: which frames are decoded when, and in which shapes."""

from collections.abc import Iterator
from math import inf

import pytest

from dia_server.engine.dia.windows import (
    AHEAD,
    CONTEXT,
    LENGTHS,
    LONGEST,
    MAX_FRAMES,
    SHAPES,
    Span,
    batches,
    plan_chunk,
)

STEPS = 4
"""Frames that are completed in a poll."""


def spans(frames: int, lead: float) -> Iterator[Span]:
    """Yield the spans of a sequence of `frames` that a poll makes longer by STEPS."""
    emitted = 0
    for complete in [*range(STEPS, frames, STEPS), frames]:
        while span := plan_chunk(emitted, complete, complete == frames, lead):
            yield span
            emitted += span.n


@pytest.mark.parametrize("lead", [0.0, inf])
@pytest.mark.parametrize("frames", [*range(1, 70), 191, 192, 193, 236, 861, 3056])
def test_every_frame_is_decoded_once_with_its_context(frames: int, lead: float) -> None:
    emitted = 0
    for span in spans(frames, lead):
        assert span.start + span.left == emitted
        emitted += span.n
        assert span.n > 0
        assert span.left == min(CONTEXT, emitted - span.n)
        assert min(frames, emitted + CONTEXT) == span.stop
        assert span.length in LENGTHS
    assert emitted == frames


def test_the_first_chunk_comes_after_14_frames_and_chunks_grow() -> None:
    assert plan_chunk(0, 13, False) is None
    assert plan_chunk(0, 14, False) == Span(0, 14, 0, 4)

    plan = list(spans(340, 0.0))

    assert [span.n for span in plan][:3] == [4, 4, 8]
    assert [span.n for span in plan][5:-1] == [44] * len(plan[5:-1])
    total = 0
    for span in plan[1:]:
        total += span.n
        assert span.n <= total + STEPS  # else playback would reach its end before
    assert [span.length for span in plan][:5] == [14, 18, 26, 40, 64]


def test_a_stream_that_is_ahead_waits_for_the_longest_window_until_it_is_not() -> None:
    complete = 200 + CONTEXT + 80
    assert plan_chunk(200, complete, False, AHEAD + 1) is None
    assert plan_chunk(200, complete, False, AHEAD) == Span(190, 254, 10, 44)
    assert plan_chunk(200, 200 + 172 + CONTEXT, False, AHEAD + 1) == Span(190, 382, 10, 172)
    assert plan_chunk(200, 200 + 92 + CONTEXT, False, 0.0) == Span(190, 302, 10, 92)
    assert plan_chunk(200, 205, True, AHEAD + 1) == Span(190, 205, 10, 5)


def test_audio_that_nobody_hears_yet_is_decoded_in_the_longest_windows() -> None:
    assert [span.n for span in spans(700, inf)] == [182, 172, 172, 174]


def test_an_ended_sequence_that_does_not_fit_into_a_window_keeps_its_context() -> None:
    assert plan_chunk(100, 300, True) == Span(90, 282, 10, 172)
    assert plan_chunk(100, 282, True) == Span(90, 282, 10, 182)


def test_nothing_is_left_to_plan_of_an_empty_sequence() -> None:
    assert plan_chunk(0, 0, True) is None


def test_there_are_few_shapes_and_all_fit_into_memory() -> None:
    assert len(SHAPES) == 22
    assert max(shape.windows * shape.length for shape in SHAPES) <= MAX_FRAMES
    assert {shape.length for shape in SHAPES if shape.windows == 1} == set(LENGTHS)


def test_windows_are_split_into_batches_of_known_shapes() -> None:
    assert [len(batch) for batch in batches(range(39), 14)] == [16, 16, 4, 2, 1]
    assert [len(batch) for batch in batches(range(3), LONGEST)] == [1, 1, 1]
    assert [item for batch in batches(range(7), 64) for item in batch] == [*range(7)]
