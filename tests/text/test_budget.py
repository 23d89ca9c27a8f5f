import pytest

from dia_server.errors import Invalid
from dia_server.text.budget import columns, encoded_length, remaining_budget, speaking_time


def test_a_tag_is_one_byte_and_a_letter_as_many_as_in_utf_8() -> None:
    assert encoded_length("[S1] Hé! [S2] 你") == 1 + 1 + 4 + 1 + 1 + 1 + 3


def test_without_a_prompt_there_is_room_for_twenty_seconds_and_all_bytes() -> None:
    alone = remaining_budget(0, 0)

    assert (alone.max_bytes, alone.max_s, alone.max_columns) == (1024, 20, 3072)


def test_a_prompt_takes_its_transcript_a_space_and_its_frames() -> None:
    left = remaining_budget(transcript_bytes=200, frames=1500)

    assert (left.max_bytes, left.max_columns) == (823, 1572)
    assert columns(left.max_s) < 1572 * 0.82


def test_a_prompt_of_thirty_seconds_still_leaves_room_one_of_34_does_not() -> None:
    remaining_budget(100, columns(30))

    with pytest.raises(Invalid, match=r"lasts 3\d\.\d s"):
        remaining_budget(100, columns(34))


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("", 0),
        ("fifteen letters", 1),
        ("1984", 1),
        ("你好你好你", 1),
        ("e\u0301" * 15, 1),
        ("\u200d\ufe0f", 0),
        ("=" * 80, 0.4),
    ],
)
def test_speaking_takes_as_long_as_the_letters_that_are_heard(text: str, seconds: float) -> None:
    assert speaking_time(text) == pytest.approx(seconds, abs=0.1)
