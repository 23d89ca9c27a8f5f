import pytest

from dia_server.text.pauses import passages


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a", [(0, "a")]),
        ("a [pause:1.5s] b", [(0, "a "), (1.5, " b")]),
        ("a[PAUSE:500ms]b[pause: 2 s]", [(0, "a"), (0.5, "b"), (2, "")]),
        ("[pause:999999s]", [(0, ""), (10, "")]),
        ("[pause:0s]a", [(0, ""), (0, "a")]),
        ("[pause:-1s][pause:1][pause:s]", [(0, "[pause:-1s][pause:1][pause:s]")]),
    ],
)
def test_pauses_are_parsed_and_limited(text: str, expected: list[tuple[float, str]]) -> None:
    assert list(passages(text)) == expected
