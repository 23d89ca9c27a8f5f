import pytest

from dia_server.errors import Invalid
from dia_server.text.budget import columns, encoded_length, remaining_budget, speaking_time


def test_encoded_length_is_utf_8_with_one_byte_per_tag() -> None:
    assert encoded_length("[S1] Hé! [S2] 你") == 1 + 1 + 4 + 1 + 1 + 1 + 3


def test_without_a_prompt_a_segment_may_use_20_s_and_all_bytes() -> None:
    alone = remaining_budget(0, 0)

    assert (alone.max_bytes, alone.max_s, alone.max_columns) == (1024, 20, 3072)


def test_a_prompt_uses_its_transcript_a_space_and_its_frames() -> None:
    left = remaining_budget(transcript_bytes=200, frames=1500)

    assert (left.max_bytes, left.max_columns) == (823, 1572)
    assert columns(left.max_s) < 1572 * 0.82


def test_a_prompt_of_30_s_leaves_room_and_one_of_34_s_does_not() -> None:
    remaining_budget(100, columns(30))

    with pytest.raises(Invalid, match=r"lasts 3\d\.\d of 35\.7 s \(DIA_MAX_COLUMNS\)"):
        remaining_budget(100, columns(34))


def test_fewer_columns_leave_less_room() -> None:
    alone = remaining_budget(0, 0, 2048)
    beside_two_anchors = remaining_budget(280, 2 * columns(9), 2048)

    assert alone.max_columns == 2048
    assert columns(alone.max_s) < 2048 * 0.82
    assert beside_two_anchors.max_s == pytest.approx(4.2, abs=0.1)
    with pytest.raises(Invalid, match=r"lasts 20\.\d of 23\.8 s \(DIA_MAX_COLUMNS\)"):
        remaining_budget(100, columns(20), 2048)


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
def test_speaking_time_counts_only_audible_characters(text: str, seconds: float) -> None:
    assert speaking_time(text) == pytest.approx(seconds, abs=0.1)
